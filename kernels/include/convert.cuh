// Conversions between element types, in bits: toolkit headers are not there at run time.
#pragma once
#include "ptx/base.cuh"

namespace maxsim {

// Element types; numbered as in the Rust side's `Kind`.
enum Kind : int { kF32 = 0, kF16 = 1, kBF16 = 2, kE4M3 = 3, kI8 = 4 };

constexpr int size_of(int kind) { return kind == kF32 ? 4 : kind == kF16 || kind == kBF16 ? 2 : 1; }

MS_FN float bf16_to_f32(u16 x) { return bits_to_float(u32(x) << 16); }
// Nearest even; NaN stays NaN.
MS_FN u16 f32_to_bf16(float x) {
    u32 bits = float_to_bits(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return u16(bits >> 16 | 0x40);
    return u16((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}
MS_FN float i8_to_f32(u8 x) { return static_cast<float>(static_cast<i8>(x)); }
// e4m3: 4 exponent bits of bias 7, no infinities, 0x7f and 0xff are NaN.
MS_FN float e4m3_to_f32(u8 x) {
    u32 sign = u32(x & 0x80) << 24;
    u32 magnitude = x & 0x7f;
    if (magnitude == 0x7f) return bits_to_float(sign | 0x7fc00000u);
    // Placed in an f32 of the same fields, 2^120 too small; the product is exact, subnormals included.
    float y = bits_to_float(magnitude << 20) * bits_to_float(0x7b800000u);
    return bits_to_float(float_to_bits(y) | sign);
}

// Two 16-bit elements, the first in the low half.
template <int kKind>
MS_FN u32 pack16(float a, float b) {
    if constexpr (kKind == kF16) return u32(f32_to_f16(a)) | u32(f32_to_f16(b)) << 16;
    else return u32(f32_to_bf16(a)) | u32(f32_to_bf16(b)) << 16;
}

// One element from memory.
template <int kKind>
MS_FN float load_element(const u8* from) {
    if constexpr (kKind == kF32) return *reinterpret_cast<const float*>(from);
    else if constexpr (kKind == kF16) return f16_to_f32(*reinterpret_cast<const u16*>(from));
    else if constexpr (kKind == kBF16) return bf16_to_f32(*reinterpret_cast<const u16*>(from));
    else if constexpr (kKind == kE4M3) return e4m3_to_f32(*from);
    else return i8_to_f32(*from);
}

template <int kKind>
MS_FN void store_element(u8* to, float x) {
    static_assert(kKind == kF32 || kKind == kF16 || kKind == kBF16, "gradients and projections are floats");
    if constexpr (kKind == kF32) *reinterpret_cast<float*>(to) = x;
    else if constexpr (kKind == kF16) *reinterpret_cast<u16*>(to) = f32_to_f16(x);
    else *reinterpret_cast<u16*>(to) = f32_to_bf16(x);
}

// Four elements that lie together in aligned memory.
template <int kKind>
MS_FN void store_four(u8* to, const float (&x)[4]) {
    if constexpr (kKind == kF32) {
        *reinterpret_cast<U4*>(to) = {float_to_bits(x[0]), float_to_bits(x[1]), float_to_bits(x[2]), float_to_bits(x[3])};
    } else {
        *reinterpret_cast<u64*>(to) = pack16<kKind>(x[0], x[1]) | u64(pack16<kKind>(x[2], x[3])) << 32;
    }
}
template <int kKind>
MS_FN void load_four(const u8* from, float (&to)[4]) {
    if constexpr (kKind == kF32) {
        U4 x = *reinterpret_cast<const U4*>(from);
        to[0] = bits_to_float(x.x), to[1] = bits_to_float(x.y);
        to[2] = bits_to_float(x.z), to[3] = bits_to_float(x.w);
    } else if constexpr (kKind == kF16 || kKind == kBF16) {
        const u32* words = reinterpret_cast<const u32*>(from);
        for (int i = 0; i < 2; i++) {
            u32 x = words[i];
            u16 low = u16(x), high = u16(x >> 16);
            to[2 * i] = kKind == kF16 ? f16_to_f32(low) : bf16_to_f32(low);
            to[2 * i + 1] = kKind == kF16 ? f16_to_f32(high) : bf16_to_f32(high);
        }
    } else {
        u32 x = *reinterpret_cast<const u32*>(from);
        for (int i = 0; i < 4; i++) {
            u8 byte = u8(x >> 8 * i);
            to[i] = kKind == kE4M3 ? e4m3_to_f32(byte) : i8_to_f32(byte);
        }
    }
}

}  // namespace maxsim
