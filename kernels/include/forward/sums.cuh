// From maxima of query rows to scores: the part that all scoring kernels share.
#pragma once
#include "forward/params.cuh"

namespace maxsim {

// A row's maximum and the document row it is at.
struct alignas(8) Best {
    float value;
    i32 row;
};

// The better of two; the lower row among equals.
MS_FN Best better(Best a, Best b) {
    bool second = b.value > a.value || (b.value == a.value && u32(b.row) < u32(a.row));
    return second ? b : a;
}

// What query row `row` adds to its score, and whether it has a winner: a row still at −inf has none, and inf · 0 is a
// token of infinite norm, whose similarities are all NaN.
MS_FN float contribution(const ForwardParams& p, u32 row, float best, bool& wins) {
    float x = best * (p.q_factors ? p.q_factors[row] : 1.0f);
    wins = best > negative_infinity() && x == x;
    return wins ? x : 0.0f;
}

// Adds up the rows of a slot, number `slot_index`, against document `j` with one warp. `best(row)` is the maximum of a row of
// the tile.
//
// Blocks of 32 rows are summed as a tree, blocks in order: the bits depend on the query's length alone, whether a query
// lies in one tile or in many.
template <bool kArgmax, class Rows>
MS_FN void add_up(const ForwardParams& p, const Slot& slot, u32 slot_index, u32 j, u32 document_row, Rows best) {
    float score = 0.0f;
    for (u32 first = 0; first < slot.rows; first += kWarp) {
        u32 r = first + lane_index();
        float x = 0.0f;
        if (r < slot.rows) {
            bool wins;
            Best b = best(slot.tile_row + r);
            x = contribution(p, slot.row + r, b.value, wins);
            if constexpr (kArgmax) {
                u32 row = slot.row + r;
                i64 token = p.q_ids ? p.q_ids[row] : i32(row - p.q_starts[slot_index]);
                i32 winner = !wins ? -1 : p.d_ids ? p.d_ids[b.row] : b.row - i32(document_row);
                p.argmax[slot.argmax + i64(j) * slot.argmax_stride + token] = winner;
            }
        }
        for (u32 step = kWarp / 2; step > 0; step /= 2) x += shuffle_xor(x, step);
        if (p.partials) {
            if (lane_index() == 0)
                p.partials[(slot.partial + j) * p.partial_stride + slot.block + first / kWarp] = x;
        } else {
            score += x;
        }
    }
    if (!p.partials && lane_index() == 0) p.scores[slot.score + j] = score;
}

struct SumParams {
    const float* partials;  // [pairs, stride]
    const u32* blocks;      // per query: blocks of 32 rows
    const u32* queries;     // per pair; null: first_query + pair / documents
    const u32* targets;     // per pair: its score; null: first_score + pair / documents · score_stride + pair % documents
    float* scores;
    u64 pairs;
    i64 first_score, score_stride;
    u32 stride, documents, first_query, unused;
};

// Adds up the blocks of every pair, in order.
template <class C>
MS_FN void forward_sum(const SumParams& p) {
    u64 pair = u64(block_index()) * C::kThreads + thread_index();
    if (pair >= p.pairs) return;
    u64 row = pair / p.documents;
    u32 blocks = p.blocks[p.queries ? p.queries[pair] : p.first_query + u32(row)];
    float score = 0.0f;
    for (u32 b = 0; b < blocks; b++) score += p.partials[pair * p.stride + b];
    i64 at = p.targets ? i64(p.targets[pair]) : p.first_score + i64(row) * p.score_stride + i64(pair % p.documents);
    p.scores[at] = score;
}

}  // namespace maxsim
