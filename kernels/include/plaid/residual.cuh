// MaxSim over compressed documents, decoded in registers (sm_80 and newer; whole tiles are in `forward/tile.cuh`).
//
// Every warp has jobs of its own: it scores one document at a time against 32 query rows that it holds in registers. 16 tokens
// are the rows of a product, query rows its columns. A lane reads a quarter of a token's packed residual as it lies in memory and makes fragments of it
// without help of others: in which order elements are multiplied does not matter as long as queries have the same one.
// Accumulators begin as ⟨q, centroid⟩, read from a table.
//
// Both are multiplied as f16. Weights are scaled so that the largest is at least 1, and f32 and bf16 query rows by a power of two, so
// that f16 holds what they hold; a table entry meets them scaled alike, and the maximum is scaled back. f32 queries are sums of two
// such numbers, as are the weights that they meet: what is left out is below 2⁻²² of a term. For 16-bit queries one part of a weight
// is close enough, unless exactness is asked for: 2⁻¹¹ of a term, where they themselves may be off by 2⁻⁸ or 2⁻¹¹ of what they were
// rounded from.
//
// Per token: its residual, code and factor once from memory, and 128 bytes of the table out of the second-level cache.
#pragma once
#include "convert.cuh"
#include "forward/sums.cuh"
#include "ptx/mma.cuh"

namespace maxsim {

// `C` is the generated configuration:
//   kQuery      what queries are stored as
//   kSplit      weights as sums of two numbers
//   kBits       of a residual's field
//   kReversed   fields of a byte, and their bits, begin at its highest bit
//   kSteps      products of 16 elements in a row; kSteps · kBits is a multiple of 8
//   kScaled, kArgmax
template <class C>
struct ResidualLayout {
    static constexpr u32 kWarps = C::kThreads / kWarp;
    static constexpr u32 kRows = 32;
    static constexpr u32 kWords = C::kSteps * C::kBits / 8;  // of a lane's part of a residual
    static constexpr bool kSplitQuery = C::kQuery == kF32, kScaledQuery = C::kQuery != kF16;
    static_assert(C::kSplit || !kSplitQuery, "both or none");
    // Words of a byte's decoded fields, first parts and then rests. Two bits are decoded without a table.
    static constexpr u32 kEntry = C::kBits == 2 ? 0 : C::kBits == 8 ? 1 : (C::kSplit ? 8 : 4) / C::kBits;
    static constexpr u32 kTableAt = 0;
    static constexpr u32 kBestAt = 256 * kEntry * 4;
    static constexpr u32 kRestsAt = kBestAt + kWarps * kRows * 8;
    static constexpr u32 kScales = kSplitQuery ? C::kSteps * 2 * kWarp * 16 : 0;  // behind the rests
    static constexpr u32 kRests = kScales + (kScaledQuery ? kRows * 4 : 0);  // of a warp
    static constexpr u32 kBytes = kRestsAt + kWarps * kRests;
    static_assert(kBytes == C::kShared, "the plan and the kernel disagree");
    static_assert(C::kSteps * C::kBits % 8 == 0, "a lane's part is whole words");
};

constexpr u32 kNoQuery = 0xffffffffu;

// A number as one of f16 and, as far as it is not it, the rest.
MS_FN void split(float number, u16& first, u16& rest) {
    first = f32_to_f16(number);
    float left = number - f16_to_f32(first);
    // Not a number where the number is infinite or none: its first part says all there is.
    rest = f32_to_f16(left == left ? left : 0.0f);
}

MS_FN float magnitude(float x) { return bits_to_float(float_to_bits(x) & 0x7fffffffu); }
// The power of two that brings `largest`, a magnitude, to [1, 2), or as near as one of a reciprocal can; 1 for 0.
MS_FN float to_unit(float largest) {
    u32 exponent = float_to_bits(largest) >> 23;
    return bits_to_float((exponent == 0 ? 127 : 254 - min_u32(max_u32(exponent, 27), 253)) << 23);
}
// 1 / `power`, a power of two.
MS_FN float reciprocal(float power) { return bits_to_float((254u << 23) - float_to_bits(power)); }

template <class C>
struct ResidualKernel {
    using L = ResidualLayout<C>;
    const ForwardParams& p;
    u8* shared;
    u32 lane, quarter, warp;
    Job job;
    u32 queries[C::kSteps][4][2];  // those of tile `loaded`; rests and scales are in shared memory
    u32 loaded;
    // Column of the table of this lane's 8 query rows; kNoQuery: none of them is one.
    u32 table_column;
    bool vectors;  // they can be read 16 bytes at a time
    // Two bits: the four weights, bytes apart.
    u32 first_low, first_high, rest_low, rest_high;

