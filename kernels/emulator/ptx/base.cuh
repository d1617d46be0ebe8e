// The emulator's `ptx/base.cuh`.
#pragma once
#include "runtime.hpp"

#define __global__
#define __device__
#define __grid_constant__
#define __launch_bounds__(...)
#define MS_FN inline

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

MS_FN u32 thread_index() { return emulator::block->self->thread; }
MS_FN u32 block_index() { return emulator::block->index[0]; }
MS_FN u32 block_index_y() { return emulator::block->index[1]; }
MS_FN u32 grid_size() { return emulator::block->grid[0]; }
MS_FN u32 lane_index() { return thread_index() % 32; }

template <class To, class From>
MS_FN To same_bits(From x) {
    static_assert(sizeof(To) == sizeof(From));
    To y;
    std::memcpy(&y, &x, sizeof(y));
    return y;
}
MS_FN float bits_to_float(u32 x) { return same_bits<float>(x); }
MS_FN u32 float_to_bits(float x) { return same_bits<u32>(x); }
MS_FN float negative_infinity() { return -INFINITY; }

MS_FN float max_number(float a, float b) { return std::fmax(a, b); }
MS_FN float fused(float a, float b, float c) { return std::fma(a, b, c); }
MS_FN double square_root(double x) { return sqrt(x); }
MS_FN float round_even(float x) { return rintf(x); }
MS_FN u32 min_u32(u32 a, u32 b) { return a < b ? a : b; }
MS_FN u32 max_u32(u32 a, u32 b) { return a > b ? a : b; }

MS_FN u8* shared_memory() { return emulator::block->shared; }
// As on the device, an address is an offset.
MS_FN u32 shared_address(const void* pointer) {
    return static_cast<u32>(static_cast<const u8*>(pointer) - emulator::block->shared);
}

MS_FN void sync_block() { emulator::meet_named(0, emulator::block->threads); }
MS_FN void sync_warp() {
    int nothing = 0;
    emulator::meet_warp(nothing, "sync_warp", [](int**) {});
}
MS_FN void sync_named(u32 id, u32 threads) { emulator::meet_named(id, threads); }

template <class T>
struct Shuffle {
    T given, taken;
    u32 from;
};
template <class T>
MS_FN T shuffle(T x, u32 lane) {
    Shuffle<T> mine{x, x, lane % 32};
    emulator::meet_warp(mine, "shuffle", [](Shuffle<T>** lanes) {
        for (int l = 0; l < 32; l++) lanes[l]->taken = lanes[lanes[l]->from]->given;
    });
    return mine.taken;
}
// The whole warp has to ask, as on the device.
MS_FN u32 warp_index() { return shuffle(thread_index() / 32, 0); }
template <class T>
MS_FN T shuffle_xor(T x, u32 mask) {
    return shuffle(x, lane_index() ^ mask);
}
// In every lane: the lanes for which `holds(lane, this lane)`.
template <class T, class Holds>
MS_FN u32 lanes_where(T x, const char* what, Holds holds) {
    Shuffle<T> mine{x, x, 0};
    emulator::meet_warp(mine, what, [&](Shuffle<T>** lanes) {
        for (int l = 0; l < 32; l++)
            for (int m = 0; m < 32; m++) lanes[l]->from |= u32(holds(lanes[m]->given, lanes[l]->given)) << m;
    });
    return mine.from;
}
MS_FN u32 ballot(bool x) {
    return lanes_where(x, "ballot", [](bool theirs, bool) { return theirs; });
}
MS_FN u32 match(u32 x) {
    return lanes_where(x, "match", [](u32 theirs, u32 mine) { return theirs == mine; });
}
MS_FN u32 count_bits(u32 x) { return static_cast<u32>(__builtin_popcount(x)); }
// Place of the lowest bit set; there is one.
MS_FN u32 lowest_bit(u32 x) { return static_cast<u32>(__builtin_ctz(x)); }
// Four of the bytes of `low` (0–3) and `high` (4–7): the places are the lowest four hexadecimal digits of `places`.
MS_FN u32 select_bytes(u32 low, u32 high, u32 places) {
    u64 bytes = low | u64(high) << 32;
    u32 x = 0;
    for (int i = 0; i < 4; i++) x |= u32(bytes >> 8 * (places >> 4 * i & 7) & 0xff) << 8 * i;
    return x;
}

// One fiber runs at a time.
MS_FN u32 add_shared(u32* to, u32 x) {
    u32 before = *to;
    *to += x;
    return before;
}
MS_FN void add_global(float* to, float x) { *to += x; }
MS_FN u32 add_to(u32* to, u32 x) {
    u32 before = *to;
    *to += x;
    return before;
}
MS_FN u32 add_after_all(u32* to, u32 x) { return add_to(to, x); }
struct alignas(8) Pair2 {
    float x, y;
};
MS_FN Pair2 load_fresh(const Pair2* from) { return *from; }
MS_FN void store_number(u32* to, u32 x) { *to = x; }
MS_FN u32 or_global(u32* to, u32 x) {
    u32 before = *to;
    *to |= x;
    return before;
}

MS_FN float f16_to_f32(u16 x) { return static_cast<float>(same_bits<_Float16>(x)); }
MS_FN u16 f32_to_f16(float x) { return same_bits<u16>(static_cast<_Float16>(x)); }

MS_FN U4 load_once(const void* from) { return *static_cast<const U4*>(from); }

}  // namespace maxsim
