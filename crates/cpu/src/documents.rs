//! Documents as the CPU reads them: borrowed tokens, or tokens held since an upload.

use maxsim_core::{Backend, DType, DataRef, Documents, Resident, ResidentMeta, Result, Tokens};

use crate::arch::Kernels;
use crate::head::Head;
use crate::kernel::forward::Ahead;
use crate::norm::inverse_norm;

/// What [`Backend::upload`] stores on the CPU.
pub(crate) type Held = maxsim_core::TokensBuf;

/// The tokens behind an operand, and whether `normalize` still has work to do on them.
pub(crate) fn tokens<'a>(documents: &'a Documents<'a>) -> Result<(Tokens<'a>, bool)> {
    match documents {
        Documents::Tokens(tokens) => Ok((tokens.clone(), false)),
        Documents::Resident(resident) => held(resident),
        other => Err(unsupported(other)),
    }
}

fn held(resident: &Resident) -> Result<(Tokens<'_>, bool)> {
    Ok((resident.handle::<Held>()?.as_tokens(), resident.meta().normalized))
}

fn unsupported(documents: &Documents<'_>) -> maxsim_core::Error {
    maxsim_core::Error::Unsupported {
        what: format!("documents of kind {documents:?}"),
        hint: "give token vectors".into(),
    }
}

/// Rows of a document in the kernels' form: f32, contiguous, masked rows left out.
pub(crate) struct Block<'a> {
    pub(crate) rows: &'a [f32],
    pub(crate) scales: &'a [f32],
    pub(crate) ids: &'a [i32],
    /// What is read after these rows.
    pub(crate) ahead: Ahead,
}

/// Memory for the block at hand.
#[derive(Default)]
pub(crate) struct BlockScratch {
    rows: Vec<f32>,
    scales: Vec<f32>,
    ids: Vec<i32>,
    projected: Vec<f32>,
    wide: Vec<f32>,
}

/// How documents are brought to the kernels.
pub(crate) struct Reader<'a> {
    tokens: &'a Tokens<'a>,
    normalize: bool,
    kernels: &'static Kernels,
    /// Rows per block: a multiple of the tile.
    block: usize,
    /// Applied to every row before it is scored.
    head: Option<&'a Head>,
}

/// f32 rows of a block at most: it stays in the first-level cache beside the query panel.
const BLOCK_BYTES: usize = 24 << 10;

impl<'a> Reader<'a> {
    /// `panels`: how many query panels will meet every block.
    pub(crate) fn new(
        tokens: &'a Tokens<'a>,
        normalize: bool,
        kernels: &'static Kernels,
        panels: usize,
    ) -> Self {
        let most = (BLOCK_BYTES / (4 * tokens.dim() * kernels.rows)).max(1);
        // Conversion overlaps with the arithmetic of the tile before it, as long as it comes in small pieces: the core looks
        // a few hundred instructions ahead. Where many panels meet a block, larger blocks spare more than that gains.
        let tiles = if tokens.dtype() == DType::F32 { most } else { most.min(panels.max(1)) };
        Self { tokens, normalize, kernels, block: tiles * kernels.rows, head: None }
    }

    /// The same with rows projected by `head` before they are scored (and normalised, if they are).
    pub(crate) fn with_head(self, head: &'a Head) -> Self {
        Self { head: Some(head), ..self }
    }

