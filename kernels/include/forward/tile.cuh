// MaxSim by warps: tiles of query rows against a stream of document rows (sm_75 and newer).
//
// A block holds a tile of query rows in shared memory and lets document rows stream past through a ring of stages. The
// rows of a job's documents lie behind one another and are cut into tiles without regard to where documents end, so no
// product is wasted on padding; the maximum is taken over the columns of one document at a time, in the layout of the
// accumulators, and crosses lanes once per document.
//
// Similarities are one chain of multiply-adds over k for every pair of rows, whatever tile they fall into.
#pragma once
#include "convert.cuh"
#include "forward/sums.cuh"
#include "ptx/copy.cuh"
#include "ptx/mma.cuh"

namespace maxsim {

// Shared memory and derived sizes. `C` is the generated configuration:
//   kProduct  what is multiplied (Kind); kF32 on CUDA cores, the others on tensor cores. Queries are stored as this.
//   kStored   how documents are stored (Kind); kBits > 0: packed residuals instead
//   kChunk    elements of a row in a stage; kSingle: rows are one chunk, and queries stay in shared memory
//   kMT, kNT  a warp's tile: 16·kMT query rows, 8·kNT document rows; kWM × kWN warps
//   kSplit    weights of residuals as a sum of two 16-bit numbers, which is as exact as f32 here
//   kStages, kArgmax, kScaled (documents have factors), kStore (write similarities instead of maxima)
template <class C>
struct TileLayout {
    static constexpr int kRows = 16 * C::kMT * C::kWM;
    static constexpr int kColumns = 8 * C::kNT * C::kWN;
    static constexpr bool kResidual = C::kBits > 0;
    static constexpr int kThreads = 32 * C::kWM * C::kWN;
    static constexpr int kQueryBytes = C::kChunk * size_of(C::kProduct);
    // As multiplied, in shared memory: residuals are decoded there, everything else as it is multiplied.
    static constexpr int kDecodedBytes = C::kChunk * size_of(C::kProduct);
    static constexpr int kStoredBytes =
        kResidual ? (C::kChunk * C::kBits / 8 + 15) / 16 * 16 : C::kChunk * size_of(C::kStored);
    // 16 bytes more than the row: rows an odd number of 16-byte words apart spread over all banks.
    static constexpr int kQueryRow = kQueryBytes + 16;
    static constexpr int kStoredRow = kStoredBytes + 16;
    static constexpr int kDecodedRow = kDecodedBytes + 16;
    static constexpr int kStage = kColumns * kStoredRow + (C::kSingle ? 0 : kRows * kQueryRow);

    static constexpr int kQueryAt = 0;
    static constexpr int kStageAt = kQueryAt + (C::kSingle ? kRows * kQueryRow : 0);
    static constexpr int kDecodedAt = kStageAt + C::kStages * kStage;
    static constexpr int kDecoded = kResidual ? kColumns * kDecodedRow : 0;
    static constexpr int kWeightsAt = kDecodedAt + (C::kSplit ? 2 : 1) * kDecoded;
    static constexpr int kBestAt = kWeightsAt + (kResidual ? 256 * (8 / (kResidual ? C::kBits : 8)) * 4 : 0);
    static constexpr int kRowsAt = kBestAt + 2 * C::kWN * kRows * (C::kArgmax ? 8 : 4);
    static constexpr int kBytes = kRowsAt + kRows * 4;
    static_assert(kThreads == C::kThreads && kBytes == C::kShared, "the plan and the kernel disagree");
};

constexpr u32 kNoRow = 0xffffffffu;

template <class C>
struct TileKernel {
    using L = TileLayout<C>;
    const ForwardParams& p;
    u8* shared;
    u32 lane, warp_row, warp_column;
    // The job at hand.
    Job job;
    u32 row_begin, row_end;
    // This thread's part of the tile.
    float acc[C::kMT][C::kNT][4];
    float factors[C::kNT][2];
    u32 codes[C::kNT][2];
    Best best[C::kMT][2];
    u32 parity;

    MS_FN explicit TileKernel(const ForwardParams& params) : p(params), shared(shared_memory()), parity(0) {
        lane = lane_index();
        warp_row = warp_index() % C::kWM;
        warp_column = warp_index() / C::kWM;
    }

