//! Inverse norms as factors of similarities.

use crate::arch::Kernels;

/// Norms below this are taken as this.
pub(crate) const EPSILON: f32 = 1e-6;

/// `scale / max(scale · ‖row‖₂, 1e-6)`: what a similarity with the unscaled `row` is multiplied by.
pub(crate) fn inverse_norm(row: &[f32], scale: f32, kernels: &Kernels) -> f32 {
    // SAFETY: `kernels` exist only for levels this machine runs.
    let mut square = unsafe { (kernels.square_norm)(row) };
    let mut norm = square.sqrt();
    if !square.is_finite() {
        // The squares overflowed, or the row is not finite.
        let wide: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        norm = wide.sqrt() as f32;
        square = norm;
    }
    if square.is_nan() {
        return f32::NAN;
    }
    scale / (scale * norm).max(EPSILON)
}

/// [`inverse_norm`] of a row whose sum of squares is known and finite.
pub(crate) fn inverse_norm_of(square: f32, scale: f32) -> f32 {
    scale / (scale * square.sqrt()).max(EPSILON)
}
