//! Token batches as they lie on the device.
//!
//! Rows of tokens that count lie behind one another, padded with zeros to 16 bytes; what lengths and masks leave out is not
//! uploaded. A sequence is one or more *segments*: runs of at most [`SEGMENT`] rows within one *shard*, a set of buffers that
//! fits the device's bindings.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use maxsim_core::{DType, DataRef, Error, Result, Scales, Sequences, Tokens, dispatch};
use maxsim_shaders::kernels;

use crate::device::Gpu;
use crate::memory::Buffer;
use crate::plan::{Caps, stored};
use crate::residual::HeldCodec;
use crate::submit::Batch;

/// Rows of a segment at most: longer documents are shared out among workgroups.
pub(crate) const SEGMENT: u32 = 2048;

/// Bytes that rows are gathered in before they are handed to the device.
const STAGE: usize = 4 << 20;

/// Rows that count, and where they are in the caller's memory.
#[derive(Debug, Clone)]
pub(crate) struct Compact {
    /// First row of every sequence, and the end.
    pub(crate) offsets: Vec<u32>,
    /// Runs of the caller's rows: first row, rows.
    runs: Vec<(u32, u32)>,
    /// Slot of every row within its sequence, where a mask leaves some out.
    pub(crate) slots: Option<Vec<u32>>,
}

impl Compact {
    pub(crate) fn of(sequences: &Sequences<'_>) -> Self {
        let count = sequences.count();
        let mut offsets = Vec::with_capacity(count + 1);
        let mut runs: Vec<(u32, u32)> = Vec::new();
        let mut slots = sequences.mask().map(|_| Vec::new());
        let mut total = 0u32;
        let mut add = |first: usize, rows: usize| match runs.last_mut() {
            Some((start, length)) if (*start + *length) as usize == first => *length += rows as u32,
            _ if rows == 0 => {}
            _ => runs.push((first as u32, rows as u32)),
        };
        offsets.push(0);
        for i in 0..count {
            let rows = sequences.rows(i);
            match &mut slots {
                None => {
                    add(rows.start, rows.len());
                    total += rows.len() as u32;
                }
                Some(slots) => {
                    for row in rows.clone().filter(|&row| sequences.keeps(row)) {
                        add(row, 1);
                        slots.push((row - rows.start) as u32);
                        total += 1;
                    }
                }
            }
            offsets.push(total);
        }
        Self { offsets, runs, slots }
    }

    /// Sequences behind one another, whose rows all count.
    pub(crate) fn packed(offsets: Vec<u32>) -> Self {
        let rows = offsets[offsets.len() - 1];
        Self { offsets, runs: vec![(0, rows)], slots: None }
    }

    /// Rows of all sequences.
    pub(crate) fn rows(&self) -> usize {
        self.offsets[self.offsets.len() - 1] as usize
    }

    /// The caller's row of every row of ours.
    pub(crate) fn callers(&self) -> impl Iterator<Item = u32> + '_ {
        self.runs.iter().flat_map(|&(first, rows)| first..first + rows)
    }

    /// Calls `each` with the runs of the caller's rows that `range` of ours lies in.
    pub(crate) fn each_run(&self, range: Range<usize>, mut each: impl FnMut(Range<usize>)) {
        let mut at = 0;
        for &(first, rows) in &self.runs {
            let (start, end) = (range.start.max(at), range.end.min(at + rows as usize));
            if start < end {
                let shift = first as usize;
                each(start - at + shift..end - at + shift);
            }
            at += rows as usize;
        }
    }
}

/// Bytes of a row on the device: a multiple of `unit`.
pub(crate) fn row_bytes(dtype: DType, dim: usize, unit: usize) -> usize {
    (dim * dtype.size()).next_multiple_of(unit)
}

/// Bytes on their way to a buffer, handed over a few megabytes at a time.
pub(crate) struct Stage<'a> {
    gpu: &'a Gpu,
    to: &'a Buffer,
    written: u64,
    bytes: Vec<u8>,
}

impl<'a> Stage<'a> {
    pub(crate) fn new(gpu: &'a Gpu, to: &'a Buffer) -> Self {
        Self { gpu, to, written: 0, bytes: Vec::new() }
    }

    /// Appends what `fill` adds.
    pub(crate) fn push(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        fill(&mut self.bytes);
        if self.bytes.len() >= STAGE {
            self.flush();
        }
    }

