// The emulator's `ptx/mma.cuh`.
#pragma once
#include "convert.cuh"
#include "ptx/base.cuh"

namespace maxsim {

struct Matrices {
    u32* to;
    const u8* row;
};
MS_FN void load_matrices(u32 (&to)[4], const void* row) {
    emulator::check_shared(row, 16, 16);
    Matrices mine{to, static_cast<const u8*>(row)};
    emulator::meet_warp(mine, "load_matrices", [](Matrices** lanes) {
        for (int l = 0; l < 32; l++)
            for (int m = 0; m < 4; m++) std::memcpy(lanes[l]->to + m, lanes[8 * m + l / 4]->row + 4 * (l % 4), 4);
    });
}

MS_FN void load_transposed(u32 (&to)[4], const void* row) {
    emulator::check_shared(row, 16, 16);
    Matrices mine{to, static_cast<const u8*>(row)};
    emulator::meet_warp(mine, "load_transposed", [](Matrices** lanes) {
        for (int l = 0; l < 32; l++)
            for (int m = 0; m < 4; m++)
                for (int e = 0; e < 2; e++)
                    std::memcpy(reinterpret_cast<u8*>(lanes[l]->to + m) + 2 * e,
                                lanes[8 * m + 2 * (l % 4) + e]->row + 2 * (l / 4), 2);
    });
}

struct Product {
    float* acc;
    const u32* a;
    u32 b[2];
};
// Elements of 32 bytes of k of one row, from the two halves that one lane of four holds each.
template <int kKind>
MS_FN void unpack_row(float* to, const u32* low, const u32* high, int quarter) {
    constexpr int kPerWord = 4 / size_of(kKind);
    for (int half = 0; half < 2; half++) {
        const u8* bytes = reinterpret_cast<const u8*>(half ? high : low);
        for (int i = 0; i < kPerWord; i++)
            to[(half * 4 + quarter) * kPerWord + i] = load_element<kKind>(bytes + i * size_of(kKind));
    }
}
template <int kKind>
MS_FN void multiply(float (&acc)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    Product mine{acc, a, {b0, b1}};
    emulator::meet_warp(mine, "multiply", [](Product** lanes) {
        constexpr int kDepth = 32 / size_of(kKind);
        float rows[16][kDepth], columns[8][kDepth];
        for (int l = 0; l < 32; l++) {
            unpack_row<kKind>(rows[l / 4], lanes[l]->a, lanes[l]->a + 2, l % 4);
            unpack_row<kKind>(rows[l / 4 + 8], lanes[l]->a + 1, lanes[l]->a + 3, l % 4);
            unpack_row<kKind>(columns[l / 4], lanes[l]->b, lanes[l]->b + 1, l % 4);
        }
        for (int l = 0; l < 32; l++) {
            for (int e = 0; e < 4; e++) {
                const float* row = rows[l / 4 + e / 2 * 8];
                const float* column = columns[l % 4 * 2 + e % 2];
                if constexpr (kKind == kI8) {
                    i32 sum = same_bits<i32>(lanes[l]->acc[e]);
                    for (int k = 0; k < kDepth; k++) sum += static_cast<i32>(row[k]) * static_cast<i32>(column[k]);
                    lanes[l]->acc[e] = same_bits<float>(sum);
                } else {
                    float sum = lanes[l]->acc[e];
                    for (int k = 0; k < kDepth; k++) sum += row[k] * column[k];
                    lanes[l]->acc[e] = sum;
                }
            }
        }
    });
}

}  // namespace maxsim
