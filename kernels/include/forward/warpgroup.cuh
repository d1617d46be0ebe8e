// MaxSim by warpgroups (sm_90a).
//
// One warp (the producer) lets the copy engine bring query tiles and document rows into a ring of stages and runs ahead
// across pieces of work; one or two warpgroups multiply (64 or 128 query rows each against 128 document rows) and keep the
// running maximum in the layout of the accumulators; three warps (the adders) turn maxima of finished documents into
// scores, sharing the queries of a tile. Nobody waits for the whole block.
//
// Documents lie behind one another and tiles do not care where they end, as in `tile.cuh`; both give scores from one chain
// of products over k per pair of rows. Nor need pieces care: the blocks that meet parts of one document leave their maxima in
// memory, and the last of them adds up. Maxima are exact, so the bits of a score do not depend on who met what.
#pragma once
#include "forward/sums.cuh"
#include "ptx/bulk.cuh"
#include "ptx/wgmma.cuh"
#include "ring.cuh"

namespace maxsim {

// A tile of query rows and the document rows that it meets next.
struct alignas(16) Piece {
    u32 tile;
    u32 row, row_end;            // `row` is where the first tile of document rows begins
    u32 document, document_end;  // that end there, have rows there or lie empty between
    u32 chunk;                   // of the rows of a cross product
    u32 unused[2];
};

// `base.jobs` counts pieces. Those of a cross product are chunks of its documents, each for every tile of queries.
struct WarpgroupParams {
    ForwardParams base;
    Slot only;            // of all queries, if `single`
    const Piece* pieces;  // of a cross product, whose chunks have no tile; or all of them
    u32* counters;        // zero before and after: [0] counts pieces handed out, the others parts of documents that are done
    u8* parts;            // maxima of documents that more than one chunk has rows of; null: there are none
    u32 row_begin;        // where chunks of `base.chunk_rows` rows begin
    u32 single;           // whether there is one slot
    u32 listed;           // whether pieces have tiles
    u32 shared;           // whether blocks take the next piece that is left, instead of every n-th one
    u64 unused[3];
    TensorMap q;     // boxes of 8 rows
    TensorMap d;     // boxes of 128 rows
    TensorMap part;  // boxes of 32 rows, for the end of a piece
};

// `C` is the generated configuration:
//   kKind      what is stored and multiplied (Kind)
//   kGroups    multiplying warpgroups; kMT · 64 query rows each
//   kSteps     products of 32 bytes of k in a row
//   kQueries   query tiles that shared memory holds; 0: they come along with the documents, panel by panel
//   kStages, kArgmax, kScaled
//   kStore     projections: products are written to memory, and pieces are chunks of rows
template <class C>
struct WarpgroupLayout {
    static constexpr int kRows = 64 * C::kMT * C::kGroups;
    static constexpr int kColumns = int(kProductColumns);
    static constexpr int kPanels = (C::kSteps + 3) / 4;  // of 128 bytes of k
    static constexpr int kQueryPanel = kRows * 128;
    static constexpr int kDocumentPanel = kColumns * 128;
    static constexpr int kPart = 32;      // rows of the smaller boxes
    static constexpr int kQueryTile = kPanels * kQueryPanel;
    static constexpr int kStage = kDocumentPanel + (C::kQueries ? 0 : kQueryPanel);
    static constexpr int kBuffers = 4;  // documents that wait for the adders
    static constexpr int kPieces = 4;   // pieces that were begun
    static constexpr int kAdders = 3;
    static constexpr int kReaders = 4 * C::kGroups + (C::kStore ? 0 : kAdders);  // warps that follow the producer
    static constexpr int kTileBarriers = C::kQueries ? C::kQueries : 1;
    static constexpr int kMultipliers = 128 * C::kGroups;
    static constexpr int kThreads = kMultipliers + 32 * (1 + kAdders);

