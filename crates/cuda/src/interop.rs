//! Memory that a caller has on the device: operands and results stay there, and rows become what kernels want of them.

use std::marker::PhantomData;
use std::sync::Arc;

use maxsim_core::{
    BackendKind, DType, DataBuf, Documents, Error, Forward, Resident, ResidentMeta, Result, Tokens,
};

use crate::backend::{CudaBackend, open, zero_if_empty};
use crate::backward::{Differentiation, Winners};
use crate::config::{self, Kind, Stored};
use crate::context::Context;
use crate::forward::{Scoring, score};
use crate::memory::{Buffer, address};
use crate::operands::{Held, Packing, SLACK, bytes_of, stride};
use crate::params::{PutParams, TakeParams};

/// Memory of a backend's device, for those who have no other way to get some. Freed when dropped.
pub struct DeviceMemory(Buffer);

impl DeviceMemory {
    /// Address on the device (a `CUdeviceptr`).
    pub fn address(&self) -> u64 {
        self.0.address()
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// Copies `data` to its beginning, in the backend's queue.
    ///
    /// # Errors
    /// `ERR_SHAPE` for more than there is room for, and the driver's.
    pub fn write(&self, data: &[u8]) -> Result<()> {
        if data.len() > self.bytes() {
            let (room, got) = (format!("at most {} bytes", self.bytes()), format!("{} bytes", data.len()));
            return Err(Error::shape("data", room, got));
        }
        self.0.write(0, data)
    }

    /// What it holds once the backend's queue is done.
    ///
    /// # Errors
    /// The driver's.
    pub fn read(&self) -> Result<Vec<u8>> {
        let reading = self.0.read(self.bytes())?;
        reading.block()?;
        Ok(reading.bytes().to_vec())
    }
}

/// A row-major tensor in device memory that somebody else owns.
#[derive(Debug, Clone)]
pub struct DeviceTensor<'a> {
    address: u64,
    shape: Vec<usize>,
    dtype: DType,
    memory: PhantomData<&'a ()>,
}

/// Winners in device memory that somebody else owns: i32, laid out as [`Forward::empty_argmax`](maxsim_core::Forward::empty_argmax) has
/// them.
#[derive(Debug, Clone)]
pub struct DeviceWinners<'a> {
    address: u64,
    count: usize,
    memory: PhantomData<&'a ()>,
}

impl DeviceWinners<'_> {
    /// Address on the device.
    pub fn address(&self) -> u64 {
        self.address
    }

    fn check(&self, op: &Forward<'_>) -> Result<()> {
        match op.argmax_len() {
            expected if expected == self.count => Ok(()),
            expected => {
                let elements = |count: usize| format!("{count} elements");
                Err(Error::shape("winners", elements(expected), elements(self.count)))
            }
        }
    }
}

impl DeviceTensor<'_> {
    /// Address on the device.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Extents.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Zeros of this dtype, as many as there are elements: what [`Tokens`] are made of where the real ones are on the device. Never
    /// looked at, so that the system does not even make them.
    pub fn stand_in(&self) -> DataBuf {
        let n = self.elements();
        match self.dtype {
            DType::F32 => DataBuf::F32(vec![0.0; n]),
            DType::F16 => DataBuf::F16(bytemuck::zeroed_vec(n)),
            DType::BF16 => DataBuf::BF16(bytemuck::zeroed_vec(n)),
            DType::E4M3 => DataBuf::E4M3(bytemuck::zeroed_vec(n)),
            DType::I8 => DataBuf::I8(vec![0; n]),
        }
    }

    /// Refuses another than f32 with an element for every pair of `op`.
    fn check_scores(&self, argument: &'static str, op: &Forward<'_>) -> Result<()> {
        if self.dtype != DType::F32 {
            return Err(Error::dtype(argument, "f32", self.dtype.name()));
        }
        if self.elements() != op.pair_count() {
            let got = format!("{:?}", self.shape);
            return Err(Error::shape(argument, format!("{:?}", op.output_shape()), got));
        }
        Ok(())
    }

    /// Refuses another than `slots` rows of `dim` elements of `dtype`.
    fn check_gradient(&self, argument: &'static str, dtype: DType, slots: usize, dim: usize) -> Result<()> {
        if self.dtype != dtype {
            return Err(Error::dtype(argument, dtype.name(), self.dtype.name()));
        }
        if self.elements() != slots * dim || self.shape.last() != Some(&dim) {
            let expected = format!("{slots} rows of {dim} elements");
            return Err(Error::shape(argument, expected, format!("{:?}", self.shape)));
        }
        Ok(())
    }

    /// Refuses tokens of another shape or dtype than this tensor.
    fn check(&self, argument: &'static str, tokens: &Tokens<'_>) -> Result<()> {
        if tokens.dtype() != self.dtype {
            return Err(Error::dtype(argument, self.dtype.name(), tokens.dtype().name()));
        }
        if tokens.data().len() != self.elements() || self.shape.last() != Some(&tokens.dim()) {
            return Err(Error::shape(argument, format!("{:?}", self.shape), format!("{:?}", tokens.shape())));
        }
        Ok(())
    }
}

