// Scores from the maxima that `forward` left per query row and segment. A workgroup takes a pair: 32 rows at a time, maxima
// over its segments, times the rows' factors, added up in row order.
//
// Floor: every maximum read once. Limiter: the sums in order, one invocation per 32 rows; hidden behind other pairs.
#import group_sum

struct Params {
    work: u32,    // pairs
    flags: u32,   // 1: query rows have factors
    unused0: u32,
    unused1: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
// Per pair: first maximum, distance between segments, segments, first query row, rows, score, first winner, unused.
@group(0) @binding(1) var<storage, read> pairs: array<u32>;
@group(0) @binding(2) var<storage, read> maxima: array<u32>;
@group(0) @binding(3) var<storage, read> indices: array<i32>;
@group(0) @binding(4) var<storage, read> q_factors: array<f32>;
@group(0) @binding(5) var<storage, read_write> scores: array<f32>;
@group(0) @binding(6) var<storage, read_write> winners: array<i32>;

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
    let base = pairs[8u * item];
    let step = pairs[8u * item + 1u];
    let segments = pairs[8u * item + 2u];
    let first_row = pairs[8u * item + 3u];
    let rows = pairs[8u * item + 4u];
    var score = 0.0;
    for (var row0 = 0u; row0 < rows; row0 += GROUP) {
        let row = row0 + local;
        var contribution = 0.0;
        if (row < rows) {
            var key = NO_WINNER;
            var winner = -1;
            for (var s = 0u; s < segments; s++) {
                let there = bitcast<i32>(maxima[base + s * step + row]);
#if ARGMAX
                // Segments come in order: the first of equals stays.
                if (there > key) {
                    winner = indices[base + s * step + row];
                }
#endif
                key = max(key, there);
            }
            if (key > NO_WINNER) {
                contribution = value_of(key);
                if ((p.flags & 1u) != 0u) {
                    contribution *= q_factors[first_row + row];
                }
                if (is_nan(contribution)) {
                    contribution = 0.0;
                    winner = -1;
                }
            }
#if ARGMAX
            winners[pairs[8u * item + 6u] + row] = winner;
#endif
        }
        score += group_sum(contribution, local);
    }
    if (local == 0u) {
        scores[pairs[8u * item + 5u]] = score;
    }
}