    /// Appends bytes as they lie in memory; their number is a multiple of 4.
    fn whole(&mut self, bytes: &[u8]) {
        self.flush();
        self.gpu.queue.write_buffer(self.to.raw(), self.written, bytes);
        self.written += bytes.len() as u64;
    }

    /// Hands over what there is, a multiple of 4 bytes.
    pub(crate) fn flush(&mut self) {
        if !self.bytes.is_empty() {
            self.gpu.queue.write_buffer(self.to.raw(), self.written, &self.bytes);
            self.written += self.bytes.len() as u64;
            self.bytes.clear();
        }
    }
}

/// Copies rows `range` of `compact` to `to`, `stride` bytes each.
pub(crate) fn write_rows(
    gpu: &Gpu,
    data: DataRef<'_>,
    dim: usize,
    compact: &Compact,
    range: Range<usize>,
    stride: usize,
    to: &Buffer,
) {
    let width = dim * data.dtype().size();
    let bytes: &[u8] = dispatch!(DataRef, data, |s| bytemuck::cast_slice(s));
    let mut stage = Stage::new(gpu, to);
    compact.each_run(range, |rows| {
        if stride == width && rows.len() * width >= STAGE / 4 {
            stage.whole(&bytes[rows.start * width..rows.end * width]);
            return;
        }
        for row in rows {
            stage.push(|staged| {
                staged.extend_from_slice(&bytes[row * width..(row + 1) * width]);
                staged.resize(staged.len() + stride - width, 0);
            });
        }
    });
    stage.flush();
}

/// Scales of rows `range`, one each.
fn scales_of(scales: Option<Scales<'_>>, compact: &Compact, range: Range<usize>) -> Option<Vec<f32>> {
    let mut out = Vec::with_capacity(range.len());
    match scales? {
        Scales::PerTensor(scale) => out.resize(range.len(), scale),
        Scales::PerToken(scales) => compact.each_run(range, |rows| out.extend_from_slice(&scales[rows])),
    }
    Some(out)
}

/// Buffers with some rows of a batch.
pub(crate) struct Shard {
    /// Stored rows.
    pub(crate) rows: Buffer,
    /// Segments (first row, rows, sequence, slot of the first row), then slots of rows if a mask was given.
    pub(crate) meta: Buffer,
    /// Where `meta` holds the slots, or 0.
    pub(crate) slots_at: u32,
    /// Rows it holds.
    pub(crate) count: u32,
    /// First of its segments among those of the batch.
    pub(crate) first_segment: usize,
    scales: Option<Buffer>,
    /// Factors that normalise, once they were asked for. Residual rows hold their own: then the codec stands here.
    pub(crate) norms: Mutex<Option<Buffer>>,
}

/// A batch of documents on the device.
pub(crate) struct Held {
    pub(crate) shards: Vec<Shard>,
    pub(crate) dtype: DType,
    /// 16-byte vectors per row.
    pub(crate) stride: u32,
    /// Centroids and weights of residual documents, whose `stride` is that of their decoded rows.
    pub(crate) codec: Option<HeldCodec>,
    /// First segment of every document and the end; `None`: segment `j` is document `j`.
    first: Option<Vec<u32>>,
    pub(crate) count: usize,
    pub(crate) bytes: u64,
}

impl Held {
    /// Uploads `tokens`; `resident` for documents that stay.
    pub(crate) fn upload(gpu: &Gpu, tokens: &Tokens<'_>, resident: bool) -> Result<Self> {
        Self::upload_compact(gpu, tokens, &Compact::of(tokens.sequences()), resident, 0)
    }

    /// The same for rows that are known already, in shards that fit a binding with `widest` bytes per row, too.
    pub(crate) fn upload_compact(
        gpu: &Gpu,
        tokens: &Tokens<'_>,
        compact: &Compact,
        resident: bool,
        widest: usize,
    ) -> Result<Self> {
        let stride = row_bytes(tokens.dtype(), tokens.dim(), gpu.caps.row_unit(tokens.dtype()));
        let rows = Rows { compact, stride, widest, resident, longest: SEGMENT };
        let held = Self::shared_out(gpu, &rows, |range, to| {
            write_rows(gpu, tokens.data(), tokens.dim(), compact, range.clone(), stride, to);
            let scales = scales_of(tokens.scales(), compact, range);
            let Some(scales) = scales else { return Ok(None) };
            let buffer = if resident {
                gpu.resident(4 * scales.len() as u64)?
            } else {
                gpu.scratch(4 * scales.len() as u64)?
            };
            gpu.queue.write_buffer(buffer.raw(), 0, bytemuck::cast_slice(&scales));
            Ok(Some(buffer))
        })?;
        Ok(Self { dtype: tokens.dtype(), stride: stride as u32 / 16, ..held })
    }