impl CudaBackend {
    /// Memory on the device, not initialised.
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY`.
    pub fn allocate(&self, bytes: usize) -> Result<DeviceMemory> {
        self.context.pool.buffer(bytes).map(DeviceMemory)
    }

    /// A tensor at `address` (a `CUdeviceptr`), row-major.
    ///
    /// # Safety
    /// The memory holds such a tensor for `'a`, is not written while calls that read it are under way, and neither read nor written
    /// while calls that write it are; [`wait_for_stream`](Self::wait_for_stream) orders them with streams.
    ///
    /// # Errors
    /// `ERR_VALUE` (argument `address`) for a null or misaligned address, memory of another device or the host, and an allocation
    /// that ends too early; `ERR_LIMIT` for a shape beyond all memory.
    pub unsafe fn borrow<'a>(&self, address: u64, shape: &[usize], dtype: DType) -> Result<DeviceTensor<'a>> {
        let bytes = shape.iter().try_fold(dtype.size(), |bytes, &extent| bytes.checked_mul(extent));
        let bytes = bytes.ok_or_else(|| Error::Limit {
            argument: "shape".into(),
            limit: format!("{} bytes", usize::MAX),
            got: format!("{shape:?} of {dtype}"),
        })?;
        self.check_memory(address, bytes, dtype.size())?;
        Ok(DeviceTensor { address, shape: shape.to_vec(), dtype, memory: PhantomData })
    }

    /// `count` winners at `address`, i32 each.
    ///
    /// # Safety
    /// As [`borrow`](Self::borrow).
    ///
    /// # Errors
    /// As [`borrow`](Self::borrow).
    pub unsafe fn borrow_winners<'a>(&self, address: u64, count: usize) -> Result<DeviceWinners<'a>> {
        let bytes = count.checked_mul(4).ok_or_else(|| Error::Limit {
            argument: "count".into(),
            limit: (usize::MAX / 4).to_string(),
            got: count.to_string(),
        })?;
        self.check_memory(address, bytes, 4)?;
        Ok(DeviceWinners { address, count, memory: PhantomData })
    }

    /// Refuses an address that has no such memory of this device.
    fn check_memory(&self, address: u64, bytes: usize, alignment: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        if address == 0 {
            return Err(Error::value("address", "device memory", "null"));
        }
        if !address.is_multiple_of(alignment as u64) {
            let expected = format!("a multiple of {alignment}, the bytes of an element");
            return Err(Error::value("address", expected, format!("{address:#x}")));
        }
        self.context.pool.device().check_memory("address", address, bytes)
    }

    /// Documents whose elements lie on the device. `documents` says how they are cut into sequences (over
    /// [`stand_in`](DeviceTensor::stand_in), say), with lengths, mask and scales; `normalized` that they have unit length.
    ///
    /// Rows that all count, a multiple of 16 bytes long and aligned to it, are used where they are; else they are copied.
    ///
    /// # Safety
    /// The memory stays as it is for as long as the result and its clones, or calls that use them, do.
    ///
    /// # Errors
    /// `ERR_DTYPE` and `ERR_SHAPE` where `documents` and `at` differ, and the device's.
    pub unsafe fn adopt(
        &self,
        documents: &Tokens<'_>,
        at: &DeviceTensor<'_>,
        normalized: bool,
    ) -> Result<Resident> {
        at.check("documents", documents)?;
        let packing = Packing::new(documents.sequences());
        let kind = Kind::from(documents.dtype());
        let taken = Taken { address: at.address, kind, dim: documents.dim(), packing: &packing };
        let (rows, stride) = taken.rows(&self.context, kind, false)?;
        let scales = documents.scales();
        let mut held = Held::rows_of(&self.context, packing, kind, documents.dim(), rows, stride, scales)?;
        held.normalized = normalized;
        let mut meta = ResidentMeta::of(&Documents::Tokens(documents.clone()), BackendKind::Cuda, normalized);
        meta.bytes = held.bytes();
        Ok(Resident::new(meta, held))
    }