    MS_FN u32* row_map() const { return reinterpret_cast<u32*>(shared + L::kRowsAt); }
    MS_FN u8* stage(u32 i) const { return shared + L::kStageAt + i % C::kStages * L::kStage; }

    // Query rows of chunk `chunk` to `to`.
    MS_FN void load_queries(u8* to, u32 chunk) {
        constexpr u32 kPieces = L::kQueryBytes / 16;
        for (u32 i = thread_index(); i < L::kRows * kPieces; i += L::kThreads) {
            u32 row = i / kPieces, at = i % kPieces * 16, from = chunk * L::kQueryBytes + at;
            u32 source = row_map()[row];
            bool valid = source != kNoRow && from < p.q_stride;
            copy_async(to + row * L::kQueryRow + at, p.q + (valid ? u64(source) * p.q_stride + from : 0), valid);
        }
    }

    // Step `step` of the job (chunk of a tile of document rows) into its stage.
    MS_FN void load_stage(u32 step) {
        constexpr u32 kPieces = L::kStoredBytes / 16;
        u32 chunk = C::kSingle ? 0 : step % p.chunks, tile = C::kSingle ? step : step / p.chunks;
        u8* to = stage(step);
        for (u32 i = thread_index(); i < L::kColumns * kPieces; i += L::kThreads) {
            u32 row = i / kPieces, at = i % kPieces * 16;
            u32 source = row_begin + tile * L::kColumns + row;
            u32 from = chunk * (L::kResidual ? C::kChunk * C::kBits / 8 : L::kStoredBytes) + at;
            bool valid = source < p.row_end && from < p.d_stride;
            copy_async(to + row * L::kStoredRow + at, p.d + (valid ? u64(source) * p.d_stride + from : 0), valid);
        }
        if constexpr (!C::kSingle) load_queries(to + L::kColumns * L::kStoredRow, chunk);
    }

    // Residuals of a stage to vectors of bucket weights, as the product wants them.
    MS_FN void decode(const u8* from) {
        constexpr int kBits = L::kResidual ? C::kBits : 8;
        constexpr int kFields = 8 / kBits;
        constexpr u32 kBytes = C::kChunk * kBits / 8;
        const float* weights = reinterpret_cast<const float*>(shared + L::kWeightsAt);
        for (u32 i = thread_index(); i < L::kColumns * kBytes; i += L::kThreads) {
            u32 row = i / kBytes, at = i % kBytes;
            const float* fields = weights + from[row * L::kStoredRow + at] * kFields;
            u8* to = shared + L::kDecodedAt + row * L::kDecodedRow + at * kFields * size_of(C::kProduct);
            for (int f = 0; f < kFields; f++, to += size_of(C::kProduct)) {
                store_element<C::kProduct>(to, fields[f]);
                if constexpr (C::kSplit) {
                    float rest = fields[f] - load_element<C::kProduct>(to);
                    // Not a number where the weight is infinite or none: its first part says all there is.
                    store_element<C::kProduct>(to + L::kDecoded, rest == rest ? rest : 0.0f);
                }
            }
        }
    }

    // acc += queries · documents over one chunk.
    MS_FN void multiply_chunk(const u8* queries, const u8* documents) {
        queries += warp_row * 16 * C::kMT * L::kQueryRow;
        documents += warp_column * 8 * C::kNT * (L::kResidual ? L::kDecodedRow : L::kStoredRow);
        if constexpr (C::kProduct == kF32) multiply_f32(queries, documents);
        else multiply_tensor(queries, documents);
    }