    /// Uploads what `write` puts into the buffers of rows; it returns their scales. Type and stride are the caller's to set.
    pub(crate) fn shared_out(
        gpu: &Gpu,
        rows: &Rows<'_>,
        mut write: impl FnMut(Range<usize>, &Buffer) -> Result<Option<Buffer>>,
    ) -> Result<Self> {
        let Rows { compact, stride, widest, resident, longest } = *rows;
        // Slots and factors are smaller than rows; so are segments, unless documents are empty.
        let padding = gpu.caps.padding();
        let most_rows =
            (gpu.caps.max_binding / stride.max(widest).max(32) as u64).saturating_sub(padding as u64);
        let most_segments = gpu.caps.max_binding / 32;
        if most_rows == 0 || most_segments == 0 {
            return Err(Error::Limit {
                argument: "D".into(),
                limit: format!("{} bytes per token on this device", gpu.caps.max_binding),
                got: stride.to_string(),
            });
        }
        let most_rows = most_rows.min(u64::from(u32::MAX / 2)) as u32;
        let mut layout = Layout::new(most_rows, most_segments as usize, longest);
        for (j, ends) in compact.offsets.windows(2).enumerate() {
            layout.add(j as u32, ends[1] - ends[0]);
        }
        let Layout { shards: parts, first, single, .. } = layout;
        let alloc =
            |bytes: usize| if resident { gpu.resident(bytes as u64) } else { gpu.scratch(bytes as u64) };
        let with = |bytes: &[u8]| {
            let buffer = alloc(bytes.len())?;
            gpu.queue.write_buffer(buffer.raw(), 0, bytes);
            Ok::<_, Error>(buffer)
        };
        let mut shards = Vec::with_capacity(parts.len());
        let (mut first_row, mut first_segment, mut bytes) = (0usize, 0usize, 0u64);
        for part in parts {
            let range = first_row..first_row + part.rows as usize;
            let mut meta = part.segments;
            let segments = meta.len() / 4;
            let mut slots_at = 0;
            if let Some(slots) = &compact.slots {
                slots_at = meta.len() as u32;
                meta.extend_from_slice(&slots[range.clone()]);
            }
            let rows = alloc(stride * (range.len() + padding))?;
            let scales = write(range.clone(), &rows)?;
            let meta = with(bytemuck::cast_slice(&meta))?;
            bytes += [Some(&rows), Some(&meta), scales.as_ref()]
                .into_iter()
                .flatten()
                .map(|b| b.raw().size())
                .sum::<u64>();
            let norms = Mutex::default();
            shards.push(Shard { rows, meta, slots_at, count: part.rows, first_segment, scales, norms });
            first_row = range.end;
            first_segment += segments;
        }
        Ok(Self {
            shards,
            dtype: DType::F32,
            stride: 0,
            codec: None,
            first: (!single).then_some(first),
            count: compact.offsets.len() - 1,
            bytes,
        })
    }

    /// Centroids and weights of residual documents. Asked for here, so that what is done with them is left out where there are none.
    pub(crate) fn codec(&self) -> Option<&HeldCodec> {
        if cfg!(feature = "residual") { self.codec.as_ref() } else { None }
    }

    /// Whether every document is one segment.
    pub(crate) fn single(&self) -> bool {
        self.first.is_none()
    }

    /// Segments of documents `range`.
    pub(crate) fn segments(&self, range: Range<usize>) -> Range<usize> {
        match &self.first {
            None => range,
            Some(first) => first[range.start] as usize..first[range.end] as usize,
        }
    }