    /// Scores of `op` into memory of the caller's, f32 and as many as `op` has pairs; returns as soon as the device has its work.
    ///
    /// `q`: where the elements of `op.q`, which then gives their layout alone, are on the device. `winners`: where winners go, which
    /// the option `argmax` asks for.
    ///
    /// # Errors
    /// Those of validation; `ERR_DTYPE` and `ERR_SHAPE` where `q`, `scores` or `winners` do not fit; `ERR_VALUE` for winners without
    /// the option, and the option without them; the device's.
    pub fn score_into(
        &self,
        op: &Forward<'_>,
        q: Option<&DeviceTensor<'_>>,
        scores: &mut DeviceTensor<'_>,
        winners: Option<&mut DeviceWinners<'_>>,
    ) -> Result<()> {
        op.validate()?;
        if let Some(q) = q {
            q.check("Q", &op.q)?;
        }
        scores.check_scores("scores", op)?;
        if op.options.argmax != winners.is_some() {
            let told = |argmax: bool| if argmax { "memory for them" } else { "none" };
            let expected = format!("{}, as the option argmax says", told(op.options.argmax));
            return Err(Error::value("winners", expected, told(winners.is_some())));
        }
        winners.as_ref().map_or(Ok(()), |winners| winners.check(op))?;
        let pool = &self.context.pool;
        // SAFETY: checked when the tensor was made; the rest is the promise its maker gave.
        let out = unsafe { pool.borrowed(scores.address, op.pair_count() * 4) };
        zero_if_empty(op, &out)?;
        let held = open(&self.context, &op.d)?;
        let scoring = Scoring { q_address: q.map(|q| q.address), ..Scoring::of(op, &held) };
        let ragged = (winners.is_some() && op.q.padded_len().is_none()).then(|| op.empty_argmax());
        // SAFETY: as above.
        let argmax = winners.map(|winners| unsafe { pool.borrowed(winners.address, winners.count * 4) });
        argmax.as_ref().map_or(Ok(()), |argmax| argmax.fill(0xff))?;
        let first = |pair: usize| match &ragged {
            Some(layout) => layout.range(pair).start,
            None => pair * op.q.padded_len().unwrap_or(0),
        };
        score(&self.context, &scoring, &out, argmax.as_ref().map(|a| (a, &first as &dyn Fn(usize) -> usize)))
    }

