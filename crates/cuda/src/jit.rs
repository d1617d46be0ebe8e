//! Compilation at run time, and what was compiled before.
//!
//! `<cache>/<kernel>/<target>/<hash>/` holds `kernel.cu`, `kernel.bin`, `log` and `checksum`. The hash covers the unit, every
//! header, the flags and NVRTC's version. Entries are made in a temporary directory and renamed, so that they are whole or not
//! there; one that does not match its checksum is made anew; a directory that cannot be written costs a warning, once.
//!
//! A folder of prebuilt kernels ([`build`]) is laid out the same way, but its hashes leave the compiler's version out: machines
//! without NVRTC name it in `MAXSIM_CUDA_KERNELS`.

use std::ffi::{CString, c_char};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use cudarc::nvrtc::{result as nvrtc, sys};
use maxsim_core::{Error, Result};
use maxsim_kernels::{HEADERS, Target, unit};

use crate::device::Unit;

/// What NVRTC made of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// Machine code (a cubin), or PTX with a NUL behind it.
    pub image: Vec<u8>,
    /// What the compiler said; with `ptxas -v` registers, stack and spills.
    pub log: String,
}

/// Flags beside the architecture. `-v` makes the log say what registers and spills there are.
const FLAGS: [&str; 4] = ["--std=c++17", "-lineinfo", "-default-device", "--ptxas-options=-v"];

/// NVRTC's version.
///
/// # Errors
/// `ERR_UNSUPPORTED` where libnvrtc is not installed.
pub fn nvrtc_version() -> Result<(i32, i32)> {
    // SAFETY: only looks for the library.
    if !unsafe { sys::is_culib_present() } {
        return Err(Error::Unsupported {
            what: "backend cuda without libnvrtc".into(),
            hint: "install NVRTC 13 (CUDA toolkit, or the PyPI package nvidia-cuda-nvrtc) and put it on the \
                   library path"
                .into(),
        });
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both are numbers to write to.
    unsafe { sys::nvrtcVersion(&mut major, &mut minor) }
        .result()
        .map_err(|e| failed("NVRTC", e.to_string()))?;
    Ok((major, minor))
}

fn failed(kernel: &str, log: String) -> Error {
    Error::Compile { kernel: kernel.into(), log }
}

/// Compiles `wanted` for `target` (`sm_90a`, `compute_80`, …), without any cache.
///
/// # Errors
/// `ERR_UNSUPPORTED` without libnvrtc, `ERR_COMPILE` with the compiler's log.
pub fn compile(wanted: &Unit, target: &str) -> Result<Compiled> {
    nvrtc_version()?;
    let text = unit(&wanted.kernel, &wanted.config, wanted.min_blocks, wanted.params, Target::Device);
    compile_text(wanted.kernel.name, &text, target)
}

/// A program of NVRTC's, destroyed when dropped.
struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: made by `nvrtcCreateProgram`, destroyed once.
        let _ = unsafe { nvrtc::destroy_program(self.0) };
    }
}

