// Factors that normalise rows. Elements are brought near 1 by a power of two, so that no square overflows or vanishes.

// The exponent of the largest element, given as bits.
fn exponent_of(largest: u32) -> u32 {
    return clamp(largest >> 23u, 1u, 253u);
}

// What elements are multiplied by before they are squared.
fn shrink_by(exponent: u32) -> f32 {
    return bitcast<f32>((254u - exponent) << 23u);
}

// `scale / max(scale · norm, 1e-6)`, from the sum of the squares. 0 for a row that is not finite: what is infinite becomes
// NaN, and loses.
fn factor_of(largest: u32, exponent: u32, squares: f32, scale: f32) -> f32 {
    let size = sqrt(squares);
    if (largest >= INFINITY_BITS) {
        return 0.0;
    }
    if (exponent > 190u) {
        return shrink_by(exponent) / size;
    }
    return scale / max(scale * size * bitcast<f32>(exponent << 23u), 1e-6);
}
