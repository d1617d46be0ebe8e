//! The kernels' text run on the host: a device for tests.

use std::any::Any;
use std::cell::UnsafeCell;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path as FilePath, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use maxsim_core::{Error, Result};
use maxsim_kernels::{EMULATOR, HEADERS, Target, unit};

use crate::arch::{Arch, Path};
use crate::context::repeat;
use crate::device::{
    Caps, Device, Function, Launch, Mark, Pending, Reading, Repeatable, Step, TensorMap, Unit,
};
use crate::tuning::Table;

type Entry = unsafe extern "C" fn(*const u8, u32, u32, u32, u32);

struct Loaded {
    entry: Entry,
    _library: libloading::Library,
}

/// Runs kernels on the host, one thread at a time. Small problems only.
pub(crate) struct Emulator {
    caps: Caps,
    folder: PathBuf,
    loaded: Mutex<HashMap<Unit, Arc<Loaded>>>,
    /// Memory in use and its size.
    held: Mutex<BTreeMap<u64, usize>>,
    this: Weak<Self>,
}

impl Emulator {
    /// An emulated device that uses `path`'s kernels; compiled kernels are kept in `folder`.
    pub(crate) fn new(path: Path, folder: &FilePath, tuning: Table) -> Arc<Self> {
        // Shared memory as on the device that the path is named after.
        let (shared_block, shared_processor) = match path {
            Path::Sm75 => (64 << 10, 64 << 10),
            Path::Sm80 => (163 << 10, 164 << 10),
            Path::Sm89 => (99 << 10, 100 << 10),
            Path::Sm90 => (227 << 10, 228 << 10),
        };
        let caps = Caps {
            name: "emulator".into(),
            arch: Arch { path, target: "host".into() },
            // Few, so that blocks have more than one job.
            processors: 2,
            shared_block,
            shared_processor,
            memory: 1 << 32,
            tuning: Arc::new(tuning),
        };
        Arc::new_cyclic(|this| Self {
            caps,
            folder: folder.into(),
            loaded: Mutex::default(),
            held: Mutex::default(),
            this: this.clone(),
        })
    }

    /// Headers in one folder, the emulator's over the device's.
    fn headers(&self) -> Result<PathBuf> {
        let mut hash = blake3::Hasher::new();
        for header in HEADERS.iter().chain(EMULATOR) {
            hash.update(header.name.as_bytes()).update(&[0]).update(header.text.as_bytes()).update(&[0]);
        }
        let folder = self.folder.join(&hash.finalize().to_hex()[..16]);
        if !folder.exists() {
            // All at once: others may be about to do the same, or compile already.
            let made = tempfile::TempDir::new_in(&self.folder).map_err(|e| io(&self.folder, e))?;
            for header in HEADERS.iter().chain(EMULATOR) {
                let file = made.path().join(header.name);
                fs::create_dir_all(file.parent().expect("in the folder")).map_err(|e| io(&file, e))?;
                fs::write(&file, header.text).map_err(|e| io(&file, e))?;
            }
            match fs::rename(made.path(), &folder) {
                Ok(()) => drop(made.keep()),
                Err(_) if folder.exists() => {}
                Err(e) => return Err(io(&folder, e)),
            }
        }
        Ok(folder)
    }

    fn compile(&self, wanted: &Unit) -> Result<PathBuf> {
        let headers = self.headers()?;
        let text = unit(&wanted.kernel, &wanted.config, wanted.min_blocks, wanted.params, Target::Host);
        let name = format!("{}-{}", wanted.kernel.name, &blake3::hash(text.as_bytes()).to_hex()[..16]);
        let library = headers.join(&name).with_extension("so");
        if library.exists() {
            return Ok(library);
        }
        let compile = |log: String| Error::Compile { kernel: name.clone(), log };
        let scratch = tempfile::tempdir_in(&headers).map_err(|e| io(&headers, e))?;
        let source = scratch.path().join("kernel.cpp");
        fs::write(&source, &text).map_err(|e| io(&source, e))?;
        let output = scratch.path().join("kernel.so");
        let result = Command::new("g++")
            .args(["-std=c++20", "-O1", "-march=native", "-ffp-contract=off", "-fPIC", "-shared", "-w", "-I"])
            .arg(&headers)
            .arg(&source)
            .arg("-o")
            .arg(&output)
            .output()
            .map_err(|e| compile(format!("g++: {e}")))?;
        if !result.status.success() {
            return Err(compile(String::from_utf8_lossy(&result.stderr).into_owned()));
        }
        fs::rename(&output, &library).map_err(|e| io(&library, e))?;
        Ok(library)
    }
}

fn io(path: &FilePath, error: std::io::Error) -> Error {
    Error::io(path.display().to_string(), error)
}

const PAGE: usize = 4096;

/// Bytes from the start of the mapping to the memory: it ends where its last page does, as far as alignment allows.
fn offset(bytes: usize) -> usize {
    bytes.next_multiple_of(PAGE) - bytes.next_multiple_of(256)
}

impl Device for Emulator {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn caches(&self) -> bool {
        false
    }