impl Program {
    fn new(text: &str) -> std::result::Result<Self, String> {
        let c = |text: &str| CString::new(text).map_err(|e| e.to_string());
        let source = c(text)?;
        let names = HEADERS.iter().map(|h| c(h.name)).collect::<std::result::Result<Vec<_>, _>>()?;
        let texts = HEADERS.iter().map(|h| c(h.text)).collect::<std::result::Result<Vec<_>, _>>()?;
        let pointers = |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).collect::<Vec<_>>();
        let (names, texts) = (pointers(&names), pointers(&texts));
        let mut program = std::ptr::null_mut();
        // SAFETY: all strings outlive the call, which copies them.
        unsafe {
            sys::nvrtcCreateProgram(
                &mut program,
                source.as_ptr(),
                c"kernel.cu".as_ptr(),
                names.len() as i32,
                texts.as_ptr(),
                names.as_ptr(),
            )
        }
        .result()
        .map_err(|e| e.to_string())?;
        Ok(Self(program))
    }

    fn log(&self) -> String {
        // SAFETY: the program is alive.
        let bytes: Vec<c_char> = unsafe { nvrtc::get_program_log(self.0) }.unwrap_or_default();
        let bytes: Vec<u8> = bytes.into_iter().map(|b| b as u8).take_while(|&b| b != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn image(&self, binary: bool) -> std::result::Result<Vec<u8>, nvrtc::NvrtcError> {
        if !binary {
            // SAFETY: the program is alive and compiled.
            return unsafe { nvrtc::get_ptx(self.0) }.map(|ptx| ptx.into_iter().map(|b| b as u8).collect());
        }
        let mut size = 0;
        // SAFETY: as above; the image is as large as NVRTC says.
        unsafe {
            sys::nvrtcGetCUBINSize(self.0, &mut size).result()?;
            let mut image = vec![0u8; size];
            sys::nvrtcGetCUBIN(self.0, image.as_mut_ptr().cast()).result()?;
            Ok(image)
        }
    }
}

fn compile_text(kernel: &str, text: &str, target: &str) -> Result<Compiled> {
    let program = Program::new(text).map_err(|e| failed(kernel, e))?;
    let flags: Vec<String> =
        FLAGS.iter().map(|f| (*f).to_owned()).chain([format!("--gpu-architecture={target}")]).collect();
    // SAFETY: the program is alive.
    let result = unsafe { nvrtc::compile_program(program.0, &flags) };
    let log = program.log();
    result.map_err(|e| failed(kernel, format!("{e} {log}")))?;
    let image = program.image(target.starts_with("sm_")).map_err(|e| failed(kernel, e.to_string()))?;
    Ok(Compiled { image, log })
}

/// Compiles `units` for `target` into `folder`, where machines without NVRTC find them; those that are there already stay. Returns
/// how many were compiled. `each` is told after every unit how many are done.
///
/// # Errors
/// `ERR_UNSUPPORTED` without libnvrtc, `ERR_COMPILE` with the compiler's log, `ERR_IO` where the folder cannot be written.
pub fn build(folder: &Path, target: &str, units: &[Unit], mut each: impl FnMut(usize)) -> Result<usize> {
    nvrtc_version()?;
    let mut compiled = 0;
    for (done, wanted) in units.iter().enumerate() {
        let text = text_of(wanted);
        let entry = entry_of(folder, wanted, target, &key(&text, target, None));
        if read_entry(&entry).is_none() {
            let image = compile_text(wanted.kernel.name, &text, target)?;
            write_entry(&entry, &text, &image).map_err(|e| Error::io(entry.display().to_string(), e))?;
            compiled += 1;
        }
        each(done + 1);
    }
    Ok(compiled)
}

fn text_of(wanted: &Unit) -> String {
    unit(&wanted.kernel, &wanted.config, wanted.min_blocks, wanted.params, Target::Device)
}

fn entry_of(folder: &Path, wanted: &Unit, target: &str, key: &str) -> PathBuf {
    folder.join(wanted.kernel.name).join(target).join(key)
}

/// Finds kernels among prebuilt ones, else compiles them through a cache on disk.
pub(crate) struct Compiler {
    folder: Option<PathBuf>,
    prebuilt: Option<PathBuf>,
    /// NVRTC's, or why there is none.
    version: Result<(i32, i32)>,
    warned: AtomicBool,
}

impl Compiler {
    /// A compiler that keeps what it made in `folder`, if there is one, and looks into `prebuilt` first. Without NVRTC there have to
    /// be prebuilt kernels.
    pub(crate) fn new(folder: Option<PathBuf>, prebuilt: Option<PathBuf>) -> Result<Self> {
        if let Some(prebuilt) = &prebuilt
            && !prebuilt.is_dir()
        {
            let got = prebuilt.display().to_string();
            return Err(Error::value("MAXSIM_CUDA_KERNELS", "a folder of prebuilt kernels", got));
        }
        let version = nvrtc_version();
        if prebuilt.is_none() {
            version.clone()?;
        }
        Ok(Self { folder, prebuilt, version, warned: AtomicBool::new(false) })
    }

    /// The image of `wanted` for `target`, from the cache if it is there.
    pub(crate) fn image(&self, wanted: &Unit, target: &str) -> Result<Vec<u8>> {
        let text = text_of(wanted);
        let prebuilt =
            self.prebuilt.as_ref().map(|folder| entry_of(folder, wanted, target, &key(&text, target, None)));
        if let Some(image) = prebuilt.as_deref().and_then(read_entry) {
            return Ok(image);
        }
        let version = self.version.clone().map_err(|_| {
            let constants: Vec<String> = wanted.config.iter().map(|(n, v)| format!("{n}={v}")).collect();
            Error::Unsupported {
                what: format!("kernel {} ({}) for {target}", wanted.kernel.name, constants.join(" ")),
                hint: "it is not among the prebuilt ones of MAXSIM_CUDA_KERNELS: build them with this version of maxsim and \
                       the embedding dimension in use (`maxsim kernels build --arch --dim`), or install NVRTC 13"
                    .into(),
            }
        })?;
        let entry = self
            .folder
            .as_ref()
            .map(|folder| entry_of(folder, wanted, target, &key(&text, target, Some(version))));
        if let Some(image) = entry.as_deref().and_then(read_entry) {
            return Ok(image);
        }
        let compiled = compile_text(wanted.kernel.name, &text, target)?;
        if let Some(entry) = entry
            && let Err(error) = write_entry(&entry, &text, &compiled)
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("compiled kernels cannot be kept in {}: {error}", entry.display());
        }
        Ok(compiled.image)
    }
}