    MS_FN explicit ResidualKernel(const ForwardParams& params) : p(params), shared(shared_memory()), loaded(kNoQuery) {
        lane = lane_index(), quarter = lane % 4, warp = warp_index();
        if constexpr (C::kBits == 2) {
            first_low = first_high = rest_low = rest_high = 0;
            for (u32 value = 0; value < 4; value++) {
                // Its weight where it is the lowest field of a byte.
                u16 first, rest;
                split(p.weights[value * 4 + (C::kReversed ? 3 : 0)] * p.weight_scale, first, rest);
                first_low |= u32(first & 0xff) << 8 * value, first_high |= u32(first >> 8) << 8 * value;
                rest_low |= u32(rest & 0xff) << 8 * value, rest_high |= u32(rest >> 8) << 8 * value;
            }
        } else {
            constexpr u32 kFields = 8 / C::kBits, kHalf = kFields / 2;
            for (u32 byte = thread_index(); byte < 256; byte += C::kThreads) {
                const float* weights = p.weights + byte * kFields;
                u32* entry = table() + byte * L::kEntry;
                u16 first[kFields], rest[kFields];
                for (u32 f = 0; f < kFields; f++) split(weights[f] * p.weight_scale, first[f], rest[f]);
                if constexpr (kFields == 1) {
                    entry[0] = first[0] | u32(rest[0]) << 16;
                } else {
                    for (u32 f = 0; f < kHalf; f++) {
                        entry[f] = first[2 * f] | u32(first[2 * f + 1]) << 16;
                        if constexpr (C::kSplit) entry[kHalf + f] = rest[2 * f] | u32(rest[2 * f + 1]) << 16;
                    }
                }
            }
        }
    }

    MS_FN u32* table() const { return reinterpret_cast<u32*>(shared + L::kTableAt); }
    MS_FN float* best_values() const { return reinterpret_cast<float*>(shared + L::kBestAt) + warp * L::kRows * 2; }
    // Rests of step `step` and products `2 · pair` and `2 · pair + 1`, of this lane.
    MS_FN U4& rests(u32 step, u32 pair) const {
        u8* own = shared + L::kRestsAt + warp * L::kRests;
        return reinterpret_cast<U4*>(own)[(step * 2 + pair) * kWarp + lane];
    }
    // Of the tile's rows.
    MS_FN float* scales() const {
        return reinterpret_cast<float*>(shared + L::kRestsAt + warp * L::kRests + L::kScales);
    }
    MS_FN i32* best_rows() const { return reinterpret_cast<i32*>(best_values() + L::kRows); }

    // Element number `e` (0–3) of this lane in step `step`.
    MS_FN u32 element(u32 step, u32 e) const {
        u32 own = 4 * C::kSteps * quarter;
        if constexpr (C::kBits == 2) return own + step / 4 * 16 + 4 * e + (C::kReversed ? 3 - step % 4 : step % 4);
        else return own + 4 * step + e;
    }
    // Row of the tile that column `2 · quarter + e` of product `n` is: a quarter's columns are 8 rows in a row.
    MS_FN static u32 tile_row(u32 quarter, u32 n, u32 e) { return 8 * quarter + 2 * n + e; }

