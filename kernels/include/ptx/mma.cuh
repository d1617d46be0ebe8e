// Tensor-core products of a warp: `ldmatrix` and `mma.sync` (sm_80; e4m3 from sm_89).
#pragma once
#include "ptx/base.cuh"
#include "convert.cuh"

namespace maxsim {

// Four 8×16-byte matrices; lane `l` names row `l % 8` of matrix `l / 8` and receives 4 bytes of row `l / 4` of each.
MS_FN void load_matrices(u32 (&to)[4], const void* row) {
#if __CUDA_ARCH__ >= 750
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row)));
#endif
}

// The same of 16-bit elements, each matrix turned: a lane receives elements `2 · (l % 4)` and the next of column `l / 4`.
MS_FN void load_transposed(u32 (&to)[4], const void* row) {
#if __CUDA_ARCH__ >= 750
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row)));
#endif
}

// `acc += A·Bᵀ` over 32 bytes of k: A is 16 rows, B 8. acc[0], acc[1]: row lane/4, columns 2(lane%4)+{0,1};
// acc[2], acc[3]: row lane/4 + 8. For kI8 the accumulators are integers in the floats' bits.
template <int kKind>
MS_FN void multiply(float (&acc)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    if constexpr (kKind == kF16) {
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    } else if constexpr (kKind == kBF16) {
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    } else if constexpr (kKind == kE4M3) {
        asm volatile(
            "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    } else {
        u32 c[4];
        for (int i = 0; i < 4; i++) c[i] = float_to_bits(acc[i]);
        asm volatile(
            "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
        for (int i = 0; i < 4; i++) acc[i] = bits_to_float(c[i]);
    }
}

}  // namespace maxsim
