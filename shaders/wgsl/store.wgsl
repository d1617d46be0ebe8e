// Rows as corpora store them: normalised, in another element type, or quantised with a scale per row. Every bit is what the host
// would have made of it, which does this in f64 and by IEEE division; hence the integers of `lib/exact`.
//
// A workgroup takes ROWS rows. Each invocation finds the norm of one of them, one chain of additions as on the host, and its
// scale; then all of them share the words of the rows out among themselves.
//
// Floor: every element read and written once. Limiter: integer arithmetic, about 60 operations per element for the norm and 250
// for each division.
#import exact

struct Params {
    rows: u32,
    dim: u32,
    stride: u32,      // words per row as given
    to_stride: u32,   // words per row as stored
    first: u32,       // row to store the first one in
    normalize: u32,   // whether rows are normalised
    unused0: u32,
    unused1: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> given: array<u32>;
@group(0) @binding(2) var<storage, read_write> stored: array<u32>;
@group(0) @binding(3) var<storage, read_write> scales: array<u32>;

const ROWS: u32 = 64u;
const NOT_A_NUMBER: u32 = 0x400000u;

// What rows are divided by: norms, INFINITE in place of `hi` where they are that; scales.
var<workgroup> norms: array<Double, ROWS>;
var<workgroup> units: array<Double, ROWS>;

// Bits of an element as f32.
fn element(row: u32, k: u32) -> u32 {
#if ELEMENT == F32
    return given[row * p.stride + k];
#else
    let half = (given[row * p.stride + k / 2u] >> (16u * (k % 2u))) & 0xffffu;
#if ELEMENT == BF16
    return half << 16u;
#else
    let sign = (half & 0x8000u) << 16u;
    let size = half & 0x7fffu;
    if (size >= 0x7c00u) {
        return sign | INFINITE | ((size & 0x3ffu) << 13u);
    }
    if (size >= 0x400u) {
        return sign | ((size << 13u) + 0x38000000u);
    }
    if (size == 0u) {
        return sign;
    }
    let top = firstLeadingBit(size);
    return sign | (((top + 103u) << 23u) | ((size << (23u - top)) & 0x7fffffu));
#endif
#endif
}

// A normalised magnitude.
fn normalized(size: u32, norm: Double) -> u32 {
    if (size > INFINITE || (size == INFINITE && norm.hi == INFINITE)) {
        return INFINITE | NOT_A_NUMBER | size;
    }
    if (norm.hi == INFINITE) {
        return 0u;
    }
    if (size == INFINITE) {
        return size;
    }
    return over(size, norm);
}

// Stored bits of an f32.
fn converted(bits: u32) -> u32 {
    let size = bits & 0x7fffffffu;
    let exponent = size >> 23u;
    let m = (size & 0x7fffffu) | 0x800000u;
#if TO == F32
    return bits;
#endif
#if TO == F16
    let sign = (bits >> 16u) & 0x8000u;
    if (size > INFINITE) {
        return sign | 0x7e00u | ((size >> 13u) & 0x3ffu);
    }
    if (size < 0x38800000u) {
        return sign | select(0u, shifted(m, 126u - exponent, false), exponent > 101u);
    }
    return sign | min(shifted(size - 0x38000000u, 13u, false), 0x7c00u);
#endif
#if TO == BF16
    if (size > INFINITE) {
        return (bits >> 16u) | 0x40u;
    }
    return shifted(bits, 16u, false);
#endif
#if TO == E4M3
    let sign = (bits >> 24u) & 0x80u;
    if (size < 0x3c800000u) {
        return sign | select(0u, shifted(m, 141u - exponent, false), exponent > 115u);
    }
    return sign | min(shifted(size, 20u, false) - 960u, 0x7eu);
#endif
#if TO == I8
    let whole = select(0u, min(shifted(m, 150u - min(exponent, 134u), false), 127u), exponent > 125u);
    return select(whole, (256u - whole) & 0xffu, bits >= 0x80000000u);
#endif
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row0 = (group.x + group.y * groups.x) * ROWS;
    let row = row0 + local;
    if (row < p.rows) {
        var largest = 0u;
        var sum = Double(0u, 0u, 0);
        for (var k = 0u; k < p.dim; k++) {
            let size = element(row, k) & 0x7fffffffu;
            largest = max(largest, size);
            if (p.normalize != 0u && size > 0u && size < INFINITE) {
                sum = sum_of(sum, square(size));
            }
        }
        if (p.normalize != 0u) {
            // 1e-6.
            var norm = Double(0x10c6f7u, 0xa0b5ed8du, -72);
            if (largest == INFINITE) {
                norm.hi = INFINITE;
            } else if (largest < INFINITE && sum.hi != 0u) {
                let root = root_of(sum);
                if (root.e > norm.e || (root.e == norm.e && at_least(vec2<u32>(root.hi, root.lo), vec2<u32>(norm.hi, norm.lo)))) {
                    norm = root;
                }
            }
            norms[local] = norm;
            largest = normalized(largest, norm);
        }
#if QUANTIZED
        // 448 or 127; the largest is 1e-6 at least.
#if TO == E4M3
        let scale = over(max(largest, 0x358637bdu), Double(0x1c0000u, 0u, -44));
#else
        let scale = over(max(largest, 0x358637bdu), Double(0x1fc000u, 0u, -46));
#endif
        units[local] = widened(scale);
        scales[p.first + row] = scale;
#endif
    }
    workgroupBarrier();
    let words = ROWS * p.to_stride;
    for (var i = local; i < words; i += ROWS) {
        let r = i / p.to_stride;
        if (row0 + r >= p.rows) {
            break;
        }
        let word = i % p.to_stride;
        var packed = 0u;
        for (var j = 0u; j < PER; j++) {
            let k = word * PER + j;
            if (k < p.dim) {
                let bits = element(row0 + r, k);
                var size = bits & 0x7fffffffu;
                if (p.normalize != 0u) {
                    size = normalized(size, norms[r]);
                }
#if QUANTIZED
                size = over(min(size, INFINITE - 1u), units[r]);
#endif
                packed |= converted((bits & 0x80000000u) | size) << (j * (32u / PER));
            }
        }
        stored[(p.first + row0 + r) * p.to_stride + word] = packed;
    }
}