    fn alloc(&self, bytes: usize) -> Result<u64> {
        let bytes = bytes.max(1);
        let pages = bytes.next_multiple_of(256).next_multiple_of(PAGE);
        // SAFETY: a fresh mapping, and a guard page at its end that belongs to it.
        unsafe {
            let base = libc::mmap(
                std::ptr::null_mut(),
                pages + PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            if base == libc::MAP_FAILED {
                return Err(Error::OutOfMemory { requested: bytes as u64 });
            }
            libc::mprotect(base.cast::<u8>().add(pages).cast(), PAGE, libc::PROT_NONE);
            // NaN in every float type.
            std::ptr::write_bytes(base.cast::<u8>(), 0xff, pages);
            let address = base as u64 + offset(bytes) as u64;
            self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(address, bytes);
            Ok(address)
        }
    }

    unsafe fn free(&self, address: u64, bytes: usize) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&address);
        let bytes = bytes.max(1);
        let pages = bytes.next_multiple_of(256).next_multiple_of(PAGE);
        // SAFETY: what `alloc` mapped.
        unsafe { libc::munmap((address as usize - offset(bytes)) as *mut _, pages + PAGE) };
    }

    unsafe fn write(&self, to: u64, from: &[u8]) -> Result<()> {
        // SAFETY: the caller's promise; host memory and emulated memory do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to as *mut u8, from.len()) };
        Ok(())
    }

    unsafe fn fill(&self, to: u64, byte: u8, bytes: usize) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { std::ptr::write_bytes(to as *mut u8, byte, bytes) };
        Ok(())
    }

    unsafe fn read(&self, from: u64, bytes: usize) -> Result<Reading> {
        // SAFETY: the caller's promise.
        let bytes = unsafe { std::slice::from_raw_parts(from as *const u8, bytes) };
        Ok(Arc::new(Arrived(bytes.iter().copied().map(UnsafeCell::new).collect())))
    }

    unsafe fn ready(&self, steps: Arc<Vec<Step>>) -> Result<Box<dyn Repeatable>> {
        Ok(Box::new(Again { device: self.this.upgrade().expect("in use"), steps }))
    }

    fn mark(&self) -> Result<Box<dyn Mark>> {
        Ok(Box::new(Done))
    }

    unsafe fn wait_for(&self, _stream: u64) -> Result<()> {
        Ok(())
    }

    unsafe fn make_wait(&self, _stream: u64) -> Result<()> {
        Ok(())
    }

    fn check_memory(&self, argument: &'static str, address: u64, bytes: usize) -> Result<()> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let left = |(&start, &size): (&u64, &usize)| (start + size as u64).saturating_sub(address);
        match held.range(..=address).next_back().map(left) {
            None | Some(0) => {
                Err(Error::value(argument, "memory of the device", format!("address {address:#x}")))
            }
            Some(left) if left < bytes as u64 => {
                let got = format!("an allocation that ends {left} bytes behind the address");
                Err(Error::value(argument, format!("{bytes} bytes"), got))
            }
            Some(_) => Ok(()),
        }
    }

    fn load(&self, unit: &Unit) -> Result<Function> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = loaded.get(unit) {
            return Ok(function.clone());
        }
        let path = self.compile(unit)?;
        // SAFETY: a library made of our own text, without initialisers.
        let library = unsafe { libloading::Library::new(&path) }
            .map_err(|e| Error::Compile { kernel: unit.kernel.name.into(), log: e.to_string() })?;
        // SAFETY: `EMULATE` defines it with this signature.
        let entry: Entry = *unsafe { library.get::<Entry>(b"maxsim_emulate\0") }
            .map_err(|e| Error::Compile { kernel: unit.kernel.name.into(), log: e.to_string() })?;
        let function = Arc::new(Loaded { entry, _library: library });
        loaded.insert(unit.clone(), function.clone());
        Ok(function as Arc<dyn Any + Send + Sync>)
    }

    unsafe fn launch(&self, function: &Function, launch: Launch, params: &[u8]) -> Result<()> {
        let function = function.downcast_ref::<Loaded>().expect("loaded by this device");
        assert!(launch.shared <= self.caps.shared_block, "{} bytes of shared memory", launch.shared);
        let [x, y] = launch.grid;
        // SAFETY: the caller's promise; the entry copies the parameters.
        unsafe { (function.entry)(params.as_ptr(), x, y, launch.threads, launch.shared) };
        Ok(())
    }

    fn flushed(&self) -> usize {
        0
    }

    unsafe fn time(
        &self,
        _before: Option<&dyn Repeatable>,
        work: &dyn Repeatable,
        repeats: usize,
    ) -> Result<Vec<f32>> {
        let once = || {
            let started = std::time::Instant::now();
            // SAFETY: the caller's promise.
            unsafe { work.repeat(None) }.map(|()| started.elapsed().as_secs_f32() * 1e6)
        };
        (0..repeats).map(|_| once()).collect()
    }

    fn tensor_map(&self, map: &TensorMap) -> Result<[u64; 16]> {
        let mut words = [0; 16];
        words[..6].copy_from_slice(&[
            map.address,
            map.element.into(),
            map.columns,
            map.rows,
            map.stride,
            map.box_rows.into(),
        ]);
        Ok(words)
    }
}

/// Steps that run one by one.
struct Again {
    device: Arc<Emulator>,
    steps: Arc<Vec<Step>>,
}

impl Repeatable for Again {
    unsafe fn repeat(&self, _stream: Option<u64>) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { repeat(&*self.device, &self.steps) }
    }
}

/// The emulator has done everything by the time a call returns.
struct Done;

impl Mark for Done {
    fn block(&self) -> Result<()> {
        Ok(())
    }

    fn is_over(&self) -> Result<bool> {
        Ok(true)
    }

    fn raw(&self) -> u64 {
        0
    }
}

struct Arrived(Vec<UnsafeCell<u8>>);

// SAFETY: written by whoever repeats the download, which its owner does not do while it is read.
unsafe impl Sync for Arrived {}

impl Pending for Arrived {
    fn block(&self) -> Result<()> {
        Ok(())
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: cells lie as what is in them; nobody writes now.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len()) }
    }

    fn target(&self) -> *mut u8 {
        self.0.as_ptr().cast::<u8>().cast_mut()
    }
}
