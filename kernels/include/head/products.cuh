// Gradients of the projection head on tensor cores, for hidden states and weights of 16 bits (sm_80 and newer; everything else is in
// `head/backward.cuh`).
//
// Operands are multiplied as bf16, which has the range of f32: gradients, which are f32, as sums of two such numbers (16 bits),
// f16 as sums of two (exact), bf16 as they are. What is left out where both are sums, the product of two rests, is below 2⁻¹⁴ of a term.
//
// Floor: 2 · rows · dim · model operations for either gradient, twice (three times for f16), at the rate of `mma.sync`; gradients once
// per 128 columns of the model from the second-level cache, hidden states once from memory.
#pragma once
#include "head/backward.cuh"
#include "ptx/mma.cuh"

namespace maxsim {

// Tiles are rows of 128 elements; rows begin in different banks.
constexpr u32 kTileColumns = 128, kTileStride = kTileColumns * 2 + 16;

constexpr u32 bf16_parts(int kind) { return kind == kBF16 ? 1 : 2; }

// Two numbers as the two bf16 that are nearest to them from below, in magnitude, and the nearest to what is left.
MS_FN void split_pair(float a, float b, u32& first, u32& rest) {
    u32 x = float_to_bits(a), y = float_to_bits(b);
    first = select_bytes(x, y, 0x7632);
    float p = a - bits_to_float(x & 0xffff0000u), q = b - bits_to_float(y & 0xffff0000u);
    // Not a number where there is nothing left of an infinite one.
    rest = select_bytes(p == p ? float_to_bits(p) + 0x8000u : 0, q == q ? float_to_bits(q) + 0x8000u : 0, 0x7632);
}

// Eight f32.
MS_FN void split_eight(const float (&from)[8], U4& first, U4& rest) {
    split_pair(from[0], from[1], first.x, rest.x), split_pair(from[2], from[3], first.y, rest.y);
    split_pair(from[4], from[5], first.z, rest.z), split_pair(from[6], from[7], first.w, rest.w);
}

// Eight elements of 16 bits.
template <int kKind>
MS_FN void split_stored(const U4& from, U4 (&to)[bf16_parts(kKind)]) {
    if constexpr (kKind == kBF16) {
        to[0] = from;
    } else {
        float low[4], high[4];
        load_four<kKind>(reinterpret_cast<const u8*>(&from), low);
        load_four<kKind>(reinterpret_cast<const u8*>(&from) + 8, high);
        float x[8] = {low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3]};
        split_eight(x, to[0], to[1]);
    }
}

// kRows rows of gradients, `row(r)` of them, columns behind the last one 0, by all threads. A row that is none is `kNoRow`.
constexpr u32 kNoRow = 0xffffffffu;
template <class C, u32 kRows, class Row>
MS_FN void load_gradients(u8* first, u8* rest, const float* grads, u32 dim, Row row) {
    // Neighbours read neighbouring 32 bytes.
    constexpr u32 kGroups = kTileColumns / 8;
    for (u32 i = thread_index(); i < kRows * kGroups; i += C::kThreads) {
        u32 r = i / kGroups, c = i % kGroups * 8;
        u32 from = row(r);
        float x[8] = {};
        if (from != kNoRow) {
            const u8* at = reinterpret_cast<const u8*>(grads + u64(from) * dim + c);
            float four[4];
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                if (c + 4 * half >= dim) continue;
                load_four<kF32>(at + 16 * half, four);
#pragma unroll
                for (u32 e = 0; e < 4; e++) x[4 * half + e] = four[e];
            }
        }
        u32 to = r * kTileStride + c * 2;
        split_eight(x, *reinterpret_cast<U4*>(first + to), *reinterpret_cast<U4*>(rest + to));
    }
}

// Bytes of shared memory of `head_hidden_products` and `head_weights_products`.
constexpr u32 kHiddenRows = 64, kWeightRows = 32;
template <class C>
struct HeadProducts {
    static constexpr u32 kParts = bf16_parts(C::kKind);
    static constexpr u32 kHidden = (kParts * kTileColumns + 2 * kHiddenRows) * kTileStride;
    static constexpr u32 kWeights = (kParts + 2) * kWeightRows * kTileStride;
};