    /// The parts of `segments` by shard: shard, segments within it.
    pub(crate) fn by_shard(&self, segments: Range<usize>) -> impl Iterator<Item = (&Shard, Range<usize>)> {
        let total = self.segments(0..self.count).end;
        let ends = self.shards.iter().skip(1).map(|s| s.first_segment).chain([total]);
        self.shards.iter().zip(ends).filter_map(move |(shard, end)| {
            let (start, end) = (segments.start.max(shard.first_segment), segments.end.min(end));
            (start < end).then(|| (shard, start - shard.first_segment..end - shard.first_segment))
        })
    }
}

/// How rows are shared out among buffers.
pub(crate) struct Rows<'a> {
    pub(crate) compact: &'a Compact,
    /// Bytes of a row.
    pub(crate) stride: usize,
    /// Bytes per row of the largest other buffer that goes with them.
    pub(crate) widest: usize,
    /// Whether they stay after the call.
    pub(crate) resident: bool,
    /// Rows of a segment at most.
    pub(crate) longest: u32,
}

impl Held {
    /// The same documents with f32 rows of `stride` 16-byte vectors, those that `rows` makes of every shard's.
    pub(crate) fn replaced(
        self,
        stride: u32,
        mut rows: impl FnMut(&Shard, &Self) -> Result<Buffer>,
    ) -> Result<Self> {
        let made = self.shards.iter().map(|shard| rows(shard, &self)).collect::<Result<Vec<_>>>()?;
        let replace =
            |(shard, rows): (Shard, Buffer)| Shard { rows, scales: None, norms: Mutex::default(), ..shard };
        let shards = self.shards.into_iter().zip(made).map(replace).collect();
        Ok(Self { shards, dtype: DType::F32, stride, codec: None, ..self })
    }
}

/// f32 rows of `wide_stride` vectors (WIDEN), or factors that normalise rows: one run of the kernel `rows`.
pub(crate) fn prepare(
    batch: &mut Batch,
    dtype: DType,
    stored_rows: &Buffer,
    params: &RowsParams,
    to: &Buffer,
    norm: bool,
) -> Result<()> {
    let (scales, unused) = (batch.gpu().scratch(0)?, batch.gpu().scratch(0)?);
    let (wide, factors) = if norm { (&unused, to) } else { (to, &unused) };
    let buffers = [stored_rows, &scales, wide, factors];
    batch.dispatch(
        &kernels::rows(stored(dtype), !norm, norm),
        params,
        &buffers,
        row_groups(params.rows as usize),
    )
}

/// Rows of one shard, before they are uploaded.
#[derive(Default)]
struct Part {
    rows: u32,
    segments: Vec<u32>,
}

/// Shares sequences out among shards.
struct Layout {
    most_rows: u32,
    most_segments: usize,
    longest: u32,
    shards: Vec<Part>,
    /// First segment of every sequence, and the end.
    first: Vec<u32>,
    single: bool,
    segments: u32,
}

impl Layout {
    fn new(most_rows: u32, most_segments: usize, longest: u32) -> Self {
        Self {
            most_rows,
            most_segments,
            longest,
            shards: vec![Part::default()],
            first: vec![0],
            single: true,
            segments: 0,
        }
    }

    fn add(&mut self, sequence: u32, rows: u32) {
        let mut done = 0;
        loop {
            let here = self.shards.last().expect("never empty");
            let room = self.most_rows - here.rows;
            // A sequence that fits a shard is not torn apart.
            let torn = room < rows - done && rows - done <= self.most_rows && here.rows > 0;
            if room == 0 || torn || here.segments.len() / 4 == self.most_segments {
                self.shards.push(Part::default());
                continue;
            }
            let part = self.shards.last_mut().expect("never empty");
            let take = (rows - done).min(self.longest).min(room);
            part.segments.extend([part.rows, take, sequence, done]);
            part.rows += take;
            self.segments += 1;
            done += take;
            if done == rows {
                break;
            }
            self.single = false;
        }
        self.first.push(self.segments);
    }
}

/// Parameters of the kernel `rows`.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct RowsParams {
    pub(crate) rows: u32,
    pub(crate) stride: u32,
    pub(crate) wide_stride: u32,
    pub(crate) scaled: u32,
}

/// Workgroups of the kernels `rows` and `residual_norms`, which take eight rows each.
pub(crate) fn row_groups(rows: usize) -> usize {
    rows.div_ceil(8)
}

