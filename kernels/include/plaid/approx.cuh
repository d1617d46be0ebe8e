// PLAID's approximate scores: Σ over query tokens of the best centroid similarity among a document's codes.
#pragma once
#include "convert.cuh"

namespace maxsim {

struct ApproxParams {
    const u8* table;      // [centroids, width] f32 or f16
    const u32* codes;     // per row
    const u32* offsets;   // [documents + 1] rows
    float* scores;        // [documents]
    u32 documents, centroids, width, unused;
};

// One warp a document. kGroup lanes read one token's row of the table, kWide elements each; the warp reads 32 / kGroup
// tokens at a time.
template <class C>
MS_FN void approx_score(const ApproxParams& p) {
    constexpr u32 kTokens = kWarp / C::kGroup;
    constexpr int kSize = size_of(C::kStored);
    u32 document = block_index() * (C::kThreads / kWarp) + warp_index();
    if (document >= p.documents) return;
    u32 begin = p.offsets[document], end = p.offsets[document + 1];
    u32 token = lane_index() / C::kGroup, lane = lane_index() % C::kGroup;
    float score = 0.0f;
    for (u32 first = 0; first < p.width; first += C::kGroup * C::kWide) {
        u32 column = first + lane * C::kWide;
        float best[C::kWide];
#pragma unroll
        for (int i = 0; i < C::kWide; i++) best[i] = negative_infinity();
        if (column < p.width) {
#pragma unroll 4
            for (u32 row = begin + token; row < end; row += kTokens) {
                u32 code = p.codes[row];
                // On the device alone nobody has checked codes: those out of range are masked.
                if (code >= p.centroids) continue;
                const u8* from = p.table + (u64(code) * p.width + column) * kSize;
                float x[C::kWide];
                if constexpr (C::kWide == 1) {
                    x[0] = load_element<C::kStored>(from);
                } else {
                    U4 words = *reinterpret_cast<const U4*>(from);
#pragma unroll
                    for (int i = 0; i < C::kWide; i++)
                        x[i] = load_element<C::kStored>(reinterpret_cast<const u8*>(&words) + i * kSize);
                }
#pragma unroll
                for (int i = 0; i < C::kWide; i++) best[i] = max_number(best[i], x[i]);
            }
        }
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < C::kWide; i++) {
            float b = best[i];
            for (u32 step = C::kGroup; step < kWarp; step *= 2) b = max_number(b, shuffle_xor(b, step));
            if (b > negative_infinity()) sum += b;
        }
        for (u32 step = 1; step < C::kGroup; step *= 2) sum += shuffle_xor(sum, step);
        score += sum;
    }
    if (lane_index() == 0) p.scores[document] = score;
}

}  // namespace maxsim