    MS_FN void multiply_tensor(const u8* queries, const u8* documents) {
        constexpr bool kDirect = L::kResidual || C::kStored == C::kProduct;
        constexpr int kRow = L::kResidual ? L::kDecodedRow : L::kStoredRow;
        // Decoding and two products of everything: whole rows of fragments would not fit into registers.
        constexpr int kUnroll = C::kSplit ? 2 : L::kQueryBytes / 32;
#pragma unroll kUnroll
        for (int k = 0; k < L::kQueryBytes / 32; k++) {
            u32 a[C::kMT][4];
#pragma unroll
            for (int m = 0; m < C::kMT; m++) {
                u32 row = m * 16 + lane % 16;
                load_matrices(a[m], queries + row * L::kQueryRow + k * 32 + lane / 16 * 16);
            }
#pragma unroll
            for (int n = 0; n < C::kNT; n += 2) {
                u32 b[4];
                if constexpr (kDirect) {
                    u32 row = n * 8 + lane % 8 + lane / 16 * 8;
                    load_matrices(b, documents + row * kRow + k * 32 + lane / 8 % 2 * 16);
                } else {
                    // Elements that are multiplied as others of 16 bits: a lane reads four neighbours where the fragment
                    // has two pairs eight apart. Queries are stored in that order (`Rows::queries` in Rust).
#pragma unroll
                    for (int half = 0; half < 2; half++) {
                        u32 row = (n + half) * 8 + lane / 4;
                        float x[4];
                        u32 at = (k * 16 + lane % 4 * 4) * size_of(C::kStored);
                        load_four<C::kStored>(documents + row * kRow + at, x);
                        b[2 * half] = pack16<C::kProduct>(x[0], x[1]);
                        b[2 * half + 1] = pack16<C::kProduct>(x[2], x[3]);
                    }
                }
#pragma unroll
                for (int m = 0; m < C::kMT; m++) {
                    multiply<C::kProduct>(acc[m][n], a[m], b[0], b[1]);
                    multiply<C::kProduct>(acc[m][n + 1], a[m], b[2], b[3]);
                }
            }
        }
    }

    // The same layout of accumulators, by FMA.
    MS_FN void multiply_f32(const u8* queries, const u8* documents) {
        constexpr int kRow = L::kResidual ? L::kDecodedRow : L::kStoredRow;
        constexpr int kKind = L::kResidual ? int(kF32) : C::kStored;
        const u8* rows = queries + lane / 4 * L::kQueryRow;
        const u8* columns = documents + lane % 4 * 2 * kRow;
#pragma unroll 2
        for (int k = 0; k < C::kChunk; k += 4) {
            float a[C::kMT][2][4];
#pragma unroll
            for (int m = 0; m < C::kMT; m++)
#pragma unroll
                for (int half = 0; half < 2; half++)
                    load_four<kF32>(rows + (m * 16 + half * 8) * L::kQueryRow + k * 4, a[m][half]);
#pragma unroll
            for (int n = 0; n < C::kNT; n++) {
#pragma unroll
                for (int c = 0; c < 2; c++) {
                    float b[4];
                    load_four<kKind>(columns + (n * 8 + c) * kRow + k * size_of(kKind), b);
#pragma unroll
                    for (int m = 0; m < C::kMT; m++)
#pragma unroll
                        for (int half = 0; half < 2; half++)
#pragma unroll
                            for (int i = 0; i < 4; i++)
                                acc[m][n][2 * half + c] = fused(a[m][half][i], b[i], acc[m][n][2 * half + c]);
                }
            }
        }
    }

    MS_FN u32 column(int n, int c) const { return warp_column * 8 * C::kNT + n * 8 + lane % 4 * 2 + c; }

    // Factors and codes of this thread's columns: asked for before the products, needed after them.
    MS_FN void load_columns(u32 first_row) {
        if constexpr (C::kScaled || L::kResidual) {
#pragma unroll
            for (int n = 0; n < C::kNT; n++)
#pragma unroll
                for (int c = 0; c < 2; c++) {
                    u32 row = first_row + column(n, c);
                    bool valid = row < row_end;
                    if constexpr (C::kScaled) factors[n][c] = valid ? p.d_factors[row] : 0.0f;
                    if constexpr (L::kResidual) codes[n][c] = valid ? p.codes[row] : 0;
                }
        }
    }

