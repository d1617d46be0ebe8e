// Centroids that a query looks into: the best of its tokens, a bit each. One invocation per token and centroid.
//
// Floor: every probe once. Limiter: latency; there are few.
#import order

struct Params {
    work: u32,      // query tokens times probes
    probes: u32,    // of a query token
    rows: u32,      // query tokens
    flags: u32,     // 1: query tokens have factors, 2: there is a threshold
    threshold: f32, // for a centroid's best similarity
    words: u32,     // of bits per query
    queries: u32,
    probed_at: u32, // where `bits` hold the probed centroids, query by query
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> keys: array<u32>;
@group(0) @binding(2) var<storage, read> centroids: array<u32>;
// [centroids][query tokens]
@group(0) @binding(3) var<storage, read> table: array<f32>;
// First token of every query and the end, then the query of every token.
@group(0) @binding(4) var<storage, read> q_meta: array<u32>;
@group(0) @binding(5) var<storage, read> q_factors: array<f32>;
@group(0) @binding(6) var<storage, read_write> bits: array<atomic<u32>>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let at = (group.x + group.y * groups.x) * 64u + local;
    if (at >= p.work || keys[at] == ABSENT) {
        return;
    }
    let query = q_meta[p.queries + 1u + at / p.probes];
    let centroid = centroids[at];
    var worth = (p.flags & 2u) == 0u;
    if (!worth) {
        for (var row = q_meta[query]; row < q_meta[query + 1u]; row++) {
            var similarity = table[centroid * p.rows + row];
            if ((p.flags & 1u) != 0u) {
                similarity *= q_factors[row];
            }
            worth |= key_of(similarity) > NO_WINNER && similarity >= p.threshold;
        }
    }
    if (worth) {
        atomicOr(&bits[p.probed_at + query * p.words + centroid / 32u], 1u << (centroid % 32u));
    }
}
