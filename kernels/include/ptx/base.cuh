// Indices, barriers, shuffles and bit casts. Kernels never write inline PTX themselves: everything that only hardware
// has goes through `ptx/`, so that the emulator can put its own versions under the same names.
#pragma once

#define MS_FN __device__ __forceinline__

namespace maxsim {

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using i8 = signed char;
using i32 = int;
using i64 = long long;

struct alignas(16) U4 {
    u32 x, y, z, w;
};

constexpr u32 kWarp = 32;

MS_FN u32 thread_index() { return threadIdx.x; }
MS_FN u32 block_index() { return blockIdx.x; }
MS_FN u32 block_index_y() { return blockIdx.y; }
MS_FN u32 grid_size() { return gridDim.x; }
MS_FN u32 lane_index() { return threadIdx.x & 31; }
// Shuffled so that the compiler knows it is the same in the whole warp: the whole warp has to ask.
MS_FN u32 warp_index() { return __shfl_sync(0xffffffffu, threadIdx.x >> 5, 0); }

MS_FN float bits_to_float(u32 x) { return __uint_as_float(x); }
MS_FN u32 float_to_bits(float x) { return __float_as_uint(x); }
MS_FN float negative_infinity() { return bits_to_float(0xff800000u); }

// `max` as SPEC wants it: a NaN never wins.
MS_FN float max_number(float a, float b) { return fmaxf(a, b); }
MS_FN float fused(float a, float b, float c) { return fmaf(a, b, c); }
MS_FN double square_root(double x) { return sqrt(x); }
MS_FN float round_even(float x) { return rintf(x); }
MS_FN u32 min_u32(u32 a, u32 b) { return a < b ? a : b; }
MS_FN u32 max_u32(u32 a, u32 b) { return a > b ? a : b; }

// All dynamic shared memory of the block, aligned for every kind of access.
MS_FN u8* shared_memory() {
    extern __shared__ __align__(1024) u8 maxsim_shared[];
    return maxsim_shared;
}
MS_FN u32 shared_address(const void* pointer) { return static_cast<u32>(__cvta_generic_to_shared(pointer)); }

MS_FN void sync_block() { __syncthreads(); }
MS_FN void sync_warp() { __syncwarp(); }
// Barrier `id` (1–15; 0 is sync_block's) among `threads` threads.
MS_FN void sync_named(u32 id, u32 threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

template <class T>
MS_FN T shuffle_xor(T x, u32 mask) {
    return __shfl_xor_sync(0xffffffffu, x, mask);
}
template <class T>
MS_FN T shuffle(T x, u32 lane) {
    return __shfl_sync(0xffffffffu, x, lane);
}
MS_FN u32 ballot(bool x) { return __ballot_sync(0xffffffffu, x); }
// Lanes that hold the same `x`.
MS_FN u32 match(u32 x) { return __match_any_sync(0xffffffffu, x); }
MS_FN u32 count_bits(u32 x) { return __popc(x); }
// Place of the lowest bit set; there is one.
MS_FN u32 lowest_bit(u32 x) { return __ffs(x) - 1; }
// Four of the bytes of `low` (0–3) and `high` (4–7): the places are the lowest four hexadecimal digits of `places`.
MS_FN u32 select_bytes(u32 low, u32 high, u32 places) { return __byte_perm(low, high, places); }

MS_FN u32 add_shared(u32* to, u32 x) { return atomicAdd(to, x); }
MS_FN void add_global(float* to, float x) { atomicAdd(to, x); }
// All of these give what was there before.
MS_FN u32 add_to(u32* to, u32 x) { return atomicAdd(to, x); }
// Whoever sees the sum sees what this thread, and those it has met at a barrier, wrote before; and the other way round.
MS_FN u32 add_after_all(u32* to, u32 x) {
    u32 before;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;" : "=r"(before) : "l"(to), "r"(x) : "memory");
    return before;
}
MS_FN u32 or_global(u32* to, u32 x) { return atomicOr(to, x); }

MS_FN float f16_to_f32(u16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
    return y;
}
MS_FN u16 f32_to_f16(float x) {
    u16 y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
}

struct alignas(8) Pair2 {
    float x, y;
};
// What another block wrote: not what a first-level cache has kept.
MS_FN Pair2 load_fresh(const Pair2* from) {
    Pair2 x;
    asm volatile("ld.relaxed.gpu.global.v2.f32 {%0, %1}, [%2];" : "=f"(x.x), "=f"(x.y) : "l"(from) : "memory");
    return x;
}
MS_FN void store_number(u32* to, u32 x) { asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(to), "r"(x) : "memory"); }

// Through the read-only path: what a kernel reads and nobody writes meanwhile.
MS_FN U4 load_once(const void* from) {
    U4 x;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                 : "l"(from));
    return x;
}

}  // namespace maxsim
