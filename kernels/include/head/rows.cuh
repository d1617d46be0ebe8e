// Rows of a projection between its own kernel and scoring: normalised, in the element type that is multiplied.
#pragma once
#include "convert.cuh"

namespace maxsim {

struct UnitParams {
    const float* from;     // [count, from_stride]
    const float* factors;  // per row; null: 1
    u8* to;                // [count, stride bytes], zeros behind the last element
    u32 count, dim, from_stride, stride;
};

// to[row, k] = from[row, k] · factors[row], one warp a row.
template <class C>
MS_FN void unit_rows(const UnitParams& p) {
    u32 row = block_index() * (C::kThreads / kWarp) + warp_index();
    if (row >= p.count) return;
    float factor = p.factors ? p.factors[row] : 1.0f;
    // Rows of both begin at multiples of four elements and are padded to as many.
    for (u32 k = 4 * lane_index(); k * size_of(C::kOut) < p.stride; k += 4 * kWarp) {
        float x[4] = {};
        if (k < p.dim) load_four<kF32>(reinterpret_cast<const u8*>(p.from + u64(row) * p.from_stride + k), x);
#pragma unroll
        for (u32 e = 0; e < 4; e++) x[e] = k + e < p.dim ? x[e] * factor : 0.0f;
        store_four<C::kOut>(p.to + u64(row) * p.stride + k * size_of(C::kOut), x);
    }
}

}  // namespace maxsim
