// Inverse norms of residual rows that came without, written into the rows: one invocation per row.
//
// Floor: every row once, and its centroid from a cache. Limiter: decoding.
#import order
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
    let row = (group.x + group.y * groups.x) * 64u + local;
    if (row >= p.rows) {
        return;
    }
    let parts = (codec[0].z + 3u) / 4u;
    var largest = 0u;
    for (var part = 0u; part < parts; part++) {
        let sizes = bitcast<vec4<u32>>(decoded(row, part)) & vec4<u32>(0x7fffffffu);
        largest = max(largest, max(max(sizes.x, sizes.y), max(sizes.z, sizes.w)));
    }
    let exponent = exponent_of(largest);
    let down = shrink_by(exponent);
    var squares = vec4<f32>();
    for (var part = 0u; part < parts; part++) {
        let x = decoded(row, part) * down;
        squares = fma(x, x, squares);
    }
    let sum = (squares.x + squares.y) + (squares.z + squares.w);
    documents[row * codec[0].x + 1u] = bitcast<u32>(factor_of(largest, exponent, sum, 1.0));
}
