// The emulator's `ptx/wgmma.cuh`: products happen when they are waited for, from what shared memory holds by then.
#pragma once
#include "convert.cuh"

namespace maxsim {

constexpr u32 kProductColumns = 128;

template <int kKind>
struct Accumulator {
    using Type = float;
};
template <>
struct Accumulator<kI8> {
    using Type = i32;
};

MS_FN u64 matrix_descriptor(const void* matrix) {
    emulator::check_shared(matrix, 1024, 1024);
    return shared_address(matrix) >> 4 | u64(1) << 16 | u64(1024 >> 4) << 32 | u64(1) << 62;
}

template <class Acc>
MS_FN void product_keep(Acc (&)[64]) {}
MS_FN void product_fence() {}
MS_FN void product_commit() {
    auto* self = emulator::block->self;
    self->products.push_back(std::move(self->open_products));
    self->open_products.clear();
}
template <int kLeft>
MS_FN void product_wait() {
    // Every thread holds its part of every product; the part of one thread needs nobody else's.
    auto& groups = emulator::block->self->products;
    while (groups.size() > kLeft) {
        for (auto& part : groups.front()) part();
        groups.erase(groups.begin());
    }
}

// Element `k` (of 32 bytes) of row `row` of a matrix.
template <int kKind>
MS_FN float matrix_element(u64 descriptor, u32 row, u32 k) {
    if (descriptor >> 62 != 1 || (descriptor >> 32 & 0x3fff) != 64) emulator::fail("a descriptor of another layout");
    u64 address = (descriptor & 0x3fff) << 4;
    // The swizzle is one of addresses: the row's, with the k that the descriptor begins at.
    u64 at = address + row / 8 * 1024 + row % 8 * 128 + k * size_of(kKind);
    at ^= (at >> 7 & 7) << 4;
    const u8* from = emulator::block->shared + at;
    emulator::check_shared(from, size_of(kKind), size_of(kKind));
    return load_element<kKind>(from);
}

template <int kKind>
MS_FN void product(typename Accumulator<kKind>::Type (&acc)[64], u64 a, u64 b, bool add) {
    auto* to = &acc[0];
    u32 lane = lane_index(), warp = warp_index() % 4;
    emulator::block->self->open_products.push_back([=] {
        constexpr u32 kDepth = 32 / size_of(kKind);
        float rows[2][kDepth];
        for (u32 half = 0; half < 2; half++)
            for (u32 k = 0; k < kDepth; k++)
                rows[half][k] = matrix_element<kKind>(a, 16 * warp + lane / 4 + 8 * half, k);
        for (u32 n = 0; n < 16; n++) {
            for (u32 c = 0; c < 2; c++) {
                float column[kDepth];
                for (u32 k = 0; k < kDepth; k++) column[k] = matrix_element<kKind>(b, 8 * n + 2 * (lane % 4) + c, k);
                for (u32 half = 0; half < 2; half++) {
                    auto& x = to[4 * n + 2 * half + c];
                    typename Accumulator<kKind>::Type sum = add ? x : 0;
                    for (u32 k = 0; k < kDepth; k++) {
                        if constexpr (kKind == kI8) sum += static_cast<i32>(rows[half][k]) * static_cast<i32>(column[k]);
                        else sum += rows[half][k] * column[k];
                    }
                    x = sum;
                }
            }
        }
    });
}

}  // namespace maxsim