// grad_H[row] = grads[row] · W, for the rows that won. A block has 128 columns of W in shared memory, and takes 64 rows at a time;
// a warp 32 of them and 32 columns.
//
// Columns of a warp are dealt out so that a lane ends with 8 neighbours: word `4 · n + q` of 32 columns is what product `n` has in
// columns `2q` and `2q + 1`, and lies at word `4 · q + n` in memory.
template <class C>
MS_FN void head_hidden_products(const HiddenParams& p) {
    using L = HeadProducts<C>;
    static_assert(L::kHidden == C::kShared && C::kThreads == 256, "the plan and the kernel disagree");
    u8* weights = shared_memory();
    u8* grads = weights + L::kParts * kTileColumns * kTileStride;
    u8* rests = grads + kHiddenRows * kTileStride;
    u32 count = *p.count, m0 = block_index_y() * kTileColumns;
    if (block_index() * kHiddenRows >= count) return;
    for (u32 i = thread_index(); i < kTileColumns * (kTileColumns / 8); i += C::kThreads) {
        u32 c = i / (kTileColumns / 8), q = i % (kTileColumns / 8), at = (m0 + 8 * q) * 2;
        U4 parts[L::kParts] = {};
        // Rows are padded with zeros to 16 bytes.
        if (c < p.dim && at < p.weight_stride)
            split_stored<C::kKind>(*reinterpret_cast<const U4*>(p.weights + u64(c) * p.weight_stride + at), parts);
#pragma unroll
        for (u32 part = 0; part < L::kParts; part++) {
            u32* to = reinterpret_cast<u32*>(weights + (part * kTileColumns + c) * kTileStride) + q / 4 * 16 + q % 4;
            to[0] = parts[part].x, to[4] = parts[part].y, to[8] = parts[part].z, to[12] = parts[part].w;
        }
    }
    u32 warp = warp_index(), lane = lane_index(), eighth = lane % 8, matrix = lane / 8;
    u32 row0 = warp / 4 * 32, column0 = warp % 4 * 32;
    u32 steps = (p.dim + 15) / 16;
    for (u32 first = block_index() * kHiddenRows; first < count; first += grid_size() * kHiddenRows) {
        sync_block();
        load_gradients<C, kHiddenRows>(grads, rests, p.grads, p.dim,
                                       [&](u32 r) { return first + r < count ? p.rows[first + r] : kNoRow; });
        sync_block();
        float acc[2][4][4] = {};
        for (u32 step = 0; step < steps; step++) {
            u32 g[2][4], left[2][4];
#pragma unroll
            for (u32 t = 0; t < 2; t++) {
                u32 at = (row0 + 16 * t + matrix % 2 * 8 + eighth) * kTileStride + (step * 16 + matrix / 2 * 8) * 2;
                load_matrices(g[t], grads + at);
                load_matrices(left[t], rests + at);
            }
#pragma unroll
            for (u32 pair = 0; pair < 2; pair++) {
                u32 at = (step * 16 + matrix % 2 * 8 + eighth) * kTileStride + (column0 + 16 * pair + matrix / 2 * 8) * 2;
                u32 w[4];
                load_transposed(w, weights + at);
#pragma unroll
                for (u32 t = 0; t < 2; t++)
#pragma unroll
                    for (u32 n = 0; n < 2; n++) {
                        multiply<kBF16>(acc[t][2 * pair + n], g[t], w[2 * n], w[2 * n + 1]);
                        multiply<kBF16>(acc[t][2 * pair + n], left[t], w[2 * n], w[2 * n + 1]);
                    }
                if constexpr (L::kParts == 2) {
                    load_transposed(w, weights + kTileColumns * kTileStride + at);
#pragma unroll
                    for (u32 t = 0; t < 2; t++)
#pragma unroll
                        for (u32 n = 0; n < 2; n++)
                            multiply<kBF16>(acc[t][2 * pair + n], g[t], w[2 * n], w[2 * n + 1]);
                }
            }
        }
        u32 at = (m0 + column0 + lane % 4 * 8) * 2;
#pragma unroll
        for (u32 t = 0; t < 2; t++)
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                u32 r = first + row0 + 16 * t + 8 * half + lane / 4;
                if (r >= count || at >= p.out_stride) continue;
                u32 words[4];
#pragma unroll
                for (u32 n = 0; n < 4; n++)
                    words[n] = pack16<C::kKind>(acc[t][n][2 * half], acc[t][n][2 * half + 1]);
                *reinterpret_cast<U4*>(p.out + u64(p.rows[r]) * p.out_stride + at) = {words[0], words[1], words[2], words[3]};
            }
    }
}