    static constexpr int kStageAt = C::kQueries * kQueryTile;
    static constexpr int kFactorsAt = kStageAt + C::kStages * kStage;
    static constexpr int kBestAt = kFactorsAt + (C::kScaled ? C::kStages * kColumns * 4 : 0);
    static constexpr int kPiecesAt = kBestAt + kBuffers * kRows * (C::kArgmax ? 8 : 4);
    static constexpr int kBarriersAt = kPiecesAt + kPieces * 32;
    static constexpr int kBytes = kBarriersAt + 8 * (2 * C::kStages + 2 * kTileBarriers + 2 * kBuffers + 2 * kPieces + 2);
    // Whether warpgroups take turns: one multiplies while the other takes maxima. The one ahead needs the next tile while
    // the other has not given back this one.
    static constexpr bool kTurns = C::kGroups == 2 && 2 * kPanels <= C::kStages;
    // Whether all panels of a tile are multiplied before the first is given back.
    static constexpr bool kTogether = kPanels <= 2;
    static_assert(kThreads == C::kThreads && kBytes == C::kShared, "the plan and the kernel disagree");
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
    MS_FN u8* query_panel(u32 tile_index, u32 stage_index, u32 panel) const {
        return C::kQueries ? shared + tile_index * L::kQueryTile + panel * L::kQueryPanel
                           : stage(stage_index) + L::kDocumentPanel;
    }
    MS_FN float* factors(u32 i) const { return reinterpret_cast<float*>(shared + L::kFactorsAt) + i * L::kColumns; }
    MS_FN float* best_values(u32 i) const {
        return reinterpret_cast<float*>(shared + L::kBestAt) + i * L::kRows * (C::kArgmax ? 2 : 1);
    }
    MS_FN i32* best_rows(u32 i) const { return reinterpret_cast<i32*>(best_values(i) + L::kRows); }
    MS_FN Piece* pieces() const { return reinterpret_cast<Piece*>(shared + L::kPiecesAt); }
    MS_FN Barrier* barriers() const { return reinterpret_cast<Barrier*>(shared + L::kBarriersAt); }
    MS_FN Barrier* full(u32 i) const { return barriers() + i; }
    MS_FN Barrier* empty(u32 i) const { return barriers() + C::kStages + i; }
    MS_FN Barrier* query_full(u32 i) const { return barriers() + 2 * C::kStages + i; }
    MS_FN Barrier* query_empty(u32 i) const { return query_full(L::kTileBarriers) + i; }
    MS_FN Barrier* best_full(u32 i) const { return query_empty(L::kTileBarriers) + i; }
    MS_FN Barrier* best_empty(u32 i) const { return best_full(L::kBuffers) + i; }
    MS_FN Barrier* piece_full(u32 i) const { return best_empty(L::kBuffers) + i; }
    MS_FN Barrier* piece_empty(u32 i) const { return piece_full(L::kPieces) + i; }
    MS_FN Barrier* turn(u32 group) const { return piece_empty(L::kPieces) + group; }

    MS_FN void set_up() {
        if (thread_index() == 0) {
            for (u32 i = 0; i < C::kStages; i++) {
                barrier_init(full(i), 1);
                barrier_init(empty(i), 4 * C::kGroups);
            }
            for (u32 i = 0; i < L::kTileBarriers; i++) {
                barrier_init(query_full(i), 1);
                barrier_init(query_empty(i), 4 * C::kGroups);
            }
            for (u32 i = 0; i < L::kBuffers; i++) {
                barrier_init(best_full(i), 4 * C::kGroups);
                barrier_init(best_empty(i), L::kAdders);
            }
            for (u32 i = 0; i < L::kPieces; i++) {
                barrier_init(piece_full(i), 1);
                barrier_init(piece_empty(i), L::kReaders);
            }
            for (u32 group = 0; group < 2; group++) barrier_init(turn(group), 4);
            barrier_init_done();
        }
        if (thread_index() == kWarp) {
            tensor_prefetch(&params.q);
            tensor_prefetch(&params.d);
            tensor_prefetch(&params.part);
        }
        sync_block();
    }

    // Slots of a tile.
    struct Slots {
        u32 begin, end;
    };
    MS_FN Slots slots_of(u32 tile) const {
        return params.single ? Slots{0, 1} : Slots{p.tiles[tile], p.tiles[tile + 1]};
    }
    MS_FN Slot slot(u32 s) const { return params.single ? params.only : p.slots[s]; }

