//! The configurations that common problems lead to: what tests compile for every architecture.

use std::collections::HashSet;

use maxsim_core::{DType, Error, Precision, Result};
use maxsim_kernels::kernels;

use crate::arch::{Arch, Path};
use crate::config::{self, HeadProducts, Kind, Problem, Scorer, Stored, Use};
use crate::device::{Caps, Unit};

/// Architectures that kernels are built for ahead of time: compute capability, and KiB of shared memory of a block and of a
/// multiprocessor.
const ARCHITECTURES: [((u32, u32), u32, u32); 10] = [
    ((7, 5), 64, 64),
    ((8, 0), 163, 164),
    ((8, 6), 99, 100),
    ((8, 7), 163, 164),
    ((8, 9), 99, 100),
    ((9, 0), 227, 228),
    ((10, 0), 227, 228),
    ((10, 3), 227, 228),
    ((12, 0), 99, 100),
    ((12, 1), 99, 100),
];

/// A device of the architecture that NVRTC calls `target`.
pub(crate) fn device_of(target: &str) -> Option<Caps> {
    ARCHITECTURES.iter().find_map(|&((major, minor), shared_block, shared_processor)| {
        let arch = Arch::choose(major, minor, None).ok().filter(|arch| arch.target == target)?;
        Some(device(arch, shared_block, shared_processor))
    })
}

/// The smallest device of a path.
fn caps(path: Path) -> Caps {
    let target = match path {
        Path::Sm90 => "sm_90a",
        other => other.name(),
    };
    device_of(target).expect("every path is an architecture")
}

fn device(arch: Arch, shared_block: u32, shared_processor: u32) -> Caps {
    Caps {
        name: arch.target.clone(),
        arch,
        processors: 132,
        shared_block: shared_block << 10,
        shared_processor: shared_processor << 10,
        memory: 1 << 36,
        tuning: Default::default(),
    }
}

/// Operand types worth having: equal ones, 16-bit queries with quantised documents, and the exact path.
const TYPES: [(DType, DType); 8] = [
    (DType::F32, DType::F32),
    (DType::F16, DType::F16),
    (DType::BF16, DType::BF16),
    (DType::E4M3, DType::E4M3),
    (DType::I8, DType::I8),
    (DType::F16, DType::E4M3),
    (DType::BF16, DType::I8),
    (DType::F32, DType::BF16),
];

/// Kernels of `path` for embeddings of 48 to 1024 elements, tiles of every height, with and without winners and factors;
/// tables and projections; residual documents; and all the others.
pub fn variants(path: Path) -> Vec<Unit> {
    common(&caps(path))
}

/// Kernels to build ahead of time for `target` (`sm_80`, `sm_90a`, …): those of [`variants`], and for embeddings of each of `dims`
/// elements every tile of every pair of types.
///
/// # Errors
/// `ERR_VALUE` (argument `arch`) for an architecture that is none.
pub fn prebuilt(target: &str, dims: &[u32]) -> Result<Vec<Unit>> {
    let caps = device_of(target).ok_or_else(|| {
        let known: Vec<String> = ARCHITECTURES
            .iter()
            .filter_map(|&((major, minor), ..)| Some(Arch::choose(major, minor, None).ok()?.target))
            .collect();
        Error::value("arch", format!("one of {}", known.join(", ")), format!("{target:?}"))
    })?;
    let mut units = common(&caps);
    let options = [(false, false), (false, true), (true, false), (true, true)];
    let precision = Precision::Default;
    for &dim in dims {
        for (q, d) in TYPES {
            let stored = Stored::Vectors(d.into());
            let product = config::product(caps.arch.path, q, stored, precision);
            for rows in [16, 32, 64, 128, 256] {
                for (argmax, scaled) in options {
                    let purpose = Use::Scores { argmax };
                    for listed in [false, true] {
                        let problem =
                            Problem { product, stored, dim, rows, listed, scaled, precision, purpose };
                        units.push(Scorer::choose(&caps, &problem).unit());
                    }
                }
            }
        }
    }
    Ok(once(units))
}

fn once(mut units: Vec<Unit>) -> Vec<Unit> {
    let mut seen = HashSet::new();
    units.retain(|unit| seen.insert(unit.clone()));
    units
}