fn key(text: &str, target: &str, version: Option<(i32, i32)>) -> String {
    let mut hash = blake3::Hasher::new();
    let mut add = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    };
    add(text.as_bytes());
    for header in HEADERS {
        add(header.name.as_bytes());
        add(header.text.as_bytes());
    }
    FLAGS.iter().for_each(|flag| add(flag.as_bytes()));
    add(target.as_bytes());
    // As it always was: what is in caches stays found.
    version.iter().for_each(|version| add(format!("{version:?}").as_bytes()));
    hash.finalize().to_hex().to_string()
}

/// The image of an entry that is whole.
fn read_entry(entry: &Path) -> Option<Vec<u8>> {
    let image = fs::read(entry.join("kernel.bin")).ok()?;
    let checksum = fs::read_to_string(entry.join("checksum")).ok()?;
    (blake3::hash(&image).to_hex().as_str() == checksum).then_some(image)
}

fn write_entry(entry: &Path, text: &str, compiled: &Compiled) -> std::io::Result<()> {
    let parent = entry.parent().expect("an entry lies in a folder");
    fs::create_dir_all(parent)?;
    let made = tempfile::tempdir_in(parent)?;
    fs::write(made.path().join("kernel.cu"), text)?;
    fs::write(made.path().join("kernel.bin"), &compiled.image)?;
    fs::write(made.path().join("log"), &compiled.log)?;
    fs::write(made.path().join("checksum"), blake3::hash(&compiled.image).to_hex().as_str())?;
    // A corrupt entry makes way; another process may have been faster, and then its entry is as good.
    if entry.exists() && read_entry(entry).is_none() {
        fs::remove_dir_all(entry)?;
    }
    match fs::rename(made.path(), entry) {
        Err(_) if read_entry(entry).is_some() => Ok(()),
        result => result,
    }
}