    // Pieces of this block that it need not share, by their numbers.
    struct Numbers {
        u32 at, end, step;
    };
    MS_FN Numbers numbers() const {
        if (params.shared || p.tile_count <= grid_size()) {
            // A block keeps its tile; blocks that run together read the same documents.
            u32 step = params.shared || params.listed ? grid_size() : grid_size() / p.tile_count * p.tile_count;
            return {block_index(), p.jobs, step};
        }
        // Neighbours share a tile of queries: a block gets a run of them.
        u32 each = (p.jobs + grid_size() - 1) / grid_size();
        u32 begin = min_u32(p.jobs, block_index() * each);
        return {begin, min_u32(p.jobs, begin + each), 1};
    }
    MS_FN Piece piece_at(u32 index) const {
        if (!C::kStore && params.listed) return params.pieces[index];
        // Tiles vary fastest, so that blocks that run together read the same documents; or chunks do, so that a block's run of
        // pieces shares its tile.
        u32 chunks = p.jobs / p.tile_count;
        bool runs = p.tile_count > grid_size();
        u32 tile = runs ? index / chunks : index % p.tile_count, chunk = runs ? index % chunks : index / p.tile_count;
        Piece piece;
        if constexpr (C::kStore) {
            piece.row = chunk * p.chunk_rows;
            piece.row_end = min_u32(piece.row + p.chunk_rows, p.row_end);
        } else {
            piece = params.pieces[chunk];
        }
        piece.tile = tile;
        piece.chunk = chunk;
        return piece;
    }
    MS_FN static u32 tiles(const Piece& piece) { return (piece.row_end - piece.row + L::kColumns - 1) / L::kColumns; }

    // Boxes of a lane's slot that lie in panel `panel`, to `to`.
    MS_FN void load_queries(u8* to, const Slot& own, u32 panel, Barrier* barrier) const {
        for (u32 r = 0; r < own.rows; r += 8)
            tensor_copy(to + (own.tile_row + r) * 128, &params.q, panel * 128 / size_of(C::kKind), own.row + r, barrier);
    }
    // A tile has at most as many slots as a warp has lanes, since they begin at multiples of 8 rows.
    static_assert(L::kRows <= 8 * kWarp, "a lane for every slot");
    MS_FN Slot lane_slot(u32 tile) const {
        Slots all = slots_of(tile);
        u32 s = all.begin + lane_index();
        Slot own;
        if (s < all.end) own = slot(s);
        else own.row = own.rows = own.tile_row = 0;
        return own;
    }
    // Bytes of a panel of the tile whose slots lanes have.
    MS_FN static u32 query_bytes(const Slot& own) {
        u32 end = (own.tile_row + own.rows + 7) / 8 * 1024;
        for (u32 step = kWarp / 2; step > 0; step /= 2) end = max_u32(end, shuffle_xor(end, step));
        return end;
    }

    // One warp.
    MS_FN void produce() const {
        RingPlace<C::kStages> place;
        RingPlace<L::kTileBarriers> tile_place;
        RingPlace<L::kPieces> piece_place;
        u32 tile_at = kNone;
        Numbers mine = numbers();
        u32 index = mine.at;
        Piece piece, next;
        Slot own, next_own;
        if (index < mine.end) {
            piece = piece_at(index);
            // The first documents need no description of the queries to be read before them.
            if (C::kQueries == 0) own = lane_slot(piece.tile);
        }
        while (index < mine.end) {
            // What comes next is looked up while documents of this piece are copied.
            u32 taken = 0;
            if (params.shared && lane_index() == 0) taken = add_to(params.counters, 1);
            publish(piece, piece_place);
            RowCopies rows{piece.row, piece.row_end, 0};
            u32 copies = tiles(piece) * L::kPanels;
            if (C::kQueries > 0 && copies > 0 && piece.tile != tile_at) {
                bool first = tile_at == kNone;
                // Where a tile of queries has no place yet, documents need not wait for it as well.
                if (first || C::kQueries == 1) {
                    u32 ahead = min_u32(copies, C::kStages);
                    copy_documents(rows, ahead, place, own);
                    copies -= ahead;
                }
                if (first) own = lane_slot(piece.tile);
                copy_queries(own, tile_place);
                tile_at = piece.tile;
            }
            copy_documents(rows, copies / 2, place, own);
            index = params.shared ? grid_size() + shuffle(taken, 0) : index + mine.step;
            // Every block asks once in vain; the last to do so cleans up.
            if (params.shared && lane_index() == 0 && index + 1 == p.jobs + grid_size()) store_number(params.counters, 0);
            next = piece;
            if (index < mine.end) next = piece_at(index);
            copy_documents(rows, copies / 4, place, own);
            next_own = own;
            if (next.tile != piece.tile) next_own = lane_slot(next.tile);
            copy_documents(rows, copies - copies / 2 - copies / 4, place, own);
            piece = next;
            own = next_own;
        }
        piece.tile = kNone;
        publish(piece, piece_place);
    }

