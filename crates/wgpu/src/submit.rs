//! The dispatches of one call: recorded, submitted together, results read back.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bytemuck::Pod;
use maxsim_core::{BoxFuture, Error, Output, Result, Submission};
use maxsim_shaders::Variant;

use crate::device::Gpu;
use crate::fault::typed;
use crate::memory::Buffer;
use crate::pipeline::Pipeline;

/// Parameters of every dispatch begin at a multiple of this.
const UNIFORM_STEP: usize = 256;

struct Step {
    pipeline: Pipeline,
    buffers: Vec<Buffer>,
    groups: u32,
}

/// Dispatches in order; each sees what the ones before it wrote.
pub(crate) struct Batch {
    gpu: Arc<Gpu>,
    uniforms: Vec<u8>,
    steps: Vec<Step>,
    reads: Vec<(Buffer, u64)>,
    kernel: &'static str,
}

impl Batch {
    pub(crate) fn new(gpu: &Arc<Gpu>) -> Self {
        Self { gpu: gpu.clone(), uniforms: Vec::new(), steps: Vec::new(), reads: Vec::new(), kernel: "" }
    }

    pub(crate) fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// Runs `variant` in `groups` workgroups, which the kernel counts along x, then y. `buffers` are its storage bindings.
    pub(crate) fn dispatch<P: Pod>(
        &mut self,
        variant: &Variant,
        params: &P,
        buffers: &[&Buffer],
        groups: usize,
    ) -> Result<()> {
        debug_assert_eq!(buffers.len(), variant.kernel.bindings.len(), "{}", variant.kernel.name);
        if groups == 0 {
            return Ok(());
        }
        let most = u64::from(self.gpu.caps.max_workgroups).pow(2).min(u64::from(u32::MAX));
        if groups as u64 > most {
            return Err(Error::Limit {
                argument: variant.kernel.name.into(),
                limit: format!("{most} workgroups per dispatch"),
                got: groups.to_string(),
            });
        }
        let groups = groups as u32;
        let pipeline = self.gpu.pipeline(variant)?;
        self.uniforms.extend_from_slice(bytemuck::bytes_of(params));
        self.uniforms.resize(self.uniforms.len().next_multiple_of(UNIFORM_STEP), 0);
        self.kernel = variant.kernel.name;
        let buffers = buffers.iter().map(|&b| b.clone()).collect();
        self.steps.push(Step { pipeline, buffers, groups });
        Ok(())
    }

    /// Asks for the first `bytes` of `buffer`, a multiple of 4, once everything has run.
    pub(crate) fn read(&mut self, buffer: &Buffer, bytes: u64) {
        self.reads.push((buffer.clone(), bytes));
    }

    /// Submits. Never waits.
    pub(crate) fn submit(self) -> Result<Pending> {
        let gpu = &self.gpu;
        gpu.faults.check()?;
        let memory = gpu.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = gpu.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let recorded = self.record();
        let checks = [validation.pop(), memory.pop()].map(|report| Box::pin(report) as Report);
        let (staging, submission) = recorded?;
        let reads = self.reads.len();
        // Browsers tell that work is done where results are mapped; where there are none, they have to be asked.
        let done = (cfg!(target_arch = "wasm32") && staging.is_empty()).then(Mapped::default);
        if let Some(done) = done.clone() {
            gpu.queue.on_submitted_work_done(move || done.set(true));
        }
        Ok(Pending {
            gpu: gpu.clone(),
            staging,
            done,
            reads,
            checks: checks.into(),
            submission,
            kernel: self.kernel,
        })
    }

    fn record(&self) -> Result<(Vec<Staged>, wgpu::SubmissionIndex)> {
        let gpu = &self.gpu;
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let uniforms = gpu.uniform(self.uniforms.len() as u64)?;
        let times = match &gpu.clock {
            Some(_) if !self.steps.is_empty() => {
                Some(gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
                    label: None,
                    ty: wgpu::QueryType::Timestamp,
                    count: 2,
                }))
            }
            _ => None,
        };
        if !self.steps.is_empty() {
            gpu.queue.write_buffer(uniforms.raw(), 0, &self.uniforms);
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: None,
                timestamp_writes: times.as_ref().map(|query_set| wgpu::ComputePassTimestampWrites {
                    query_set,
                    beginning_of_pass_write_index: Some(0),
                    end_of_pass_write_index: Some(1),
                }),
            });
            for (step, offset) in self.steps.iter().zip((0u32..).step_by(UNIFORM_STEP)) {
                let window = wgpu::BufferBinding {
                    buffer: uniforms.raw(),
                    offset: 0,
                    size: wgpu::BufferSize::new(UNIFORM_STEP as u64),
                };
                let mut entries = vec![wgpu::BindGroupEntry {
                    binding: 0,
                    resource: wgpu::BindingResource::Buffer(window),
                }];
                for (buffer, binding) in step.buffers.iter().zip(1..) {
                    // Scratch may be larger than what is used of it, which is never more than a binding.
                    let size = buffer.raw().size().min(gpu.caps.max_binding);
                    let whole = wgpu::BufferBinding {
                        buffer: buffer.raw(),
                        offset: 0,
                        size: wgpu::BufferSize::new(size),
                    };
                    let resource = wgpu::BindingResource::Buffer(whole);
                    entries.push(wgpu::BindGroupEntry { binding, resource });
                }
                let group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
                    label: None,
                    layout: &step.pipeline.layout,
                    entries: &entries,
                });
                pass.set_pipeline(&step.pipeline.raw);
                pass.set_bind_group(0, &group, &[offset]);
                let x = step.groups.min(gpu.caps.max_workgroups);
                pass.dispatch_workgroups(x, step.groups.div_ceil(x), 1);
            }
        }
        let mut staging = Vec::with_capacity(self.reads.len());
        for (buffer, bytes) in &self.reads {
            let to = gpu.staging(*bytes)?;
            if *bytes > 0 {
                encoder.copy_buffer_to_buffer(buffer.raw(), 0, to.raw(), 0, *bytes);
            }
            staging.push(Staged { buffer: to, bytes: *bytes, mapped: Mapped::default() });
        }
        if let Some(times) = times {
            let ticks = gpu.ticks()?;
            encoder.resolve_query_set(&times, 0..2, ticks.raw(), 0);
            let to = gpu.staging(16)?;
            encoder.copy_buffer_to_buffer(ticks.raw(), 0, to.raw(), 0, 16);
            staging.push(Staged { buffer: to, bytes: 16, mapped: Mapped::default() });
        }
        let submission = gpu.queue.submit([encoder.finish()]);
        for staged in &staging {
            let mapped = staged.mapped.clone();
            staged.buffer.raw().map_async(wgpu::MapMode::Read, .., move |result| mapped.set(result.is_ok()));
        }
        Ok((staging, submission))
    }
}

