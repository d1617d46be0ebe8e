//! A GPU, through the CUDA driver.

use std::any::Any;
use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};
use cudarc::driver::{DriverError, result as cu};
use maxsim_core::{Error, Result};

use crate::arch::{Arch, Path};
use crate::device::{
    Caps, Device, Function, Launch, Mark, Pending, Reading, Repeatable, Step, TensorMap, Unit,
};
use crate::jit::{Compiler, cache_folder};
use crate::tuning::Table;

/// A GPU's primary context and one stream of it.
pub(crate) struct Driver {
    caps: Caps,
    queue: Arc<Queue>,
    compiler: Compiler,
    staging: Mutex<Option<Staging>>,
}

/// The stream, the context it belongs to, and pinned memory for results.
struct Queue {
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    /// Pinned memory that is not in use, as (address, bytes): making it takes longer than most searches.
    pinned: Mutex<Vec<(usize, usize)>>,
    /// Events that are not in use.
    events: Mutex<Vec<usize>>,
}

/// Pieces of pinned memory kept, and how large they may be.
const PINNED: usize = 8;
const PINNED_BYTES: usize = 64 << 20;
/// Events kept.
const EVENTS: usize = 32;

// SAFETY: driver handles may be used from any thread; every use makes the context current first.
unsafe impl Send for Queue {}
// SAFETY: the driver synchronises calls on one stream.
unsafe impl Sync for Queue {}

impl Queue {
    /// Makes the context current on this thread.
    fn enter(&self) -> Result<()> {
        // SAFETY: the context is alive as long as this is.
        unsafe { cu::ctx::set_current(self.context) }.map_err(|e| failed("the CUDA context", e))
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: made in `Driver::new`, destroyed once, when nothing uses them any more.
        unsafe {
            let _ = cu::ctx::set_current(self.context);
            let _ = cu::stream::synchronize(self.stream);
            let _ = cu::stream::destroy(self.stream);
            for (pointer, _) in self.pinned.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
                let _ = cu::free_host(pointer as *mut c_void);
            }
            for event in self.events.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
                let _ = cu::event::destroy(event as sys::CUevent);
            }
            let _ = cu::primary_ctx::release(self.device);
        }
    }
}

/// What the driver answered, as an error of ours.
fn failed(what: &str, error: DriverError) -> Error {
    use sys::cudaError_enum as Code;
    let reason = || match (error.error_name(), error.error_string()) {
        (Ok(name), Ok(text)) => format!("{what}: {} ({})", name.to_string_lossy(), text.to_string_lossy()),
        _ => format!("{what}: {error:?}"),
    };
    match error.0 {
        Code::CUDA_ERROR_OUT_OF_MEMORY => Error::OutOfMemory { requested: 0 },
        Code::CUDA_ERROR_NO_DEVICE => {
            Error::Unsupported { what: "CUDA".into(), hint: "the driver sees no GPU".into() }
        }
        Code::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH
        | Code::CUDA_ERROR_INVALID_DEVICE
        | Code::CUDA_ERROR_NOT_SUPPORTED => {
            Error::Unsupported { what: reason(), hint: "use another backend".into() }
        }
        Code::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
        | Code::CUDA_ERROR_NO_BINARY_FOR_GPU
        | Code::CUDA_ERROR_INVALID_PTX
        | Code::CUDA_ERROR_INVALID_IMAGE => Error::Unsupported {
            what: reason(),
            hint: "the driver is older than the compiler: update the driver (580 or newer for NVRTC 13.0)"
                .into(),
        },
        // What is left has spoilt the context (illegal address, launch failure, ECC) or was not to happen.
        _ => Error::DeviceLost { reason: reason() },
    }
}

/// Makes sure that the driver's library is there: cudarc panics where it is not.
fn driver_present() -> Result<()> {
    // SAFETY: only looks for the library.
    if unsafe { sys::is_culib_present() } {
        return Ok(());
    }
    Err(Error::Unsupported {
        what: "backend cuda without the NVIDIA driver (libcuda)".into(),
        hint: "install the driver, or use another backend".into(),
    })
}

/// GPUs the driver sees.
pub(crate) fn count() -> Result<usize> {
    driver_present()?;
    cu::init().map_err(|e| failed("cuInit", e))?;
    cu::device::get_count().map(|n| n as usize).map_err(|e| failed("cuDeviceGetCount", e))
}

