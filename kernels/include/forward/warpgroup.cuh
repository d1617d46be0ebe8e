// MaxSim by warpgroups (sm_90a).
//
// One warp (the producer) lets the copy engine bring query tiles and document rows into a ring of stages and runs ahead
// across jobs; one or two warpgroups multiply (64 or 128 query rows each against 128 document rows) and keep the running
// maximum in the layout of the accumulators; three warps (the adders) turn maxima of finished documents into
// scores, each those of every third document. Nobody waits for the whole block.
//
// Documents lie behind one another and tiles do not care where they end, as in `tile.cuh`; both give scores from one chain
// of products over k per pair of rows.
#pragma once
#include "forward/sums.cuh"
#include "ptx/bulk.cuh"
#include "ptx/wgmma.cuh"

namespace maxsim {

struct alignas(8) Pair2 {
    float x, y;
};

struct WarpgroupParams {
    ForwardParams base;
    u64 unused[7];
    TensorMap q;  // boxes of 8 rows
    TensorMap d;  // boxes of 128 rows
};

// `C` is the generated configuration:
//   kKind      what is stored and multiplied (Kind)
//   kGroups    multiplying warpgroups; kMT · 64 query rows each
//   kSteps     products of 32 bytes of k in a row
//   kResident  all of a query tile stays in shared memory; else it comes along with the documents, panel by panel
//   kStages, kArgmax, kScaled
//   kStore     projections: products are written to memory, and jobs are rows instead of documents
template <class C>
struct WarpgroupLayout {
    static constexpr int kRows = 64 * C::kMT * C::kGroups;
    static constexpr int kColumns = int(kProductColumns);
    static constexpr int kPanels = (C::kSteps + 3) / 4;  // of 128 bytes of k
    static constexpr int kQueryPanel = kRows * 128;
    static constexpr int kDocumentPanel = kColumns * 128;
    static constexpr int kStage = kDocumentPanel + (C::kResident ? 0 : kQueryPanel);
    static constexpr int kBuffers = 4;  // documents that wait for an adder
    static constexpr int kAdders = 3;
    static constexpr int kMultipliers = 128 * C::kGroups;
    static constexpr int kThreads = kMultipliers + 32 * (1 + kAdders);

    static constexpr int kStageAt = C::kResident ? kPanels * kQueryPanel : 0;
    static constexpr int kFactorsAt = kStageAt + C::kStages * kStage;
    static constexpr int kBestAt = kFactorsAt + (C::kScaled ? C::kStages * kColumns * 4 : 0);
    static constexpr int kBarriersAt = kBestAt + kBuffers * kRows * (C::kArgmax ? 8 : 4);
    static constexpr int kBytes = kBarriersAt + 8 * (2 * C::kStages + 2 + 2 * kBuffers + 2);
    // Whether warpgroups take turns: one multiplies while the other takes maxima. The one ahead needs the next tile while
    // the other has not given back this one.
    static constexpr bool kTurns = C::kGroups == 2 && 2 * kPanels <= C::kStages;
    // Whether all panels of a tile are multiplied before the first is given back.
    static constexpr bool kTogether = kPanels <= 2;
    static_assert(kThreads == C::kThreads && kBytes == C::kShared, "the plan and the kernel disagree");
};

// A position in a ring, and how often it went round.
template <int kSize>
struct RingPlace {
    u32 at = 0, round = 0;
    MS_FN void next() {
        if (++at == kSize) at = 0, round ^= 1;
    }
};

template <class C>
struct WarpgroupKernel {
    using L = WarpgroupLayout<C>;
    using Acc = typename Accumulator<C::kKind>::Type;
    const WarpgroupParams& params;
    const ForwardParams& p;
    u8* shared;

    MS_FN explicit WarpgroupKernel(const WarpgroupParams& given)
        : params(given), p(given.base), shared(shared_memory()) {}