    // The tile of queries whose slots lanes have.
    MS_FN void copy_queries(const Slot& own, RingPlace<L::kTileBarriers>& place) const {
        u32 bytes = query_bytes(own);
        if (lane_index() == 0) {
            barrier_wait(query_empty(place.at), place.round ^ 1);
            barrier_expect(query_full(place.at), bytes * L::kPanels);
        }
        sync_warp();
        for (u32 panel = 0; panel < L::kPanels; panel++)
            load_queries(query_panel(place.at, 0, panel), own, panel, query_full(place.at));
        place.next();
    }

    MS_FN void publish(const Piece& piece, RingPlace<L::kPieces>& place) const {
        if (lane_index() == 0) {
            barrier_wait(piece_empty(place.at), place.round ^ 1);
            pieces()[place.at] = piece;
            barrier_arrive(piece_full(place.at));
        }
        place.next();
    }
    // The next piece; every warp that follows asks for each of them.
    MS_FN Piece follow(RingPlace<L::kPieces>& place) const {
        barrier_wait(piece_full(place.at), place.round);
        Piece piece = pieces()[place.at];
        sync_warp();
        if (lane_index() == 0) barrier_arrive(piece_empty(place.at));
        place.next();
        return piece;
    }

    // Document rows of a piece that were not copied yet, from panel `panel` on.
    struct RowCopies {
        u32 row, end, panel;
    };
    // The next `count` panels of document rows; with them the panel of queries, if none stay.
    MS_FN void copy_documents(RowCopies& rows, u32 count, RingPlace<C::kStages>& place, const Slot& own) const {
        bool first_lane = lane_index() == 0;
        u32 query_panel_bytes = C::kQueries ? 0 : query_bytes(own);
        for (; count > 0; count--, place.next()) {
            Barrier* barrier = full(place.at);
            bool last_panel = rows.panel + 1 == L::kPanels;
            u32 column = rows.panel * 128 / size_of(C::kKind);
            if (first_lane) {
                u32 here = rows.end - rows.row;
                u32 boxes = here >= L::kColumns ? L::kColumns / L::kPart : (here + L::kPart - 1) / L::kPart;
                u32 bytes = boxes * L::kPart * 128 + query_panel_bytes;
                if (C::kScaled && last_panel) bytes += L::kColumns * 4;
                barrier_wait(empty(place.at), place.round ^ 1);
                barrier_expect(barrier, bytes);
                if (here >= L::kColumns) {
                    tensor_copy(stage(place.at), &params.d, column, rows.row, barrier);
                } else {
                    for (u32 box = 0; box < boxes; box++)
                        tensor_copy(stage(place.at) + box * L::kPart * 128, &params.part, column, rows.row + box * L::kPart,
                                    barrier);
                }
                if (C::kScaled && last_panel)
                    bulk_copy(factors(place.at), p.d_factors + rows.row, L::kColumns * 4, barrier);
            }
            if constexpr (!C::kQueries) {
                sync_warp();
                load_queries(query_panel(0, place.at, rows.panel), own, rows.panel, barrier);
            }
            if (last_panel) rows.row += L::kColumns, rows.panel = 0;
            else rows.panel++;
        }
        sync_warp();
    }

    // One warp. Adders share the slots of a document's tile, in turns.
    MS_FN void add_documents(u32 adder) const {
        RingPlace<L::kBuffers> place;
        RingPlace<L::kPieces> piece_place;
        u32 turn = 0;
        for (;;) {
            Piece piece = follow(piece_place);
            if (piece.tile == kNone) return;
            Slots slots = slots_of(piece.tile);
            u32 end = p.d_offsets[piece.document];
            for (u32 j = piece.document; j < piece.document_end; j++, place.next()) {
                u32 begin = end;
                end = p.d_offsets[j + 1];
                barrier_wait(best_full(place.at), place.round);
                const float* values = best_values(place.at);
                const i32* rows = best_rows(place.at);
                auto best = [&](u32 row) { return Best{values[row], C::kArgmax ? rows[row] : -1}; };
                bool whole = begin >= piece.row && end <= piece.row_end;
                Best* part = whole ? nullptr : part_of(piece, piece.chunk, begin >= piece.row);
                for (u32 s = slots.begin; s < slots.end; s++) {
                    if (turn == adder) {
                        Slot own = slot(s);
                        if (whole) add_up<C::kArgmax>(p, own, s, j, begin, best);
                        else
                            for (u32 r = lane_index(); r < own.rows; r += kWarp) part[own.tile_row + r] = best(own.tile_row + r);
                    }
                    if (++turn == L::kAdders) turn = 0;
                }
                sync_warp();
                if (lane_index() == 0) barrier_arrive(best_empty(place.at));
                if (!whole) join(piece, slots, j, begin, end);
            }
        }
    }

