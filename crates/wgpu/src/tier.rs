//! What may be used of a device.

use std::fmt;
use std::str::FromStr;

use maxsim_core::{Error, Result};
use maxsim_shaders::kernels::MATRICES;
use wgpu::Features;

/// Capability tiers; each holds all that the ones before it hold, and each can be forced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// What every WebGPU implementation has: f32, at most 8 storage buffers, 256 invocations, 16 KiB workgroup memory.
    Portable,
    /// 16-bit floats in shaders.
    F16,
    /// Subgroup operations.
    Subgroup,
    /// Cooperative matrices of f16 with f32 sums: NVIDIA 16×16×16, Apple 8×8×8. No browser has them.
    Coop,
}

impl Tier {
    /// All of them, least first.
    pub const ALL: [Self; 4] = [Self::Portable, Self::F16, Self::Subgroup, Self::Coop];

    /// Name as in `MAXSIM_WGPU_TIER`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::F16 => "f16",
            Self::Subgroup => "subgroup",
            Self::Coop => "coop",
        }
    }

    /// What a device of this tier must offer.
    pub(crate) fn features(self) -> Features {
        let mut features = Features::empty();
        if self >= Self::F16 {
            features |= Features::SHADER_F16;
        }
        // wgpu does not offer subgroups on the web.
        if self >= Self::Subgroup {
            features |= Features::SUBGROUP;
        }
        if self >= Self::Coop {
            features |= Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
        }
        features
    }

    /// Tiers that `adapter` runs, best first; never empty.
    pub(crate) fn available(adapter: &wgpu::Adapter) -> Vec<Self> {
        let features = adapter.features();
        let runs = |tier: &Self| {
            features.contains(tier.features()) && (*tier < Self::Coop || coop(adapter).is_some())
        };
        // Browsers have no cooperative matrices, and modules for them not the kernel's text.
        let all = if cfg!(target_arch = "wasm32") { &Self::ALL[..3] } else { &Self::ALL[..] };
        all.iter().copied().rev().filter(runs).collect()
    }
}

/// The largest cooperative matrices (f16 × f16 → f32) of `adapter` that kernels exist for: extent, and invocations of a
/// subgroup.
pub(crate) fn coop(adapter: &wgpu::Adapter) -> Option<(u32, u32)> {
    use wgpu::CooperativeScalarType::{F16, F32};
    let info = adapter.get_info();
    let lanes = match info.backend {
        // Metal reports what any device might have; those with matrices have 32.
        wgpu::Backend::Metal => 32,
        _ if info.subgroup_min_size == info.subgroup_max_size => info.subgroup_min_size,
        _ => return None,
    };
    let properties = adapter.cooperative_matrix_properties();
    MATRICES.into_iter().find(|&(extent, subgroup)| {
        let square = |p: &wgpu::CooperativeMatrixProperties| [p.m_size, p.n_size, p.k_size] == [extent; 3];
        subgroup == lanes && properties.iter().any(|p| square(p) && p.ab_type == F16 && p.cr_type == F32)
    })
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Tier {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|tier| tier.name() == s);
        found.ok_or_else(|| Error::value("tier", "one of portable, f16, subgroup, coop", s))
    }
}