impl Driver {
    /// Sets up GPU `ordinal` with the best kernels for it, or those of `path`, and its own table or `tuning`.
    pub(crate) fn new(ordinal: usize, path: Option<Path>, tuning: Option<Table>) -> Result<Self> {
        let count = count()?;
        if ordinal >= count {
            return Err(Error::value("device", format!("below {count} GPUs"), ordinal.to_string()));
        }
        let prebuilt = std::env::var_os("MAXSIM_CUDA_KERNELS").filter(|folder| !folder.is_empty());
        let compiler = Compiler::new(cache_folder(), prebuilt.map(Into::into))?;
        let wrong = |e| failed("setting up the GPU", e);
        let device = cu::device::get(ordinal as i32).map_err(wrong)?;
        // SAFETY: `device` is one of the driver's.
        let attribute = |which| unsafe { cu::device::get_attribute(device, which) }.map_err(wrong);
        let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)? as u32;
        let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)? as u32;
        let caps = Caps {
            name: cu::device::get_name(device).map_err(wrong)?,
            arch: Arch::choose(major, minor, path)?,
            processors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as u32,
            shared_block: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as u32,
            shared_processor: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR)?
                as u32,
            // SAFETY: as above.
            memory: unsafe { cu::device::total_mem(device) }.map_err(wrong)? as u64,
            tuning: Arc::default(),
        };
        let tuning = match tuning {
            Some(table) => table,
            None => Table::for_device(&caps.name)?,
        };
        let caps = Caps { tuning: Arc::new(tuning), ..caps };
        // SAFETY: as above; what is made is destroyed with the queue.
        let queue = unsafe {
            let context = cu::primary_ctx::retain(device).map_err(wrong)?;
            cu::ctx::set_current(context).map_err(wrong)?;
            let stream = match cu::stream::create(cu::stream::StreamKind::NonBlocking) {
                Ok(stream) => stream,
                Err(error) => {
                    let _ = cu::primary_ctx::release(device);
                    return Err(wrong(error));
                }
            };
            Arc::new(Queue { device, context, stream, pinned: Mutex::default(), events: Mutex::default() })
        };
        Ok(Self { caps, queue, compiler, staging: Mutex::new(None) })
    }
}

/// Pinned memory that uploads go through, in two halves: one is filled while the other is on its way.
struct Staging {
    halves: [Pinned; 2],
    sent: [Event; 2],
    next: usize,
}

/// Bytes of a half.
const HALF: usize = 16 << 20;
/// How long the GPU works before anything is timed.
const WARM_UP: std::time::Duration = std::time::Duration::from_millis(100);
/// Bytes written to flush the second-level cache.
const FLUSH: usize = 256 << 20;
/// Uploads up to this size are copied by the driver itself before its call returns.
const SMALL: usize = 64 << 10;

/// Page-locked host memory.
struct Pinned {
    queue: Arc<Queue>,
    pointer: *mut u8,
    bytes: usize,
}

// SAFETY: plain memory with one owner.
unsafe impl Send for Pinned {}
// SAFETY: shared references only read.
unsafe impl Sync for Pinned {}

impl Pinned {
    fn new(queue: &Arc<Queue>, bytes: usize) -> Result<Self> {
        // Powers of two, so that what one result leaves fits the next.
        let bytes = bytes.next_power_of_two().max(4 << 10);
        {
            let mut kept = queue.pinned.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(at) = kept.iter().position(|&(_, size)| size == bytes) {
                let (pointer, _) = kept.swap_remove(at);
                return Ok(Self { queue: queue.clone(), pointer: pointer as *mut u8, bytes });
            }
        }
        // SAFETY: freed once, in `drop`.
        let pointer = unsafe { cu::malloc_host(bytes, 0) }.map_err(|e| match failed("pinned memory", e) {
            Error::OutOfMemory { .. } => Error::OutOfMemory { requested: bytes as u64 },
            other => other,
        })?;
        Ok(Self { queue: queue.clone(), pointer: pointer.cast(), bytes })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut kept = self.queue.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < PINNED && self.bytes <= PINNED_BYTES {
            kept.push((self.pointer as usize, self.bytes));
            return;
        }
        drop(kept);
        let _ = self.queue.enter();
        // SAFETY: from `malloc_host`.
        let _ = unsafe { cu::free_host(self.pointer.cast()) };
    }
}