impl Shard {
    /// Factors of this shard's rows: scales, and norms if `normalize`.
    pub(crate) fn factors(&self, gpu: &Arc<Gpu>, held: &Held, normalize: bool) -> Result<Option<Buffer>> {
        if !normalize || self.count == 0 {
            return Ok(self.scales.clone());
        }
        // Held until the dispatch is submitted, so that nobody's work comes before it.
        let mut norms = self.norms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(norms) = &*norms {
            return Ok(Some(norms.clone()));
        }
        if let Some(codec) = held.codec() {
            crate::residual::norms(gpu, &codec.buffer, self)?;
            *norms = Some(codec.buffer.clone());
            return Ok(Some(codec.buffer.clone()));
        }
        let factors = gpu.resident(4 * u64::from(self.count))?;
        let mut batch = Batch::new(gpu);
        let params = RowsParams {
            rows: self.count,
            stride: held.stride,
            wide_stride: 0,
            scaled: self.scales.is_some().into(),
        };
        let nothing = gpu.scratch(0)?;
        let scales = self.scales.as_ref().unwrap_or(&nothing);
        let unused = gpu.scratch(0)?;
        let variant = kernels::rows(stored(held.dtype), false, true);
        batch.dispatch(
            &variant,
            &params,
            &[&self.rows, scales, &unused, &factors],
            row_groups(self.count as usize),
        )?;
        batch.submit()?;
        *norms = Some(factors.clone());
        Ok(Some(factors))
    }
}

/// Queries on the device: f32 rows, or rows as they were stored for kernels that take those.
pub(crate) struct Queries {
    pub(crate) compact: Compact,
    pub(crate) rows: Buffer,
    /// Scales or norms.
    pub(crate) factors: Option<Buffer>,
    /// 16-byte vectors per row.
    pub(crate) stride: u32,
}

/// Bytes of a query row on the device: as it is `stored`, or f32 in whole chunks of every element type.
pub(crate) fn query_row_bytes(caps: &Caps, dtype: DType, dim: usize, stored: bool) -> usize {
    if stored { row_bytes(dtype, dim, caps.row_unit(dtype)) } else { row_bytes(DType::F32, dim, 64) }
}

impl Queries {
    /// Uploads `tokens`, whose rows fit a binding, and records in `batch` what prepares them.
    pub(crate) fn upload(
        batch: &mut Batch,
        tokens: &Tokens<'_>,
        as_stored: bool,
        normalize: bool,
    ) -> Result<Self> {
        let gpu = &batch.gpu().clone();
        let compact = Compact::of(tokens.sequences());
        let (count, dtype, dim) = (compact.rows(), tokens.dtype(), tokens.dim());
        let wide = query_row_bytes(&gpu.caps, dtype, dim, as_stored);
        let widen = dtype != DType::F32 && !as_stored;
        let stored_stride = if widen { row_bytes(dtype, dim, 16) } else { wide };
        let stored_rows = gpu.scratch((stored_stride * (count + gpu.caps.padding())) as u64)?;
        write_rows(gpu, tokens.data(), dim, &compact, 0..count, stored_stride, &stored_rows);
        let scales = scales_of(tokens.scales(), &compact, 0..count);
        let scales = scales.map(|scales| gpu.scratch_with(bytemuck::cast_slice(&scales))).transpose()?;
        let mut queries =
            Self { compact, rows: stored_rows.clone(), factors: scales.clone(), stride: wide as u32 / 16 };
        if count == 0 || !(widen || normalize) {
            return Ok(queries);
        }
        let nothing = gpu.scratch(0)?;
        let unused = gpu.scratch(0)?;
        if widen {
            queries.rows = gpu.scratch((wide * count) as u64)?;
        }
        if normalize {
            queries.factors = Some(gpu.scratch(4 * count as u64)?);
        }
        let params = RowsParams {
            rows: count as u32,
            stride: stored_stride as u32 / 16,
            wide_stride: wide as u32 / 16,
            scaled: scales.is_some().into(),
        };
        let wide_rows = if widen { &queries.rows } else { &unused };
        let factors = queries.factors.as_ref().filter(|_| normalize);
        let spare = gpu.scratch(0)?;
        let buffers =
            [&stored_rows, scales.as_ref().unwrap_or(&nothing), wide_rows, factors.unwrap_or(&spare)];
        batch.dispatch(
            &kernels::rows(stored(dtype), widen, normalize),
            &params,
            &buffers,
            row_groups(count),
        )?;
        Ok(queries)
    }
}
