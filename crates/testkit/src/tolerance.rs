//! How far a result may be from float64 on the inputs as stored.
//!
//! Scores: `|Δ| ≤ t · max(1, |reference|)` with the `t` of these functions. Gradients have a bound of their own.

use maxsim_core::{DType, Precision};

/// Embedding dimension from which f32 sums may be off by ten times as much: rounding errors add up.
const LONG_SUM: usize = 512;

/// `t` for scores of token vectors.
pub fn scores(q: DType, d: DType, precision: Precision, dim: usize) -> f64 {
    let inputs = input(q).max(input(d));
    let sums = if dim >= LONG_SUM { 1e-4 } else { 1e-5 };
    let rounding = match precision {
        // f32 operands may be rounded to bf16.
        Precision::Fast if q == DType::F32 || d == DType::F32 => 2e-2,
        Precision::Int8 => 2e-2,
        _ => 0.0,
    };
    inputs.max(sums).max(rounding)
}

/// `t` for an operand's type. f32: nothing beyond the error of the sums.
fn input(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 0.0,
        DType::F16 | DType::BF16 | DType::I8 => 1e-4,
        // Hopper's fp8 units keep about 14 bits while accumulating.
        DType::E4M3 => 1e-3,
    }
}

/// `t` for `maxsim_from_hidden`, by the type of `H`.
pub fn from_hidden(dtype: DType, dim: usize) -> f64 {
    match dtype {
        DType::F16 => 5e-3,
        DType::BF16 => 2e-2,
        other => scores(other, other, Precision::Exact, dim),
    }
}

/// `t` for residual documents, by the type of `Q`.
pub fn residual(q: DType, precision: Precision, dim: usize) -> f64 {
    match precision {
        Precision::Fast => 5e-3,
        Precision::Int8 => 2e-2,
        _ => scores(q, DType::F32, Precision::Exact, dim),
    }
}

/// Largest `|Δ|` allowed for an element of a gradient returned as `dtype`, where the largest magnitude of the reference is
/// `largest`.
pub fn gradient(dtype: DType, reference: f64, largest: f64) -> f64 {
    match dtype {
        DType::F32 => 1e-5 * largest,
        // Below f16's normal range not even the nearest number is within a relative bound: half a subnormal step on top.
        DType::F16 => 2f64.powi(-8) * reference.abs() + 1e-3 * largest + 2f64.powi(-25),
        _ => 2f64.powi(-8) * reference.abs() + 1e-3 * largest,
    }
}

/// Lead over the runner-up from which the winner of a row must be the reference's: `row_max` is the winning similarity, `t`
/// the tolerance of its scores.
pub fn argmax_lead(row_max: f64, t: f64) -> f64 {
    t.max(1e-5) * row_max.abs().max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_looser_rule_wins() {
        let exact = Precision::Default;
        assert_eq!(scores(DType::F32, DType::F32, exact, 128), 1e-5);
        assert_eq!(scores(DType::F32, DType::F32, exact, 512), 1e-4);
        assert_eq!(scores(DType::F32, DType::BF16, exact, 128), 1e-4);
        assert_eq!(scores(DType::E4M3, DType::I8, exact, 4096), 1e-3);
        assert_eq!(scores(DType::F32, DType::F32, Precision::Fast, 128), 2e-2);
        // 16-bit operands are not rounded further.
        assert_eq!(scores(DType::F16, DType::F16, Precision::Fast, 128), 1e-4);
        assert_eq!(from_hidden(DType::F32, 128), 1e-5);
        assert_eq!(residual(DType::BF16, Precision::Exact, 128), 1e-4);
        assert_eq!(gradient(DType::F32, 0.0, 2.0), 2e-5);
        assert_eq!(argmax_lead(-30.0, 1e-4), 30.0 * 1e-4);
    }
}
