// PLAID's approximate scores: Σ over query tokens of the best centroid similarity among a document's codes.
#pragma once
#include "convert.cuh"

namespace maxsim {

// Columns of a table that a warp sums up at a time. Sums are the same tree over columns whatever kWide is.
constexpr u32 kColumnBlock = 32;

// One warp: the score of the document whose tokens' codes are `codes[begin .. end]`, by the table's columns
// `[column, column + width)` of rows `stride` elements apart. `factors`: per column, or null. kGroup lanes read one token's row,
// kWide elements each, 32 together, so that the warp reads 32 / kGroup tokens at a time. Codes are read 32 at a time, and none of
// the table's rows that they name waits for another.
template <int kStored, int kWide>
MS_FN float approx_document(const u8* table, u32 centroids, u32 stride, u32 column, u32 width, const float* factors,
                            const u32* codes, u32 begin, u32 end) {
    constexpr u32 kGroup = kColumnBlock / kWide, kTokens = kWarp / kGroup;
    constexpr int kSize = size_of(kStored);
    u32 token = lane_index() / kGroup, lane = lane_index() % kGroup * kWide;
    float score = 0.0f;
    if (centroids == 0) return score;
    for (u32 first = 0; first < width; first += kColumnBlock) {
        u32 mine = first + lane;
        float best[kWide];
#pragma unroll
        for (int i = 0; i < kWide; i++) best[i] = negative_infinity();
        // Lanes without columns read others', and are not asked.
        const u8* from = table + (u64(column) + (mine < width ? mine : 0)) * kSize;
        for (u32 base = begin; base < end; base += kWarp) {
            // The last token again changes no maximum.
            u32 here = codes[min_u32(base + lane_index(), end - 1)];
#pragma unroll 8
            for (u32 t = 0; t < kWarp; t += kTokens) {
                u32 code = shuffle(here, t + token);
                // On the device alone nobody has checked codes: those out of range are masked.
                bool valid = code < centroids;
                const u8* row = from + u64(valid ? code : 0) * stride * kSize;
                float x[kWide];
                if constexpr (kWide == 1) {
                    x[0] = load_element<kStored>(row);
                } else {
                    U4 words = *reinterpret_cast<const U4*>(row);
#pragma unroll
                    for (int i = 0; i < kWide; i++)
                        x[i] = load_element<kStored>(reinterpret_cast<const u8*>(&words) + i * kSize);
                }
#pragma unroll
                for (int i = 0; i < kWide; i++) best[i] = max_number(best[i], valid ? x[i] : negative_infinity());
            }
        }
#pragma unroll
        for (int i = 0; i < kWide; i++) {
            float b = best[i];
#pragma unroll
            for (u32 step = kGroup; step < kWarp; step *= 2) b = max_number(b, shuffle_xor(b, step));
            bool wins = b > negative_infinity() && mine + i < width;
            if (factors && wins) b *= factors[mine + i];
            best[i] = wins && b == b ? b : 0.0f;
        }
#pragma unroll
        for (int step = 1; step < kWide; step *= 2)
#pragma unroll
            for (int i = 0; i < kWide; i += 2 * step) best[i] += best[i + step];
        float sum = best[0];
#pragma unroll
        for (u32 step = 1; step < kGroup; step *= 2) sum += shuffle_xor(sum, step);
        score += sum;
    }
    return score;
}

struct ApproxParams {
    const u8* table;      // [centroids, width] f32 or f16
    const u32* codes;     // per row
    const u32* offsets;   // [documents + 1] rows
    float* scores;        // [documents]
    u32 documents, centroids, width, unused;
};

// Every document, one warp each.
template <class C>
MS_FN void approx_score(const ApproxParams& p) {
    u32 document = block_index() * (C::kThreads / kWarp) + warp_index();
    if (document >= p.documents) return;
    float score = approx_document<C::kStored, C::kWide>(p.table, p.centroids, p.width, 0, p.width, nullptr, p.codes,
                                                        p.offsets[document], p.offsets[document + 1]);
    if (lane_index() == 0) p.scores[document] = score;
}

}  // namespace maxsim