struct Event {
    queue: Arc<Queue>,
    event: sys::CUevent,
}

// SAFETY: driver handles may be used from any thread.
unsafe impl Send for Event {}
// SAFETY: querying an event does not change it.
unsafe impl Sync for Event {}

impl Event {
    fn new(queue: &Arc<Queue>) -> Result<Self> {
        let kept = queue.events.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let event = match kept {
            Some(event) => event as sys::CUevent,
            None => cu::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)
                .map_err(|e| failed("an event", e))?,
        };
        Ok(Self { queue: queue.clone(), event })
    }

    fn record(&self) -> Result<()> {
        self.record_in(self.queue.stream)
    }

    fn record_in(&self, stream: sys::CUstream) -> Result<()> {
        // SAFETY: both are alive.
        unsafe { cu::event::record(self.event, stream) }.map_err(|e| failed("an event", e))
    }

    fn delay(&self, stream: sys::CUstream) -> Result<()> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: both are alive.
        unsafe { cu::stream::wait_event(stream, self.event, flags) }.map_err(|e| failed("an event", e))
    }

    fn block(&self) -> Result<()> {
        self.queue.enter()?;
        // SAFETY: the event is alive.
        unsafe { cu::event::synchronize(self.event) }.map_err(|e| failed("the GPU's work", e))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let mut kept = self.queue.events.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < EVENTS {
            kept.push(self.event as usize);
            return;
        }
        drop(kept);
        let _ = self.queue.enter();
        // SAFETY: made in `new`, destroyed once.
        let _ = unsafe { cu::event::destroy(self.event) };
    }
}

/// A loaded kernel and the module it is part of.
struct Loaded {
    queue: Arc<Queue>,
    module: sys::CUmodule,
    function: sys::CUfunction,
}

// SAFETY: driver handles may be used from any thread.
unsafe impl Send for Loaded {}
// SAFETY: launching does not change them.
unsafe impl Sync for Loaded {}

impl Drop for Loaded {
    fn drop(&mut self) {
        let _ = self.queue.enter();
        // SAFETY: loaded once; unloading waits for what still runs.
        let _ = unsafe { cu::module::unload(self.module) };
    }
}

impl Device for Driver {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn caches(&self) -> bool {
        true
    }

    fn alloc(&self, bytes: usize) -> Result<u64> {
        self.queue.enter()?;
        // SAFETY: freed by `free`.
        unsafe { cu::malloc_sync(bytes) }.map_err(|e| match failed("memory", e) {
            Error::OutOfMemory { .. } => Error::OutOfMemory { requested: bytes as u64 },
            other => other,
        })
    }

    unsafe fn free(&self, address: u64, _bytes: usize) {
        let _ = self.queue.enter();
        // SAFETY: the caller's promise. This waits for work that still uses the memory.
        let _ = unsafe { cu::free_sync(address) };
    }

    unsafe fn write(&self, to: u64, from: &[u8]) -> Result<()> {
        self.queue.enter()?;
        let wrong = |e| failed("an upload", e);
        if from.len() <= SMALL {
            // SAFETY: the caller's promise; so small a copy from pageable memory is staged before the call returns.
            return unsafe { cu::memcpy_htod_async(to, from, self.queue.stream) }.map_err(wrong);
        }
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        if staging.is_none() {
            let half = || Pinned::new(&self.queue, HALF);
            let event = || Event::new(&self.queue);
            *staging = Some(Staging { halves: [half()?, half()?], sent: [event()?, event()?], next: 0 });
        }
        let staging = staging.as_mut().expect("just made");
        for (i, piece) in from.chunks(HALF).enumerate() {
            let at = staging.next;
            staging.next = 1 - at;
            // What this half held before has left; an event that was never recorded is ready.
            staging.sent[at].block()?;
            let half = &staging.halves[at];
            // SAFETY: the half is at least as long as a piece, and nothing reads it any more.
            let pinned = unsafe {
                std::ptr::copy_nonoverlapping(piece.as_ptr(), half.pointer, piece.len());
                std::slice::from_raw_parts(half.pointer, piece.len())
            };
            // SAFETY: the caller's promise; the half stays as it is until its event.
            unsafe { cu::memcpy_htod_async(to + (i * HALF) as u64, pinned, self.queue.stream) }
                .map_err(wrong)?;
            staging.sent[at].record()?;
        }
        Ok(())
    }

