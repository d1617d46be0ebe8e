//! Queries and documents on the device: packed, in the element type that is multiplied, factors beside them.
//!
//! Tokens that no mask or length keeps are left out when operands are uploaded, so no kernel knows masks, and documents of
//! any layout are the same to them: rows behind one another, and where each document begins.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use maxsim_core::{
    Codec, DType, DataBuf, DataRef, Documents, Element, Residual, Result, Scales, Sequences, Tokens,
    dispatch, f16,
};

use crate::backward::Operand;
use crate::config::{self, Kind, Stored};
use crate::context::Context;
use crate::interop::Taken;
use crate::memory::{Buffer, QueryRows, address};
use crate::params::{self, RowsParams};
use crate::pieces::Split;

/// Which slots of a batch count, packed.
#[derive(Debug, Clone)]
pub(crate) struct Packing {
    /// First packed row of every sequence, and their number.
    pub(crate) offsets: Vec<u32>,
    /// Per packed row its token; `None` where a sequence's tokens are its first ones.
    pub(crate) ids: Option<Vec<i32>>,
    /// Slots that follow each other in memory and count.
    runs: Vec<Range<usize>>,
}

impl Packing {
    pub(crate) fn new(sequences: &Sequences<'_>) -> Self {
        let mut offsets = Vec::with_capacity(sequences.count() + 1);
        offsets.push(0u32);
        let mut runs: Vec<Range<usize>> = Vec::new();
        let mut push = |run: Range<usize>| match runs.last_mut() {
            _ if run.is_empty() => {}
            Some(last) if last.end == run.start => last.end = run.end,
            _ => runs.push(run),
        };
        let mut rows = 0u32;
        let mut ids = sequences.mask().is_some().then(Vec::new);
        for i in 0..sequences.count() {
            let range = sequences.rows(i);
            match &mut ids {
                None => {
                    rows += range.len() as u32;
                    push(range);
                }
                Some(ids) => {
                    for row in range.clone().filter(|&row| sequences.keeps(row)) {
                        rows += 1;
                        ids.push((row - range.start) as i32);
                        push(row..row + 1);
                    }
                }
            }
            offsets.push(rows);
        }
        Self { offsets, ids, runs }
    }

    /// Sequences whose rows follow each other, all of which count: sequence `i` is rows `offsets[i]..offsets[i + 1]`.
    pub(crate) fn packed(offsets: Vec<u32>) -> Self {
        let rows = offsets[offsets.len() - 1] as usize;
        Self { offsets, ids: None, runs: std::iter::once(0..rows).collect() }
    }

    pub(crate) fn rows(&self) -> u32 {
        self.offsets[self.offsets.len() - 1]
    }

    /// Rows of sequence `i`.
    pub(crate) fn rows_of(&self, i: u32) -> u32 {
        self.offsets[i as usize + 1] - self.offsets[i as usize]
    }

    /// Sequences `range` on their own, as if their rows were all there are; slots are not kept.
    pub(crate) fn part(&self, range: Range<u32>) -> Self {
        let offsets = &self.offsets[range.start as usize..=range.end as usize];
        let rows = offsets[0] as usize..offsets[offsets.len() - 1] as usize;
        Self {
            offsets: offsets.iter().map(|o| o - offsets[0]).collect(),
            ids: self.ids.as_ref().map(|ids| ids[rows].to_vec()),
            runs: Vec::new(),
        }
    }

    /// Whether all slots count and follow each other.
    pub(crate) fn is_dense(&self) -> bool {
        match &self.runs[..] {
            [] => true,
            [run] => run.start == 0,
            _ => false,
        }
    }

    /// Slots that count, in packed order.
    pub(crate) fn slots(&self) -> impl Iterator<Item = usize> + '_ {
        self.runs.iter().cloned().flatten()
    }

    /// The rows that count out of rows of `width` bytes, each padded with zeros to `stride`.
    pub(crate) fn gather<'a>(&self, data: &'a [u8], width: usize, stride: usize) -> Cow<'a, [u8]> {
        if width == stride && self.runs.len() == 1 {
            return Cow::Borrowed(&data[self.runs[0].start * width..self.runs[0].end * width]);
        }
        let mut out = vec![0; self.rows() as usize * stride];
        let mut at = 0;
        for run in &self.runs {
            let rows = &data[run.start * width..run.end * width];
            if width == stride {
                out[at..at + rows.len()].copy_from_slice(rows);
                at += rows.len();
            } else {
                for row in rows.chunks_exact(width) {
                    out[at..at + width].copy_from_slice(row);
                    at += stride;
                }
            }
        }
        Cow::Owned(out)
    }
}