    /// Gradients of the scores of `op` into memory of the caller's, in the shapes and element types of the operands; returns as soon as
    /// the device has its work. Documents are those that [`adopt`](Self::adopt) took, say.
    ///
    /// `q`: where the elements of `op.q` are, as for [`score_into`](Self::score_into). `grad`: gradient of the loss with respect to the
    /// scores, f32 and as many as `op` has pairs. `winners`: what [`score_into`](Self::score_into) left there; found again if absent.
    /// A winner that is no token of its document counts as none. Tokens that do not count get zeros.
    ///
    /// # Errors
    /// Those of validation; `ERR_DTYPE` and `ERR_SHAPE` where memory does not fit or an operand has no gradient; the device's.
    pub fn backward_into(
        &self,
        op: &Forward<'_>,
        q: Option<&DeviceTensor<'_>>,
        grad: &DeviceTensor<'_>,
        winners: Option<&DeviceWinners<'_>>,
        into: GradientsInto<'_, '_>,
    ) -> Result<()> {
        op.validate()?;
        if let Some(q) = q {
            q.check("Q", &op.q)?;
        }
        grad.check_scores("grad", op)?;
        winners.map_or(Ok(()), |winners| winners.check(op))?;
        let floating = |argument: &'static str, dtype: DType| match dtype {
            DType::F32 | DType::F16 | DType::BF16 => Ok(()),
            _ => Err(Error::dtype(argument, "f32, f16 or bf16, which have gradients", dtype.name())),
        };
        floating("Q", op.q.dtype())?;
        let held = open(&self.context, &op.d)?;
        let d_slots = op.d.sequences().slots();
        if let Some(target) = &into.q {
            target.check_gradient("gradient of Q", op.q.dtype(), op.q.slots(), op.q.dim())?;
        }
        if let Some(target) = &into.d {
            let Stored::Vectors(_) = held.stored else {
                return Err(Error::value("gradient of D", "none for residual documents", "memory for it"));
            };
            floating("D", op.d.dtype())?;
            target.check_gradient("gradient of D", op.d.dtype(), d_slots, op.q.dim())?;
        }
        let context = &self.context;
        let task = Differentiation::new(context, op, &held, q.map(|q| q.address))?;
        let target = |tensor: Option<&mut DeviceTensor<'_>>, packing, stride: u32| {
            tensor.map(|tensor| GradientRows::new(context, tensor, packing, stride)).transpose()
        };
        let q_out = target(into.q, &task.queries.packing, task.queries.stride)?;
        let d_out = target(into.d, &held.packing, held.stride)?;
        if !task.has_winners() {
            return [&q_out, &d_out].into_iter().flatten().try_for_each(|out| out.tensor.fill(0));
        }
        // SAFETY: checked when the tensor was made; the rest is the promise its maker gave.
        let grad = unsafe { context.pool.borrowed(grad.address, op.pair_count() * 4) };
        let winners = winners.map_or(Winners::Computed, |winners| Winners::Device(winners.address));
        task.run(
            &winners,
            &grad,
            q_out.as_ref().map(GradientRows::rows),
            d_out.as_ref().map(GradientRows::rows),
        )?;
        [q_out, d_out].into_iter().flatten().try_for_each(|out| out.put(context))
    }

    /// Documents normalised if asked for and stored as `storage`, by the device.
    pub(crate) fn convert(
        &self,
        documents: &Tokens<'_>,
        normalize: bool,
        storage: DType,
    ) -> Result<Resident> {
        let context = &self.context;
        let (from, to) = (Kind::from(documents.dtype()), Kind::from(storage));
        let packing = Packing::new(documents.sequences());
        let (dim, count) = (documents.dim(), packing.rows() as usize);
        let (width, stride) = (dim * from.size() as usize, stride(dim * to.size() as usize));
        let rows = context.pool.buffer(count * stride)?;
        let scales = storage.is_quantized().then(|| context.pool.buffer((count + SLACK) * 4)).transpose()?;
        if let Some(scales) = &scales {
            scales.fill(0)?;
        }
        let data = packing.gather(bytes_of(documents.data()), width, width);
        let unit = config::take_rows(from, to, false, normalize);
        let warps = unit.constant("kThreads") as u32 / 32;
        let each = (PIECE / width).max(1);
        let piece = context.pool.buffer(count.min(each) * width)?;
        for (i, bytes) in data.chunks(each * width).enumerate() {
            piece.write(0, bytes)?;
            let (first, rows_here) = ((i * each) as u64, (bytes.len() / width) as u32);
            let params = TakeParams {
                from: piece.address(),
                to: rows.address() + first * stride as u64,
                scales: scales.as_ref().map_or(0, |scales| scales.address() + 4 * first),
                count: rows_here,
                dim: dim as u32,
                stride: stride as u32,
                ..TakeParams::default()
            };
            // SAFETY: a piece holds its rows, and there is room for all rows and their scales.
            unsafe { context.launch(&unit, [rows_here.div_ceil(warps), 1], 0, &params)? };
        }
        let mut held = Held::rows_of(context, packing, to, dim, rows, stride, None)?;
        held.scales = scales.map(Arc::new);
        held.normalized = normalize;
        let mut meta = ResidentMeta::of(&Documents::Tokens(documents.clone()), BackendKind::Cuda, normalize);
        meta.dtype = storage;
        meta.token_bytes = dim * storage.size();
        meta.bytes = held.bytes();
        Ok(Resident::new(meta, held))
    }
}

/// Where [`CudaBackend::backward_into`] puts gradients; `None`: not wanted.
#[derive(Debug, Default)]
pub struct GradientsInto<'a, 'm> {
    /// With respect to `Q`: its shape and dtype.
    pub q: Option<&'a mut DeviceTensor<'m>>,
    /// With respect to `D`: its shape and dtype.
    pub d: Option<&'a mut DeviceTensor<'m>>,
}