    // Accumulators to similarities.
    MS_FN void finish_products() {
#pragma unroll
        for (int m = 0; m < C::kMT; m++) {
            u32 table_column[2] = {0, 0};
            bool in_table[2] = {false, false};
            if constexpr (L::kResidual) {
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    u32 row = row_map()[tile_row(m, half)];
                    in_table[half] = row != kNoRow;
                    table_column[half] = row - p.q_base;
                }
            }
#pragma unroll
            for (int n = 0; n < C::kNT; n++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    float x = acc[m][n][e];
                    if constexpr (C::kProduct == kI8) x = static_cast<float>(static_cast<i32>(float_to_bits(x)));
                    if constexpr (L::kResidual) {
                        u32 code = codes[n][e % 2];
                        if (code >= p.centroids) x = negative_infinity();
                        else if (in_table[e / 2]) x += p.table[u64(code) * p.table_stride + table_column[e / 2]];
                    }
                    if constexpr (C::kScaled) x *= factors[n][e % 2];
                    acc[m][n][e] = x;
                }
        }
    }

    MS_FN u32 tile_row(int m, int half) const { return warp_row * 16 * C::kMT + m * 16 + half * 8 + lane / 4; }

    MS_FN void clear_best() {
#pragma unroll
        for (int m = 0; m < C::kMT; m++) best[m][0] = best[m][1] = {negative_infinity(), -1};
    }

    // Maximum over columns [low, high) of the tile that begins at document row `first_row`.
    MS_FN void take_maximum(u32 low, u32 high, u32 first_row) {
        bool whole = low == 0 && high == L::kColumns;
#pragma unroll
        for (int n = 0; n < C::kNT; n++)
#pragma unroll
            for (int c = 0; c < 2; c++) {
                u32 at = column(n, c);
                if (!whole && (at < low || at >= high)) continue;
#pragma unroll
                for (int m = 0; m < C::kMT; m++)
#pragma unroll
                    for (int half = 0; half < 2; half++) {
                        float x = acc[m][n][2 * half + c];
                        Best& b = best[m][half];
                        if constexpr (C::kArgmax) {
                            if (x > b.value) b = {x, i32(first_row + at)};
                        } else {
                            b.value = max_number(b.value, x);
                        }
                    }
            }
    }

    // Document `j` is complete: maxima across lanes and warps, then sums.
    MS_FN void finish_document(u32 j, u32 document_row) {
        u8* buffer = shared + L::kBestAt + parity * C::kWN * L::kRows * (C::kArgmax ? 8 : 4);
        float* values = reinterpret_cast<float*>(buffer);
        i32* rows = reinterpret_cast<i32*>(buffer + C::kWN * L::kRows * 4);
#pragma unroll
        for (int m = 0; m < C::kMT; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                Best b = best[m][half];
                for (u32 step = 1; step <= 2; step *= 2) {
                    if constexpr (C::kArgmax) b = better(b, {shuffle_xor(b.value, step), shuffle_xor(b.row, step)});
                    else b.value = max_number(b.value, shuffle_xor(b.value, step));
                }
                if (lane % 4 == 0) {
                    u32 at = warp_column * L::kRows + tile_row(m, half);
                    values[at] = b.value;
                    if constexpr (C::kArgmax) rows[at] = b.row;
                }
            }
        // The other buffer is free: whoever passes this barrier has read what was written before the last one.
        sync_block();
        parity ^= 1;
        u32 end = p.tiles[job.tile + 1];
        for (u32 s = p.tiles[job.tile] + warp_index(); s < end; s += C::kWM * C::kWN) {
            add_up<C::kArgmax>(p, p.slots[s], s, j + job.shift, document_row, [&](u32 row) {
                Best b = {values[row], -1};
                if constexpr (C::kArgmax) b.row = rows[row];
#pragma unroll
                for (int w = 1; w < C::kWN; w++) {
                    u32 at = w * L::kRows + row;
                    if constexpr (C::kArgmax) b = better(b, {values[at], rows[at]});
                    else b.value = max_number(b.value, values[at]);
                }
                return b;
            });
        }
        clear_best();
    }

    // Writes the tile's similarities: `scores[row · out_stride + query row]`.
    MS_FN void store_tile(u32 first_row) {
#pragma unroll
        for (int m = 0; m < C::kMT; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                u32 q_row = row_map()[tile_row(m, half)];
                if (q_row == kNoRow) continue;
                float bias = p.bias ? p.bias[q_row] : 0.0f;
#pragma unroll
                for (int n = 0; n < C::kNT; n++)
#pragma unroll
                    for (int c = 0; c < 2; c++) {
                        u32 row = first_row + column(n, c);
                        if (row < row_end)
                            p.scores[u64(row) * p.out_stride + q_row - p.q_base] = acc[m][n][2 * half + c] + bias;
                    }
            }
    }

