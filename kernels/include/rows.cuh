// Factors of rows: inverse norms and scales.
#pragma once
#include "convert.cuh"

namespace maxsim {

struct RowsParams {
    const u8* rows;          // residual documents: packed residuals
    const float* scales;     // per row; null: `scale` for all
    const u32* codes;        // residual documents: per row
    const float* centroids;  // residual documents: [centroids, dim]
    const float* weights;    // residual documents: [256][8 / bits]
    float* factors;          // per row
    u32 stride, count, dim, centroid_count;
    float scale;
    u32 unused;
};

// Factor of every row by which its similarities become those of the normalised row: `scale / max(‖row‖ · scale, 1e-6)`.
// Squares are added in f64: norms of f32 rows whose squares overflow f32 are norms all the same. One warp a row.
template <class C>
MS_FN void row_factors(const RowsParams& p) {
    u32 row = block_index() * (C::kThreads / kWarp) + warp_index();
    if (row >= p.count) return;
    const u8* from = p.rows + u64(row) * p.stride;
    double sum = 0.0;
    if constexpr (C::kBits > 0) {
        constexpr int kFields = 8 / (C::kBits > 0 ? C::kBits : 8);
        u32 code = p.codes[row];
        if (code < p.centroid_count) {
            for (u32 k = lane_index(); k < p.dim; k += kWarp) {
                float x = p.centroids[u64(code) * p.dim + k] + p.weights[from[k / kFields] * kFields + k % kFields];
                sum += double(x) * double(x);
            }
        }
    } else {
        for (u32 k = lane_index() * 4; k * size_of(C::kStored) < p.stride; k += kWarp * 4) {
            float x[4];
            load_four<C::kStored>(from + k * size_of(C::kStored), x);
            for (int i = 0; i < 4; i++) sum += double(x[i]) * double(x[i]);
        }
    }
    for (u32 step = kWarp / 2; step > 0; step /= 2) sum += shuffle_xor(sum, step);
    if (lane_index() != 0) return;
    float scale = p.scales ? p.scales[row] : p.scale;
    double norm = square_root(sum) * double(scale);
    // A norm of NaN stays one: max() would hide it.
    p.factors[row] = float(double(scale) / (norm < 1e-6 ? 1e-6 : norm));
}

}  // namespace maxsim