/// Gradient rows on their way into a tensor.
struct GradientRows {
    tensor: Buffer,
    width: usize,
    stride: u32,
    count: u32,
    /// Where kernels put rows, and the slots they go to then, if the tensor itself is not laid out like that.
    apart: Option<(Buffer, Option<Buffer>)>,
}

impl GradientRows {
    fn new(context: &Context, to: &DeviceTensor<'_>, packing: &Packing, stride: u32) -> Result<Self> {
        let pool = &context.pool;
        let width = to.shape.last().map_or(0, |dim| dim * to.dtype.size());
        let count = packing.rows();
        // SAFETY: checked when the tensor was made; the rest is the promise its maker gave.
        let tensor = unsafe { pool.borrowed(to.address, to.elements() * to.dtype.size()) };
        let whole = tensor.bytes() == count as usize * width;
        let apart = if whole && width == stride as usize && to.address.is_multiple_of(16) {
            None
        } else {
            let slots = (!packing.is_dense()).then(|| slots_of(context, packing)).transpose()?;
            Some((pool.buffer(count as usize * stride as usize)?, slots))
        };
        Ok(Self { tensor, width, stride, count, apart })
    }

    fn rows(&self) -> &Buffer {
        self.apart.as_ref().map_or(&self.tensor, |apart| &apart.0)
    }

    /// Brings rows to their slots; slots that do not count become 0.
    fn put(&self, context: &Context) -> Result<()> {
        let Some((rows, slots)) = &self.apart else { return Ok(()) };
        if self.tensor.bytes() > self.count as usize * self.width {
            self.tensor.fill(0)?;
        }
        let params = PutParams {
            from: rows.address(),
            slots: address(slots.as_ref()),
            to: self.tensor.address(),
            count: self.count,
            width: self.width as u32,
            stride: self.stride,
            unused: 0,
        };
        let unit = config::put_rows();
        let warps = unit.constant("kThreads") as u32 / 32;
        // SAFETY: slots are those of the tensor, whose size was checked.
        unsafe { context.launch(&unit, [self.count.div_ceil(warps), 1], 0, &params) }
    }
}

/// Slots of packed rows, on the device.
fn slots_of(context: &Context, packing: &Packing) -> Result<Buffer> {
    let slots: Vec<u32> = packing.slots().map(|slot| slot as u32).collect();
    context.pool.upload(&slots)
}

/// Bytes of documents that are converted at a time.
const PIECE: usize = 256 << 20;

/// Rows of somebody else's memory.
pub(crate) struct Taken<'a> {
    pub(crate) address: u64,
    pub(crate) kind: Kind,
    pub(crate) dim: usize,
    pub(crate) packing: &'a Packing,
}

impl Taken<'_> {
    /// The rows that count as `kind`, in the order of fragments if `permuted`, and the bytes from row to row: the memory itself
    /// where it is like that.
    pub(crate) fn rows(&self, context: &Context, kind: Kind, permuted: bool) -> Result<(Buffer, usize)> {
        let count = self.packing.rows();
        let width = if permuted { self.dim.next_multiple_of(16) } else { self.dim } * kind.size() as usize;
        let stride = stride(width);
        let as_they_are = self.kind == kind && !permuted && self.packing.is_dense();
        if as_they_are && width == stride && self.address.is_multiple_of(16) && count > 0 {
            // SAFETY: the tensor was checked to be there when it was made, and holds every slot.
            return Ok((unsafe { context.pool.borrowed(self.address, count as usize * stride) }, stride));
        }
        let rows = context.pool.buffer(count as usize * stride)?;
        let slots = (!self.packing.is_dense()).then(|| slots_of(context, self.packing)).transpose()?;
        let unit = config::take_rows(self.kind, kind, permuted, false);
        let warps = unit.constant("kThreads") as u32 / 32;
        let params = TakeParams {
            from: self.address,
            slots: address(slots.as_ref()),
            to: rows.address(),
            count,
            dim: self.dim as u32,
            stride: stride as u32,
            ..TakeParams::default()
        };
        // SAFETY: slots are those of the tensor, and there is room for all rows.
        unsafe { context.launch(&unit, [count.div_ceil(warps), 1], 0, &params)? };
        Ok((rows, stride))
    }
}
