//! Documents as the CPU reads them: borrowed, or held since an upload; token vectors, or codes and packed residuals.

use std::ops::Range;

use maxsim_core::{
    Backend, DataBuf, DataRef, Documents, Resident, ResidentMeta, Residual, ResidualBuf, Result, Sequences,
    Tokens, TokensBuf,
};

use crate::arch::Kernels;
use crate::head::{HEAD_ROWS, Head};
use crate::kernel::forward::Ahead;
use crate::norm::inverse_norm;

/// Whether there are residual documents: a page's module may be built without.
pub(crate) const RESIDUAL: bool = cfg!(feature = "residual");

/// What [`Backend::upload`] stores on the CPU.
enum Held {
    Tokens(TokensBuf),
    Residual(ResidualBuf),
}

/// The documents behind an operand.
pub(crate) enum Opened<'a> {
    Tokens(Tokens<'a>),
    Residual(Residual<'a>),
}

/// Opens an operand; the flag says that its vectors have unit length already.
pub(crate) fn open<'a>(documents: &'a Documents<'a>) -> Result<(Opened<'a>, bool)> {
    match documents {
        Documents::Tokens(tokens) => Ok((Opened::Tokens(tokens.clone()), false)),
        Documents::Residual(residual) if RESIDUAL => {
            Ok((Opened::Residual(residual.slice(0..residual.sequences().count())), false))
        }
        Documents::Resident(resident) => {
            let opened = match resident.handle::<Held>()? {
                Held::Tokens(tokens) => Opened::Tokens(tokens.as_tokens()),
                Held::Residual(residual) if RESIDUAL => Opened::Residual(residual.as_residual()),
                Held::Residual(_) => unreachable!("left out"),
            };
            Ok((opened, resident.meta().normalized))
        }
        _ => Err(maxsim_core::Error::Unsupported {
            what: "documents of this kind".into(),
            hint: "give token vectors or residual codes".into(),
        }),
    }
}

impl Opened<'_> {
    pub(crate) fn source(&self) -> Source<'_> {
        match self {
            Self::Tokens(tokens) => Source::Tokens(tokens),
            Self::Residual(residual) if RESIDUAL => Source::Residual(residual),
            Self::Residual(_) => unreachable!("left out"),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.source().sequences().count()
    }

    /// Documents `range` on their own.
    pub(crate) fn slice(&self, range: Range<usize>) -> Opened<'_> {
        match self {
            Self::Tokens(tokens) => Opened::Tokens(tokens.slice(range)),
            Self::Residual(residual) => Opened::Residual(residual.slice(range)),
        }
    }

    /// The documents as an operand.
    pub(crate) fn documents(&self) -> Documents<'_> {
        match self {
            Self::Tokens(tokens) => tokens.clone().into(),
            Self::Residual(residual) => residual.clone().into(),
        }
    }
}

/// Where rows come from.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    Tokens(&'a Tokens<'a>),
    Residual(&'a Residual<'a>),
}

impl<'a> From<&'a Tokens<'a>> for Source<'a> {
    fn from(tokens: &'a Tokens<'a>) -> Self {
        Self::Tokens(tokens)
    }
}

impl<'a> Source<'a> {
    pub(crate) fn sequences(self) -> &'a Sequences<'a> {
        match self {
            Self::Tokens(tokens) => tokens.sequences(),
            Self::Residual(residual) => residual.sequences(),
        }
    }

    fn dim(self) -> usize {
        match self {
            Self::Tokens(tokens) => tokens.dim(),
            Self::Residual(residual) => residual.codec().dim(),
        }
    }

    /// The elements, where rows are read as they lie in memory.
    fn in_place(self) -> Option<&'a [f32]> {
        match self {
            Self::Tokens(tokens) => match tokens.data() {
                DataRef::F32(data) => Some(data),
                _ => None,
            },
            Self::Residual(_) => None,
        }
    }
}

