// Documents that were chosen: as work for the scoring kernel, and with their scores as keys.
#pragma once
#include "forward/params.cuh"
#include "topk/select.cuh"

namespace maxsim {

struct JobsParams {
    const u64* keys;    // [queries, width]
    const u32* owners;  // per tile of query rows: its query
    Job* jobs;          // [width, tiles]
    u32 tiles, width;
};

// A job per tile and chosen document; its results go to the document's place among the chosen. Tiles vary fastest: where the jobs
// that run at a time are a multiple of them, whoever runs one finds its queries loaded for the next.
template <class C>
MS_FN void plaid_jobs(const JobsParams& p) {
    u32 at = block_index() * C::kThreads + thread_index();
    if (at >= p.tiles * p.width) return;
    u32 tile = at % p.tiles, place = at / p.tiles;
    u64 key = p.keys[u64(p.owners[tile]) * p.width + place];
    u32 document = u32(key);
    bool absent = u32(key >> 32) == kAbsent;
    p.jobs[at] = absent ? Job{tile, 0, 0, 0} : Job{tile, document, document + 1, place - document};
}

struct RankParams {
    const float* scores;   // [queries, width] of the chosen
    const u64* chosen;     // their keys; with `stride` 0 the same ones for all queries
    const u64* before;     // [queries, before_count] keys that go in front
    u64* keys;             // [queries, before_count + width]
    u64 stride;            // from query to query in `chosen`
    u32 width, before_count;
};

// Keys of chosen documents by their scores, behind the keys there were before. block_index_y is the query.
template <class C>
MS_FN void plaid_rank(const RankParams& p) {
    u32 i = block_index() * C::kThreads + thread_index();
    u64 query = block_index_y();
    if (i >= p.before_count + p.width) return;
    u64 key;
    if (i < p.before_count) {
        key = p.before[query * p.before_count + i];
    } else {
        u32 place = i - p.before_count;
        key = p.chosen[query * p.stride + place];
        if (u32(key >> 32) != kAbsent) key = key_of(p.scores[query * p.width + place], u32(key), true);
    }
    p.keys[query * (p.before_count + p.width) + i] = key;
}

}  // namespace maxsim