    MS_FN void run(u32 index) {
        if constexpr (C::kStore) {
            u32 chunk = index / p.tile_count;
            job = {index % p.tile_count, 0, 0, 0};
            row_begin = chunk * p.chunk_rows;
            row_end = min_u32(row_begin + p.chunk_rows, p.row_end);
        } else {
            job = find_job(p, index);
            if (job.document_begin >= job.document_end) return;
            row_begin = p.d_offsets[job.document_begin];
            row_end = p.d_offsets[job.document_end];
        }
        // The job before this one is done with shared memory.
        sync_block();
        for (u32 row = thread_index(); row < L::kRows; row += L::kThreads) {
            u32 source = kNoRow;
            for (u32 s = p.tiles[job.tile]; s < p.tiles[job.tile + 1]; s++) {
                u32 at = row - p.slots[s].tile_row;
                if (at < p.slots[s].rows) source = p.slots[s].row + at;
            }
            row_map()[row] = source;
        }
        if constexpr (L::kResidual) {
            float* weights = reinterpret_cast<float*>(shared + L::kWeightsAt);
            for (u32 i = thread_index(); i < 256 * (8 / C::kBits); i += L::kThreads) weights[i] = p.weights[i];
        }
        sync_block();
        clear_best();

        u32 chunks = C::kSingle ? 1 : p.chunks;
        u32 tiles = max_u32(1, (row_end - row_begin + L::kColumns - 1) / L::kColumns);
        u32 steps = tiles * chunks;
        if constexpr (C::kSingle) load_queries(shared + L::kQueryAt, 0);
#pragma unroll
        for (u32 s = 0; s + 1 < C::kStages; s++) {
            if (s < steps) load_stage(s);
            copy_commit();
        }
        u32 j = job.document_begin, document_row = row_begin;
        u32 document_end = C::kStore ? 0 : p.d_offsets[j + 1];
        for (u32 step = 0; step < steps; step++) {
            copy_wait<C::kStages - 2>();
            sync_block();
            // Into the stage that everybody is done with since that barrier.
            if (step + C::kStages - 1 < steps) load_stage(step + C::kStages - 1);
            copy_commit();
            u32 chunk = C::kSingle ? 0 : step % chunks, tile = C::kSingle ? step : step / chunks;
            u32 first_row = row_begin + tile * L::kColumns;
            if (chunk == 0) {
#pragma unroll
                for (int m = 0; m < C::kMT; m++)
#pragma unroll
                    for (int n = 0; n < C::kNT; n++)
#pragma unroll
                        for (int e = 0; e < 4; e++) acc[m][n][e] = 0.0f;
                load_columns(first_row);
            }
            const u8* queries = C::kSingle ? shared + L::kQueryAt : stage(step) + L::kColumns * L::kStoredRow;
            const u8* documents = stage(step);
            if constexpr (L::kResidual) {
                decode(documents);
                sync_block();
                documents = shared + L::kDecodedAt;
            }
            multiply_chunk(queries, documents);
            if constexpr (C::kSplit) multiply_chunk(queries, documents + L::kDecoded);
            if (chunk + 1 < chunks) continue;
            finish_products();
            if constexpr (C::kStore) {
                store_tile(first_row);
            } else {
                u32 low = 0;
                while (j < job.document_end) {
                    u32 high = min_u32(document_end - first_row, L::kColumns);
                    take_maximum(low, high, first_row);
                    if (document_end > first_row + L::kColumns) break;
                    finish_document(j, document_row);
                    j++;
                    low = high;
                    document_row = document_end;
                    if (j < job.document_end) document_end = p.d_offsets[j + 1];
                }
            }
        }
        copy_wait<0>();
    }
};

template <class C>
MS_FN void forward_tile(const ForwardParams& p) {
    TileKernel<C> kernel(p);
    for (u32 index = block_index(); index < p.jobs; index += grid_size()) kernel.run(index);
}

}  // namespace maxsim