    /// Calls `each` for the blocks of document `j`, in order.
    pub(crate) fn blocks(&self, j: usize, scratch: &mut BlockScratch, mut each: impl FnMut(Block<'_>)) {
        let tokens = self.tokens;
        let rows = tokens.rows(j);
        let first = rows.start;
        match tokens.mask() {
            None => {
                let mut at = rows.start;
                while at < rows.end {
                    let end = self.block_end(at, rows.end);
                    scratch.ids.clear();
                    scratch.ids.extend((at - first) as i32..(end - first) as i32);
                    self.read(scratch, first, Some(at));
                    self.give(scratch, Some(at), &mut each);
                    at = end;
                }
            }
            Some(mask) => {
                let mut kept = mask[rows.clone()]
                    .iter()
                    .enumerate()
                    .filter(|(_, keep)| **keep != 0)
                    .map(|(t, _)| t as i32)
                    .peekable();
                while kept.peek().is_some() {
                    scratch.ids.clear();
                    scratch.ids.extend(kept.by_ref().take(self.block));
                    self.read(scratch, first, None);
                    self.give(scratch, None, &mut each);
                }
            }
        }
    }

    /// Blocks of `self.block` rows; the last takes what is left, so that it is never shorter than a block.
    fn block_end(&self, at: usize, end: usize) -> usize {
        if end - at >= 2 * self.block { at + self.block } else { end }
    }

    /// Fills the scratch for the rows in `scratch.ids`, counted from `first`; `contiguous` is the first row if they follow
    /// each other.
    fn read(&self, scratch: &mut BlockScratch, first: usize, contiguous: Option<usize>) {
        let dim = self.tokens.dim();
        let BlockScratch { rows, scales, ids, .. } = scratch;
        if !matches!((self.tokens.data(), contiguous), (DataRef::F32(_), Some(_))) {
            rows.resize(ids.len() * dim, 0.0);
            match contiguous {
                Some(at) => self.widen(at * dim..(at + ids.len()) * dim, rows),
                None => {
                    for (row, &id) in rows.chunks_exact_mut(dim).zip(ids.iter()) {
                        let at = first + id as usize;
                        self.widen(at * dim..(at + 1) * dim, row);
                    }
                }
            }
        }
        scales.clear();
        let scale = |id: &i32| self.tokens.scales().map_or(1.0, |s| s.get(first + *id as usize));
        scales.extend(ids.iter().map(scale));
        if self.normalize && self.head.is_none() {
            let rows = match (self.tokens.data(), contiguous) {
                (DataRef::F32(data), Some(at)) => &data[at * dim..(at + ids.len()) * dim],
                _ => &rows[..],
            };
            for (scale, row) in scales.iter_mut().zip(rows.chunks_exact(dim)) {
                *scale = inverse_norm(row, *scale, self.kernels);
            }
        }
    }

    fn widen(&self, elements: std::ops::Range<usize>, to: &mut [f32]) {
        // SAFETY: `kernels` exist only for levels this machine runs.
        unsafe {
            match self.tokens.data().slice(elements) {
                DataRef::F32(from) => to.copy_from_slice(from),
                DataRef::F16(from) => (self.kernels.widen_f16)(from, to),
                DataRef::BF16(from) => (self.kernels.widen_bf16)(from, to),
                DataRef::E4M3(from) => (self.kernels.widen_e4m3)(from, to),
                DataRef::I8(from) => (self.kernels.widen_i8)(from, to),
            }
        }
    }

    /// Hands the rows that `read` prepared to `each`, projected if there is a head.
    fn give(&self, scratch: &mut BlockScratch, contiguous: Option<usize>, each: &mut impl FnMut(Block<'_>)) {
        let Some(head) = self.head else {
            return each(self.block(scratch, contiguous));
        };
        let mut projected = std::mem::take(&mut scratch.projected);
        let mut wide = std::mem::take(&mut scratch.wide);
        let block = self.block(scratch, contiguous);
        head.project(block.rows, block.ahead, &mut wide, &mut projected, self.kernels);
        if self.normalize {
            for (scale, row) in scratch.scales.iter_mut().zip(projected.chunks_exact(head.dim)) {
                *scale = inverse_norm(row, 1.0, self.kernels);
            }
        }
        let ahead = Ahead { from: projected.as_ptr().cast(), row: 0 };
        each(Block { rows: &projected, scales: &scratch.scales, ids: &scratch.ids, ahead });
        (scratch.projected, scratch.wide) = (projected, wide);
    }

    fn block<'s>(&'s self, scratch: &'s BlockScratch, contiguous: Option<usize>) -> Block<'s> {
        let dim = self.tokens.dim();
        let count = scratch.ids.len();
        let row_bytes = dim * self.tokens.dtype().size();
        let (rows, ahead) = match (self.tokens.data(), contiguous) {
            // Read where it lies: the next tile.
            (DataRef::F32(data), Some(at)) => {
                let rows = &data[at * dim..(at + count) * dim];
                let next = rows.as_ptr().cast::<u8>().wrapping_add(self.kernels.rows * row_bytes);
                (rows, Ahead { from: next, row: row_bytes })
            }
            // Converted: the next block.
            (data, Some(at)) => {
                let next = maxsim_core::dispatch!(DataRef, data, |d| d.as_ptr().cast::<u8>())
                    .wrapping_add((at + count) * row_bytes);
                (&scratch.rows[..count * dim], Ahead { from: next, row: row_bytes })
            }
            (_, None) => (&scratch.rows[..count * dim], Ahead { from: scratch.rows.as_ptr().cast(), row: 0 }),
        };
        Block { rows, scales: &scratch.scales, ids: &scratch.ids, ahead }
    }
}

/// Facts the engine keeps about uploaded documents.
pub(crate) fn upload(backend: &dyn Backend, documents: &Documents<'_>, normalized: bool) -> Result<Resident> {
    let tokens = match documents {
        Documents::Tokens(tokens) => tokens,
        Documents::Resident(resident) => return Ok((*resident).clone()),
        other => return Err(unsupported(other)),
    };
    let held = tokens.to_buf();
    let mut meta = ResidentMeta::of(documents, backend.info().kind, normalized);
    meta.bytes = held.bytes() as u64;
    Ok(Resident::new(meta, held))
}