/// Bytes from row to row.
pub(crate) fn stride(bytes: usize) -> usize {
    bytes.next_multiple_of(16)
}

pub(crate) fn bytes_of(data: DataRef<'_>) -> &[u8] {
    dispatch!(DataRef, data, |data| bytemuck::cast_slice(data))
}

/// Query rows on the device.
pub(crate) struct Queries {
    pub(crate) packing: Packing,
    pub(crate) rows: Buffer,
    pub(crate) stride: u32,
    pub(crate) ids: Option<Buffer>,
    pub(crate) factors: Option<Buffer>,
}

impl Queries {
    /// Uploads queries as `product`, in the order of fragments if `permuted`.
    pub(crate) fn new(
        context: &Context,
        q: &Tokens<'_>,
        product: Kind,
        permuted: bool,
        normalize: bool,
    ) -> Result<Self> {
        Self::of(context, q, None, product, permuted, normalize)
    }

    /// The same of queries whose elements may be at an address of the device.
    pub(crate) fn of(
        context: &Context,
        q: &Tokens<'_>,
        address: Option<u64>,
        product: Kind,
        permuted: bool,
        normalize: bool,
    ) -> Result<Self> {
        let packing = Packing::new(q.sequences());
        let dim = q.dim();
        let (rows, stride) = match address {
            Some(address) => {
                let taken = Taken { address, kind: q.dtype().into(), dim, packing: &packing };
                taken.rows(context, product, permuted)?
            }
            None => {
                let (bytes, stride) = host_rows(q, &packing, product, permuted);
                let rows = context.pool.upload(&bytes)?;
                context.pool.note_queries(QueryRows { address: rows.address(), product, permuted });
                (rows, stride)
            }
        };
        let scales = gather_scales(&packing, q.scales());
        let ids = packing.ids.as_deref().map(|ids| context.pool.upload(ids)).transpose()?;
        let source = Source {
            stored: Stored::Vectors(product),
            rows: &rows,
            stride: stride as u32,
            count: packing.rows(),
            dim: dim as u32,
            residual: None,
        };
        let factors = factors(context, &source, scales, normalize)?;
        Ok(Self { packing, rows, stride: stride as u32, ids, factors })
    }
}

/// Query rows that count as `product`, in the order of fragments if `permuted`, and the bytes from row to row.
pub(crate) fn host_rows<'a>(
    q: &Tokens<'a>,
    packing: &Packing,
    product: Kind,
    permuted: bool,
) -> (Cow<'a, [u8]>, usize) {
    let dim = q.dim();
    if q.dtype() == product.dtype() && !permuted {
        let width = dim * product.size() as usize;
        return (packing.gather(bytes_of(q.data()), width, stride(width)), stride(width));
    }
    let width = if permuted { dim.next_multiple_of(16) } else { dim };
    let mut values = Vec::with_capacity(q.slots() * width);
    for row in 0..q.slots() {
        let mut vector = q.vector(row);
        vector.resize(width, 0.0);
        if permuted {
            for group in vector.chunks_exact_mut(16) {
                permute(group.try_into().expect("16 elements"));
            }
        }
        values.extend(vector);
    }
    let data = DataBuf::from_f32(&values, product.dtype());
    let width = width * product.size() as usize;
    let rows = packing.gather(bytes_of(data.as_ref()), width, stride(width));
    (Cow::Owned(rows.into_owned()), stride(width))
}

/// Where a lane's four neighbours go in a fragment of 16: two pairs, eight apart.
fn permute(group: &mut [f32; 16]) {
    let from = *group;
    for lane in 0..4 {
        for (i, at) in [2 * lane, 2 * lane + 1, 2 * lane + 8, 2 * lane + 9].into_iter().enumerate() {
            group[at] = from[4 * lane + i];
        }
    }
}

/// Scales per packed row, or one for all.
enum RowScales {
    One(f32),
    Each(Vec<f32>),
    OnDevice(Arc<Buffer>),
}

fn gather_scales(packing: &Packing, scales: Option<Scales<'_>>) -> RowScales {
    match scales {
        None => RowScales::One(1.0),
        Some(Scales::PerTensor(scale)) => RowScales::One(scale),
        Some(Scales::PerToken(scales)) => RowScales::Each(packing.slots().map(|slot| scales[slot]).collect()),
    }
}