    // Where the maxima of a piece's first document, or of its last one, are left.
    MS_FN Best* part_of(const Piece& piece, u32 chunk, bool last) const {
        u64 number = (u64(chunk) * p.tile_count + piece.tile) * 2 + last;
        return reinterpret_cast<Best*>(params.parts) + number * L::kRows;
    }

    // Notes that this adder is done with a part of document `j`, rows [begin, end); the last of all to say so adds up.
    MS_FN void join(const Piece& piece, Slots slots, u32 j, u32 begin, u32 end) const {
        u32 first = (begin - params.row_begin) / p.chunk_rows, last = (end - 1 - params.row_begin) / p.chunk_rows;
        u32* counter = params.counters + 1 + first * p.tile_count + piece.tile;
        u32 before = 0;
        sync_warp();
        if (lane_index() == 0) before = add_after_all(counter, 1);
        before = shuffle(before, 0);
        if (before + 1 != (last - first + 1) * L::kAdders) return;
        if (lane_index() == 0) store_number(counter, 0);
        for (u32 s = slots.begin; s < slots.end; s++)
            add_up<C::kArgmax>(p, slot(s), s, j, begin, [&](u32 row) {
                Best b = load_best(part_of(piece, first, true) + row);
                for (u32 chunk = first + 1; chunk <= last; chunk++)
                    b = better(b, load_best(part_of(piece, chunk, false) + row));
                return b;
            });
    }

    // What another block left.
    MS_FN static Best load_best(const Best* from) {
        Pair2 x = load_fresh(reinterpret_cast<const Pair2*>(from));
        return {x.x, i32(float_to_bits(x.y))};
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
    MS_FN void store(const Acc (&acc)[C::kMT][64], const Piece& piece, u32 first_row) const {
        const Slot slot = p.slots[p.tiles[piece.tile]];
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
                        if (row < piece.row_end)
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
        RingPlace<L::kTileBarriers> tile_place;
        RingPlace<L::kBuffers> best_place;
        RingPlace<L::kPieces> piece_place;
        u32 tile_at = kNone, tile_index = 0, round = 0;
        Acc acc[C::kMT][64];
        Best best[C::kMT][2];
#pragma unroll
        for (u32 m = 0; m < C::kMT; m++) best[m][0] = best[m][1] = {negative_infinity(), -1};
        for (;;) {
            Piece piece = follow(piece_place);
            if (piece.tile == kNone) return;
            u32 count = tiles(piece), j = piece.document, first_row = piece.row, low = 0, end = 0;
            if constexpr (!C::kStore) {
                low = max_u32(p.d_offsets[j], first_row) - first_row;
                end = min_u32(p.d_offsets[j + 1], piece.row_end);
            }
            if (C::kQueries > 0 && count > 0 && piece.tile != tile_at) {
                // The tile before this one is done with: every product that read it was waited for.
                if (tile_at != kNone && lane_index() == 0) barrier_arrive(query_empty(tile_index));
                tile_index = tile_place.at;
                barrier_wait(query_full(tile_index), tile_place.round);
                tile_place.next();
                tile_at = piece.tile;
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
                        queries[m] = matrix_descriptor(query_panel(tile_index, place.at, panel) + (group * C::kMT + m) * 64 * 128);
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
                    store(acc, piece, first_row);
                    continue;
                }
                while (j < piece.document_end) {
                    u32 high = min_u32(end - first_row, L::kColumns);
                    take_maximum(acc, best, low, high, i32(first_row), factors(last));
                    if (end > first_row + L::kColumns) break;
                    finish_document(best, best_place);
                    low = high;
                    if (++j < piece.document_end) end = min_u32(p.d_offsets[j + 1], piece.row_end);
                }
                low = 0;
                if constexpr (C::kScaled) {
                    sync_warp();
                    give_back(last);
                }
            }
            // Documents without rows behind the last tile, or in a piece without tiles.
            for (; !C::kStore && j < piece.document_end; j++) finish_document(best, best_place);
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
        kernel.produce();
    } else if constexpr (!C::kStore) {
        kernel.add_documents(warp - 4 * C::kGroups - 1);
    }
}

}  // namespace maxsim