/// Calls `each` with the document-local indices of the rows of document `j` that count, at most about `block` at a time,
/// and the first row in memory if they lie behind one another.
pub(crate) fn pieces(
    sequences: &Sequences<'_>,
    j: usize,
    block: usize,
    ids: &mut Vec<i32>,
    mut each: impl FnMut(&[i32], usize, Option<usize>),
) {
    let rows = sequences.rows(j);
    let first = rows.start;
    match sequences.mask() {
        None => {
            let mut at = rows.start;
            while at < rows.end {
                // The last piece takes what is left, so that it is never shorter than a block.
                let end = if rows.end - at >= 2 * block { at + block } else { rows.end };
                ids.clear();
                ids.extend((at - first) as i32..(end - first) as i32);
                each(ids, first, Some(at));
                at = end;
            }
        }
        Some(mask) => {
            let mut kept = mask[rows]
                .iter()
                .enumerate()
                .filter(|(_, keep)| **keep != 0)
                .map(|(t, _)| t as i32)
                .peekable();
            while kept.peek().is_some() {
                ids.clear();
                ids.extend(kept.by_ref().take(block));
                each(ids, first, None);
            }
        }
    }
}

/// Decodes residual rows to f32.
pub(crate) struct Decoder<'a> {
    residual: &'a Residual<'a>,
    /// `[256][8 / nbits]`: weights of the fields of every byte.
    table: Vec<f32>,
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(residual: &'a Residual<'a>) -> Self {
        let codec = residual.codec();
        let weights = codec.bucket_weights();
        let fields = 8 / codec.nbits() as usize;
        let table = (0..=255u8)
            .flat_map(|byte| (0..fields).map(move |f| codec.layout().bucket(byte, f, codec.nbits())))
            .map(|bucket| weights[usize::from(bucket)])
            .collect();
        Self { residual, table }
    }

    /// The vector of slot `row`. `centroid` is memory for centroids that are not f32.
    pub(crate) fn row(&self, row: usize, centroid: &mut Vec<f32>, to: &mut [f32], kernels: &Kernels) {
        let codec = self.residual.codec();
        let dim = codec.dim();
        let code = self.residual.codes()[row] as usize;
        let stored = codec.centroids().data().slice(code * dim..(code + 1) * dim);
        let centroid = match stored {
            DataRef::F32(stored) => stored,
            other => {
                centroid.resize(dim, 0.0);
                widen(other, centroid, kernels);
                &centroid[..]
            }
        };
        // SAFETY: `kernels` exist only for levels this machine runs.
        unsafe { (kernels.decode)(centroid, self.residual.residual(row), &self.table, to) };
    }

    /// Factor of the row's similarities where tokens are normalised; `vector` is the decoded row.
    fn inverse_norm(&self, row: usize, vector: &[f32], kernels: &Kernels) -> f32 {
        match self.residual.inv_norms() {
            Some(stored) => stored.get(row),
            None => inverse_norm(vector, 1.0, kernels),
        }
    }

    /// The same without a decoded row at hand.
    pub(crate) fn factor(&self, row: usize, scratch: &mut (Vec<f32>, Vec<f32>), kernels: &Kernels) -> f32 {
        if self.residual.inv_norms().is_none() {
            scratch.1.resize(self.residual.codec().dim(), 0.0);
            self.row(row, &mut scratch.0, &mut scratch.1, kernels);
        }
        self.inverse_norm(row, &scratch.1, kernels)
    }
}