    unsafe fn fill(&self, to: u64, byte: u8, bytes: usize) -> Result<()> {
        self.queue.enter()?;
        // SAFETY: the caller's promise.
        unsafe { cu::memset_d8_async(to, byte, bytes, self.queue.stream) }.map_err(|e| failed("a fill", e))
    }

    unsafe fn read(&self, from: u64, bytes: usize) -> Result<Reading> {
        self.queue.enter()?;
        let pinned = Pinned::new(&self.queue, bytes)?;
        let event = Event::new(&self.queue)?;
        if bytes > 0 {
            // SAFETY: fresh memory of that size, which nothing else looks at before the event.
            let to = unsafe { std::slice::from_raw_parts_mut(pinned.pointer, bytes) };
            // SAFETY: the caller's promise.
            unsafe { cu::memcpy_dtoh_async(to, from, self.queue.stream) }
                .map_err(|e| failed("a download", e))?;
        }
        event.record()?;
        Ok(Arc::new(Arriving { event, pinned, bytes }))
    }

    fn load(&self, unit: &Unit) -> Result<Function> {
        let image = self.compiler.image(unit, &self.caps.arch.target)?;
        self.queue.enter()?;
        let name = CString::new(format!("{}_kernel", unit.kernel.name)).expect("names hold no NUL");
        let wrong = |e| failed(unit.kernel.name, e);
        // SAFETY: an image of NVRTC's; PTX has a NUL behind it.
        let module = unsafe { cu::module::load_data(image.as_ptr().cast()) }.map_err(wrong)?;
        // SAFETY: the module is alive.
        let function = match unsafe { cu::module::get_function(module, name) } {
            Ok(function) => function,
            Err(error) => {
                // SAFETY: loaded above, used by nobody.
                let _ = unsafe { cu::module::unload(module) };
                return Err(wrong(error));
            }
        };
        let loaded = Loaded { queue: self.queue.clone(), module, function };
        let shared = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function is alive. Kernels use dynamic shared memory only, so all of it may be asked for.
        unsafe { cu::function::set_function_attribute(function, shared, self.caps.shared_block as i32) }
            .map_err(wrong)?;
        Ok(Arc::new(loaded) as Arc<dyn Any + Send + Sync>)
    }

    unsafe fn launch(&self, function: &Function, launch: Launch, params: &[u8]) -> Result<()> {
        self.queue.enter()?;
        // SAFETY: the caller's promise.
        unsafe { launch_in(self.queue.stream, function, launch, params) }.map_err(|e| failed("a launch", e))
    }

    unsafe fn ready(&self, steps: Arc<Vec<Step>>) -> Result<Box<dyn Repeatable>> {
        self.queue.enter()?;
        let wrong = |e| failed("a graph", e);
        // A stream of its own: what other threads give to the queue meanwhile is no part of the graph.
        let stream = cu::stream::create(cu::stream::StreamKind::NonBlocking).map_err(wrong)?;
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the caller's promise for what the steps name; capturing ends whatever a step answers, and the stream, which
        // nothing has run in, goes then.
        let graph = unsafe {
            let captured = cu::stream::begin_capture(stream, mode).and_then(|()| {
                let result = steps.iter().try_for_each(|step| match step {
                    Step::Launch { function, launch, params } => launch_in(stream, function, *launch, params),
                    Step::Fill { to, byte, bytes } => cu::memset_d8_async(*to, *byte, *bytes, stream),
                    Step::Read { bytes: 0, .. } => Ok(()),
                    Step::Read { from, bytes, into } => {
                        let to = std::slice::from_raw_parts_mut(into.target(), *bytes);
                        cu::memcpy_dtoh_async(to, *from, stream)
                    }
                });
                let graph = cu::stream::end_capture(stream);
                result.and(graph)
            });
            let _ = cu::stream::destroy(stream);
            captured.map_err(wrong)?
        };
        let flags = sys::CUgraphInstantiate_flags_enum(0);
        // SAFETY: the graph was just captured; an instance does not need it any more.
        let exec = unsafe {
            let exec = cu::graph::instantiate(graph, flags);
            let _ = cu::graph::destroy(graph);
            exec.map_err(wrong)?
        };
        Ok(Box::new(Ready { queue: self.queue.clone(), exec, _steps: steps }))
    }