    MS_FN void load_queries() {
        sync_warp();
        // The query row that row `lane` of the tile is.
        u32 own = kNoQuery;
        for (u32 s = p.tiles[job.tile]; s < p.tiles[job.tile + 1]; s++) {
            u32 at = lane - p.slots[s].tile_row;
            if (at < p.slots[s].rows) own = p.slots[s].row + at;
        }
        u32 column = lane / 4;
#pragma unroll
        for (u32 n = 0; n < 4; n++) {
            u32 row = shuffle(own, tile_row(column / 2, n, column % 2));
            const u8* from = p.q + u64(row == kNoQuery ? 0 : row) * p.q_stride;
            auto load = [&](u32 step, u32 e) {
                u32 k = element(step, e) * size_of(C::kQuery);
                return row != kNoQuery && k < p.q_stride ? k : kNoQuery;
            };
            if constexpr (L::kScaledQuery) {
                auto number = [&](u32 step, u32 e) {
                    u32 at = load(step, e);
                    return at == kNoQuery ? 0.0f : load_element<C::kQuery>(from + at);
                };
                float largest = 0.0f;
#pragma unroll 1  // Elements are read again below: registers are short.
                for (u32 step = 0; step < C::kSteps; step++)
                    for (u32 e = 0; e < 4; e++) largest = max_number(largest, magnitude(number(step, e)));
                for (u32 step = 1; step < 4; step *= 2) largest = max_number(largest, shuffle_xor(largest, step));
                float scale = to_unit(largest);
                if (quarter == 0) scales()[tile_row(column / 2, n, column % 2)] = scale;
#pragma unroll
                for (u32 step = 0; step < C::kSteps; step++) {
                    u16 x[4], rest[4];
#pragma unroll
                    for (u32 e = 0; e < 4; e++) split(number(step, e) * scale, x[e], rest[e]);
                    queries[step][n][0] = x[0] | u32(x[1]) << 16;
                    queries[step][n][1] = x[2] | u32(x[3]) << 16;
                    if constexpr (L::kSplitQuery) {
                        u64& to = reinterpret_cast<u64*>(&rests(step, n / 2))[n % 2];
                        to = rest[0] | u32(rest[1]) << 16 | u64(rest[2] | u32(rest[3]) << 16) << 32;
                    }
                }
            } else {
#pragma unroll
                for (u32 step = 0; step < C::kSteps; step++) {
                    u16 x[4];
#pragma unroll
                    for (u32 e = 0; e < 4; e++) {
                        u32 at = load(step, e);
                        x[e] = at == kNoQuery ? u16(0) : *reinterpret_cast<const u16*>(from + at);
                    }
                    queries[step][n][0] = x[0] | u32(x[1]) << 16;
                    queries[step][n][1] = x[2] | u32(x[3]) << 16;
                }
            }
        }
        sync_warp();
        u32 row = shuffle(own, 8 * quarter);
        table_column = row == kNoQuery ? kNoQuery : row - p.q_base;
        vectors = p.table_stride % 4 == 0 && table_column % 4 == 0;
    }

