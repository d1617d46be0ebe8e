// Gradients as gathers: every row of a result has one owner, which adds its parts in pair order and stores it once.
#pragma once
#include "backward/group.cuh"
#include "convert.cuh"

namespace maxsim {

// Rows to add up, or to differentiate the norm of.
struct Rows {
    const u8* rows;
    const float* factors;    // per row; null: 1
    const u32* codes;        // residual documents, as in `rows.cuh`
    const float* centroids;
    const float* weights;
    u32 stride, dim, centroid_count, unused;
};

// Four elements of row `row` from element `k` on, not multiplied by its factor; zeros behind the last one.
template <int kKind, int kBits>
MS_FN void read_four(const Rows& r, u32 row, u32 k, float (&x)[4]) {
    const u8* from = r.rows + u64(row) * r.stride;
    if constexpr (kBits > 0) {
        constexpr u32 kFields = 8 / (kBits > 0 ? kBits : 8);
        u32 code = r.codes[row];
        for (u32 i = 0; i < 4; i++) {
            bool there = k + i < r.dim && code < r.centroid_count;
            x[i] = there ? r.centroids[u64(code) * r.dim + k + i] +
                               r.weights[from[(k + i) / kFields] * kFields + (k + i) % kFields]
                         : 0.0f;
        }
    } else if (k * size_of(kKind) < r.stride) {
        load_four<kKind>(from + k * size_of(kKind), x);
    } else {
        x[0] = x[1] = x[2] = x[3] = 0.0f;
    }
}

// A row of a gradient in registers, spread over kWarps warps: lane l of warp w has elements 4 · (32 · (w + kWarps · i) + l).
template <class C>
struct RowSum {
    float acc[C::kSteps][4];
    u32 lane, warp;

    MS_FN RowSum() : lane(lane_index()), warp(warp_index() % C::kWarps) {
#pragma unroll
        for (int i = 0; i < C::kSteps; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) acc[i][e] = 0.0f;
    }

    MS_FN u32 element(int i) const { return 4 * (kWarp * (warp + C::kWarps * i) + lane); }

    // Adds `weight · source[row]` of every lane that has one, lanes in order. Several rows are read at once: one load waits
    // as long as many.
    MS_FN void add(const Rows& rows, bool there, u32 row, float weight) {
        constexpr int kAhead = 4;
        if (there && rows.factors) weight *= rows.factors[row];
        u32 left = ballot(there);
        while (left) {
            u32 from[kAhead];
            float by[kAhead];
            int filled = 0;
#pragma unroll
            for (int e = 0; e < kAhead; e++) {
                // Lanes that are not there read the row before again, and it is not added.
                u32 source = lowest_bit(left ? left : 1);
                from[e] = shuffle(row, source), by[e] = shuffle(weight, source);
                if (left) filled = e + 1;
                else from[e] = from[0];
                left &= left - 1;
            }
#pragma unroll
            for (int i = 0; i < C::kSteps; i++) {
                float x[kAhead][4];
#pragma unroll
                for (int e = 0; e < kAhead; e++) read_four<C::kStored, C::kBits>(rows, from[e], element(i), x[e]);
#pragma unroll
                for (int e = 0; e < kAhead; e++)
#pragma unroll
                    for (int c = 0; c < 4; c++)
                        if (e < filled) acc[i][c] = fused(by[e], x[e][c], acc[i][c]);
            }
        }
    }

    // Sum over all threads of the row. `buffer`: kWarps doubles.
    MS_FN double sum(double x, double* buffer) const {
        for (u32 step = kWarp / 2; step > 0; step /= 2) x += shuffle_xor(x, step);
        if constexpr (C::kWarps > 1) {
            sync_block();
            if (lane == 0) buffer[warp] = x;
            sync_block();
            x = 0.0;
            for (int w = 0; w < C::kWarps; w++) x += buffer[w];
        }
        return x;
    }

    // From the gradient of x / max(‖x‖, 1e-6) to that of x: (g − ⟨g, x̂⟩ x̂) / ‖x‖, and 0 where ‖x‖ < 1e-6. In f64: the
    // difference cancels where g points along x.
    MS_FN void differentiate_norm(const Rows& own, u32 row, double* buffer) {
        double squares = 0.0, along = 0.0;
#pragma unroll
        for (int i = 0; i < C::kSteps; i++) {
            float x[4];
            read_four<C::kOwn, 0>(own, row, element(i), x);
#pragma unroll
            for (int e = 0; e < 4; e++) {
                squares += double(x[e]) * double(x[e]);
                along += double(x[e]) * double(acc[i][e]);
            }
        }
        squares = sum(squares, buffer);
        along = sum(along, buffer);
        double norm = square_root(squares);
        double inverse = norm < 1e-6 ? 0.0 : 1.0 / norm;
        double part = norm < 1e-6 ? 0.0 : along / squares;
#pragma unroll
        for (int i = 0; i < C::kSteps; i++) {
            float x[4];
            read_four<C::kOwn, 0>(own, row, element(i), x);
#pragma unroll
            for (int e = 0; e < 4; e++) acc[i][e] = float((double(acc[i][e]) - part * double(x[e])) * inverse);
        }
    }

