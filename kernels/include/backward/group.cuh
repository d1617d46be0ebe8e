// Winners grouped by the document row that won: a stable counting sort, so that what follows adds in pair order.
#pragma once
#include "backward/pairs.cuh"

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
    u32* counts;        // the same, where documents are too long for shared memory
    u32 document_begin, document_count;
};

// One warp a document: the order of winners within a warp is the order of lanes, so placing them is stable.
template <class C>
MS_FN void backward_group(const GroupParams& p) {
    u32 document = p.document_begin + block_index();
    u32 begin = p.pairs.d_offsets[document], rows = p.pairs.d_offsets[document + 1] - begin;
    u32 local = begin - p.pairs.d_offsets[p.document_begin];
    u32* counts = C::kLocal ? reinterpret_cast<u32*>(shared_memory()) : p.counts + local;
    u32 lane = lane_index(), pairs = pairs_of_document(p.pairs, document);
    for (u32 r = lane; r < rows; r += kWarp) counts[r] = 0;
    sync_warp();
    for (int pass = 0; pass < 2; pass++) {
        for (u32 i = 0; i < pairs; i++) {
            Pair pair = pair_of_document(p.pairs, document, i);
            u32 q_begin = p.pairs.q_offsets[pair.query], q_rows = p.pairs.q_offsets[pair.query + 1] - q_begin;
            float grad = p.grad[pair.index];
            for (u32 first = 0; first < q_rows; first += kWarp) {
                u32 s = first + lane;
                u32 winner = s < q_rows ? u32(p.winners[pair.first + s]) : 0xffffffffu;
                bool wins = winner < rows;
                u32 peers = match(wins ? winner : 0xffffffffu);
                u32 before = count_bits(peers & ((1u << lane) - 1));
                u32 at = wins ? counts[winner] : 0;
                sync_warp();
                if (wins && before == 0) counts[winner] = at + count_bits(peers);
                if (wins && pass == 1) p.entries[at + before] = {q_begin + s, grad};
                sync_warp();
            }
        }
        if (pass == 1) break;
        // Counts to places.
        u32 sum = u32(p.firsts[block_index()]);
        for (u32 base = 0; base < rows; base += kWarp) {
            u32 r = base + lane;
            u32 count = r < rows ? counts[r] : 0, up_to = count;
            for (u32 step = 1; step < kWarp; step *= 2) {
                u32 other = shuffle(up_to, lane >= step ? lane - step : lane);
                if (lane >= step) up_to += other;
            }
            u32 at = sum + up_to - count;
            if (r < rows) {
                counts[r] = at;
                p.ranges[local + r] = {at, at + count};
            }
            sum += shuffle(up_to, kWarp - 1);
        }
        sync_warp();
    }
}

}  // namespace maxsim
