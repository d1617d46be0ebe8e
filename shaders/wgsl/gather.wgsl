// Rows added up, each times a coefficient: Σ coefficient · source[row], for every target row. Half a workgroup takes a target,
// an invocation four elements at a time: every output row has one owner, and its parts are added in order.
//
// Floor: every source row that is named, once per entry that names it. Limiter: memory, or the latency of the longest list.
#import elements

struct Params {
    work: u32,    // targets
    stride: u32,  // 16-byte vectors per source row, as f32 for residual documents
    width: u32,   // vectors of four elements per target
    flags: u32,   // 1: source rows have factors
}

@group(0) @binding(0) var<uniform> p: Params;
#if ELEMENT == RESIDUAL
@group(0) @binding(1) var<storage, read> documents: array<u32>;
@group(0) @binding(2) var<storage, read> codec: array<vec4<u32>>;
#import residual
#else
@group(0) @binding(1) var<storage, read> source: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> factors: array<f32>;
#endif
// Targets: row of `sums`, first entry, end of entries, whether to add to what is there.
@group(0) @binding(3) var<storage, read> targets: array<vec4<u32>>;
// Source row and coefficient.
@group(0) @binding(4) var<storage, read> entries: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read_write> sums: array<vec4<f32>>;

const LANES: u32 = 32u;
// Entries that are added up before they join the rest: long lists stay accurate.
const RUN: u32 = 32u;

fn element(row: u32, v: u32) -> vec4<f32> {
#if ELEMENT == RESIDUAL
    return decoded(row, v);
#else
    return decode(source[row * p.stride + v / PARTS], v % PARTS);
#endif
}

fn factor(row: u32) -> f32 {
    if ((p.flags & 1u) == 0u) {
        return 1.0;
    }
#if ELEMENT == RESIDUAL
    return inverse_norm(row);
#else
    return factors[row];
#endif
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = (group.x + group.y * groups.x) * 2u + local / LANES;
    if (item >= p.work) {
        return;
    }
    let target_row = targets[item];
    for (var v = local % LANES; v < p.width; v += LANES) {
        var sum = vec4<f32>();
        for (var first = target_row.y; first < target_row.z; first += RUN) {
            var run = vec4<f32>();
            for (var e = first; e < min(first + RUN, target_row.z); e++) {
                let entry = entries[e];
                run = fma(vec4<f32>(bitcast<f32>(entry.y) * factor(entry.x)), element(entry.x, v), run);
            }
            sum += run;
        }
        let to = target_row.x * p.width + v;
        if (target_row.w != 0u) {
            sum += sums[to];
        }
        sums[to] = sum;
    }
}
