//! SIMD levels: which exist, which this machine runs, which one is used.

use std::fmt;
use std::str::FromStr;

use maxsim_core::{Error, Result};

/// A set of instructions the kernels are compiled for. Every level gives answers within the same tolerances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Level {
    /// Plain Rust; runs everywhere, but is left out of WebAssembly with SIMD built with the feature `one-level`.
    Generic,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// AVX2 with AVX-VNNI: 8-bit products four at a time.
    Avx2Vnni,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 with VNNI.
    Avx512Vnni,
    /// 64-bit Arm with NEON.
    Neon,
    /// NEON with the dot product instructions (Armv8.2).
    NeonDot,
    /// WebAssembly with 128-bit SIMD.
    Simd128,
}

impl Level {
    /// Levels from best to worst, of all architectures.
    pub const ALL: [Level; 8] = [
        Self::Avx512Vnni,
        Self::Avx512,
        Self::Avx2Vnni,
        Self::Avx2,
        Self::NeonDot,
        Self::Neon,
        Self::Simd128,
        Self::Generic,
    ];

    /// Lower-case name, as `MAXSIM_CPU_LEVEL` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::Avx2 => "avx2",
            Self::Avx2Vnni => "avx2-vnni",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512-vnni",
            Self::Neon => "neon",
            Self::NeonDot => "neon-dot",
            Self::Simd128 => "simd128",
        }
    }

    /// Whether this machine runs it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Generic => !cfg!(all(feature = "one-level", target_feature = "simd128")),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2Vnni => Self::Avx2.is_available() && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => Self::Avx512.is_available() && is_x86_feature_detected!("avx512vnni"),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => Self::Neon.is_available() && std::arch::is_aarch64_feature_detected!("dotprod"),
            #[cfg(target_arch = "wasm32")]
            Self::Simd128 => cfg!(target_feature = "simd128"),
            #[allow(unreachable_patterns, reason = "levels of other architectures")]
            _ => false,
        }
    }

    /// Levels this machine runs, best first.
    pub fn available() -> impl Iterator<Item = Level> {
        Self::ALL.into_iter().filter(|level| level.is_available())
    }

    /// The level to use: `wanted`, else `MAXSIM_CPU_LEVEL`, else the best there is.
    ///
    /// # Errors
    /// `ERR_VALUE` for an unknown name, `ERR_UNSUPPORTED` for a level this machine does not run.
    pub fn choose(wanted: Option<Level>) -> Result<Level> {
        let wanted = match (wanted, std::env::var("MAXSIM_CPU_LEVEL")) {
            (Some(level), _) => Some(level),
            (None, Ok(name)) if !name.is_empty() && name != "auto" => Some(name.parse()?),
            _ => None,
        };
        match wanted {
            None => Ok(Self::available().next().unwrap_or(Self::Generic)),
            Some(level) if level.is_available() => Ok(level),
            Some(level) => Err(Error::Unsupported {
                what: format!("CPU level {level}"),
                hint: format!(
                    "this machine runs {}",
                    Self::available().map(Self::name).collect::<Vec<_>>().join(", ")
                ),
            }),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|level| level.name() == s).ok_or_else(|| {
            Error::value(
                "level",
                "one of avx512-vnni, avx512, avx2-vnni, avx2, neon-dot, neon, simd128, generic",
                format!("{s:?}"),
            )
        })
    }
}
