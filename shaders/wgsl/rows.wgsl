// Rows as f32 (WIDEN) and factors that normalise them (NORM): one invocation per row.
//
// Floor: every stored byte once, and the f32 rows written once. Limiter: memory; neighbouring invocations read different
// rows, and the cache turns that into whole lines.
#import elements
#import order
#import norm

struct Params {
    rows: u32,
    stride: u32,      // 16-byte vectors per stored row
    wide_stride: u32, // 16-byte vectors per f32 row
    scaled: u32,      // whether rows have scales
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> stored: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> scales: array<f32>;
@group(0) @binding(3) var<storage, read_write> wide: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> factors: array<f32>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = (group.x + group.y * groups.x) * 64u + local;
    if (row >= p.rows) {
        return;
    }
    let origin = row * p.stride;
    var largest = 0u;
    for (var c = 0u; c < p.stride; c++) {
        let words = stored[origin + c];
        for (var part = 0u; part < PARTS; part++) {
            let bits = bitcast<vec4<u32>>(decode(words, part));
#if WIDEN
            wide[row * p.wide_stride + c * PARTS + part] = bits;
#endif
#if NORM
            let sizes = bits & vec4<u32>(0x7fffffffu);
            largest = max(largest, max(max(sizes.x, sizes.y), max(sizes.z, sizes.w)));
#endif
        }
    }
#if WIDEN
    for (var c = p.stride * PARTS; c < p.wide_stride; c++) {
        wide[row * p.wide_stride + c] = vec4<u32>();
    }
#endif
#if NORM
    let exponent = exponent_of(largest);
    let down = shrink_by(exponent);
    var squares = vec4<f32>();
    for (var c = 0u; c < p.stride; c++) {
        let words = stored[origin + c];
        for (var part = 0u; part < PARTS; part++) {
            let x = decode(words, part) * down;
            squares = fma(x, x, squares);
        }
    }
    var scale = 1.0;
    if (p.scaled != 0u) {
        scale = scales[row];
    }
    factors[row] = factor_of(largest, exponent, (squares.x + squares.y) + (squares.z + squares.w), scale);
#endif
}
