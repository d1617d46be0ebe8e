//! Which instructions kernels use, and what they are compiled for.

use std::fmt;
use std::str::FromStr;

use maxsim_core::{Error, Result};

/// Families of kernels, by the oldest architecture that runs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    /// CUDA cores only, plain copies.
    Sm75,
    /// `cp.async` and `mma.sync` for f16, bf16 and int8.
    Sm80,
    /// The same, and `mma.sync` for e4m3.
    Sm89,
    /// `wgmma`, the bulk tensor copy engine and mbarriers.
    Sm90,
}

impl Path {
    /// All of them, newest first.
    pub const ALL: [Path; 4] = [Self::Sm90, Self::Sm89, Self::Sm80, Self::Sm75];

    /// Name, e.g. `sm_80`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sm75 => "sm_75",
            Self::Sm80 => "sm_80",
            Self::Sm89 => "sm_89",
            Self::Sm90 => "sm_90",
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Path {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|path| path.name() == s).ok_or_else(|| {
            Error::value("MAXSIM_CUDA_ARCH", "one of sm_75, sm_80, sm_89, sm_90", format!("{s:?}"))
        })
    }
}

/// What a device's kernels are compiled for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Arch {
    /// Kernels in use.
    pub path: Path,
    /// NVRTC's `--gpu-architecture`: `sm_…` gives machine code, `compute_…` PTX that the driver compiles.
    pub target: String,
}

impl Arch {
    /// The best for a device of compute capability `major.minor`, or the forced path.
    ///
    /// A path older than the device is compiled to PTX of that architecture, so that what is run is what an old device would
    /// run. Devices that NVRTC 13.0 does not know get PTX of sm_80.
    ///
    /// # Errors
    /// `ERR_UNSUPPORTED` for devices older than sm_75 and for a forced path that the device does not run.
    pub fn choose(major: u32, minor: u32, forced: Option<Path>) -> Result<Self> {
        let unsupported = |what: String, hint: &str| Err(Error::Unsupported { what, hint: hint.into() });
        let (path, target) = match (major, minor) {
            (0..=6, _) | (7, 0..=4) => {
                return unsupported(
                    format!("a GPU of compute capability {major}.{minor}"),
                    "maxsim needs 7.5 (Turing) or newer; use another backend",
                );
            }
            (7, _) => (Path::Sm75, "sm_75"),
            (8, 0) => (Path::Sm80, "sm_80"),
            (8, 6) => (Path::Sm80, "sm_86"),
            (8, 7) => (Path::Sm80, "sm_87"),
            (8, 9) => (Path::Sm89, "sm_89"),
            (9, 0) => (Path::Sm90, "sm_90a"),
            (10, 0) => (Path::Sm89, "sm_100"),
            (10, 3) => (Path::Sm89, "sm_103"),
            (12, 0) => (Path::Sm89, "sm_120"),
            (12, 1) => (Path::Sm89, "sm_121"),
            _ => (Path::Sm80, "compute_80"),
        };
        match forced {
            Some(forced) if forced == path => Ok(Self { path, target: target.into() }),
            // wgmma exists on 9.0 alone.
            Some(forced) if forced < path && forced != Path::Sm90 => {
                Ok(Self { path: forced, target: forced.name().replace("sm_", "compute_") })
            }
            Some(forced) => unsupported(
                format!("path {forced} on a GPU of compute capability {major}.{minor}"),
                "unset MAXSIM_CUDA_ARCH or name an older path",
            ),
            None => Ok(Self { path, target: target.into() }),
        }
    }

    /// Whether the target is machine code.
    pub fn is_binary(&self) -> bool {
        self.target.starts_with("sm_")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(major: u32, minor: u32, forced: Option<Path>) -> std::result::Result<String, &'static str> {
        Arch::choose(major, minor, forced).map(|arch| arch.target).map_err(|e| e.code().as_str())
    }

    #[test]
    fn every_device_has_a_target_or_an_error() {
        assert_eq!(target(9, 0, None).unwrap(), "sm_90a");
        assert_eq!(target(8, 6, None).unwrap(), "sm_86");
        assert_eq!(target(13, 5, None).unwrap(), "compute_80");
        assert_eq!(target(7, 0, None), Err("ERR_UNSUPPORTED"));
    }

    #[test]
    fn older_paths_can_be_forced() {
        assert_eq!(target(9, 0, Some(Path::Sm80)).unwrap(), "compute_80");
        assert_eq!(target(9, 0, Some(Path::Sm75)).unwrap(), "compute_75");
        assert_eq!(target(9, 0, Some(Path::Sm90)).unwrap(), "sm_90a");
        assert_eq!(target(8, 0, Some(Path::Sm89)), Err("ERR_UNSUPPORTED"));
        assert_eq!(target(10, 0, Some(Path::Sm90)), Err("ERR_UNSUPPORTED"));
        assert!("sm_70".parse::<Path>().is_err());
    }
}