// As `head_weights`: 128 columns of the model and a segment of the rows that won a block, all of `dim`; a warp 32 of `dim` and 64
// columns.
template <class C>
MS_FN void head_weights_products(const WeightParams& p) {
    using L = HeadProducts<C>;
    static_assert(L::kWeights == C::kShared && C::kThreads == 256, "the plan and the kernel disagree");
    u8* grads = shared_memory();
    u8* rests = grads + kWeightRows * kTileStride;
    u8* hidden = rests + kWeightRows * kTileStride;
    u32 count = *p.count, segment = (count + p.segments - 1) / p.segments;
    u32 begin = min_u32(count, block_index_y() * segment), end = min_u32(count, begin + segment);
    u32 m0 = block_index() * kTileColumns;
    u32 warp = warp_index(), lane = lane_index(), eighth = lane % 8, matrix = lane / 8;
    u32 row0 = warp % 4 * 32, column0 = warp / 4 * 64;
    float acc[2][8][4] = {};
    for (u32 base = begin; base < end; base += kWeightRows) {
        sync_block();
        load_gradients<C, kWeightRows>(grads, rests, p.grads, p.dim,
                                       [&](u32 r) { return base + r < end ? p.rows[base + r] : kNoRow; });
        for (u32 i = thread_index(); i < kWeightRows * (kTileColumns / 8); i += C::kThreads) {
            u32 r = i / (kTileColumns / 8), m = m0 + i % (kTileColumns / 8) * 8;
            U4 x{};
            if (base + r < end) {
                // Rows are padded with zeros to 16 bytes.
                if (m * 2 < p.stride) x = *reinterpret_cast<const U4*>(p.hidden + u64(p.rows[base + r]) * p.stride + m * 2);
                // The last column has a hidden state of 1.
                u32 last = p.model - m;
                if (last < 8) {
                    u32 one = (C::kKind == kBF16 ? 0x3f80u : 0x3c00u) << last % 2 * 16;
                    x.x |= last / 2 == 0 ? one : 0, x.y |= last / 2 == 1 ? one : 0;
                    x.z |= last / 2 == 2 ? one : 0, x.w |= last / 2 == 3 ? one : 0;
                }
            }
            U4 parts[L::kParts];
            split_stored<C::kKind>(x, parts);
#pragma unroll
            for (u32 part = 0; part < L::kParts; part++)
                *reinterpret_cast<U4*>(hidden + (part * kWeightRows + r) * kTileStride + (m - m0) * 2) = parts[part];
        }
        sync_block();
#pragma unroll
        for (u32 step = 0; step < kWeightRows / 16; step++) {
            u32 g[2][4], left[2][4];
#pragma unroll
            for (u32 t = 0; t < 2; t++) {
                u32 at = (step * 16 + matrix / 2 * 8 + eighth) * kTileStride + (row0 + 16 * t + matrix % 2 * 8) * 2;
                load_transposed(g[t], grads + at);
                load_transposed(left[t], rests + at);
            }
#pragma unroll
            for (u32 pair = 0; pair < 4; pair++) {
                u32 at = (step * 16 + matrix % 2 * 8 + eighth) * kTileStride + (column0 + 16 * pair + matrix / 2 * 8) * 2;
                u32 h[4];
                load_transposed(h, hidden + at);
#pragma unroll
                for (u32 t = 0; t < 2; t++)
#pragma unroll
                    for (u32 n = 0; n < 2; n++) {
                        multiply<kBF16>(acc[t][2 * pair + n], g[t], h[2 * n], h[2 * n + 1]);
                        multiply<kBF16>(acc[t][2 * pair + n], left[t], h[2 * n], h[2 * n + 1]);
                    }
                if constexpr (L::kParts == 2) {
                    load_transposed(h, hidden + kWeightRows * kTileStride + at);
#pragma unroll
                    for (u32 t = 0; t < 2; t++)
#pragma unroll
                        for (u32 n = 0; n < 2; n++)
                            multiply<kBF16>(acc[t][2 * pair + n], g[t], h[2 * n], h[2 * n + 1]);
                }
            }
        }
    }
#pragma unroll
    for (u32 t = 0; t < 2; t++)
#pragma unroll
        for (u32 n = 0; n < 8; n++)
#pragma unroll
            for (u32 e = 0; e < 4; e++) {
                u32 c = row0 + 16 * t + e / 2 * 8 + lane / 4, m = m0 + column0 + 8 * n + lane % 4 * 2 + e % 2;
                if (c < p.dim && m <= p.model)
                    p.partials[(u64(block_index_y()) * p.dim + c) * (p.model + 1) + m] = acc[t][n][e];
            }
}

}  // namespace maxsim
