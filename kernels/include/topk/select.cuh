// The best scores of every query: radix selection over 64-bit keys, then a bitonic sort of what was selected.
#pragma once
#include "ptx/base.cuh"
#include "warp.cuh"

namespace maxsim {

struct SelectParams {
    const float* scores;  // [queries, stride], of documents `first ..`
    const u64* before;    // [queries, before_count] keys of what was best so far
    u64* keys;            // [queries, segments, width], best first where they fit into shared memory
    u64 stride;
    u32 count, first, before_count, width;
    u32 largest;
    u32 capacity;  // keys that shared memory holds to sort, a power of two; 0: unsorted
    u32 segment;   // scores and keys that one block looks at
    u32 segments;  // blocks a query: each leaves `width` keys, those that it lacks worse than any other
};

// Half of a key behind all scores: of NaN, which is the score of what takes no part.
constexpr u32 kAbsent = 0xffffffffu;

// Ascending keys are results in order: better score first, lower index among equals.
MS_FN u64 key_of(float score, u32 index, bool largest) {
    if (score != score) return u64(kAbsent) << 32 | index;
    // −0 and 0 are equal scores.
    u32 bits = float_to_bits(score == 0.0f ? 0.0f : score);
    u32 ascending = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return u64(largest ? ~ascending : ascending) << 32 | index;
}

MS_FN u64 key_at(const SelectParams& p, u32 query, u32 i) {
    if (i < p.before_count) return p.before[u64(query) * p.before_count + i];
    i -= p.before_count;
    return key_of(p.scores[query * p.stride + i], p.first + i, p.largest != 0);
}

// The bucket that key number `left` (from 1) lies in, by one warp: state = {bucket, place in it, its size}.
MS_FN void find_bucket(const u32* counts, u32 left, u32* state) {
    constexpr u32 kEach = 256 / kWarp;
    u32 lane = lane_index(), sum = 0;
#pragma unroll
    for (u32 i = 0; i < kEach; i++) sum += counts[kEach * lane + i];
    u32 up_to = running_sum(sum);
    u32 below = up_to - sum;
    if (below >= left || up_to < left) return;
    u32 bucket = kEach * lane;
    while (below + counts[bucket] < left) below += counts[bucket++];
    state[0] = bucket, state[1] = left - below, state[2] = counts[bucket];
}

// One block a query and segment. Shared memory: 256 counters, 4 words, `capacity` keys.
template <class C>
MS_FN void topk_select(const SelectParams& p) {
    u32* counts = reinterpret_cast<u32*>(shared_memory());
    u32* state = counts + 256;
    u64* sorted = reinterpret_cast<u64*>(counts + 260);
    u32 query = block_index(), first = block_index_y() * p.segment, warp = warp_index();
    u32 total = min_u32(p.segment, p.before_count + p.count - first);
    u64 prefix = 0;
    u32 left = p.width;
    // Keys above `limit` are left out; byte by byte, until a whole bucket is taken. Keys differ, so one always is.
    u64 limit = ~0ull;
    for (int shift = 56; total > p.width; shift -= 8) {
        for (u32 i = thread_index(); i < 256; i += C::kThreads) counts[i] = 0;
        sync_block();
        for (u32 base = 0; base < total; base += C::kThreads) {
            u32 i = base + thread_index();
            u64 key = i < total ? key_at(p, query, first + i) : 0;
            bool candidate = i < total && (shift == 56 || key >> (shift + 8) == prefix >> (shift + 8));
            u32 bucket = candidate ? u32(key >> shift) & 255 : 256;
            // Scores resemble each other: one addition for all lanes that count the same.
            u32 peers = match(bucket);
            if (candidate && count_bits(peers & ((1u << lane_index()) - 1)) == 0)
                add_shared(counts + bucket, count_bits(peers));
        }
        sync_block();
        if (warp == 0) find_bucket(counts, left, state);
        sync_block();
        prefix |= u64(state[0]) << shift;
        left = state[1];
        bool whole = state[2] == left;
        limit = prefix | ((1ull << shift) - 1);
        sync_block();
        if (whole || shift == 0) break;
    }
    if (thread_index() == 0) state[3] = 0;
    for (u32 i = thread_index(); i < p.capacity; i += C::kThreads) sorted[i] = ~0ull;
    sync_block();
    u64* keys = p.keys + (u64(query) * p.segments + block_index_y()) * p.width;
    for (u32 i = thread_index(); i < total; i += C::kThreads) {
        u64 key = key_at(p, query, first + i);
        if (key <= limit) {
            u32 at = add_shared(state + 3, 1);
            if (p.capacity > 0) sorted[at] = key;
            else keys[at] = key;
        }
    }
    if (p.capacity == 0) return;
    sync_block();
    for (u32 size = 2; size <= p.capacity; size *= 2) {
        for (u32 step = size / 2; step > 0; step /= 2) {
            for (u32 i = thread_index(); i < p.capacity / 2; i += C::kThreads) {
                u32 low = i / step * 2 * step + i % step, high = low + step;
                bool up = (low & size) == 0;
                u64 a = sorted[low], b = sorted[high];
                if ((a > b) == up) sorted[low] = b, sorted[high] = a;
            }
            sync_block();
        }
    }
    for (u32 i = thread_index(); i < p.width; i += C::kThreads) keys[i] = sorted[i];
}

}  // namespace maxsim