/// Where compiled kernels are kept: `cuda` in `MAXSIM_CACHE_DIR`, else in `maxsim` in the user's cache directory.
pub(crate) fn cache_folder() -> Option<PathBuf> {
    use etcetera::BaseStrategy;
    let base = match std::env::var_os("MAXSIM_CACHE_DIR") {
        Some(folder) if !folder.is_empty() => PathBuf::from(folder),
        _ => etcetera::choose_base_strategy().ok()?.cache_dir().join("maxsim"),
    };
    Some(base.join("cuda"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(image: &[u8]) -> Compiled {
        Compiled { image: image.to_vec(), log: String::new() }
    }

    #[test]
    fn an_entry_is_read_back_and_a_corrupt_one_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let entry = folder.path().join("forward/sm_90a/abc");
        assert_eq!(read_entry(&entry), None);
        write_entry(&entry, "text", &compiled(b"one")).unwrap();
        assert_eq!(read_entry(&entry).unwrap(), b"one");
        fs::write(entry.join("kernel.bin"), b"on").unwrap();
        assert_eq!(read_entry(&entry), None);
        write_entry(&entry, "text", &compiled(b"two")).unwrap();
        assert_eq!(read_entry(&entry).unwrap(), b"two");
        // Whoever comes second leaves what is there.
        write_entry(&entry, "text", &compiled(b"three")).unwrap();
        assert_eq!(read_entry(&entry).unwrap(), b"two");
        // No temporary directories are left behind.
        assert_eq!(fs::read_dir(entry.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_cannot_be_is_an_error_and_not_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "in the way").unwrap();
        assert!(write_entry(&file.join("sm_90a/abc"), "text", &compiled(b"x")).is_err());
    }

    #[test]
    fn the_key_covers_everything() {
        let one = key("text", "sm_90a", Some((13, 0)));
        assert_ne!(one, key("texts", "sm_90a", Some((13, 0))));
        assert_ne!(one, key("text", "sm_80", Some((13, 0))));
        assert_ne!(one, key("text", "sm_90a", Some((13, 1))));
        assert_ne!(one, key("text", "sm_90a", None));
        assert_eq!(one, key("text", "sm_90a", Some((13, 0))));
    }

    fn without_nvrtc(prebuilt: Option<PathBuf>, folder: Option<PathBuf>) -> Compiler {
        let version = Err(Error::Unsupported { what: "NVRTC".into(), hint: "install it".into() });
        Compiler { folder, prebuilt, version, warned: AtomicBool::new(false) }
    }

    #[test]
    fn prebuilt_kernels_need_no_compiler() {
        let folder = tempfile::tempdir().unwrap();
        let units = crate::variants(crate::Path::Sm90);
        let entry = entry_of(folder.path(), &units[0], "sm_90a", &key(&text_of(&units[0]), "sm_90a", None));
        write_entry(&entry, &text_of(&units[0]), &compiled(b"cubin")).unwrap();
        let compiler = without_nvrtc(Some(folder.path().into()), None);
        assert_eq!(compiler.image(&units[0], "sm_90a").unwrap(), b"cubin");
        for (unit, target) in [(&units[1], "sm_90a"), (&units[0], "sm_80")] {
            let error = compiler.image(unit, target).unwrap_err();
            assert_eq!(error.code().as_str(), "ERR_UNSUPPORTED");
            let text = error.to_string();
            assert!(text.contains(unit.kernel.name) && text.contains("maxsim kernels build"), "{text}");
        }
        // A corrupt one is none.
        fs::write(entry.join("kernel.bin"), b"cub").unwrap();
        assert!(compiler.image(&units[0], "sm_90a").is_err());
    }

    #[test]
    fn a_folder_of_prebuilt_kernels_that_is_not_there_is_said_so() {
        let error = Compiler::new(None, Some("/nowhere/kernels".into())).err().unwrap();
        assert_eq!((error.code().as_str(), error.argument()), ("ERR_VALUE", Some("MAXSIM_CUDA_KERNELS")));
    }

    /// A cache that cannot be written costs nothing but time: a file is where its folder should be.
    #[test]
    #[ignore = "needs libnvrtc: ./test nvrtc"]
    fn a_cache_that_cannot_be_written_is_done_without() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "in the way").unwrap();
        let compiler = Compiler::new(Some(file), None).unwrap();
        let units = crate::variants(crate::Path::Sm90);
        let unit = units.iter().find(|unit| unit.kernel.name == "topk_select").unwrap();
        assert!(!compiler.image(unit, "sm_90a").unwrap().is_empty());
        assert!(compiler.warned.load(Ordering::Relaxed));
    }

    /// What is built once is found, without a compiler too.
    #[test]
    #[ignore = "needs libnvrtc: ./test nvrtc"]
    fn kernels_are_built_once() {
        let folder = tempfile::tempdir().unwrap();
        let units: Vec<Unit> = crate::variants(crate::Path::Sm90)
            .into_iter()
            .filter(|unit| ["topk_select", "forward_sum"].contains(&unit.kernel.name))
            .collect();
        let mut told = Vec::new();
        assert_eq!(build(folder.path(), "sm_90a", &units, |done| told.push(done)).unwrap(), units.len());
        assert_eq!(told, (1..=units.len()).collect::<Vec<_>>());
        assert_eq!(build(folder.path(), "sm_90a", &units, |_| ()).unwrap(), 0);
        let compiler = without_nvrtc(Some(folder.path().into()), None);
        for unit in &units {
            assert!(compiler.image(unit, "sm_90a").unwrap().starts_with(b"\x7fELF"));
        }
    }
}
