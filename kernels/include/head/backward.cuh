// Gradients of the projection head. Only rows that won something have a part in them.
#pragma once
#include "backward/group.cuh"
#include "convert.cuh"
#include "warp.cuh"

namespace maxsim {

struct CompactParams {
    const Range* ranges;  // [total]
    u32* counts;          // per block: how many of its rows won something
    u32* rows;            // those rows, in order
    u32* count;
    u32 total, unused;
};

// Rows of a warp, 32 at a time: which of them won something.
constexpr u32 kWinningSteps = 16;
template <class C>
struct WinningRows {
    u32 first, wins[kWinningSteps], own = 0;
    MS_FN explicit WinningRows(const CompactParams& p) {
        first = (block_index() * (C::kThreads / kWarp) + warp_index()) * kWinningSteps * kWarp;
#pragma unroll
        for (u32 i = 0; i < kWinningSteps; i++) {
            u32 row = first + i * kWarp + lane_index();
            wins[i] = ballot(row < p.total && p.ranges[row].begin < p.ranges[row].end);
            own += count_bits(wins[i]);
        }
    }
};

// Sum over the warps of a block of what their first lanes have; `before`: over those before this warp.
template <class C>
MS_FN u32 sum_of_warps(u32 x, u32& before) {
    u32* sums = reinterpret_cast<u32*>(shared_memory());
    u32 warp = warp_index(), all = 0;
    sync_block();
    if (lane_index() == 0) sums[warp] = x;
    sync_block();
    before = 0;
    for (u32 w = 0; w < C::kThreads / kWarp; w++) {
        if (w < warp) before += sums[w];
        all += sums[w];
    }
    return all;
}

template <class C>
MS_FN void head_count(const CompactParams& p) {
    u32 before;
    u32 all = sum_of_warps<C>(WinningRows<C>(p).own, before);
    if (thread_index() == 0) p.counts[block_index()] = all;
}

template <class C>
MS_FN void head_compact(const CompactParams& p) {
    WinningRows<C> mine(p);
    u32 others = 0, before;
    for (u32 i = thread_index(); i < block_index(); i += C::kThreads) others += p.counts[i];
    u32 at = sum_of_warps<C>(shuffle(running_sum(others), kWarp - 1), before);
    u32 all = sum_of_warps<C>(mine.own, before);
    if (thread_index() == 0 && block_index() + 1 == grid_size()) *p.count = at + all;
    at += before;
    u32 lane = lane_index();
#pragma unroll
    for (u32 i = 0; i < kWinningSteps; i++) {
        u32 wins = mine.wins[i];
        if (wins >> lane & 1) p.rows[at + count_bits(wins & ((1u << lane) - 1))] = mine.first + i * kWarp + lane;
        at += count_bits(wins);
    }
}

struct HiddenParams {
    const float* grads;    // [rows, dim]: of projected rows before they were normalised
    const u8* weights;     // [dim, weight_stride bytes]
    const u32* rows;
    const u32* count;
    u8* out;               // [rows, out_stride bytes]
    u32 dim, model, out_stride, weight_stride;
};

// grad_H[row] = grads[row] · W, W in f32, for the rows that won; kRows of them and kWide · kThreads columns a block.
template <class C>
MS_FN void head_hidden(const HiddenParams& p) {
    constexpr u32 kRows = C::kRows, kChunk = 128, kWide = C::kWide;
    // [kChunk][kRows]: what a product of a column needs lies together.
    float* grads = reinterpret_cast<float*>(shared_memory());
    u32 count = *p.count, first = block_index() * kRows;
    if (first >= count) return;
    u32 column = (block_index_y() * C::kThreads + thread_index()) * kWide;
    float acc[kRows][kWide] = {};
    for (u32 k = 0; k < p.dim; k += kChunk) {
        sync_block();
        for (u32 i = thread_index(); i < kRows * kChunk; i += C::kThreads) {
            u32 r = i / kChunk, c = i % kChunk;
            bool there = first + r < count && k + c < p.dim;
            grads[c * kRows + r] = there ? p.grads[u64(p.rows[first + r]) * p.dim + k + c] : 0.0f;
        }
        sync_block();
        if (column >= p.model) continue;
        u32 products = min_u32(kChunk, p.dim - k);
#pragma unroll 4
        for (u32 c = 0; c < products; c++) {
            const u8* from = p.weights + u64(k + c) * p.weight_stride + column * 4;
            float w[kWide];
            if constexpr (kWide == 4) load_four<kF32>(from, w);
            else w[0] = load_element<kF32>(from);
#pragma unroll
            for (u32 r = 0; r < kRows; r += 4) {
                float g[4];
                load_four<kF32>(reinterpret_cast<const u8*>(grads + c * kRows + r), g);
#pragma unroll
                for (u32 i = 0; i < 4; i++)
#pragma unroll
                    for (u32 e = 0; e < kWide; e++) acc[r + i][e] = fused(g[i], w[e], acc[r + i][e]);
            }
        }
    }
    if (column >= p.model) return;
#pragma unroll
    for (u32 r = 0; r < kRows; r++) {
        if (first + r >= count) continue;
        u8* to = p.out + u64(p.rows[first + r]) * p.out_stride + column * size_of(C::kOut);
        if constexpr (kWide == 4) store_four<C::kOut>(to, acc[r]);
        else store_element<C::kOut>(to, acc[r][0]);
    }
}

struct WeightParams {
    const float* grads;  // [rows, dim]
    const u8* hidden;    // [rows, stride bytes]
    const u32* rows;
    const u32* count;
    float* partials;     // [segments, dim, model + 1]
    u32 dim, model, stride, segments;
};

// Σ over a segment of the rows that won of grads[row, c] · H[row, m]; the last column has a hidden state of 1, which is the
// gradient of the bias. 16 values of c, 2 · kThreads of m and one segment a block.
template <class C>
MS_FN void head_weights(const WeightParams& p) {
    constexpr u32 kOut = 16, kRows = 32, kWide = 2;
    float* grads = reinterpret_cast<float*>(shared_memory());
    u32 columns = p.model / (kWide * C::kThreads) + 1;
    u32 m = (block_index() % columns * C::kThreads + thread_index()) * kWide, first = block_index() / columns * kOut;
    u32 count = *p.count, segment = (count + p.segments - 1) / p.segments;
    u32 begin = min_u32(count, block_index_y() * segment), end = min_u32(count, begin + segment);
    float acc[kOut][kWide] = {};
    for (u32 base = begin; base < end; base += kRows) {
        sync_block();
        for (u32 i = thread_index(); i < kRows * kOut; i += C::kThreads) {
            u32 r = base + i / kOut, c = first + i % kOut;
            grads[i] = r < end && c < p.dim ? p.grads[u64(p.rows[r]) * p.dim + c] : 0.0f;
        }
        sync_block();
        if (m > p.model) continue;
#pragma unroll 8
        for (u32 r = 0; r < kRows; r++) {
            // Rows behind the last one have gradients of 0, and meet the first one's hidden state.
            const u8* from = p.hidden + u64(p.rows[base + r < end ? base + r : begin]) * p.stride + m * size_of(C::kStored);
            float x[kWide];
#pragma unroll
            for (u32 e = 0; e < kWide; e++)
                x[e] = m + e < p.model ? load_element<C::kStored>(from + e * size_of(C::kStored)) : m + e == p.model ? 1.0f : 0.0f;
#pragma unroll
            for (u32 c = 0; c < kOut; c += 4) {
                float g[4];
                load_four<kF32>(reinterpret_cast<const u8*>(grads + r * kOut + c), g);
#pragma unroll
                for (u32 i = 0; i < 4; i++)
#pragma unroll
                    for (u32 e = 0; e < kWide; e++) acc[c + i][e] = fused(g[i], x[e], acc[c + i][e]);
            }
        }
    }
#pragma unroll
    for (u32 c = 0; c < kOut; c++)
#pragma unroll
        for (u32 e = 0; e < kWide; e++)
            if (first + c < p.dim && m + e <= p.model)
                p.partials[(u64(block_index_y()) * p.dim + first + c) * (p.model + 1) + m + e] = acc[c][e];
}

struct AddParams {
    const float* partials;  // [segments, count]
    float* out;             // [count], added to
    u32 count, segments;
};

// Segments in order.
template <class C>
MS_FN void head_add(const AddParams& p) {
    u32 i = block_index() * C::kThreads + thread_index();
    if (i >= p.count) return;
    float sum = p.out[i];
    for (u32 s = 0; s < p.segments; s++) sum += p.partials[u64(s) * p.count + i];
    p.out[i] = sum;
}

}  // namespace maxsim