/// Rows whose factors are wanted.
struct Source<'a> {
    stored: Stored,
    rows: &'a Buffer,
    stride: u32,
    count: u32,
    dim: u32,
    residual: Option<&'a ResidualParts>,
}

/// Factors behind the last row's: kernels copy those of whole tiles.
pub(crate) const SLACK: usize = 256;
/// Rows whose factors are copied together.
pub(crate) const FACTORS_ALIGN: u32 = 4;

/// What multiplies similarities with these rows; `None`: 1.
fn factors(
    context: &Context,
    source: &Source<'_>,
    scales: RowScales,
    normalize: bool,
) -> Result<Option<Buffer>> {
    if !normalize {
        let mut each = match scales {
            RowScales::One(1.0) => return Ok(None),
            RowScales::One(scale) => vec![scale; source.count as usize],
            RowScales::Each(each) => each,
            RowScales::OnDevice(_) => unreachable!("they are the factors"),
        };
        each.resize(each.len() + SLACK, 0.0);
        return context.pool.upload(&each).map(Some);
    }
    let (scale, each) = match scales {
        RowScales::One(scale) => (scale, None),
        RowScales::Each(scales) => (1.0, Some(Arc::new(context.pool.upload(&scales)?))),
        RowScales::OnDevice(scales) => (1.0, Some(scales)),
    };
    let factors = context.pool.buffer((source.count as usize + SLACK) * 4)?;
    let params = RowsParams {
        rows: source.rows.address(),
        scales: address(each.as_deref()),
        codes: source.residual.map_or(0, |r| r.codes.address()),
        centroids: source.residual.map_or(0, |r| r.centroids.address()),
        weights: source.residual.map_or(0, |r| r.weights.address()),
        factors: factors.address(),
        stride: source.stride,
        count: source.count,
        dim: source.dim,
        centroid_count: source.residual.map_or(0, |r| r.centroid_count),
        scale,
        unused: 0,
    };
    let unit = config::row_factors(source.stored);
    let warps = unit.constant("kThreads") as u32 / 32;
    // SAFETY: the rows, codes and factors are `count` long, centroids and weights as the codec has them.
    unsafe { context.launch(&unit, [source.count.div_ceil(warps), 1], 0, &params)? };
    Ok(Some(factors))
}

/// Inverse norms of f32 rows of `dim` elements, `stride` bytes apart.
pub(crate) fn inverse_norms(
    context: &Context,
    rows: &Buffer,
    stride: u32,
    count: u32,
    dim: u32,
) -> Result<Buffer> {
    let source = Source { stored: Stored::Vectors(Kind::F32), rows, stride, count, dim, residual: None };
    let norms = factors(context, &source, RowScales::One(1.0), true)?;
    Ok(norms.expect("asked for norms"))
}

/// What residual documents have beside their packed residuals.
#[derive(Debug)]
pub(crate) struct ResidualParts {
    /// Per row.
    pub(crate) codes: Buffer,
    /// f32 `[count, dim]`, rows padded to 16 bytes.
    pub(crate) table_rows: Buffer,
    pub(crate) table_stride: u32,
    /// f32 `[count, dim]`.
    pub(crate) centroids: Buffer,
    pub(crate) centroid_count: u32,
    /// `[256][8 / bits]`.
    pub(crate) weights: Buffer,
    /// See [`weight_scale`].
    pub(crate) weight_scale: f32,
}

/// What bucket weights are multiplied by before they are rounded to f16, which has a narrow range: the largest finite one ends in
/// [1, 4) unless it is below 1e-29, and all together lose as little as possible. Few weights meet every token, so
/// that their errors do not cancel. 1 if all are 0.
fn weight_scale(weights: &[f32]) -> f32 {
    const CANDIDATES: u16 = 1024;
    let finite = weights.iter().copied().filter(|x| x.is_finite());
    let to_unit = match finite.clone().map(f32::abs).fold(0.0, f32::max).to_bits() >> 23 {
        0 => return 1.0,
        exponent => f32::from_bits((254 - exponent.clamp(27, 253)) << 23),
    };
    let lost = |scale: f32| -> f64 {
        let lost =
            |weight: f32| f64::from(f16::from_f32(weight * scale).to_f32() / scale) - f64::from(weight);
        // In units of the largest: squares of small numbers are 0.
        finite.clone().map(|weight| (lost(weight) * f64::from(to_unit)).powi(2)).sum()
    };
    let candidates = (0..CANDIDATES).map(|i| to_unit * (1.0 + f32::from(i) / f32::from(CANDIDATES)));
    let scored = candidates.map(|scale| (lost(scale), scale));
    scored.min_by(|a, b| a.0.total_cmp(&b.0)).expect("candidates").1
}

