// Factors that normalise rows. Elements are brought near 1 by a power of two, so that no square overflows or vanishes.
//
// Workgroups have 64 invocations; ROW_LANES of them share a row. What they found is put together in their order.
#import order

const ROW_LANES: u32 = 8u;
const ROWS: u32 = 64u / ROW_LANES;

var<workgroup> found: array<u32, 64>;

// The largest absolute value of four, as bits.
fn largest_of(bits: vec4<u32>) -> u32 {
    let sizes = bits & vec4<u32>(0x7fffffffu);
    return max(max(sizes.x, sizes.y), max(sizes.z, sizes.w));
}

// Of what the invocations of a row bring, the largest.
fn largest_of_row(mine: u32, local: u32) -> u32 {
    found[local] = mine;
    workgroupBarrier();
    var largest = 0u;
    let first = local - local % ROW_LANES;
    for (var i = 0u; i < ROW_LANES; i++) {
        largest = max(largest, found[first + i]);
    }
    workgroupBarrier();
    return largest;
}

// Of what the invocations of a row bring, the sum.
fn sum_of_row(mine: vec4<f32>, local: u32) -> f32 {
    found[local] = bitcast<u32>((mine.x + mine.y) + (mine.z + mine.w));
    workgroupBarrier();
    var sum = 0.0;
    let first = local - local % ROW_LANES;
    for (var i = 0u; i < ROW_LANES; i++) {
        sum += bitcast<f32>(found[first + i]);
    }
    return sum;
}

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
