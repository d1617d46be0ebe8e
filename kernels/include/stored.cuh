// Rows of another's memory as kernels want them: taken out of their slots, in another element type, normalised, quantised. And rows
// of kernels back into such memory.
//
// Floor: a row is read once and written once; 4.1 TB/s of both together on an H200. Normalising reads a row a second time from the
// first-level cache, as one chain of additions, which is what makes its bits those of the host.
#pragma once
#include "convert.cuh"

namespace maxsim {

struct TakeParams {
    const u8* from;    // rows of `dim` elements behind one another
    const u32* slots;  // per row the one that is taken; null: itself
    u8* to;            // [count, stride bytes], zeros behind the last element
    float* scales;     // per row; quantised rows alone
    u32 count, dim, stride, unused;
};

struct PutParams {
    const u8* from;    // [count, stride bytes]
    const u32* slots;  // per row the one that it goes to; null: itself
    u8* to;            // rows of `width` bytes behind one another
    u32 count, width, stride, unused;
};

// Nearest e4m3, ties to even, saturating; NaN stays NaN.
MS_FN u8 f32_to_e4m3(float x) {
    u32 bits = float_to_bits(x);
    u8 sign = u8(bits >> 24 & 0x80);
    u32 magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return sign | 0x7f;
    if (magnitude >= 0x43e00000u) return sign | 0x7e;  // from 448 up
    if (magnitude < 0x3c800000u) {
        // Below 2^-6 values lie 2^-9 apart: so do sums with 2^14.
        return sign | u8(float_to_bits(bits_to_float(magnitude) + 16384.0f) - 0x46800000u);
    }
    u32 rounded = magnitude + 0x7ffffu + (magnitude >> 20 & 1);
    return sign | u8((rounded >> 20) - (120u << 3));
}

MS_FN u8 f32_to_i8(float x) {
    float nearest = round_even(x);
    nearest = nearest > 127.0f ? 127.0f : nearest < -127.0f ? -127.0f : nearest;
    return u8(static_cast<i8>(nearest));
}

// Which element goes to place `k` of a row in the order of fragments: see `permute` on the host.
MS_FN u32 permuted_source(u32 k) {
    u32 at = k % 16;
    return k - at + 4 * (at % 8 / 2) + at % 2 + 2 * (at / 8);
}

// One warp a row.
template <class C>
MS_FN void take_rows(const TakeParams& p) {
    u32 row = block_index() * (C::kThreads / kWarp) + warp_index();
    if (row >= p.count) return;
    constexpr u32 kFromSize = size_of(C::kFrom), kToSize = size_of(C::kTo);
    u64 slot = p.slots ? p.slots[row] : row;
    const u8* from = p.from + slot * p.dim * kFromSize;
    u8* to = p.to + u64(row) * p.stride;
    double norm = 1.0;
    if constexpr (C::kNormalize) {
        // Products of f32 numbers are exact in f64, and all lanes add them up in the same order as the host.
        double sum = 0.0;
        for (u32 k = 0; k < p.dim; k++) {
            double x = load_element<C::kFrom>(from + k * kFromSize);
            sum += x * x;
        }
        norm = square_root(sum);
        // As the host's max(): a norm that is no number counts for nothing.
        if (!(norm > 1e-6)) norm = 1e-6;
    }
    auto element = [&](u32 k) {
        float x = load_element<C::kFrom>(from + k * kFromSize);
        if constexpr (C::kNormalize) x = float(double(x) / norm);
        return x;
    };
    float scale = 1.0f;
    constexpr bool kQuantize = C::kFrom != C::kTo && (C::kTo == kE4M3 || C::kTo == kI8);
    if constexpr (kQuantize) {
        float largest = 0.0f;
        for (u32 k = lane_index(); k < p.dim; k += kWarp) {
            float x = element(k);
            largest = max_number(largest, x < 0.0f ? -x : x);
        }
        for (u32 step = kWarp / 2; step > 0; step /= 2) largest = max_number(largest, shuffle_xor(largest, step));
        scale = max_number(largest, 1e-6f) / (C::kTo == kE4M3 ? 448.0f : 127.0f);
        if (lane_index() == 0) p.scales[row] = scale;
    }
    for (u32 place = lane_index(); place * kToSize < p.stride; place += kWarp) {
        u32 k = C::kPermuted ? permuted_source(place) : place;
        u8* out = to + place * kToSize;
        bool there = k < p.dim;
        if constexpr (C::kFrom == C::kTo && !C::kNormalize) {
            for (u32 byte = 0; byte < kToSize; byte++) out[byte] = there ? from[k * kFromSize + byte] : 0;
        } else if constexpr (kQuantize) {
            float x = there ? element(k) / scale : 0.0f;
            if constexpr (C::kTo == kE4M3) *out = f32_to_e4m3(x);
            else *out = f32_to_i8(x);
        } else {
            store_element<C::kTo>(out, there ? element(k) : 0.0f);
        }
    }
}

// The way back, one warp a row. Elements have 2 bytes at least, and a tensor of another's is aligned to its elements alone.
template <class C>
MS_FN void put_rows(const PutParams& p) {
    u32 row = block_index() * (C::kThreads / kWarp) + warp_index();
    if (row >= p.count) return;
    u64 slot = p.slots ? p.slots[row] : row;
    const u16* from = reinterpret_cast<const u16*>(p.from + u64(row) * p.stride);
    u16* to = reinterpret_cast<u16*>(p.to + slot * p.width);
    for (u32 i = lane_index(); i < p.width / 2; i += kWarp) to[i] = from[i];
}

}  // namespace maxsim
