// Winners grouped by the document row that won: a stable counting sort, so that what follows adds in pair order.
//
// One block a document. Each warp counts, and later places, the winners of a run of pairs; a warp's winners come behind those
// of the warps before it, and within a warp the order is that of pairs and lanes.
#pragma once
#include "backward/pairs.cuh"
#include "warp.cuh"

namespace maxsim {

// A query row that a document row won, and the gradient of that pair's score.
struct Entry {
    u32 row;
    float grad;
};

struct Range {
    u32 begin, end;
};

struct GroupParams {
    Pairs pairs;
    const i32* winners;
    const float* grad;
    const u64* firsts;  // per document from `document_begin` on: where its entries begin
    Entry* entries;
    Range* ranges;      // per document row from the first document's on
    u32* counts;        // the same: where documents are too long for shared memory
    u32 document_begin, document_count;
};

constexpr u32 kNobody = 0xffffffffu;

// Winners of a document's pairs [begin, end), 32 query rows at a time and in order: `visit(winner, query row, gradient)` with
// kNobody in lanes without one. What is needed of several pairs is loaded at once: one load waits as long as many.
template <class Visit>
MS_FN void each_winner(const GroupParams& p, u32 document, u32 begin, u32 end, Visit visit) {
    constexpr u32 kAhead = 4;
    u32 lane = lane_index();
    for (u32 base = begin; base < end; base += kWarp) {
        u32 count = min_u32(kWarp, end - base), row = 0, rows = 0;
        u64 first = 0;
        float grad = 0.0f;
        if (lane < count) {
            Pair pair = pair_of_document(p.pairs, document, base + lane);
            row = p.pairs.q_offsets[pair.query], rows = p.pairs.q_offsets[pair.query + 1] - row;
            first = pair.first, grad = p.grad[pair.index];
        }
        // Blocks of 32 rows, pair after pair; where there are few per pair, several pairs are looked at together.
        u32 pair = 0, at = 0;
        u32 pair_rows = shuffle(rows, 0);
        while (pair < count) {
            u32 winner[kAhead], query_row[kAhead];
            float gradient[kAhead];
            u32 filled = 0;
#pragma unroll
            for (u32 e = 0; e < kAhead; e++) {
                while (pair < count && at >= pair_rows) {
                    pair++, at = 0;
                    pair_rows = shuffle(rows, min_u32(pair, kWarp - 1));
                }
                winner[e] = kNobody, query_row[e] = 0, gradient[e] = 0.0f;
                if (pair >= count) continue;
                query_row[e] = shuffle(row, pair) + at + lane;
                gradient[e] = shuffle(grad, pair);
                u64 from = shuffle(first, pair) + at + lane;
                if (at + lane < pair_rows) winner[e] = u32(p.winners[from]);
                at += kWarp;
                filled = e + 1;
            }
#pragma unroll
            for (u32 e = 0; e < kAhead; e++)
                if (e < filled) visit(winner[e], query_row[e], gradient[e]);
        }
    }
}

template <class C>
MS_FN void backward_group(const GroupParams& p) {
    constexpr u32 kWarps = C::kThreads / kWarp;
    u32 document = p.document_begin + block_index();
    u32 begin = p.pairs.d_offsets[document], rows = p.pairs.d_offsets[document + 1] - begin;
    u32 local = begin - p.pairs.d_offsets[p.document_begin];
    u32* sums = reinterpret_cast<u32*>(shared_memory());  // [warps]
    // [warps, rows]; where that does not fit there is one warp.
    u32* counts = C::kLocal ? sums + kWarps : p.counts + local;
    u32 lane = lane_index(), warp = warp_index(), pairs = pairs_of_document(p.pairs, document);
    u32* own = counts + warp * rows;
    for (u32 r = lane; r < rows; r += kWarp) own[r] = 0;
    sync_warp();
    u32 first = u32(u64(pairs) * warp / kWarps), last = u32(u64(pairs) * (warp + 1) / kWarps);
    auto count = [&](u32 winner, bool place, u32 row, float grad) {
        bool wins = winner < rows;
        u32 peers = match(wins ? winner : kNobody);
        u32 before = count_bits(peers & ((1u << lane) - 1));
        u32 at = wins ? own[winner] : 0;
        sync_warp();
        if (wins && before == 0) own[winner] = at + count_bits(peers);
        if (wins && place) p.entries[at + before] = {row, grad};
        sync_warp();
    };
    each_winner(p, document, first, last, [&](u32 winner, u32 row, float grad) { count(winner, false, row, grad); });
    sync_block();
    // Counts to places: rows in order, within a row the warps.
    u32 done = u32(p.firsts[block_index()]);
    for (u32 base = 0; base < rows; base += C::kThreads) {
        u32 r = base + thread_index(), sum = 0;
        if (r < rows)
            for (u32 w = 0; w < kWarps; w++) sum += counts[w * rows + r];
        u32 up_to = running_sum(sum);
        if (lane == kWarp - 1) sums[warp] = up_to;
        sync_block();
        u32 at = done + up_to - sum;
        for (u32 w = 0; w < kWarps; w++) {
            if (w < warp) at += sums[w];
            done += sums[w];
        }
        if (r < rows) {
            p.ranges[local + r] = {at, at + sum};
            for (u32 w = 0; w < kWarps; w++) {
                u32 here = counts[w * rows + r];
                counts[w * rows + r] = at;
                at += here;
            }
        }
        sync_block();
    }
    each_winner(p, document, first, last, [&](u32 winner, u32 row, float grad) { count(winner, true, row, grad); });
}

}  // namespace maxsim