fn common(caps: &Caps) -> Vec<Unit> {
    let path = caps.arch.path;
    let mut units: Vec<Unit> = Vec::new();
    let precision = Precision::Default;
    let mut scorer = |q: DType, stored: Stored, dim: u32, rows: u32, argmax: bool, scaled: bool| {
        let product = config::product(path, q, stored, precision);
        let purpose = Use::Scores { argmax };
        for listed in [false, true] {
            let problem = Problem { product, stored, dim, rows, listed, scaled, precision, purpose };
            units.push(Scorer::choose(caps, &problem).unit());
        }
    };
    for (q, d) in TYPES {
        let stored = Stored::Vectors(d.into());
        for rows in [16, 32, 64, 128, 256] {
            for (argmax, scaled) in [(false, false), (true, true)] {
                scorer(q, stored, 128, rows, argmax, scaled || d.is_quantized());
            }
        }
        for dim in [48, 96, 320, 1024] {
            scorer(q, stored, dim, 32, false, d.is_quantized());
            scorer(q, stored, dim, 256, true, d.is_quantized());
        }
    }
    for bits in [1, 2, 4, 8] {
        for (q, dim, rows) in [(DType::F16, 128, 32), (DType::BF16, 96, 128), (DType::F32, 128, 32)] {
            scorer(q, Stored::Residual { bits, reversed: true }, dim, rows, false, true);
        }
    }
    for bits in [1, 2, 4, 8] {
        let (stored, precision) = (Stored::Residual { bits, reversed: true }, Precision::Exact);
        let product = config::product(path, DType::F16, stored, precision);
        let purpose = Use::Scores { argmax: false };
        let problem =
            Problem { product, stored, dim: 128, rows: 32, listed: false, scaled: true, precision, purpose };
        units.push(Scorer::choose(caps, &problem).unit());
    }
    for (product, stored, dim) in [
        (Kind::F32, Kind::F32, 128),
        (Kind::F16, Kind::F16, 768),
        (Kind::BF16, Kind::BF16, 768),
        (Kind::F32, Kind::BF16, 768),
    ] {
        let product = if path == Path::Sm75 { Kind::F32 } else { product };
        let stored = Stored::Vectors(stored);
        let problem = Problem {
            product,
            stored,
            dim,
            rows: 128,
            listed: false,
            scaled: false,
            precision,
            purpose: Use::Store,
        };
        units.push(Scorer::choose(caps, &problem).unit());
    }
    let floats = [Kind::F32, Kind::F16, Kind::BF16];
    for kind in [Kind::F32, Kind::F16, Kind::BF16, Kind::E4M3, Kind::I8] {
        units.push(config::row_factors(Stored::Vectors(kind)));
    }
    for bits in [1, 2, 4, 8] {
        units.push(config::row_factors(Stored::Residual { bits, reversed: true }));
    }
    for kind in floats {
        let stored = Stored::Vectors(kind);
        for dim in [96, 128, 768, 2560] {
            units.extend(config::gather(kernels::BACKWARD_QUERIES, stored, kind, kind, dim, 1, false));
            for rows in [1000, 1 << 20] {
                units.extend(config::gather(
                    kernels::BACKWARD_DOCUMENTS,
                    stored,
                    kind,
                    kind,
                    dim,
                    rows,
                    false,
                ));
            }
        }
        units.extend(config::gather(
            kernels::BACKWARD_QUERIES,
            Stored::Vectors(Kind::F32),
            kind,
            Kind::F32,
            128,
            1,
            true,
        ));
        units.extend(config::gather(
            kernels::BACKWARD_QUERIES,
            Stored::Residual { bits: 2, reversed: true },
            kind,
            kind,
            128,
            1,
            false,
        ));
        units.extend(config::head_project(caps, kind, stored, kind, 768, 128).map(|project| project.0));
        units.extend([
            config::unit_rows(kind),
            config::head_hidden(kind, 768),
            config::head_hidden(kind, 5),
            config::head_weights(kind),
        ]);
        let products = HeadProducts::choose(caps, kind, stored, kind.dtype(), 128);
        units.extend(products.iter().flat_map(|products| [products.hidden().0, products.weights().0]));
    }
    for kind in floats {
        for to in [Kind::F16, Kind::BF16, Kind::E4M3, Kind::I8] {
            units.push(config::take_rows(kind, to, false, true));
        }
        units.extend([
            config::take_rows(kind, kind, false, false),
            config::take_rows(kind, Kind::BF16, true, false),
        ]);
    }
    for kind in [Kind::F32, Kind::F16] {
        units.extend([config::approx_score(kind, 32), config::approx_score(kind, 33)]);
    }
    let documents = [(300, 32), (3000, 32), (300, 1), (100_000, 1)];
    units.extend(documents.map(|(rows, pairs)| config::backward_group(caps, rows, pairs).0));
    units.extend([config::plaid_turn().0, config::plaid_eligible(), config::plaid_mark()]);
    units.extend([config::plaid_rough(true), config::plaid_rough(false)]);
    units.extend([config::plaid_jobs(), config::plaid_rank()]);
    units.extend([config::forward_sum(), config::topk_select(), config::head_add()]);
    units.extend([config::put_rows(), config::take_winners()]);
    units.extend(config::head_compact().0);
    once(units)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn problem() -> impl Strategy<Value = (DType, Stored, u32, u32, [bool; 4])> {
        let dtype = || proptest::sample::select(DType::ALL.to_vec());
        let stored = prop_oneof![
            dtype().prop_map(|d| Stored::Vectors(d.into())),
            proptest::sample::select(vec![1, 2, 4, 8])
                .prop_map(|bits| Stored::Residual { bits, reversed: true }),
        ];
        (dtype(), stored, 1u32..5000, 0u32..2000, any::<[bool; 4]>())
    }

    fn unit(
        path: Path,
        (q, stored, dim, rows, [argmax, scaled, fast, listed]): (DType, Stored, u32, u32, [bool; 4]),
    ) -> (Unit, u32) {
        let precision = if fast { Precision::Fast } else { Precision::Default };
        let product = config::product(path, q, stored, precision);
        let purpose = Use::Scores { argmax };
        let scorer = Scorer::choose(
            &caps(path),
            &Problem { product, stored, dim, rows, listed, scaled, precision, purpose },
        );
        (scorer.unit(), scorer.shared())
    }

    proptest! {
        /// There is a kernel for everything, and it fits.
        #[test]
        fn planning_is_total(problem in problem()) {
            for path in Path::ALL {
                let (_, shared) = unit(path, problem);
                prop_assert!(shared <= caps(path).shared_block, "{path}: {shared} bytes");
            }
        }
    }

    #[test]
    fn architectures_have_kernels_of_their_own() {
        let error = prebuilt("sm_42", &[128]).unwrap_err();
        assert_eq!(error.code().as_str(), "ERR_VALUE");
        assert!(error.to_string().contains("sm_90a"), "{error}");
        let (few, more) = (prebuilt("sm_90a", &[128]).unwrap(), prebuilt("sm_90a", &[128, 72]).unwrap());
        assert!(more.len() > few.len() && few.iter().all(|unit| more.contains(unit)));
        // Same path, less shared memory.
        assert_ne!(prebuilt("sm_80", &[128]).unwrap(), prebuilt("sm_86", &[128]).unwrap());
        for ((major, minor), ..) in ARCHITECTURES {
            let target = Arch::choose(major, minor, None).unwrap().target;
            assert!(!prebuilt(&target, &[]).unwrap().is_empty());
        }
    }

    /// Batch sizes, lengths and options lead to few kernels.
    #[test]
    fn kernels_are_few() {
        for path in Path::ALL {
            let mut units = HashSet::new();
            for rows in (0..200).map(|i| 1 + i * i * 7 % 4099) {
                for flags in 0..8 {
                    let options = [flags & 1 == 1, flags & 2 == 2, false, flags & 4 == 4];
                    let stored = Stored::Vectors(Kind::BF16);
                    units.insert(unit(path, (DType::BF16, stored, 128, rows, options)).0);
                }
            }
            assert!(units.len() <= 24, "{path}: {} kernels", units.len());
        }
    }
}
