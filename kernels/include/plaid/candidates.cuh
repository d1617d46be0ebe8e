// From the best centroids of a query's tokens to its candidates, and to rough scores of those.
#pragma once
#include "plaid/approx.cuh"
#include "topk/select.cuh"

namespace maxsim {

MS_FN bool has_bit(const u32* words, u32 bit) { return (words[bit / 32] >> (bit % 32) & 1) != 0; }

struct TurnParams {
    const float* table;   // [centroids, stride], of `rows` columns
    const u32* eligible;  // a bit per centroid; null: all are
    float* turned;        // [rows, centroids]
    u32 rows, stride, centroids;
    u32 unused;
};

// The table the other way round, for a selection per row; centroids that may not be probed become NaN, which is never selected.
// block_index counts tiles of 32 centroids, block_index_y of 32 rows.
template <class C>
MS_FN void plaid_turn(const TurnParams& p) {
    constexpr u32 kTile = 32, kWarps = C::kThreads / kWarp;
    // A column more than there are keeps both ways free of conflicts.
    float* tile = reinterpret_cast<float*>(shared_memory());
    u32 centroid = block_index() * kTile, row = block_index_y() * kTile, lane = lane_index(), warp = warp_index();
#pragma unroll
    for (u32 i = warp; i < kTile; i += kWarps) {
        u32 c = centroid + i;
        if (c >= p.centroids || row + lane >= p.rows) continue;
        bool eligible = !p.eligible || has_bit(p.eligible, c);
        tile[i * (kTile + 1) + lane] = eligible ? p.table[u64(c) * p.stride + row + lane] : bits_to_float(0x7fc00000u);
    }
    sync_block();
#pragma unroll
    for (u32 i = warp; i < kTile; i += kWarps) {
        u32 c = centroid + lane;
        if (c >= p.centroids || row + i >= p.rows) continue;
        p.turned[u64(row + i) * p.centroids + c] = tile[lane * (kTile + 1) + i];
    }
}

struct EligibleParams {
    const u32* codes;    // per row
    const u32* offsets;  // [documents + 1] rows
    const u32* allowed;  // a bit per document
    u32* eligible;       // a bit per centroid
    u32 documents, unused;
};

// Centroids of the allowed documents' tokens. One warp a document.
template <class C>
MS_FN void plaid_eligible(const EligibleParams& p) {
    u32 document = block_index() * (C::kThreads / kWarp) + warp_index();
    if (document >= p.documents || !has_bit(p.allowed, document)) return;
    u32 end = p.offsets[document + 1];
    for (u32 row = p.offsets[document] + lane_index(); row < end; row += kWarp) {
        u32 code = p.codes[row];
        // Most are there already, and a look is cheaper than an atomic operation.
        if (!has_bit(p.eligible, code)) or_global(p.eligible + code / 32, 1u << (code % 32));
    }
}

struct MarkParams {
    const u64* keys;          // [rows, probes] of the tokens' best centroids
    const float* table;       // [centroids, stride] similarities
    const float* factors;     // per row, or null
    const u32* owners;        // per row: its query
    const u32* rows;          // [queries + 1] rows
    const u32* list_offsets;  // [centroids + 1] entries
    const u32* list_entries;  // documents
    u32* probed;              // [queries, centroid_words] bits
    u32* candidates;          // [queries, document_words] bits
    u32 probes, stride, centroid_words, document_words;
    u32 restricted;           // whether there is a threshold
    float threshold;
};

// Sets the bits of the documents in the probed lists. One block a token and probe; a centroid that several tokens of a query
// probe is walked once.
template <class C>
MS_FN void plaid_mark(const MarkParams& p) {
    u32* walked = reinterpret_cast<u32*>(shared_memory());
    u32 row = block_index() / p.probes;
    u64 key = p.keys[block_index()];
    if (u32(key >> 32) == kAbsent) return;
    u32 centroid = u32(key), query = p.owners[row];
    const float* similarities = p.table + u64(centroid) * p.stride;
    u32 begin = p.list_offsets[centroid], end = p.list_offsets[centroid + 1];
    if (thread_index() < kWarp) {
        // A token of infinite norm has similarities, and takes part in nothing.
        float own = similarities[row] * (p.factors ? p.factors[row] : 1.0f);
        bool worth = own == own;
        if (p.restricted && worth) {
            bool above = false;
            for (u32 r = p.rows[query] + lane_index(); r < p.rows[query + 1]; r += kWarp)
                above |= similarities[r] * (p.factors ? p.factors[r] : 1.0f) >= p.threshold;
            worth = ballot(above) != 0;
        }
        if (lane_index() == 0) {
            u32 bit = 1u << (centroid % 32);
            *walked = !worth || (or_global(p.probed + query * p.centroid_words + centroid / 32, bit) & bit) != 0;
        }
    }
    sync_block();
    if (*walked) return;
    u32* candidates = p.candidates + u64(query) * p.document_words;
#pragma unroll 4
    for (u32 i = begin + thread_index(); i < end; i += C::kThreads) {
        u32 document = p.list_entries[i];
        or_global(candidates + document / 32, 1u << (document % 32));
    }
}

struct RoughParams {
    const float* table;     // [centroids, stride] similarities
    const float* factors;   // per row, or null
    const u32* codes;       // per row of the documents
    const u32* offsets;     // [documents + 1] rows
    const u32* rows;        // [queries + 1] rows of the table
    const u32* candidates;  // [queries, document_words] bits
    const u32* allowed;     // a bit per document; null: all
    float* scores;          // [queries, documents]
    u32 documents, document_words, centroids, stride;
    u32 span;               // documents of a warp: a power of two up to 32
    u32 unused;
};

// Approximate scores of the candidates; NaN for everything else. block_index_y is the query.
template <class C>
MS_FN void plaid_rough(const RoughParams& p) {
    u32 query = block_index_y();
    u32 first = (block_index() * (C::kThreads / kWarp) + warp_index()) * p.span;
    if (first >= p.documents) return;
    u32 bits = p.candidates[u64(query) * p.document_words + first / 32];
    if (p.allowed) bits &= p.allowed[first / 32];
    bits >>= first % 32;
    u32 column = p.rows[query], width = p.rows[query + 1] - column;
    float* scores = p.scores + u64(query) * p.documents + first;
    u32 count = min_u32(p.span, p.documents - first);
    if (lane_index() < count && (bits >> lane_index() & 1) == 0) scores[lane_index()] = bits_to_float(0x7fc00000u);
    for (u32 i = 0; i < count; i++) {
        if ((bits >> i & 1) == 0) continue;
        float score = approx_document<kF32, C::kWide>(
            reinterpret_cast<const u8*>(p.table), p.centroids, p.stride, column, width,
            p.factors ? p.factors + column : nullptr, p.codes, p.offsets[first + i], p.offsets[first + i + 1]);
        if (lane_index() == 0) scores[i] = score;
    }
}

}  // namespace maxsim