    MS_FN u8* stage(u32 i) const { return shared + L::kStageAt + i * L::kStage; }
    MS_FN u8* query_panel(u32 stage_index, u32 panel) const {
        return C::kResident ? shared + panel * L::kQueryPanel : stage(stage_index) + L::kDocumentPanel;
    }
    MS_FN float* factors(u32 i) const { return reinterpret_cast<float*>(shared + L::kFactorsAt) + i * L::kColumns; }
    MS_FN float* best_values(u32 i) const {
        return reinterpret_cast<float*>(shared + L::kBestAt) + i * L::kRows * (C::kArgmax ? 2 : 1);
    }
    MS_FN i32* best_rows(u32 i) const { return reinterpret_cast<i32*>(best_values(i) + L::kRows); }
    MS_FN Barrier* barriers() const { return reinterpret_cast<Barrier*>(shared + L::kBarriersAt); }
    MS_FN Barrier* full(u32 i) const { return barriers() + i; }
    MS_FN Barrier* empty(u32 i) const { return barriers() + C::kStages + i; }
    MS_FN Barrier* query_full() const { return barriers() + 2 * C::kStages; }
    MS_FN Barrier* query_empty() const { return query_full() + 1; }
    MS_FN Barrier* best_full(u32 i) const { return query_full() + 2 + i; }
    MS_FN Barrier* best_empty(u32 i) const { return best_full(L::kBuffers) + i; }
    MS_FN Barrier* turn(u32 group) const { return best_empty(L::kBuffers) + group; }

    MS_FN void set_up() {
        if (thread_index() == 0) {
            for (u32 i = 0; i < C::kStages; i++) {
                barrier_init(full(i), 1);
                barrier_init(empty(i), 4 * C::kGroups);
            }
            barrier_init(query_full(), 1);
            barrier_init(query_empty(), 4 * C::kGroups);
            for (u32 i = 0; i < L::kBuffers; i++) {
                barrier_init(best_full(i), 4 * C::kGroups);
                barrier_init(best_empty(i), 1);
            }
            for (u32 group = 0; group < 2; group++) barrier_init(turn(group), 4);
            barrier_init_done();
            tensor_prefetch(&params.q);
            tensor_prefetch(&params.d);
        }
        sync_block();
    }

    // Jobs of this block, in order. All roles walk the same ones.
    struct Jobs {
        u32 at, end, step;
    };
    MS_FN Jobs jobs() const {
        if (C::kStore) return {block_index(), p.jobs, grid_size()};
        if (p.job_list || p.tile_count > grid_size()) {
            // Neighbours share a tile of queries: a block gets a run of them.
            u32 each = (p.jobs + grid_size() - 1) / grid_size();
            u32 begin = min_u32(p.jobs, block_index() * each);
            return {begin, min_u32(p.jobs, begin + each), 1};
        }
        // A block keeps its tile; blocks that run together read the same documents.
        return {block_index(), p.jobs, grid_size() / p.tile_count * p.tile_count};
    }
    MS_FN Job job_at(u32 index) const {
        if constexpr (C::kStore) {
            u32 begin = index / p.tile_count * p.chunk_rows;
            return {index % p.tile_count, begin, min_u32(begin + p.chunk_rows, p.row_end), 0};
        }
        if (p.job_list || p.tile_count <= grid_size()) return find_job(p, index);
        u32 chunks = p.jobs / p.tile_count;
        return find_job(p, index % chunks * p.tile_count + index / chunks);
    }
    MS_FN u32 begin_row(const Job& job) const { return C::kStore ? job.document_begin : p.d_offsets[job.document_begin]; }
    MS_FN u32 tiles(const Job& job) const {
        if constexpr (C::kStore) return (job.document_end - job.document_begin + L::kColumns - 1) / L::kColumns;
        u32 rows = p.d_offsets[job.document_end] - p.d_offsets[job.document_begin];
        return (rows + first_shift(job) + L::kColumns - 1) / L::kColumns;
    }
    // Factors are copied 16 bytes at a time, so with them tiles begin at multiples of 4 rows.
    MS_FN u32 first_shift(const Job& job) const { return C::kScaled ? p.d_offsets[job.document_begin] % 4 : 0; }