    fn mark(&self) -> Result<Box<dyn Mark>> {
        self.queue.enter()?;
        let event = Event::new(&self.queue)?;
        event.record()?;
        Ok(Box::new(event))
    }

    unsafe fn wait_for(&self, stream: u64) -> Result<()> {
        self.queue.enter()?;
        let event = Event::new(&self.queue)?;
        event.record_in(stream as sys::CUstream)?;
        event.delay(self.queue.stream)
    }

    unsafe fn make_wait(&self, stream: u64) -> Result<()> {
        self.queue.enter()?;
        let event = Event::new(&self.queue)?;
        event.record()?;
        event.delay(stream as sys::CUstream)
    }

    fn check_memory(&self, argument: &'static str, address: u64, bytes: usize) -> Result<()> {
        use sys::CUpointer_attribute_enum as Pointer;
        self.queue.enter()?;
        let unknown =
            || Error::value(argument, "memory that the CUDA driver knows", format!("address {address:#x}"));
        let (mut ordinal, mut kind) = (-1i32, 0u32);
        let (mut start, mut size) = (0u64, 0usize);
        let ask = |attribute, to: *mut c_void| {
            // SAFETY: every attribute is asked for with a place of its type; a wrong address is an answer, not a fault.
            unsafe { sys::cuPointerGetAttribute(to, attribute, address) }.result().map_err(|_| unknown())
        };
        ask(Pointer::CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (&raw mut kind).cast())?;
        ask(Pointer::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, (&raw mut ordinal).cast())?;
        if kind != sys::CUmemorytype_enum::CU_MEMORYTYPE_DEVICE as u32 {
            return Err(Error::value(argument, "device memory", format!("host memory at {address:#x}")));
        }
        if ordinal != self.queue.device {
            let (here, there) = (self.queue.device, ordinal);
            return Err(Error::value(
                argument,
                format!("memory of GPU {here}"),
                format!("memory of GPU {there}"),
            ));
        }
        ask(Pointer::CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, (&raw mut start).cast())?;
        ask(Pointer::CU_POINTER_ATTRIBUTE_RANGE_SIZE, (&raw mut size).cast())?;
        let left = (start + size as u64).saturating_sub(address);
        if (bytes as u64) > left {
            let got = format!("an allocation that ends {left} bytes behind the address");
            return Err(Error::value(argument, format!("{bytes} bytes"), got));
        }
        Ok(())
    }

    fn flushed(&self) -> usize {
        FLUSH
    }

    unsafe fn time(
        &self,
        before: Option<&dyn Repeatable>,
        work: &dyn Repeatable,
        repeats: usize,
    ) -> Result<Vec<f32>> {
        self.queue.enter()?;
        let stream = self.queue.stream;
        let wrong = |e| failed("a graph", e);
        let flush = self.alloc(FLUSH)?;
        let event = || cu::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).map_err(wrong);
        let (start, end) = (event()?, event()?);
        // SAFETY: events, stream and memory are alive until the last event was waited for; the work by the caller's promise.
        let once = |i: usize| unsafe {
            cu::memset_d8_async(flush, i as u8, FLUSH, stream).map_err(wrong)?;
            before.map_or(Ok(()), |before| before.repeat(None))?;
            cu::event::record(start, stream).map_err(wrong)?;
            work.repeat(None)?;
            cu::event::record(end, stream).map_err(wrong)?;
            cu::event::synchronize(end).map_err(wrong)?;
            Ok(cu::event::elapsed(start, end).map_err(wrong)? * 1e3)
        };
        // A GPU that idled runs slowly at first: work until its clocks have risen.
        let started = std::time::Instant::now();
        let mut warm = Ok(0.0);
        while warm.is_ok() && started.elapsed() < WARM_UP {
            warm = once(0);
        }
        let times: Result<Vec<f32>> = warm.and_then(|_| (0..repeats).map(once).collect());
        // SAFETY: nothing uses them any more.
        unsafe {
            let _ = cu::event::destroy(start);
            let _ = cu::event::destroy(end);
            self.free(flush, FLUSH);
        }
        times
    }

    fn tensor_map(&self, map: &TensorMap) -> Result<[u64; 16]> {
        use sys::CUtensorMapDataType_enum as Type;
        self.queue.enter()?;
        let mut made = sys::CUtensorMap { opaque: [0; 16] };
        let element = if map.element == 2 {
            Type::CU_TENSOR_MAP_DATA_TYPE_UINT16
        } else {
            Type::CU_TENSOR_MAP_DATA_TYPE_UINT8
        };
        let (extents, strides) = ([map.columns, map.rows], [map.stride]);
        let (tile, steps) = ([128 / map.element, map.box_rows], [1, 1]);
        // SAFETY: all arrays have the rank that is said, or one less for strides.
        unsafe {
            sys::cuTensorMapEncodeTiled(
                &mut made,
                element,
                2,
                map.address as *mut c_void,
                extents.as_ptr(),
                strides.as_ptr(),
                tile.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave_enum::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle_enum::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion_enum::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill_enum::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        }
        .result()
        .map_err(|e| failed("a tensor map", e))?;
        Ok(made.opaque)
    }
}