/// Tables of chunks: a search asks for the same ones again.
type Chunks = HashMap<(u32, u32, u32), (Arc<Buffer>, u32)>;
/// Pieces on the device, and how they were cut, by documents, tiles and workers; likewise.
type Splits = HashMap<(u32, u32, u32, u32), (Arc<Buffer>, Arc<Split>)>;
/// Tables kept.
const MOST_CHUNKS: usize = 64;

/// Documents on the device.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) packing: Packing,
    pub(crate) stored: Stored,
    pub(crate) dim: u32,
    pub(crate) rows: Buffer,
    pub(crate) stride: u32,
    pub(crate) offsets: Buffer,
    pub(crate) ids: Option<Buffer>,
    pub(crate) residual: Option<ResidualParts>,
    /// Scales per row, or none.
    pub(crate) scales: Option<Arc<Buffer>>,
    /// Inverse norms, stored ones or computed when they are first asked for.
    norms: Mutex<Option<Arc<Buffer>>>,
    /// Tables of chunks, by documents and rows of a chunk.
    chunks: Mutex<Chunks>,
    splits: Mutex<Splits>,
    /// Vectors have unit length already.
    pub(crate) normalized: bool,
}

impl Held {
    /// Uploads documents. `normalized` records that their vectors have unit length.
    pub(crate) fn new(context: &Context, documents: &Documents<'_>, normalized: bool) -> Result<Self> {
        match documents {
            Documents::Tokens(tokens) => Self::tokens(context, tokens, normalized),
            Documents::Residual(residual) => Self::residual(context, residual),
            other => unreachable!("{other:?} is not in host memory"),
        }
    }

    fn tokens(context: &Context, tokens: &Tokens<'_>, normalized: bool) -> Result<Self> {
        let packing = Packing::new(tokens.sequences());
        let width = tokens.dim() * tokens.dtype().size();
        let stride = stride(width);
        let rows = context.pool.upload(&packing.gather(bytes_of(tokens.data()), width, stride))?;
        let kind = tokens.dtype().into();
        let mut held = Self::rows_of(context, packing, kind, tokens.dim(), rows, stride, tokens.scales())?;
        held.normalized = normalized;
        Ok(held)
    }

    fn residual(context: &Context, residual: &Residual<'_>) -> Result<Self> {
        let codec = residual.codec();
        let packing = Packing::new(residual.sequences());
        let width = codec.residual_bytes();
        let rows = context.pool.upload(&packing.gather(residual.residuals(), width, stride(width)))?;
        let codes: Vec<u32> = packing.slots().map(|slot| residual.codes()[slot]).collect();
        let codes = context.pool.upload(&codes)?;
        let norms =
            residual.inv_norms().map(|norms| -> Vec<f32> { packing.slots().map(|s| norms.get(s)).collect() });
        Self::encoded(context, codec, packing, rows, codes, norms)
    }