#[cfg(not(target_arch = "wasm32"))]
type Report = Pin<Box<dyn Future<Output = Option<wgpu::Error>> + Send>>;
#[cfg(target_arch = "wasm32")]
type Report = Pin<Box<dyn Future<Output = Option<wgpu::Error>>>>;

struct Staged {
    buffer: Buffer,
    bytes: u64,
    mapped: Mapped,
}

/// Work under way.
pub(crate) struct Pending {
    gpu: Arc<Gpu>,
    staging: Vec<Staged>,
    /// In browsers, of work without results.
    done: Option<Mapped>,
    /// Those that were asked for; timestamps come behind them.
    reads: usize,
    checks: Vec<Report>,
    submission: wgpu::SubmissionIndex,
    kernel: &'static str,
}

impl Pending {
    /// What was asked to be read, in that order.
    pub(crate) async fn finish(self) -> Result<Vec<Vec<u32>>> {
        let Self { gpu, staging, done, reads, checks, submission, kernel } = self;
        // Outside browsers nobody else drives the device. Starting a call does not wait; who waits for the call does.
        #[cfg(not(target_arch = "wasm32"))]
        Later(false).await;
        #[cfg(not(target_arch = "wasm32"))]
        let _ = gpu.device.poll(wgpu::PollType::Wait { submission_index: Some(submission), timeout: None });
        #[cfg(target_arch = "wasm32")]
        let _ = submission;
        let requested = staging.iter().map(|staged| staged.bytes).sum();
        for check in checks {
            if let Some(error) = check.await {
                gpu.faults.check_lost()?;
                return Err(typed(error, requested, kernel));
            }
        }
        if let Some(done) = done {
            done.await;
        }
        let mut results = Vec::with_capacity(staging.len());
        for staged in staging {
            if !staged.mapped.await {
                gpu.faults.check()?;
                return Err(Error::DeviceLost { reason: "results could not be read back".into() });
            }
            let view = staged.buffer.raw().slice(..staged.bytes.max(16)).get_mapped_range();
            let view =
                view.map_err(|_| Error::DeviceLost { reason: "results could not be read back".into() })?;
            results.push(bytemuck::pod_collect_to_vec(&view[..staged.bytes as usize]));
            drop(view);
            staged.buffer.raw().unmap();
        }
        gpu.faults.check()?;
        if results.len() > reads
            && let (Some(clock), Some(ticks)) = (&gpu.clock, results.pop())
        {
            let tick = |i: usize| u64::from(ticks[i]) | u64::from(ticks[i + 1]) << 32;
            clock.add(tick(0), tick(2));
        }
        Ok(results)
    }
}

/// Submissions of a call at most, beside the one that is recorded: enough to keep the device busy, and few enough that a call
/// stops soon after it was asked to and others get their turn.
const UNDER_WAY: usize = 2;

/// Submissions of a call that are under way, and what their results are for.
pub(crate) struct Flight<T>(VecDeque<(Pending, T)>);

impl<T> Flight<T> {
    pub(crate) fn new() -> Self {
        Self(VecDeque::new())
    }

    /// Takes one more, and waits for the oldest if they are too many. The results are of an earlier one.
    pub(crate) async fn add(&mut self, pending: Pending, what: T) -> Result<Option<(Vec<Vec<u32>>, T)>> {
        self.0.push_back((pending, what));
        if self.0.len() > UNDER_WAY { self.land().await } else { Ok(None) }
    }

    /// Waits for the oldest; `None`: there is none.
    pub(crate) async fn land(&mut self) -> Result<Option<(Vec<Vec<u32>>, T)>> {
        match self.0.pop_front() {
            Some((pending, what)) => Ok(Some((pending.finish().await?, what))),
            None => Ok(None),
        }
    }
}

/// Starts a call: runs `work` up to where it first has to wait.
pub(crate) fn started(mut work: BoxFuture<Result<Output>>) -> Submission {
    match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Submission::ready(output),
        Poll::Pending => Submission::pending(work),
    }
}

/// Ready when it is asked for the second time.
#[cfg(not(target_arch = "wasm32"))]
struct Later(bool);

#[cfg(not(target_arch = "wasm32"))]
impl Future for Later {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Whether a buffer is mapped, once that is known.
#[derive(Clone, Default)]
struct Mapped(Arc<Mutex<(Option<bool>, Option<Waker>)>>);

impl Mapped {
    fn set(&self, ok: bool) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = Some(ok);
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    }
}

impl Future for Mapped {
    type Output = bool;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.0 {
            Some(ok) => Poll::Ready(ok),
            None => {
                state.1 = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