/// Any elements to f32.
pub(crate) fn widen(from: DataRef<'_>, to: &mut [f32], kernels: &Kernels) {
    // SAFETY: `kernels` exist only for levels this machine runs.
    unsafe {
        match from {
            DataRef::F32(from) => to.copy_from_slice(from),
            DataRef::F16(from) => (kernels.widen_f16)(from, to),
            DataRef::BF16(from) => (kernels.widen_bf16)(from, to),
            DataRef::E4M3(from) => (kernels.widen_e4m3)(from, to),
            DataRef::I8(from) => (kernels.widen_i8)(from, to),
        }
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
    centroid: Vec<f32>,
    projected: Vec<f32>,
    wide: Vec<f32>,
}

/// How documents are brought to the kernels.
pub(crate) struct Reader<'a> {
    source: Source<'a>,
    decoder: Option<Decoder<'a>>,
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
        source: impl Into<Source<'a>>,
        normalize: bool,
        kernels: &'static Kernels,
        panels: usize,
    ) -> Self {
        let source = source.into();
        let most = (BLOCK_BYTES / (4 * source.dim() * kernels.rows)).max(1);
        // Conversion overlaps with the arithmetic of the tile before it, as long as it comes in small pieces: the core looks
        // a few hundred instructions ahead. Where many panels meet a block, larger blocks spare more than that gains.
        let tiles = if source.in_place().is_some() { most } else { most.min(panels.max(1)) };
        let decoder = match source {
            Source::Tokens(_) => None,
            Source::Residual(residual) if RESIDUAL => Some(Decoder::new(residual)),
            Source::Residual(_) => unreachable!("left out"),
        };
        Self { source, decoder, normalize, kernels, block: tiles * kernels.rows, head: None }
    }

    /// The same with rows projected by `head` before they are scored (and normalised, if they are).
    pub(crate) fn with_head(self, head: &'a Head) -> Self {
        Self { head: Some(head), block: HEAD_ROWS.next_multiple_of(self.kernels.rows), ..self }
    }

    /// Calls `each` for the blocks of document `j`, in order.
    pub(crate) fn blocks(&self, j: usize, scratch: &mut BlockScratch, mut each: impl FnMut(Block<'_>)) {
        let mut ids = std::mem::take(&mut scratch.ids);
        pieces(self.source.sequences(), j, self.block, &mut ids, |ids, first, contiguous| {
            self.read(scratch, ids, first, contiguous);
            self.give(scratch, ids, contiguous, &mut each);
        });
        scratch.ids = ids;
    }

    /// Fills the scratch for the rows `ids`, counted from `first`; `contiguous` is the first row if they follow each other.
    fn read(&self, scratch: &mut BlockScratch, ids: &[i32], first: usize, contiguous: Option<usize>) {
        let dim = self.source.dim();
        let BlockScratch { rows, scales, centroid, .. } = scratch;
        let slots = ids.iter().map(|&id| first + id as usize);
        let in_place = self.source.in_place().filter(|_| contiguous.is_some());
        if in_place.is_none() {
            rows.resize(ids.len() * dim, 0.0);
        }
        match (self.source, &self.decoder) {
            _ if in_place.is_some() => {}
            (Source::Tokens(tokens), _) => match contiguous {
                Some(at) => widen(tokens.data().slice(at * dim..(at + ids.len()) * dim), rows, self.kernels),
                None => {
                    for (row, at) in rows.chunks_exact_mut(dim).zip(slots.clone()) {
                        widen(tokens.data().slice(at * dim..(at + 1) * dim), row, self.kernels);
                    }
                }
            },
            (Source::Residual(_), decoder) if RESIDUAL => {
                let decoder = decoder.as_ref().expect("made with the source");
                for (row, at) in rows.chunks_exact_mut(dim).zip(slots.clone()) {
                    decoder.row(at, centroid, row, self.kernels);
                }
            }
            (Source::Residual(_), _) => unreachable!("left out"),
        }
        scales.clear();
        let token_scales = match self.source {
            Source::Tokens(tokens) => tokens.scales(),
            Source::Residual(_) => None,
        };
        scales.extend(slots.clone().map(|at| token_scales.map_or(1.0, |s| s.get(at))));
        if self.normalize && self.head.is_none() {
            let rows = match (in_place, contiguous) {
                (Some(data), Some(at)) => &data[at * dim..(at + ids.len()) * dim],
                _ => &rows[..],
            };
            for ((scale, row), at) in scales.iter_mut().zip(rows.chunks_exact(dim)).zip(slots) {
                *scale = match &self.decoder {
                    Some(decoder) => decoder.inverse_norm(at, row, self.kernels),
                    None => inverse_norm(row, *scale, self.kernels),
                };
            }
        }
    }

    /// Hands the rows that `read` prepared to `each`, projected if there is a head.
    fn give(
        &self,
        scratch: &mut BlockScratch,
        ids: &[i32],
        contiguous: Option<usize>,
        each: &mut impl FnMut(Block<'_>),
    ) {
        let Some(head) = self.head else {
            return each(self.block(scratch, ids, contiguous));
        };
        let mut projected = std::mem::take(&mut scratch.projected);
        let mut wide = std::mem::take(&mut scratch.wide);
        let block = self.block(scratch, ids, contiguous);
        head.project(block.rows, &mut wide, &mut projected, self.kernels);
        if self.normalize {
            for (scale, row) in scratch.scales.iter_mut().zip(projected.chunks_exact(head.dim)) {
                *scale = inverse_norm(row, 1.0, self.kernels);
            }
        }
        let ahead = Ahead { from: projected.as_ptr().cast(), row: 0 };
        each(Block { rows: &projected, scales: &scratch.scales, ids, ahead });
        (scratch.projected, scratch.wide) = (projected, wide);
    }

    fn block<'s>(
        &'s self,
        scratch: &'s BlockScratch,
        ids: &'s [i32],
        contiguous: Option<usize>,
    ) -> Block<'s> {
        let dim = self.source.dim();
        let count = ids.len();
        let (rows, ahead) = match (self.source.in_place(), contiguous) {
            // Read where it lies: the next tile.
            (Some(data), Some(at)) => {
                let rows = &data[at * dim..(at + count) * dim];
                let next = rows.as_ptr().cast::<u8>().wrapping_add(self.kernels.rows * dim * 4);
                (rows, Ahead { from: next, row: dim * 4 })
            }
            // Converted: the next block.
            (None, Some(at)) => (&scratch.rows[..count * dim], stored(self.source).at_row(at + count)),
            (_, None) => (&scratch.rows[..count * dim], Ahead { from: scratch.rows.as_ptr().cast(), row: 0 }),
        };
        Block { rows, scales: &scratch.scales, ids, ahead }
    }
}