    // `to`: [rows, stride bytes]. With kAdd, adds to what is there (f32).
    MS_FN void store(u8* to, u64 row, u32 stride, u32 dim) const {
        constexpr int kSize = size_of(C::kOut);
        bool aligned = stride % (4 * kSize) == 0;
#pragma unroll
        for (int i = 0; i < C::kSteps; i++) {
            u32 first = element(i);
            u8* at = to + row * stride + first * kSize;
            if (aligned && first + 4 <= dim) {
                float x[4] = {};
                if constexpr (C::kAdd) load_four<C::kOut>(at, x);
#pragma unroll
                for (int e = 0; e < 4; e++) x[e] += acc[i][e];
                store_four<C::kOut>(at, x);
                continue;
            }
#pragma unroll
            for (int e = 0; e < 4; e++, at += kSize) {
                if (first + e >= dim) continue;
                float x = acc[i][e];
                if constexpr (C::kAdd) x += load_element<C::kOut>(at);
                store_element<C::kOut>(at, x);
            }
        }
    }
};

struct GatherParams {
    Pairs pairs;
    const i32* winners;
    const float* grad;
    const Entry* entries;  // to documents
    const Range* ranges;
    Rows source;           // what is added up
    Rows own;              // rows of the operand itself
    u8* out;               // gradient: [rows, out_stride]
    u32 out_stride, row_begin, row_count, normalize;
};

// Query of packed row `row`: the last one that begins at it or before, empty ones left out.
MS_FN u32 sequence_of(const u32* offsets, u32 count, u32 row) {
    u32 low = 0, high = count;
    while (low + 1 < high) {
        u32 middle = (low + high) / 2;
        if (offsets[middle] <= row) low = middle;
        else high = middle;
    }
    return low;
}

// The first of the kEach rows that this warp (or its kWarps) owns.
template <class C>
MS_FN u32 owned_row() {
    return (block_index() * (C::kThreads / (kWarp * C::kWarps)) + warp_index() / C::kWarps) * C::kEach;
}

// grad_Q[i, s] = Σ_j g[i, j] · D[j, t*].
template <class C>
MS_FN void backward_queries(const GatherParams& p) {
    u32 row = owned_row<C>();
    if (row >= p.row_count) return;
    row += p.row_begin;
    u32 query = sequence_of(p.pairs.q_offsets, p.pairs.queries, row);
    u32 s = row - p.pairs.q_offsets[query], pairs = pairs_of_query(p.pairs, query);
    RowSum<C> sum;
    bool any = false;
    for (u32 base = 0; base < pairs; base += kWarp) {
        u32 i = base + lane_index(), source = 0;
        float weight = 0.0f;
        bool wins = false;
        if (i < pairs) {
            Pair pair = pair_of_query(p.pairs, query, i);
            i32 winner = p.winners[pair.first + s];
            wins = winner >= 0;
            if (wins) source = p.pairs.d_offsets[pair.document] + u32(winner), weight = p.grad[pair.index];
        }
        any = any || ballot(wins) != 0;
        sum.add(p.source, wins, source, weight);
    }
    if (p.normalize && any) sum.differentiate_norm(p.own, row, reinterpret_cast<double*>(shared_memory()));
    sum.store(p.out, row - p.row_begin, p.out_stride, p.own.dim);
}

// grad_D[j, t] = Σ over (i, s) with t* = t of g[i, j] · Q[i, s].
template <class C>
MS_FN void backward_documents(const GatherParams& p) {
    u32 first = owned_row<C>();
    if (first >= p.row_count) return;
    u32 rows = min_u32(C::kEach, p.row_count - first);
    Range own = {0, 0};
    if (lane_index() < rows) own = p.ranges[first + lane_index()];
    // Most rows won nothing: their zeros are written without looking at them one by one.
    u32 left = rows == kWarp ? 0xffffffffu : (1u << rows) - 1;
    if (C::kWarps == 1 && !C::kAdd && p.out_stride % 16 == 0) {
        left = ballot(own.begin < own.end);
        for (u32 at = lane_index() * 16; at < rows * p.out_stride; at += kWarp * 16)
            if (!(left >> at / p.out_stride & 1)) *reinterpret_cast<U4*>(p.out + u64(first) * p.out_stride + at) = {0, 0, 0, 0};
    }
    for (; left; left &= left - 1) {
        u32 i = lowest_bit(left), local = first + i;
        Range range = {shuffle(own.begin, i), shuffle(own.end, i)};
        RowSum<C> sum;
        for (u32 base = range.begin; base < range.end; base += kWarp) {
            u32 at = base + lane_index();
            Entry entry = {0, 0.0f};
            if (at < range.end) entry = p.entries[at];
            sum.add(p.source, at < range.end, entry.row, entry.grad);
        }
        if (p.normalize && range.end > range.begin)
            sum.differentiate_norm(p.own, p.row_begin + local, reinterpret_cast<double*>(shared_memory()));
        sum.store(p.out, local, p.out_stride, p.own.dim);
    }
}

}  // namespace maxsim
