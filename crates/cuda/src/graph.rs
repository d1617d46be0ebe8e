//! Operators recorded once and repeated: what their launches take is laid out already, so that a repetition costs the host one
//! call of the driver's.

use std::sync::Arc;

use maxsim_core::{Cancel, Documents, Error, Op, Output, PlaidIndex, Result, Tokens};

use crate::backend::{CudaBackend, Event, Started};
use crate::context::Context;
use crate::device::Repeatable;
use crate::memory::Recording;
use crate::operands::{Packing, host_rows};

/// An operator on the device, ready to run again and again: [`CudaBackend::capture`].
///
/// Documents and everything else are what they were; queries of the same shape can take the place of the first ones
/// ([`set_queries`](Self::set_queries)). On a GPU this is a CUDA graph of the operator's kernels and the download of its result.
/// Device memory that it uses stays its own.
pub struct Graph {
    context: Arc<Context>,
    recording: Recording,
    work: Option<Box<dyn Repeatable>>,
    started: Started,
    queries: Option<QueryLayout>,
    /// Documents or an index that the caller might drop.
    _held: Option<Box<dyn std::any::Any + Send + Sync>>,
    launches: usize,
    last: Option<Event>,
}

/// What other queries have to be like.
struct QueryLayout {
    dtype: maxsim_core::DType,
    dim: usize,
    packing: Packing,
    scaled: bool,
}

impl CudaBackend {
    /// Runs `op` once and keeps what it gave to the device, to be repeated.
    ///
    /// Host operands are copied now. Other threads may use the backend meanwhile; one captures at a time.
    ///
    /// # Errors
    /// Those of validation and of running `op`; `ERR_UNSUPPORTED` where a part of it is decided on the host (`explain` and winners
    /// of hits).
    pub fn capture(&self, op: &Op<'_>) -> Result<Graph> {
        op.validate()?;
        let decided = match op {
            Op::Retrieve(op) => op.forward.options.argmax,
            Op::PlaidSearch(op) => op.options.explain,
            _ => false,
        };
        if decided {
            return Err(Error::Unsupported {
                what: "winners of hits in a graph".into(),
                hint: "capture the search without them, and score the hits with argmax".into(),
            });
        }
        let (started, mut recording) = self.context.record(|| self.start(op, &Cancel::new()))?;
        let launches = recording.steps.len();
        // SAFETY: the graph keeps what was freed, what others own as well, results, and resident operands.
        let work = match unsafe { self.context.ready(&mut recording, true) } {
            Ok(work) => work,
            Err(error) => {
                self.context.pool.forget(&mut recording);
                return Err(error);
            }
        };
        let q = match op {
            Op::Forward(op) => Some(&op.q),
            Op::Retrieve(op) => Some(&op.forward.q),
            Op::Backward(op) => Some(&op.forward.q),
            Op::PlaidSearch(op) => Some(&op.q),
            _ => None,
        };
        let mut graph = Graph {
            context: self.context.clone(),
            recording,
            work: Some(work),
            started,
            queries: q.map(|q| QueryLayout {
                dtype: q.dtype(),
                dim: q.dim(),
                packing: Packing::new(q.sequences()),
                scaled: q.scales().is_some(),
            }),
            _held: held(op),
            launches,
            last: None,
        };
        graph.last = Some(self.event()?);
        Ok(graph)
    }
}

/// Handles of what `op` uses on the device.
fn held(op: &Op<'_>) -> Option<Box<dyn std::any::Any + Send + Sync>> {
    let documents = match op {
        Op::Forward(op) => &op.d,
        Op::Retrieve(op) => &op.forward.d,
        Op::Backward(op) => &op.forward.d,
        Op::PlaidSearch(op) => {
            return match &op.index {
                PlaidIndex::Resident(index) => Some(Box::new((*index).clone())),
                PlaidIndex::Host { .. } => None,
            };
        }
        _ => return None,
    };
    match documents {
        Documents::Resident(resident) => Some(Box::new((*resident).clone())),
        _ => None,
    }
}

