//! What gradients are made of: rows added up by their winners, and the way back through normalisation.
//!
//! Winners are grouped by the row they go to on the host, where they are at that time; every row of a gradient is then made by
//! one group of invocations, in the order of the pairs. No atomics, so the bits are the same every time.

use std::ops::Range;

use maxsim_core::{Argmax, DType, Gradients, Pairing, Result, Sequences, Tensor};
use maxsim_shaders::kernels::{self, Element};

use crate::memory::Buffer;
use crate::rows::Compact;
use crate::submit::Batch;

/// A caller's row that is not on the device.
const NOWHERE: u32 = u32::MAX;

/// Parameters of the kernel `gather`.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct GatherParams {
    work: u32,
    stride: u32,
    width: u32,
    flags: u32,
}

/// Parameters of the kernel `jacobian`.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct JacobianParams {
    work: u32,
    stride: u32,
    width: u32,
    dim: u32,
}

/// How an operand's rows lie on the device, as far as the host knows.
pub(crate) struct Places {
    /// The caller's rows of every sequence.
    sequences: Vec<Range<u32>>,
    /// Our row of every row of the caller's, or [`NOWHERE`].
    ours: Vec<u32>,
    /// The caller's row of every row of ours.
    callers: Vec<u32>,
}

impl Places {
    pub(crate) fn new(sequences: &Sequences<'_>, compact: &Compact) -> Self {
        let callers: Vec<u32> = compact.callers().collect();
        let mut ours = vec![NOWHERE; sequences.slots()];
        (0u32..).zip(&callers).for_each(|(row, &slot)| ours[slot as usize] = row);
        let range = |i| {
            let rows = sequences.rows(i);
            rows.start as u32..rows.end as u32
        };
        Self { sequences: (0..sequences.count()).map(range).collect(), ours, callers }
    }
}

/// Winners of an operator, with the gradients of its scores.
pub(crate) struct Winners {
    pub(crate) pairing: Pairing<'static>,
    pub(crate) grad: Vec<f32>,
    pub(crate) argmax: Argmax,
}

impl Winners {
    /// Query and document of pair `p` of `documents`.
    fn pair(&self, p: usize, documents: usize) -> (usize, usize) {
        match &self.pairing {
            Pairing::Cross => (p / documents, p % documents),
            Pairing::Grouped { k } => (p / k, p),
            Pairing::List { q, d } => (q[p] as usize, d[p] as usize),
        }
    }

    /// Calls `each` with row of the query, row of the document and gradient of every winner, pair by pair.
    pub(crate) fn each(&self, q: &Places, d: &Places, mut each: impl FnMut(u32, u32, f32)) {
        for (p, &g) in self.grad.iter().enumerate() {
            let (i, j) = self.pair(p, d.sequences.len());
            let first = d.sequences[j].start;
            for (slot, &winner) in q.sequences[i].clone().zip(self.argmax.pair(p)) {
                if let Ok(winner) = u32::try_from(winner) {
                    let (from, to) = (q.ours[slot as usize], d.ours[(first + winner) as usize]);
                    if from != NOWHERE && to != NOWHERE {
                        each(from, to, g);
                    }
                }
            }
        }
    }
}

/// The pairing for as long as it takes.
pub(crate) fn owned(pairing: &Pairing<'_>) -> Pairing<'static> {
    match pairing {
        Pairing::Cross => Pairing::Cross,
        Pairing::Grouped { k } => Pairing::Grouped { k: *k },
        Pairing::List { q, d } => {
            Pairing::List { q: q.clone().into_owned().into(), d: d.clone().into_owned().into() }
        }
    }
}

/// Some rows on the device as kernels read them.
pub(crate) struct Source<'a> {
    pub(crate) element: Element,
    pub(crate) rows: &'a Buffer,
    pub(crate) factors: Option<&'a Buffer>,
    pub(crate) codec: Option<&'a Buffer>,
    /// 16-byte vectors per row.
    pub(crate) stride: u32,
    /// Which rows of the operand these are.
    pub(crate) range: Range<u32>,
    /// Where each of them is, if not one behind the other.
    pub(crate) index: Option<&'a [u32]>,
}

/// Sums for the rows of a target that got something.
pub(crate) struct Sums {
    /// Those rows, ascending.
    pub(crate) rows: Vec<u32>,
    /// f32, `width` vectors of four each.
    pub(crate) values: Buffer,
    pub(crate) width: u32,
}

/// Contributions `(target, source, coefficient)`, handed to the function it is given, always in the same order.
pub(crate) type Contributions<'a> = &'a dyn Fn(&mut dyn FnMut(u32, u32, f32));

