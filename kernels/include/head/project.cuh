// The projection of hidden states by warpgroups (sm_90a): products, bias, norms and conversion in one pass over memory.
//
// One warp (the producer) lets the copy engine bring panels of 64 elements of k: 256 hidden states and all rows of W. Two
// warpgroups multiply 128 hidden states each; a row of the projection then lies in the registers of four neighbouring lanes,
// so its norm is known as soon as the last product is done.
//
// Floor: the bytes of the hidden states; W comes out of the second-level cache, half as many bytes again.
#pragma once
#include "ptx/bulk.cuh"
#include "ptx/wgmma.cuh"
#include "ring.cuh"

namespace maxsim {

struct alignas(64) ProjectParams {
    u8* units;         // [rows, unit_stride bytes]: projections, normalised if `normalize`; zeros behind the last element
    float* projected;  // [rows, stride]: projections; null: nobody asks
    float* norms;      // per row the inverse norm; null: nobody asks
    const float* bias; // [dim]; null: 0
    u32 rows, dim, unit_stride, stride;
    u32 normalize, unused[3];
    TensorMap h;  // boxes of 256 rows
    TensorMap w;  // boxes of 128 rows
};

// `C`: kKind (stored and multiplied), kOut (of `units`), kPanels (128 bytes of k), kStages.
template <class C>
struct ProjectKernel {
    static constexpr int kGroups = 2, kMT = 2, kRows = 64 * kMT * kGroups, kDims = int(kProductColumns);
    static constexpr int kStage = (kRows + kDims) * 128;
    static constexpr int kBarriersAt = C::kStages * kStage;
    static_assert(C::kThreads == 128 * kGroups + 32 && C::kShared == kBarriersAt + 16 * C::kStages,
                  "the plan and the kernel disagree");
    const ProjectParams& p;
    u8* shared;

    MS_FN u8* hidden(u32 stage) const { return shared + stage * kStage; }
    MS_FN u8* weights(u32 stage) const { return hidden(stage) + kRows * 128; }
    MS_FN Barrier* full(u32 stage) const { return reinterpret_cast<Barrier*>(shared + kBarriersAt) + stage; }
    MS_FN Barrier* empty(u32 stage) const { return full(C::kStages) + stage; }
    MS_FN u32 tiles() const { return (p.rows + kRows - 1) / kRows; }

    MS_FN void set_up() const {
        if (thread_index() == 0) {
            for (u32 i = 0; i < C::kStages; i++) {
                barrier_init(full(i), 1);
                barrier_init(empty(i), 4 * kGroups);
            }
            barrier_init_done();
            tensor_prefetch(&p.h);
            tensor_prefetch(&p.w);
        }
        sync_block();
    }

    // One thread.
    MS_FN void produce() const {
        RingPlace<C::kStages> place;
        for (u32 tile = block_index(); tile < tiles(); tile += grid_size())
            for (u32 panel = 0; panel < C::kPanels; panel++, place.next()) {
                barrier_wait(empty(place.at), place.round ^ 1);
                barrier_expect(full(place.at), kStage);
                u32 column = panel * 128 / size_of(C::kKind);
                tensor_copy(hidden(place.at), &p.h, column, tile * kRows, full(place.at));
                tensor_copy(weights(place.at), &p.w, column, 0, full(place.at));
            }
    }

    MS_FN void give_back(u32 stage) const {
        if (lane_index() == 0) barrier_arrive(empty(stage));
    }

    // One of the two warpgroups.
    MS_FN void multiply() const {
        u32 group = warp_index() / 4;
        RingPlace<C::kStages> place;
        float acc[kMT][64];
        for (u32 tile = block_index(); tile < tiles(); tile += grid_size()) {
            u32 used = 0;
            for (u32 panel = 0; panel < C::kPanels; panel++, place.next()) {
                barrier_wait(full(place.at), place.round);
                u64 w = matrix_descriptor(weights(place.at));
#pragma unroll
                for (u32 m = 0; m < kMT; m++) product_keep(acc[m]);
                product_fence();
#pragma unroll
                for (u32 k = 0; k < 4; k++)
#pragma unroll
                    for (u32 m = 0; m < kMT; m++) {
                        u64 h = matrix_descriptor(hidden(place.at) + (group * kMT + m) * 64 * 128);
                        product<C::kKind>(acc[m], h + 2 * k, w + 2 * k, panel + k > 0);
                    }
                product_commit();
                if (panel > 0) {
                    // The panel before this one has been multiplied.
                    product_wait<1>();
                    give_back(used);
                }
                used = place.at;
            }
            product_wait<0>();
#pragma unroll
            for (u32 m = 0; m < kMT; m++) product_keep(acc[m]);
            give_back(used);
#pragma unroll
            for (u32 m = 0; m < kMT; m++)
#pragma unroll
                for (u32 half = 0; half < 2; half++)
                    finish_row(acc[m], half, tile * kRows + (group * kMT + m) * 64 + warp_index() % 4 * 16 + half * 8 + lane_index() / 4);
        }
    }

    // The row of the projection whose elements 8 n + 2 · (lane % 4) + c are `acc[4 n + 2 half + c]`.
    MS_FN void finish_row(float (&acc)[64], u32 half, u32 row) const {
        u32 own = lane_index() % 4 * 2;
        double sum = 0.0;
#pragma unroll
        for (u32 n = 0; n < 16; n++)
#pragma unroll
            for (u32 c = 0; c < 2; c++) {
                u32 k = 8 * n + own + c;
                float& x = acc[4 * n + 2 * half + c];
                if (p.bias && k < p.dim) x += p.bias[k];
                if (p.normalize) sum += double(x) * double(x);
            }
        float factor = 1.0f;
        if (p.normalize) {
            // As `row_factors` has it.
            sum += shuffle_xor(sum, 1);
            sum += shuffle_xor(sum, 2);
            double norm = square_root(sum);
            factor = float(1.0 / (norm < 1e-6 ? 1e-6 : norm));
        }
        if (row >= p.rows) return;
        if (p.norms && own == 0) p.norms[row] = factor;
        u8* unit = p.units + u64(row) * p.unit_stride;
        float* projected = p.projected + u64(row) * p.stride;
#pragma unroll
        for (u32 n = 0; n < 16; n++) {
            u32 k = 8 * n + own;
            float x = acc[4 * n + 2 * half], y = acc[4 * n + 2 * half + 1];
            if (2 * k < p.unit_stride) *reinterpret_cast<u32*>(unit + 2 * k) = pack16<C::kOut>(x * factor, y * factor);
            if (p.projected && k < p.stride) *reinterpret_cast<Pair2*>(projected + k) = {x, y};
        }
    }
};

template <class C>
MS_FN void head_project(const ProjectParams& params) {
    ProjectKernel<C> kernel{params, shared_memory()};
    kernel.set_up();
    if (warp_index() < 4 * ProjectKernel<C>::kGroups) kernel.multiply();
    else if (lane_index() == 0) kernel.produce();
}

}  // namespace maxsim