/// # Safety
/// As [`Device::launch`]; the stream is one of the current context.
unsafe fn launch_in(
    stream: sys::CUstream,
    function: &Function,
    launch: Launch,
    params: &[u8],
) -> std::result::Result<(), DriverError> {
    let function = function.downcast_ref::<Loaded>().expect("loaded by this device");
    let mut pointers = [params.as_ptr().cast_mut().cast::<c_void>()];
    let [x, y] = launch.grid;
    let (grid, block) = ((x, y, 1), (launch.threads, 1, 1));
    // SAFETY: the caller's promise; the driver copies the parameters before it returns.
    unsafe { cu::launch_kernel(function.function, grid, block, launch.shared, stream, &mut pointers) }
}

/// An instantiated graph.
struct Ready {
    queue: Arc<Queue>,
    exec: sys::CUgraphExec,
    /// Kernels and pinned memory that the graph uses.
    _steps: Arc<Vec<Step>>,
}

// SAFETY: driver handles may be used from any thread.
unsafe impl Send for Ready {}
// SAFETY: launching does not change a graph; the driver lets one launch of it follow another.
unsafe impl Sync for Ready {}

impl Repeatable for Ready {
    unsafe fn repeat(&self, stream: Option<u64>) -> Result<()> {
        self.queue.enter()?;
        let stream = stream.map_or(self.queue.stream, |stream| stream as sys::CUstream);
        // SAFETY: the caller's promise.
        unsafe { cu::graph::launch(self.exec, stream) }.map_err(|e| failed("a graph", e))
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        let _ = self.queue.enter();
        // SAFETY: instantiated once; launches under way keep what they need, and their owner waited for them.
        let _ = unsafe { cu::graph::exec_destroy(self.exec) };
    }
}

impl Mark for Event {
    fn block(&self) -> Result<()> {
        Self::block(self)
    }

    fn is_over(&self) -> Result<bool> {
        self.queue.enter()?;
        // SAFETY: the event is alive.
        match unsafe { cu::event::query(self.event) } {
            Ok(()) => Ok(true),
            Err(DriverError(sys::cudaError_enum::CUDA_ERROR_NOT_READY)) => Ok(false),
            Err(error) => Err(failed("the GPU's work", error)),
        }
    }

    fn raw(&self) -> u64 {
        self.event as u64
    }
}

/// Bytes on their way to pinned memory.
struct Arriving {
    // Waited for before the memory goes back, also by those who lose interest.
    event: Event,
    pinned: Pinned,
    bytes: usize,
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let _ = self.event.block();
    }
}

impl Pending for Arriving {
    fn block(&self) -> Result<()> {
        self.event.block()
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the copy is over when this is called, and nothing writes here any more.
        unsafe { std::slice::from_raw_parts(self.pinned.pointer, self.bytes) }
    }

    fn target(&self) -> *mut u8 {
        self.pinned.pointer
    }
}
