// Winners of a caller's tensor as gradients take them: packed query rows, document rows counted from a document's first.
//
// One warp a pair. What is no token of the document, or one that does not count, wins nothing, so that no other kernel has to look.
// Floor: the tensor once, as much written; 8 bytes a pair and query row.
#pragma once
#include "backward/pairs.cuh"

namespace maxsim {

struct TakeWinnersParams {
    Pairs pairs;
    const i32* from;    // tokens of documents, −1 for none
    const u64* firsts;  // per pair where its winners begin; null: `slots` apart
    const i32* q_ids;   // token of every packed query row; null: its place
    const i32* d_ids;
    i32* to;
    u32 count, slots;
};

// Row of token `id` among the rows of a document, whose tokens ascend; −1 if it is not there.
MS_FN i32 row_of_token(const i32* ids, u32 rows, i32 id) {
    if (!ids) return u32(id) < rows ? id : -1;
    u32 low = 0, high = rows;
    while (low < high) {
        u32 middle = (low + high) / 2;
        if (ids[middle] < id) low = middle + 1;
        else high = middle;
    }
    return low < rows && ids[low] == id ? i32(low) : -1;
}

template <class C>
MS_FN void take_winners(const TakeWinnersParams& p) {
    u32 index = block_index() * (C::kThreads / kWarp) + warp_index();
    if (index >= p.count) return;
    u32 width = p.pairs.pairing == kGrouped ? p.pairs.k : p.pairs.documents;
    Pair pair = p.pairs.pairing == kList ? listed_pair(p.pairs, index) : pair_at(p.pairs, index / width, index % width);
    u32 begin = p.pairs.q_offsets[pair.query], rows = p.pairs.q_offsets[pair.query + 1] - begin;
    u32 d_begin = p.pairs.d_offsets[pair.document], d_rows = p.pairs.d_offsets[pair.document + 1] - d_begin;
    const i32* ids = p.d_ids ? p.d_ids + d_begin : nullptr;
    u64 first = p.firsts ? p.firsts[index] : u64(index) * p.slots;
    for (u32 row = lane_index(); row < rows; row += kWarp) {
        u32 token = p.q_ids ? u32(p.q_ids[begin + row]) : row;
        p.to[pair.first + row] = row_of_token(ids, d_rows, p.from[first + token]);
    }
}

}  // namespace maxsim
