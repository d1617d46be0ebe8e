//! The configurations that common problems lead to: what tests compile for every architecture.

use std::collections::HashSet;

use maxsim_core::{DType, Precision};
use maxsim_kernels::kernels;

use crate::arch::{Arch, Path};
use crate::config::{self, Kind, Problem, Scorer, Stored, Use};
use crate::device::{Caps, Unit};

/// Shared memory of the smallest device of a path, and its architecture.
fn caps(path: Path) -> Caps {
    let (capability, shared_block, shared_processor) = match path {
        Path::Sm75 => ((7, 5), 64, 64),
        Path::Sm80 => ((8, 0), 163, 164),
        Path::Sm89 => ((8, 9), 99, 100),
        Path::Sm90 => ((9, 0), 227, 228),
    };
    Caps {
        name: path.name().into(),
        arch: Arch::choose(capability.0, capability.1, None).expect("a known architecture"),
        processors: 132,
        shared_block: shared_block << 10,
        shared_processor: shared_processor << 10,
        memory: 1 << 36,
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
    let caps = caps(path);
    let mut units: Vec<Unit> = Vec::new();
    let mut scorer = |q: DType, stored: Stored, dim: u32, rows: u32, argmax: bool, scaled: bool| {
        let product = config::product(path, q, stored, Precision::Default);
        let purpose = Use::Scores { argmax };
        let problem = Problem { product, stored, dim, rows, scaled, fast: false, purpose };
        units.push(Scorer::choose(&caps, &problem).unit());
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
    for (product, stored, dim) in [
        (Kind::F32, Kind::F32, 128),
        (Kind::F16, Kind::F16, 768),
        (Kind::BF16, Kind::BF16, 768),
        (Kind::F32, Kind::BF16, 768),
    ] {
        let product = if path == Path::Sm75 { Kind::F32 } else { product };
        let stored = Stored::Vectors(stored);
        let problem =
            Problem { product, stored, dim, rows: 128, scaled: false, fast: false, purpose: Use::Store };
        units.push(Scorer::choose(&caps, &problem).unit());
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
            units.extend(config::gather(kernels::BACKWARD_QUERIES, stored, kind, kind, dim, false));
            units.extend(config::gather(kernels::BACKWARD_DOCUMENTS, stored, kind, kind, dim, false));
        }
        units.extend(config::gather(
            kernels::BACKWARD_QUERIES,
            Stored::Vectors(Kind::F32),
            kind,
            Kind::F32,
            128,
            true,
        ));
        units.extend(config::gather(
            kernels::BACKWARD_QUERIES,
            Stored::Residual { bits: 2, reversed: true },
            kind,
            kind,
            128,
            false,
        ));
        units.extend([config::unit_rows(kind), config::head_hidden(kind), config::head_weights(kind)]);
    }
    for kind in [Kind::F32, Kind::F16] {
        units.extend([config::approx_score(kind, 32), config::approx_score(kind, 33)]);
    }
    let documents = [(300, 32), (3000, 32), (300, 1), (100_000, 1)];
    units.extend(documents.map(|(rows, pairs)| config::backward_group(&caps, rows, pairs).0));
    units.extend([config::plaid_turn().0, config::plaid_eligible(), config::plaid_mark()]);
    units.extend([config::plaid_rough(true), config::plaid_rough(false)]);
    units.extend([config::plaid_jobs(), config::plaid_rank()]);
    units.extend([config::forward_sum(), config::topk_select(), config::head_compact(), config::head_add()]);
    let mut seen = HashSet::new();
    units.retain(|unit| seen.insert(unit.clone()));
    units
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn problem() -> impl Strategy<Value = (DType, Stored, u32, u32, [bool; 3])> {
        let dtype = || proptest::sample::select(DType::ALL.to_vec());
        let stored = prop_oneof![
            dtype().prop_map(|d| Stored::Vectors(d.into())),
            proptest::sample::select(vec![1, 2, 4, 8])
                .prop_map(|bits| Stored::Residual { bits, reversed: true }),
        ];
        (dtype(), stored, 1u32..5000, 0u32..2000, any::<[bool; 3]>())
    }

    fn unit(
        path: Path,
        (q, stored, dim, rows, [argmax, scaled, fast]): (DType, Stored, u32, u32, [bool; 3]),
    ) -> (Unit, u32) {
        let precision = if fast { Precision::Fast } else { Precision::Default };
        let product = config::product(path, q, stored, precision);
        let purpose = Use::Scores { argmax };
        let scorer =
            Scorer::choose(&caps(path), &Problem { product, stored, dim, rows, scaled, fast, purpose });
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

    /// Batch sizes, lengths and options lead to few kernels.
    #[test]
    fn kernels_are_few() {
        for path in Path::ALL {
            let mut units = HashSet::new();
            for rows in (0..200).map(|i| 1 + i * i * 7 % 4099) {
                for flags in 0..4 {
                    let options = [flags & 1 == 1, flags & 2 == 2, false];
                    let stored = Stored::Vectors(Kind::BF16);
                    units.insert(unit(path, (DType::BF16, stored, 128, rows, options)).0);
                }
            }
            assert!(units.len() <= 16, "{path}: {} kernels", units.len());
        }
    }
}