    // What is read of this lane's two tokens of 16: what the table is looked up with, and residuals.
    struct Codes {
        u32 code[2];
        float factor[2];
    };
    using Words = u32[2][L::kWords];
    MS_FN void load(Codes& codes, u32 first, u32 end) const {
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            u32 row = first + 8 * half + lane / 4;
            codes.code[half] = row < end ? p.codes[row] : kNoQuery;
            codes.factor[half] = C::kScaled && row < end ? p.d_factors[row] : 1.0f;
        }
    }
    MS_FN void load(Words& words, u32 first, u32 end) const {
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            u32 row = min_u32(first + 8 * half + lane / 4, end - 1);
            const u8* from = p.d + u64(row) * p.d_stride + quarter * L::kWords * 4;
            if constexpr (L::kWords % 4 == 0) {
#pragma unroll
                for (u32 w = 0; w < L::kWords; w += 4) {
                    U4 x = load_once(from + 4 * w);
                    words[half][w] = x.x, words[half][w + 1] = x.y, words[half][w + 2] = x.z, words[half][w + 3] = x.w;
                }
            } else if constexpr (L::kWords % 2 == 0) {
#pragma unroll
                for (u32 w = 0; w < L::kWords; w += 2) {
                    u64 x = *reinterpret_cast<const u64*>(from + 4 * w);
                    words[half][w] = u32(x), words[half][w + 1] = u32(x >> 32);
                }
            } else {
#pragma unroll
                for (u32 w = 0; w < L::kWords; w++) words[half][w] = *reinterpret_cast<const u32*>(from + 4 * w);
            }
        }
    }

    // ⟨q, centroid⟩ of this lane's query rows and tokens, scaled.
    MS_FN void begin(const Codes& codes, float (&acc)[4][4]) const {
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            float x[8] = {};
            if (codes.code[half] < p.centroids && table_column != kNoQuery) {
                const float* from = p.table + u64(codes.code[half]) * p.table_stride + table_column;
                if (vectors) {
                    float low[4], high[4];
                    load_four<kF32>(reinterpret_cast<const u8*>(from), low);
                    load_four<kF32>(reinterpret_cast<const u8*>(from + 4), high);
#pragma unroll
                    for (u32 i = 0; i < 4; i++) x[i] = low[i], x[4 + i] = high[i];
                } else {
#pragma unroll
                    for (u32 i = 0; i < 8; i++) x[i] = from[i];
                }
            }
#pragma unroll
            for (u32 n = 0; n < 4; n++)
#pragma unroll
                for (u32 e = 0; e < 2; e++) {
                    // One factor at a time: their product may be out of range.
                    if constexpr (L::kScaledQuery) x[2 * n + e] *= scales()[tile_row(quarter, n, e)];
                    acc[n][2 * half + e] = x[2 * n + e] * p.weight_scale;
                }
        }
    }

    // Decoded elements of step `step`: a[half] are the first two, a[half + 2] the last two.
    MS_FN void decode(const Words& both, u32 step, u32 (&first)[4], u32 (&rest)[4]) const {
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            const u32(&words)[L::kWords] = both[half];
            if constexpr (C::kBits == 2) {
                // Fields `step % 4` of a word's four bytes, and for each the places of its weight's two bytes.
                u32 fields = words[step / 4] >> 2 * (step % 4) & 0x03030303u;
                u32 places = fields | fields << 4 | 0x40404040u;
                first[half] = select_bytes(first_low, first_high, places);
                first[half + 2] = select_bytes(first_low, first_high, places >> 16);
                if constexpr (C::kSplit) {
                    rest[half] = select_bytes(rest_low, rest_high, places);
                    rest[half + 2] = select_bytes(rest_low, rest_high, places >> 16);
                }
            } else if constexpr (C::kBits == 1) {
                u32 byte = words[step / 8] >> 8 * (step / 2 % 4) & 0xff;
                const u32* entry = table() + byte * L::kEntry + 2 * (step % 2);
                first[half] = entry[0], first[half + 2] = entry[1];
                if constexpr (C::kSplit) rest[half] = entry[4], rest[half + 2] = entry[5];
            } else if constexpr (C::kBits == 4) {
                u32 bytes = words[step / 2] >> 16 * (step % 2);
                const u32* low = table() + (bytes & 0xff) * L::kEntry;
                const u32* high = table() + (bytes >> 8 & 0xff) * L::kEntry;
                first[half] = low[0], first[half + 2] = high[0];
                if constexpr (C::kSplit) rest[half] = low[1], rest[half + 2] = high[1];
            } else {
                u32 x[4];
#pragma unroll
                for (u32 i = 0; i < 4; i++) x[i] = table()[words[step] >> 8 * i & 0xff];
                first[half] = select_bytes(x[0], x[1], 0x5410), first[half + 2] = select_bytes(x[2], x[3], 0x5410);
                if constexpr (C::kSplit) {
                    rest[half] = select_bytes(x[0], x[1], 0x7632);
                    rest[half + 2] = select_bytes(x[2], x[3], 0x7632);
                }
            }
        }
    }

    MS_FN void score_document(u32 j) const {
        u32 begin_row = p.d_offsets[j], end = p.d_offsets[j + 1];
        Best best[8];
#pragma unroll
        for (u32 i = 0; i < 8; i++) best[i] = {negative_infinity(), -1};
        // Codes are asked for two products ahead, the parts of the table that they lead to and residuals one ahead.
        Codes codes, next_codes;
        Words words;
        float acc[4][4];
        load(codes, begin_row, end);
        load(next_codes, begin_row + 16, end);
        if (begin_row < end) load(words, begin_row, end);
        begin(codes, acc);
        for (u32 row = begin_row; row < end; row += 16) {
            float next_acc[4][4];
            Words next_words;
            Codes after;
            load(next_words, row + 16, end);
            begin(next_codes, next_acc);
            load(after, row + 32, end);
#pragma unroll
            for (u32 step = 0; step < C::kSteps; step++) {
                u32 first[4], rest[4];
                decode(words, step, first, rest);
#pragma unroll
                for (u32 n = 0; n < 4; n++) {
                    multiply<kF16>(acc[n], first, queries[step][n][0], queries[step][n][1]);
                    if constexpr (C::kSplit)
                        multiply<kF16>(acc[n], rest, queries[step][n][0], queries[step][n][1]);
                }
                if constexpr (L::kSplitQuery) {
#pragma unroll
                    for (u32 pair = 0; pair < 2; pair++) {
                        U4 x = rests(step, pair);
                        multiply<kF16>(acc[2 * pair], first, x.x, x.y);
                        multiply<kF16>(acc[2 * pair + 1], first, x.z, x.w);
                    }
                }
            }
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                // Also tokens behind the document's last.
                if (codes.code[half] >= p.centroids) continue;
#pragma unroll
                for (u32 n = 0; n < 4; n++)
#pragma unroll
                    for (u32 e = 0; e < 2; e++) {
                        float x = acc[n][2 * half + e];
                        if constexpr (C::kScaled) x *= codes.factor[half];
                        Best& b = best[2 * n + e];
                        if constexpr (C::kArgmax) {
                            if (x > b.value) b = {x, i32(row + 8 * half + lane / 4)};
                        } else {
                            b.value = max_number(b.value, x);
                        }
                    }
            }
            codes = next_codes, next_codes = after;
#pragma unroll
            for (u32 half = 0; half < 2; half++)
#pragma unroll
                for (u32 w = 0; w < L::kWords; w++) words[half][w] = next_words[half][w];
#pragma unroll
            for (u32 n = 0; n < 4; n++)
#pragma unroll
                for (u32 e = 0; e < 4; e++) acc[n][e] = next_acc[n][e];
        }
        // Over the lanes that hold other tokens of the same query rows.
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            Best b = best[i];
#pragma unroll
            for (u32 step = 4; step < kWarp; step *= 2) {
                if constexpr (C::kArgmax) b = better(b, {shuffle_xor(b.value, step), shuffle_xor(b.row, step)});
                else b.value = max_number(b.value, shuffle_xor(b.value, step));
            }
            if (lane < 4) {
                u32 to = tile_row(lane, 0, i);
                float x = b.value / p.weight_scale;
                if constexpr (L::kScaledQuery) x *= reciprocal(scales()[to]);
                best_values()[to] = x;
                if constexpr (C::kArgmax) best_rows()[to] = b.row;
            }
        }
        sync_warp();
        for (u32 s = p.tiles[job.tile]; s < p.tiles[job.tile + 1]; s++)
            add_up<C::kArgmax>(p, p.slots[s], s, j + job.shift, begin_row, [&](u32 row) {
                return Best{best_values()[row], C::kArgmax ? best_rows()[row] : -1};
            });
        sync_warp();
    }

    MS_FN void run(u32 index) {
        job = find_job(p, index);
        if (job.document_begin >= job.document_end) return;
        if (job.tile != loaded) load_queries();
        loaded = job.tile;
        for (u32 j = job.document_begin; j < job.document_end; j++) score_document(j);
    }
};

template <class C>
MS_FN void forward_residual(const ForwardParams& p) {
    ResidualKernel<C> kernel(p);
    sync_block();
    constexpr u32 kWarps = ResidualLayout<C>::kWarps;
    for (u32 index = block_index() * kWarps + kernel.warp; index < p.jobs; index += grid_size() * kWarps) kernel.run(index);
}

}  // namespace maxsim