    /// Residual documents whose packed residuals (rows padded to 16 bytes) and codes are on the device already.
    pub(crate) fn encoded(
        context: &Context,
        codec: &Codec<'_>,
        packing: Packing,
        rows: Buffer,
        codes: Buffer,
        norms: Option<Vec<f32>>,
    ) -> Result<Self> {
        let centroids = codec.centroids().data().to_f32();
        let table_stride = (codec.dim() * 4).next_multiple_of(16);
        let mut padded = vec![0f32; codec.count() * table_stride / 4];
        for (to, from) in padded.chunks_exact_mut(table_stride / 4).zip(centroids.chunks_exact(codec.dim())) {
            to[..from.len()].copy_from_slice(from);
        }
        let fields = 8 / codec.nbits() as usize;
        let weights: Vec<f32> = (0..=255u8)
            .flat_map(|byte| (0..fields).map(move |f| codec.layout().bucket(byte, f, codec.nbits())))
            .map(|bucket| codec.bucket_weights()[usize::from(bucket)])
            .collect();
        let parts = ResidualParts {
            codes,
            table_rows: context.pool.upload(&padded)?,
            table_stride: table_stride as u32,
            centroids: context.pool.upload(&centroids)?,
            centroid_count: codec.count() as u32,
            weights: context.pool.upload(&weights)?,
            weight_scale: weight_scale(codec.bucket_weights()),
        };
        let stored = Stored::residual(codec);
        let stride = stride(codec.residual_bytes());
        let held = Self::finish(
            context,
            packing,
            stored,
            codec.dim(),
            rows,
            stride,
            Some(parts),
            RowScales::One(1.0),
            false,
        )?;
        if let Some(mut norms) = norms {
            norms.resize(norms.len() + SLACK, 0.0);
            *held.norms() = Some(Arc::new(context.pool.upload(&norms)?));
        }
        Ok(held)
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of what is made")]
    fn finish(
        context: &Context,
        packing: Packing,
        stored: Stored,
        dim: usize,
        rows: Buffer,
        stride: usize,
        residual: Option<ResidualParts>,
        scales: RowScales,
        normalized: bool,
    ) -> Result<Self> {
        let offsets = context.pool.upload(&packing.offsets)?;
        let ids = packing.ids.as_deref().map(|ids| context.pool.upload(ids)).transpose()?;
        let count = packing.rows();
        let source =
            Source { stored, rows: &rows, stride: stride as u32, count, dim: dim as u32, residual: None };
        let scales = factors(context, &source, scales, false)?;
        Ok(Self {
            packing,
            stored,
            dim: dim as u32,
            rows,
            stride: stride as u32,
            offsets,
            ids,
            residual,
            scales: scales.map(Arc::new),
            norms: Mutex::new(None),
            chunks: Mutex::default(),
            splits: Mutex::default(),
            normalized,
        })
    }

    /// Rows that are on the device already, of documents with `scales` in host memory.
    pub(crate) fn rows_of(
        context: &Context,
        packing: Packing,
        kind: Kind,
        dim: usize,
        rows: Buffer,
        stride: usize,
        scales: Option<Scales<'_>>,
    ) -> Result<Self> {
        let scales = gather_scales(&packing, scales);
        Self::finish(context, packing, Stored::Vectors(kind), dim, rows, stride, None, scales, false)
    }

    /// Rows that are on the device already: `rows` as `kind`, `stride` bytes apart, multiplied by `factors`.
    pub(crate) fn on_device(
        context: &Context,
        packing: Packing,
        kind: Kind,
        dim: u32,
        rows: Buffer,
        stride: u32,
        factors: Option<Arc<Buffer>>,
    ) -> Result<Self> {
        let (dim, stride) = (dim as usize, stride as usize);
        let stored = Stored::Vectors(kind);
        let mut held =
            Self::finish(context, packing, stored, dim, rows, stride, None, RowScales::One(1.0), true)?;
        held.scales = factors;
        Ok(held)
    }

    fn norms(&self) -> std::sync::MutexGuard<'_, Option<Arc<Buffer>>> {
        self.norms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self) -> u32 {
        self.packing.offsets.len() as u32 - 1
    }

    /// What multiplies similarities with every row, computed once; `None`: 1.
    pub(crate) fn factors(&self, context: &Context, normalize: bool) -> Result<Option<Arc<Buffer>>> {
        if !normalize || self.normalized {
            return Ok(self.scales.clone());
        }
        let mut norms = self.norms();
        if norms.is_none() {
            let source = Source {
                stored: self.stored,
                rows: &self.rows,
                stride: self.stride,
                count: self.packing.rows(),
                dim: self.dim,
                residual: self.residual.as_ref(),
            };
            let scales = match &self.scales {
                Some(scales) => RowScales::OnDevice(scales.clone()),
                None => RowScales::One(1.0),
            };
            *norms = factors(context, &source, scales, true)?.map(Arc::new);
        }
        Ok(norms.clone())
    }

    /// Documents in chunks of about `rows` rows: the first of each and where the last one ends, and their number. A document
    /// belongs to the chunk that its first row lies in.
    pub(crate) fn chunks(
        &self,
        context: &Context,
        documents: &Range<u32>,
        rows: u32,
    ) -> Result<(Arc<Buffer>, u32)> {
        let mut chunks = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (documents.start, documents.end, rows);
        if let Some(made) = chunks.get(&key) {
            context.pool.keep(&made.0);
            return Ok(made.clone());
        }
        let offsets = &self.packing.offsets[..=documents.end as usize];
        let first = offsets[documents.start as usize];
        let count = (offsets[documents.end as usize] - first).div_ceil(rows).max(1);
        let starts = &offsets[documents.start as usize..documents.end as usize];
        let begin = |chunk: u32| match chunk {
            0 => documents.start,
            _ if chunk == count => documents.end,
            _ => documents.start + starts.partition_point(|&start| start - first < chunk * rows) as u32,
        };
        let table: Vec<u32> = (0..=count).map(begin).collect();
        let made = (Arc::new(context.pool.upload(&table)?), count);
        context.pool.keep(&made.0);
        if chunks.len() >= MOST_CHUNKS {
            chunks.clear();
        }
        chunks.insert(key, made.clone());
        Ok(made)
    }