    // Boxes of a tile's rows that lie in panel `panel`, to `to`.
    MS_FN void load_queries(u8* to, u32 tile, u32 panel, Barrier* barrier) const {
        for (u32 s = p.tiles[tile]; s < p.tiles[tile + 1]; s++) {
            const Slot slot = p.slots[s];
            for (u32 r = 0; r < slot.rows; r += 8)
                tensor_copy(to + (slot.tile_row + r) * 128, &params.q, panel * 128 / size_of(C::kKind), slot.row + r,
                            barrier);
        }
    }
    MS_FN u32 query_bytes(u32 tile) const {
        u32 bytes = 0;
        for (u32 s = p.tiles[tile]; s < p.tiles[tile + 1]; s++) bytes += (p.slots[s].rows + 7) / 8 * 1024;
        return bytes;
    }

    // One thread.
    MS_FN void produce() const {
        RingPlace<C::kStages> place;
        u32 tile_at = kNone, query_round = 0;
        Jobs mine = jobs();
        for (u32 index = mine.at; index < mine.end; index += mine.step) {
            Job job = job_at(index);
            if (job.document_begin >= job.document_end) continue;
            u32 count = tiles(job);
            if (count == 0) continue;
            u32 panel_bytes = 0;
            if (C::kResident && job.tile != tile_at) {
                barrier_wait(query_empty(), query_round ^ 1);
                query_round ^= 1;
                barrier_expect(query_full(), query_bytes(job.tile) * L::kPanels);
                for (u32 panel = 0; panel < L::kPanels; panel++)
                    load_queries(query_panel(0, panel), job.tile, panel, query_full());
                tile_at = job.tile;
            }
            if constexpr (!C::kResident) panel_bytes = query_bytes(job.tile);
            u32 row = begin_row(job) - first_shift(job);
            for (u32 tile = 0; tile < count; tile++, row += L::kColumns) {
                for (u32 panel = 0; panel < L::kPanels; panel++) {
                    bool with_factors = C::kScaled && panel + 1 == L::kPanels;
                    barrier_wait(empty(place.at), place.round ^ 1);
                    Barrier* barrier = full(place.at);
                    barrier_expect(barrier, L::kDocumentPanel + panel_bytes + (with_factors ? L::kColumns * 4 : 0));
                    tensor_copy(stage(place.at), &params.d, panel * 128 / size_of(C::kKind), row, barrier);
                    if constexpr (!C::kResident) load_queries(query_panel(place.at, panel), job.tile, panel, barrier);
                    if (with_factors) bulk_copy(factors(place.at), p.d_factors + row, L::kColumns * 4, barrier);
                    place.next();
                }
            }
        }
    }

    // One warp, for every kAdders-th document.
    MS_FN void add_documents(u32 adder) const {
        RingPlace<L::kBuffers> place;
        u32 turn = 0;
        Jobs mine = jobs();
        for (u32 index = mine.at; index < mine.end; index += mine.step) {
            Job job = job_at(index);
            for (u32 j = job.document_begin; j < job.document_end; j++, place.next(), turn++) {
                if (turn == L::kAdders) turn = 0;
                if (turn != adder) continue;
                barrier_wait(best_full(place.at), place.round);
                const float* values = best_values(place.at);
                const i32* rows = best_rows(place.at);
                for (u32 s = p.tiles[job.tile]; s < p.tiles[job.tile + 1]; s++)
                    add_up<C::kArgmax>(p, s, j, p.d_offsets[j], [&](u32 row) {
                        return Best{values[row], C::kArgmax ? rows[row] : -1};
                    });
                sync_warp();
                if (lane_index() == 0) barrier_arrive(best_empty(place.at));
            }
        }
    }

    // Takes the columns of one chunk of 32 that lie in [low, high) into the maximum; all of them unless `kCheck`.
    template <bool kCheck>
    MS_FN void take_chunk(const Acc (&acc)[C::kMT][64], Best (&best)[C::kMT][2], u32 chunk, u32 low, u32 high,
                          i32 first_row, const float* scales) const {
        u32 own = lane_index() % 4 * 2;
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u32 n = 4 * chunk + i;
            Pair2 scale = {1.0f, 1.0f};
            if constexpr (C::kScaled) scale = *reinterpret_cast<const Pair2*>(scales + 8 * n + own);
#pragma unroll
            for (u32 c = 0; c < 2; c++) {
                u32 at = 8 * n + own + c;
                bool there = !kCheck || at - low < high - low;
#pragma unroll
                for (u32 m = 0; m < C::kMT; m++)
#pragma unroll
                    for (u32 half = 0; half < 2; half++) {
                        float x = static_cast<float>(acc[m][4 * n + 2 * half + c]);
                        if constexpr (C::kScaled) x *= c == 0 ? scale.x : scale.y;
                        Best& b = best[m][half];
                        if constexpr (C::kArgmax) {
                            if (there && x > b.value) b = {x, first_row + i32(at)};
                        } else {
                            float larger = max_number(b.value, x);
                            b.value = there ? larger : b.value;
                        }
                    }
            }
        }
    }

