// Approximate scores of a query's candidates: documents that are allowed and have a token in a centroid that is probed. What is
// no candidate is ABSENT. A workgroup takes a query and a document.
//
// Floor: every code once per query, and a row of the table per code of a candidate. Limiter: memory for the codes, the cache
// that holds the table for candidates.
#import group_sum

struct Params {
    work: u32,      // queries times documents of the shard
    documents: u32, // of the shard
    first: u32,     // number of the first of them
    total: u32,     // documents of the index
    rows: u32,      // query tokens
    flags: u32,     // 1: query tokens have factors, 2: only some documents are allowed
    words: u32,     // of bits per query
    probed_at: u32, // where `bits` hold the probed centroids, query by query, behind the allowed documents
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> codes: array<u32>;
// First row and rows of every document, in four words.
@group(0) @binding(2) var<storage, read> d_meta: array<u32>;
// [centroids][query tokens]
@group(0) @binding(3) var<storage, read> table: array<f32>;
@group(0) @binding(4) var<storage, read> q_meta: array<u32>;
@group(0) @binding(5) var<storage, read> q_factors: array<f32>;
@group(0) @binding(6) var<storage, read> bits: array<u32>;
@group(0) @binding(7) var<storage, read_write> scores: array<u32>;

var<workgroup> found: atomic<u32>;

fn is_set(at: u32, bit: u32) -> bool {
    return ((bits[at + bit / 32u] >> (bit % 32u)) & 1u) != 0u;
}

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = group.x + group.y * groups.x;
    if (item >= p.work) {
        return;
    }
    let query = item / p.documents;
    let segment = item % p.documents;
    let document = p.first + segment;
    let start = d_meta[4u * segment];
    let end = start + d_meta[4u * segment + 1u];
    if (local == 0u) {
        atomicStore(&found, 0u);
    }
    workgroupBarrier();
    if ((p.flags & 2u) == 0u || is_set(0u, document)) {
        for (var t = start + local; t < end; t += GROUP) {
            if (is_set(p.probed_at + query * p.words, codes[t])) {
                atomicStore(&found, 1u);
                break;
            }
        }
    }
    workgroupBarrier();
    let candidate = atomicLoad(&found) != 0u;
    var score = 0.0;
    let last = q_meta[query + 1u];
    for (var row0 = q_meta[query]; row0 < last; row0 += GROUP) {
        let row = row0 + local;
        var contribution = 0.0;
        if (candidate && row < last) {
            var key = NO_WINNER;
            for (var t = start; t < end; t++) {
                key = max(key, key_of(table[codes[t] * p.rows + row]));
            }
            if (key > NO_WINNER) {
                contribution = value_of(key);
                if ((p.flags & 1u) != 0u) {
                    contribution *= q_factors[row];
                }
                contribution = select(contribution, 0.0, is_nan(contribution));
            }
        }
        score += group_sum(contribution, local);
    }
    if (local == 0u) {
        scores[query * p.total + document] = select(ABSENT, bitcast<u32>(score), candidate);
    }
}
