// Gradients of the projection head. Only rows that won something have a part in them.
#pragma once
#include "backward/group.cuh"
#include "convert.cuh"
#include "warp.cuh"

namespace maxsim {

struct CompactParams {
    const Range* ranges;  // [total]
    u32* rows;            // those that are not empty, in order
    u32* count;
    u32 total, unused;
};

// One block; every thread looks at kEach rows in a row at once.
template <class C>
MS_FN void head_compact(const CompactParams& p) {
    constexpr u32 kEach = 16;
    u32* sums = reinterpret_cast<u32*>(shared_memory());
    u32 done = 0, warp = warp_index(), lane = lane_index();
    for (u32 base = 0; base < p.total; base += C::kThreads * kEach) {
        u32 first = base + thread_index() * kEach, wins = 0;
#pragma unroll
        for (u32 i = 0; i < kEach; i++) {
            u32 row = first + i;
            if (row < p.total && p.ranges[row].begin < p.ranges[row].end) wins |= 1u << i;
        }
        u32 own = count_bits(wins), up_to = running_sum(own);
        if (lane == kWarp - 1) sums[warp] = up_to;
        sync_block();
        u32 at = done + up_to - own;
        for (u32 w = 0; w < C::kThreads / kWarp; w++) {
            if (w < warp) at += sums[w];
            done += sums[w];
        }
        for (; wins; wins &= wins - 1) p.rows[at++] = first + lowest_bit(wins);
        sync_block();
    }
    if (thread_index() == 0) *p.count = done;
}

struct HiddenParams {
    const float* grads;    // [rows, dim]: of projected rows before they were normalised
    const float* weights;  // [dim, model]
    const u32* rows;
    const u32* count;
    u8* out;               // [rows, out_stride bytes]
    u32 dim, model, out_stride, unused;
};

// grad_H[row] = grads[row] · W, for the rows that won; 8 of them and kThreads columns a block.
template <class C>
MS_FN void head_hidden(const HiddenParams& p) {
    constexpr u32 kRows = 8, kChunk = 128;
    float* grads = reinterpret_cast<float*>(shared_memory());
    u32 count = *p.count, first = block_index() * kRows;
    if (first >= count) return;
    u32 column = block_index_y() * C::kThreads + thread_index();
    float acc[kRows] = {};
    for (u32 k = 0; k < p.dim; k += kChunk) {
        sync_block();
        for (u32 i = thread_index(); i < kRows * kChunk; i += C::kThreads) {
            u32 r = i / kChunk, at = k + i % kChunk;
            bool there = first + r < count && at < p.dim;
            grads[i] = there ? p.grads[u64(p.rows[first + r]) * p.dim + at] : 0.0f;
        }
        sync_block();
        if (column >= p.model) continue;
        for (u32 c = 0; c < min_u32(kChunk, p.dim - k); c++) {
            float w = p.weights[u64(k + c) * p.model + column];
#pragma unroll
            for (u32 r = 0; r < kRows; r++) acc[r] = fused(grads[r * kChunk + c], w, acc[r]);
        }
    }
    if (column >= p.model) return;
#pragma unroll
    for (u32 r = 0; r < kRows; r++)
        if (first + r < count)
            store_element<C::kOut>(p.out + u64(p.rows[first + r]) * p.out_stride + column * size_of(C::kOut), acc[r]);
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
// gradient of the bias. 16 values of c, kThreads of m and one segment a block.
template <class C>
MS_FN void head_weights(const WeightParams& p) {
    constexpr u32 kOut = 16, kRows = 32;
    float* grads = reinterpret_cast<float*>(shared_memory());
    u32 columns = (p.model + C::kThreads) / C::kThreads;
    u32 m = block_index() % columns * C::kThreads + thread_index(), first = block_index() / columns * kOut;
    u32 count = *p.count, segment = (count + p.segments - 1) / p.segments;
    u32 begin = min_u32(count, block_index_y() * segment), end = min_u32(count, begin + segment);
    float acc[kOut] = {};
    for (u32 base = begin; base < end; base += kRows) {
        sync_block();
        for (u32 i = thread_index(); i < kRows * kOut; i += C::kThreads) {
            u32 r = base + i / kOut, c = first + i % kOut;
            grads[i] = r < end && c < p.dim ? p.grads[u64(p.rows[r]) * p.dim + c] : 0.0f;
        }
        sync_block();
        if (m > p.model) continue;
        for (u32 r = base; r < min_u32(end, base + kRows); r++) {
            const u8* from = p.hidden + u64(p.rows[r]) * p.stride + m * size_of(C::kStored);
            float x = m < p.model ? load_element<C::kStored>(from) : 1.0f;
#pragma unroll
            for (u32 c = 0; c < kOut; c++) acc[c] = fused(grads[(r - base) * kOut + c], x, acc[c]);
        }
    }
    if (m > p.model) return;
#pragma unroll
    for (u32 c = 0; c < kOut; c++)
        if (first + c < p.dim)
            p.partials[(u64(block_index_y()) * p.dim + first + c) * (p.model + 1) + m] = acc[c];
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