    // Maximum over columns [low, high) of the tile that begins at row `first_row`. Only chunks that a document begins or
    // ends in look at their columns one by one.
    MS_FN void take_maximum(const Acc (&acc)[C::kMT][64], Best (&best)[C::kMT][2], u32 low, u32 high, i32 first_row,
                            const float* scales) const {
#pragma unroll
        for (u32 chunk = 0; chunk < 4; chunk++) {
            u32 begin = 32 * chunk, end = begin + 32;
            if (low <= begin && high >= end) take_chunk<false>(acc, best, chunk, low, high, first_row, scales);
            else if (low < end && high > begin) take_chunk<true>(acc, best, chunk, low, high, first_row, scales);
        }
    }

    MS_FN void finish_document(Best (&best)[C::kMT][2], RingPlace<L::kBuffers>& place) const {
        u32 group = warp_index() / 4, warp = warp_index() % 4, lane = lane_index();
        barrier_wait(best_empty(place.at), place.round ^ 1);
        float* values = best_values(place.at);
        i32* rows = best_rows(place.at);
#pragma unroll
        for (u32 m = 0; m < C::kMT; m++)
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                Best b = best[m][half];
                for (u32 step = 1; step <= 2; step *= 2) {
                    if constexpr (C::kArgmax) b = better(b, {shuffle_xor(b.value, step), shuffle_xor(b.row, step)});
                    else b.value = max_number(b.value, shuffle_xor(b.value, step));
                }
                if (lane % 4 == 0) {
                    u32 at = (group * C::kMT + m) * 64 + warp * 16 + half * 8 + lane / 4;
                    values[at] = b.value;
                    if constexpr (C::kArgmax) rows[at] = b.row;
                }
                best[m][half] = {negative_infinity(), -1};
            }
        sync_warp();
        if (lane == 0) barrier_arrive(best_full(place.at));
        place.next();
    }

    // Writes a tile's products: `scores[row · out_stride + query row]`.
    MS_FN void store(const Acc (&acc)[C::kMT][64], const Job& job, u32 first_row) const {
        const Slot slot = p.slots[p.tiles[job.tile]];
        u32 group = warp_index() / 4, warp = warp_index() % 4, own = lane_index() % 4 * 2;
#pragma unroll
        for (u32 m = 0; m < C::kMT; m++)
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                u32 at = (group * C::kMT + m) * 64 + warp * 16 + half * 8 + lane_index() / 4;
                if (at >= slot.rows) continue;
                float bias = p.bias ? p.bias[slot.row + at] : 0.0f;
                float* to = p.scores + slot.row + at - p.q_base;
#pragma unroll
                for (u32 n = 0; n < 16; n++)
#pragma unroll
                    for (u32 c = 0; c < 2; c++) {
                        u32 row = first_row + 8 * n + own + c;
                        if (row < job.document_end)
                            to[u64(row) * p.out_stride] = static_cast<float>(acc[m][4 * n + 2 * half + c]) + bias;
                    }
            }
    }

    // This warp has read stage `i`.
    MS_FN void give_back(u32 i) const {
        if (lane_index() == 0) barrier_arrive(empty(i));
    }

    // One of the multiplying warpgroups.
    MS_FN void multiply_documents() const {
        u32 group = warp_index() / 4;
        RingPlace<C::kStages> place;
        RingPlace<L::kBuffers> best_place;
        u32 tile_at = kNone, query_round = 0, round = 0;
        Acc acc[C::kMT][64];
        Best best[C::kMT][2];
#pragma unroll
        for (u32 m = 0; m < C::kMT; m++) best[m][0] = best[m][1] = {negative_infinity(), -1};
        Jobs mine = jobs();
        for (u32 index = mine.at; index < mine.end; index += mine.step) {
            Job job = job_at(index);
            if (job.document_begin >= job.document_end) continue;
            u32 count = tiles(job), j = job.document_begin;
            i32 first_row = i32(begin_row(job)) - i32(first_shift(job));
            u32 low = first_shift(job);
            u32 end = C::kStore ? job.document_end : p.d_offsets[j + 1];
            if (C::kResident && count > 0 && job.tile != tile_at) {
                // The tile before this one is done with: every product that read it was waited for.
                if (tile_at != kNone && lane_index() == 0) barrier_arrive(query_empty());
                barrier_wait(query_full(), query_round);
                query_round ^= 1;
                tile_at = job.tile;
            }
            for (u32 tile = 0; tile < count; tile++, first_row += L::kColumns) {
                u32 used[L::kTogether ? L::kPanels : 1] = {};
                if constexpr (L::kTurns) barrier_wait(turn(group), round ^ (group == 0));
                constexpr int kUnroll = L::kTogether ? L::kPanels : 1;
#pragma unroll kUnroll
                for (u32 panel = 0; panel < L::kPanels; panel++) {
                    barrier_wait(full(place.at), place.round);
                    u64 documents = matrix_descriptor(stage(place.at));
                    u64 queries[C::kMT];
#pragma unroll
                    for (u32 m = 0; m < C::kMT; m++)
                        queries[m] = matrix_descriptor(query_panel(place.at, panel) + (group * C::kMT + m) * 64 * 128);
#pragma unroll
                    for (u32 m = 0; m < C::kMT; m++) product_keep(acc[m]);
                    product_fence();
#pragma unroll
                    for (u32 k = 0; k < 4; k++) {
                        if (panel * 4 + k >= C::kSteps) break;
#pragma unroll
                        for (u32 m = 0; m < C::kMT; m++)
                            product<C::kKind>(acc[m], queries[m] + 2 * k, documents + 2 * k, panel + k > 0);
                    }
                    product_commit();
                    if constexpr (L::kTogether) {
                        used[panel] = place.at;
                    } else {
                        if (panel > 0) {
                            // The panel before this one has been multiplied.
                            product_wait<1>();
                            give_back(used[0]);
                        }
                        used[0] = place.at;
                    }
                    place.next();
                }
                if constexpr (L::kTurns) {
                    // What was just begun is ahead of the other warpgroup's products; its maxima are taken beside them.
                    if (lane_index() == 0) barrier_arrive(turn(1 - group));
                    round ^= 1;
                }
                product_wait<0>();
#pragma unroll
                for (u32 m = 0; m < C::kMT; m++) product_keep(acc[m]);
                // Factors come with the last panel and are still to be read.
                constexpr int kUsed = L::kTogether ? L::kPanels : 1;
                u32 last = used[kUsed - 1];
#pragma unroll
                for (int i = 0; i < kUsed - (C::kScaled ? 1 : 0); i++) give_back(used[i]);
                if constexpr (C::kStore) {
                    store(acc, job, u32(first_row));
                    continue;
                }
                while (j < job.document_end) {
                    u32 high = min_u32(u32(i32(end) - first_row), L::kColumns);
                    take_maximum(acc, best, low, high, first_row, factors(last));
                    if (i32(end) > first_row + L::kColumns) break;
                    finish_document(best, best_place);
                    low = high;
                    if (++j < job.document_end) end = p.d_offsets[j + 1];
                }
                low = 0;
                if constexpr (C::kScaled) {
                    sync_warp();
                    give_back(last);
                }
            }
            // Documents without rows behind the last tile, or in a job without tiles.
            for (; !C::kStore && j < job.document_end; j++) finish_document(best, best_place);
        }
    }

    static constexpr u32 kNone = 0xffffffffu;
};

template <class C>
MS_FN void forward_warpgroup(const WarpgroupParams& params) {
    WarpgroupKernel<C> kernel(params);
    kernel.set_up();
    u32 warp = warp_index();
    if (warp < 4 * C::kGroups) {
        kernel.multiply_documents();
    } else if (warp == 4 * C::kGroups) {
        if (lane_index() == 0) kernel.produce();
    } else if constexpr (!C::kStore) {
        kernel.add_documents(warp - 4 * C::kGroups - 1);
    }
}

}  // namespace maxsim
