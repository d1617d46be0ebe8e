//! Work on libuv's thread pool.

use std::panic::{AssertUnwindSafe, catch_unwind};

use maxsim::Result;
use napi::bindgen_prelude::{AsyncTask, Either, Env, Task, ToNapiValue, TypeName};

use crate::failure::Failure;

/// Something that computes `T` off the event loop and becomes `V` on it.
///
/// The work is called once but is not `FnOnce`: what it captured, references to JavaScript memory among it, is dropped
/// with the task, on the thread that owns those references.
pub struct Job<T, V> {
    work: Box<dyn Fn() -> Result<T> + Send>,
    present: fn(Env, T) -> V,
}

/// What the methods of this crate return to JavaScript: a Promise of a value or a [`Failure`].
pub(crate) type Promised<T, V = T> = AsyncTask<Job<T, V>>;

/// Queues `work`; its result is handed to JavaScript as it is.
pub(crate) fn promise<T>(work: impl Fn() -> Result<T> + Send + 'static) -> Promised<T>
where
    T: Send + ToNapiValue + TypeName + 'static,
{
    promise_as(work, |_, value| value)
}

/// Queues `work`; `present` makes a JavaScript value of its result, on the event loop.
pub(crate) fn promise_as<T, V>(
    work: impl Fn() -> Result<T> + Send + 'static,
    present: fn(Env, T) -> V,
) -> Promised<T, V>
where
    T: Send + 'static,
    V: ToNapiValue + TypeName + 'static,
{
    AsyncTask::new(Job { work: Box::new(work), present })
}

impl<T, V> Task for Job<T, V>
where
    T: Send + 'static,
    V: ToNapiValue + TypeName + 'static,
{
    type Output = Result<T, Failure>;
    type JsValue = Either<V, Failure>;

    fn compute(&mut self) -> napi::Result<Self::Output> {
        // A job runs once and is dropped, so nobody sees what a panic left half done; engines hold no locks of ours.
        Ok(match catch_unwind(AssertUnwindSafe(|| (self.work)())) {
            Ok(result) => result.map_err(Failure::from),
            Err(payload) => Err(Failure::panicked(&*payload)),
        })
    }

    fn resolve(&mut self, env: Env, output: Self::Output) -> napi::Result<Self::JsValue> {
        Ok(match output {
            Ok(value) => Either::A((self.present)(env, value)),
            Err(failure) => Either::B(failure),
        })
    }
}
