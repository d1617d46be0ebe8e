// Rows as f32 (WIDEN) and factors that normalise them (NORM): ROW_LANES invocations per row, which read it side by side.
//
// Floor: every stored byte once, and the f32 rows written once; norms read rows a second time, from the cache. Limiter: memory.
#import elements
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
    let row = (group.x + group.y * groups.x) * ROWS + local / ROW_LANES;
    let lane = local % ROW_LANES;
    // Invocations without a row meet the others at the barriers.
    let stride = select(0u, p.stride, row < p.rows);
    let origin = row * p.stride;
    var largest = 0u;
    for (var c = lane; c < stride; c += ROW_LANES) {
        let words = stored[origin + c];
        for (var part = 0u; part < PARTS; part++) {
            let bits = bitcast<vec4<u32>>(decode(words, part));
#if WIDEN
            wide[row * p.wide_stride + c * PARTS + part] = bits;
#endif
#if NORM
            largest = max(largest, largest_of(bits));
#endif
        }
    }
#if WIDEN
    let wide_stride = select(0u, p.wide_stride, row < p.rows);
    for (var c = p.stride * PARTS + lane; c < wide_stride; c += ROW_LANES) {
        wide[row * p.wide_stride + c] = vec4<u32>();
    }
#endif
#if NORM
    largest = largest_of_row(largest, local);
    let exponent = exponent_of(largest);
    let down = shrink_by(exponent);
    var squares = vec4<f32>();
    for (var c = lane; c < stride; c += ROW_LANES) {
        let words = stored[origin + c];
        for (var part = 0u; part < PARTS; part++) {
            let x = decode(words, part) * down;
            squares = fma(x, x, squares);
        }
    }
    let sum = sum_of_row(squares, local);
    if (row < p.rows && lane == 0u) {
        var scale = 1.0;
        if (p.scaled != 0u) {
            scale = scales[row];
        }
        factors[row] = factor_of(largest, exponent, sum, scale);
    }
#endif
}