/// The rows of a source as they lie in memory.
pub(crate) fn stored(source: Source<'_>) -> Ahead {
    match source {
        Source::Tokens(tokens) => Ahead {
            from: maxsim_core::dispatch!(DataRef, tokens.data(), |d| d.as_ptr().cast::<u8>()),
            row: tokens.dim() * tokens.dtype().size(),
        },
        Source::Residual(residual) => {
            Ahead { from: residual.residuals().as_ptr(), row: residual.codec().residual_bytes() }
        }
    }
}

/// Facts the engine keeps about uploaded documents. Residual documents get inverse norms if they have none: computing them
/// is what would cost most at search time.
pub(crate) fn upload(
    backend: &dyn Backend,
    kernels: &'static Kernels,
    documents: &Documents<'_>,
    normalized: bool,
) -> Result<Resident> {
    let (held, bytes) = match documents {
        Documents::Resident(resident) => return Ok((*resident).clone()),
        Documents::Residual(residual) if RESIDUAL => {
            let mut held = residual.to_buf();
            if residual.inv_norms().is_none() {
                let decoder = Decoder::new(residual);
                let mut scratch = Default::default();
                let mut norms = vec![0f32; residual.sequences().slots()];
                for row in residual.sequences().kept_rows() {
                    norms[row] = decoder.factor(row, &mut scratch, kernels);
                }
                held = held.with_inv_norms(DataBuf::F32(norms))?;
            }
            let bytes = held.bytes();
            (Held::Residual(held), bytes)
        }
        documents => match open(documents)?.0 {
            Opened::Tokens(tokens) => {
                let held = tokens.to_buf();
                let bytes = held.bytes();
                (Held::Tokens(held), bytes)
            }
            Opened::Residual(_) => unreachable!("matched above"),
        },
    };
    let mut meta = ResidentMeta::of(documents, backend.info().kind, normalized);
    meta.bytes = bytes as u64;
    Ok(Resident::new(meta, held))
}