impl Graph {
    /// Launches, fills and downloads of a repetition.
    pub fn steps(&self) -> usize {
        self.launches
    }

    /// Puts other queries in the place of the captured ones: same dtype, lengths and mask.
    ///
    /// # Errors
    /// `ERR_DTYPE` and `ERR_SHAPE` where they differ; `ERR_UNSUPPORTED` for operators without such queries and for quantised ones,
    /// whose scales are part of what was captured.
    pub fn set_queries(&mut self, q: &Tokens<'_>) -> Result<()> {
        let unsupported = |what: &str| Error::Unsupported {
            what: format!("other {what} in a captured operator"),
            hint: "capture it again".into(),
        };
        let Some(layout) = &self.queries else { return Err(unsupported("queries")) };
        if layout.scaled {
            return Err(unsupported("quantised queries"));
        }
        if q.dtype() != layout.dtype {
            return Err(Error::dtype("Q", layout.dtype.name(), q.dtype().name()));
        }
        let packing = Packing::new(q.sequences());
        if q.dim() != layout.dim
            || packing.offsets != layout.packing.offsets
            || packing.ids != layout.packing.ids
        {
            let shape = |packing: &Packing, dim: usize| {
                format!(
                    "{} queries of {} tokens in all, d = {dim}",
                    packing.offsets.len() - 1,
                    packing.rows()
                )
            };
            let got = shape(&packing, q.dim());
            return Err(Error::shape(
                "Q",
                format!("the layout that was captured: {}", shape(&layout.packing, layout.dim)),
                got,
            ));
        }
        for rows in &self.recording.queries {
            let (bytes, _) = host_rows(q, &packing, rows.product, rows.permuted);
            if !bytes.is_empty() {
                // SAFETY: rows of the same layout were there before, in memory that the recording keeps.
                unsafe { self.context.pool.device().write(rows.address, &bytes) }?;
            }
        }
        Ok(())
    }

    /// Gives the work to the backend's queue, behind whatever is there.
    ///
    /// # Errors
    /// The driver's.
    pub fn launch(&mut self) -> Result<()> {
        // SAFETY: what the work uses is kept by this; launches of one queue follow each other.
        unsafe { self.repeat(None) }
    }

    /// Gives the work to `stream`, a `CUstream` of the caller's; the backend's own queue then waits for it.
    ///
    /// # Safety
    /// `stream` is a stream of the backend's GPU and its primary context, or null, the default stream.
    ///
    /// # Errors
    /// The driver's.
    pub unsafe fn launch_on(&mut self, stream: u64) -> Result<()> {
        let device = self.context.pool.device().clone();
        // SAFETY: the caller's promise; the stream waits for what was launched or written before, and the queue for this.
        unsafe {
            device.make_wait(stream)?;
            self.repeat(Some(stream))?;
            device.wait_for(stream)?;
        }
        self.last = Some(Event::of(&self.context)?);
        Ok(())
    }

    /// # Safety
    /// As [`launch_on`](Self::launch_on); the stream is behind the queue.
    unsafe fn repeat(&mut self, stream: Option<u64>) -> Result<()> {
        let work = self.work.as_ref().expect("there until it is dropped");
        // SAFETY: the caller's promise; memory and handles are kept by this.
        unsafe { work.repeat(stream) }?;
        self.last = Some(Event::of(&self.context)?);
        Ok(())
    }

    /// Waits for what was launched last, and returns its result.
    ///
    /// # Errors
    /// `ERR_DEVICE_LOST` where it failed.
    pub fn read(&mut self) -> Result<Output> {
        self.last.as_ref().map_or(Ok(()), Event::wait)?;
        self.started.output()
    }

    /// [`launch`](Self::launch), then [`read`](Self::read).
    ///
    /// # Errors
    /// As those.
    pub fn replay(&mut self) -> Result<Output> {
        self.launch()?;
        self.read()
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let _ = self.last.as_ref().map(Event::wait);
        self.work = None;
        self.context.pool.forget(&mut self.recording);
    }
}
