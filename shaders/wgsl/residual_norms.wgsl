// Inverse norms of residual rows that came without, written into the rows: ROW_LANES invocations per row.
//
// Floor: every row once, and its centroid from a cache. Limiter: decoding.
#import norm

struct Params {
    rows: u32,
    unused0: u32,
    unused1: u32,
    unused2: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> codec: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> documents: array<u32>;
#import residual

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = (group.x + group.y * groups.x) * ROWS + local / ROW_LANES;
    let lane = local % ROW_LANES;
    // Invocations without a row meet the others at the barriers.
    let parts = select(0u, (codec[0].z + 3u) / 4u, row < p.rows);
    var largest = 0u;
    for (var part = lane; part < parts; part += ROW_LANES) {
        largest = max(largest, largest_of(bitcast<vec4<u32>>(decoded(row, part))));
    }
    largest = largest_of_row(largest, local);
    let exponent = exponent_of(largest);
    let down = shrink_by(exponent);
    var squares = vec4<f32>();
    for (var part = lane; part < parts; part += ROW_LANES) {
        let x = decoded(row, part) * down;
        squares = fma(x, x, squares);
    }
    let sum = sum_of_row(squares, local);
    if (row < p.rows && lane == 0u) {
        documents[row * codec[0].x + 1u] = bitcast<u32>(factor_of(largest, exponent, sum, 1.0));
    }
}