/// Adds up what `contributions` say for the target rows `targets`, of `dim` elements.
pub(crate) fn sums(
    batch: &mut Batch,
    sources: &[Source<'_>],
    targets: Range<u32>,
    dim: usize,
    contributions: Contributions<'_>,
) -> Result<Sums> {
    let gpu = &batch.gpu().clone();
    let width = dim.div_ceil(4) as u32;
    let count = targets.len();
    let mut place = vec![NOWHERE; count];
    contributions(&mut |target, _, _| {
        if targets.contains(&target) {
            place[(target - targets.start) as usize] = 0;
        }
    });
    let rows: Vec<u32> = (0..count as u32).filter(|&row| place[row as usize] == 0).collect();
    (0u32..).zip(&rows).for_each(|(at, &row)| place[row as usize] = at);
    let values = gpu.scratch(16 * u64::from(width) * rows.len() as u64)?;
    let mut begun = vec![0u32; rows.len()];
    for source in sources {
        // Entries of every target, in the order in which they come.
        let mut ends = vec![0u32; rows.len() + 1];
        let mine = |target: u32, from: u32| {
            let inside = targets.contains(&target) && source.range.contains(&from);
            inside.then(|| place[(target - targets.start) as usize] as usize)
        };
        contributions(&mut |target, from, _| {
            if let Some(at) = mine(target, from) {
                ends[at + 1] += 1;
            }
        });
        for at in 0..rows.len() {
            ends[at + 1] += ends[at];
        }
        let mut entries = vec![[0u32; 2]; ends[rows.len()] as usize];
        let mut next = ends.clone();
        contributions(&mut |target, from, g| {
            if let Some(at) = mine(target, from) {
                let row = from - source.range.start;
                let row = source.index.map_or(row, |index| index[row as usize]);
                entries[next[at] as usize] = [row, g.to_bits()];
                next[at] += 1;
            }
        });
        drop(next);
        // As many at a time as a binding holds.
        let most = (gpu.caps.max_binding / 16).max(2) as u32;
        let total = entries.len() as u32;
        let mut at = 0;
        for first in (0..total).step_by(most as usize) {
            let last = total.min(first + most);
            let mut items: Vec<u32> = Vec::new();
            while at < rows.len() && ends[at] < last {
                let (start, end) = (ends[at].max(first), ends[at + 1].min(last));
                if start < end {
                    items.extend([at as u32, start - first, end - first, begun[at]]);
                    begun[at] = 1;
                }
                if ends[at + 1] > last {
                    break;
                }
                at += 1;
            }
            let work = items.len() as u32 / 4;
            let items = gpu.scratch_with(bytemuck::cast_slice(&items))?;
            let part = gpu.scratch_with(bytemuck::cast_slice(&entries[first as usize..last as usize]))?;
            let params =
                GatherParams { work, stride: source.stride, width, flags: source.factors.is_some().into() };
            let nothing = gpu.scratch(0)?;
            let factors = source.codec.or(source.factors).unwrap_or(&nothing);
            let buffers = [source.rows, factors, &items, &part, &values];
            batch.dispatch(&kernels::gather(source.element), &params, &buffers, work.div_ceil(2) as usize)?;
        }
    }
    Ok(Sums { rows, values, width })
}

/// Turns gradients of normalised rows into gradients of the rows, those of `target` that `row_of` names.
pub(crate) fn through_norm(
    batch: &mut Batch,
    sums: &Sums,
    target: &Source<'_>,
    row_of: &[u32],
    dim: usize,
) -> Result<()> {
    let Some(factors) = target.factors else { return Ok(()) };
    let params = JacobianParams {
        work: row_of.len() as u32,
        stride: target.stride,
        width: sums.width,
        dim: dim as u32,
    };
    let row_of_buffer = batch.gpu().scratch_with(bytemuck::cast_slice(row_of))?;
    let buffers = [target.rows, factors, &row_of_buffer, &sums.values];
    batch.dispatch(&kernels::jacobian(target.element), &params, &buffers, row_of.len())
}

/// A gradient in the making: rows that nothing comes for are zero.
pub(crate) struct Gathered {
    values: Vec<f32>,
    shape: Vec<usize>,
    dtype: DType,
    dim: usize,
}

impl Gathered {
    pub(crate) fn new(shape: Vec<usize>, dtype: DType) -> Self {
        let dim = shape.last().copied().unwrap_or(1);
        Self { values: vec![0.0; shape.iter().product()], shape, dtype, dim }
    }

    /// Puts in `sums` as they were read: rows of `rows` from `first` on, of the operand that `places` describes.
    pub(crate) fn put(&mut self, read: &[u32], rows: &[u32], first: u32, places: &Places) {
        let width = self.dim.next_multiple_of(4);
        for (&row, from) in rows.iter().zip(read.chunks_exact(width)) {
            let to = places.callers[(first + row) as usize] as usize * self.dim;
            let values = from.iter().map(|&bits| f32::from_bits(bits));
            self.values[to..to + self.dim].iter_mut().zip(values).for_each(|(to, value)| *to = value);
        }
    }

    /// The tensor, rounded once to its type.
    pub(crate) fn tensor(self) -> Tensor {
        Gradients::rounded(self.values, self.shape, self.dtype)
    }
}