    /// Documents in pieces, see [`Split::new`].
    pub(crate) fn split(
        &self,
        context: &Context,
        documents: &Range<u32>,
        tiles: u32,
        workers: u32,
    ) -> Result<(Arc<Buffer>, Arc<Split>)> {
        let mut splits = self.splits.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (documents.start, documents.end, tiles, workers);
        if let Some(split) = splits.get(&key) {
            context.pool.keep(&split.0);
            return Ok(split.clone());
        }
        let split = Split::new(&self.packing.offsets, documents, tiles, workers, FACTORS_ALIGN);
        let made = (Arc::new(context.pool.upload(&split.pieces)?), Arc::new(split));
        context.pool.keep(&made.0);
        if splits.len() >= MOST_CHUNKS {
            splits.clear();
        }
        splits.insert(key, made.clone());
        Ok(made)
    }

    /// The rows as gradients add them up.
    pub(crate) fn operand(&self, factors: Option<&Buffer>) -> Operand {
        let residual = self.residual.as_ref();
        Operand {
            stored: self.stored,
            rows: params::Rows {
                rows: self.rows.address(),
                factors: address(factors),
                codes: residual.map_or(0, |r| r.codes.address()),
                centroids: residual.map_or(0, |r| r.centroids.address()),
                weights: residual.map_or(0, |r| r.weights.address()),
                stride: self.stride,
                dim: self.dim,
                centroid_count: residual.map_or(0, |r| r.centroid_count),
                unused: 0,
            },
        }
    }

    /// Bytes on the device.
    pub(crate) fn bytes(&self) -> u64 {
        let residual = self
            .residual
            .as_ref()
            .map_or(0, |r| r.codes.bytes() + r.table_rows.bytes() + r.centroids.bytes() + r.weights.bytes());
        let optional = |buffer: Option<&Buffer>| buffer.map_or(0, Buffer::bytes);
        (self.rows.bytes()
            + self.offsets.bytes()
            + residual
            + optional(self.ids.as_ref())
            + optional(self.scales.as_deref())
            + optional(self.norms().as_deref())) as u64
    }
}

/// Values of a packed batch as `dtype`, back where its slots are; slots that do not count are 0.
pub(crate) fn scatter(
    packing: &Packing,
    packed: &[u8],
    stride: usize,
    dim: usize,
    slots: usize,
    dtype: DType,
) -> DataBuf {
    fn run<T: Element>(packing: &Packing, packed: &[u8], stride: usize, dim: usize, slots: usize) -> DataBuf {
        let mut out = vec![T::default(); slots * dim];
        let width = dim * size_of::<T>();
        for (slot, row) in packing.slots().zip(packed.chunks_exact(stride)) {
            bytemuck::cast_slice_mut(&mut out[slot * dim..(slot + 1) * dim]).copy_from_slice(&row[..width]);
        }
        T::buffer(out)
    }
    match dtype {
        DType::F16 => run::<maxsim_core::f16>(packing, packed, stride, dim, slots),
        DType::BF16 => run::<maxsim_core::bf16>(packing, packed, stride, dim, slots),
        _ => run::<f32>(packing, packed, stride, dim, slots),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_fit_into_f16() {
        for size in [1e-28f32, 1e-6, 0.1, 1.0, 1e7, 1e30] {
            let weights: Vec<f32> = [-0.11, -0.033, 0.0217, 0.0977].iter().map(|x| x * size).collect();
            let scale = weight_scale(&weights);
            let largest = weights.iter().fold(0f32, |most, x| most.max((x * scale).abs()));
            assert!((1.0..4.0).contains(&largest), "{largest}");
            for weight in &weights {
                let off = f16::from_f32(weight * scale).to_f32() / scale - weight;
                // A step of f16 at the largest is 2⁻¹⁰ of it.
                assert!(off.abs() < weights[0].abs() / 8192.0, "{weight} by {off}");
            }
        }
        assert_eq!(weight_scale(&[0.0, 0.0]), 1.0);
        assert_eq!(weight_scale(&[f32::INFINITY, f32::NAN]), 1.0);
        assert!(weight_scale(&[1e-40, f32::INFINITY]).is_finite());
    }
}
