// Scores from centroids alone: Σ_s max_t table[codes[t]][s]. A workgroup takes a document, an invocation a query token.
//
// Floor: every code once, and a row of the table per code. Limiter: the cache that holds the table.
#import group_sum

struct Params {
    work: u32,    // documents
    width: u32,   // query tokens
    stride: u32,  // words per row of the table
    first: u32,   // the first document's score
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> table: array<u32>;
// Where the codes of every document begin and the last ones end, then codes.
@group(0) @binding(2) var<storage, read> codes: array<u32>;
@group(0) @binding(3) var<storage, read_write> scores: array<f32>;

fn entry(code: u32, s: u32) -> f32 {
#if ELEMENT == F16
    return unpack2x16float(table[code * p.stride + s / 2u])[s % 2u];
#else
    return bitcast<f32>(table[code * p.stride + s]);
#endif
}

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let document = group.x + group.y * groups.x;
    if (document >= p.work) {
        return;
    }
    let first = codes[document];
    let last = codes[document + 1u];
    var score = 0.0;
    for (var s0 = 0u; s0 < p.width; s0 += GROUP) {
        var key = NO_WINNER;
        if (s0 + local < p.width) {
            for (var t = first; t < last; t++) {
                key = max(key, key_of(entry(codes[t], s0 + local)));
            }
        }
        var contribution = 0.0;
        if (key > NO_WINNER) {
            contribution = value_of(key);
        }
        score += group_sum(contribution, local);
    }
    if (local == 0u) {
        scores[p.first + document] = score;
    }
}
