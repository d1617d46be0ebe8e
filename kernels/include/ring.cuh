// Places that a producer and those who follow it go through in turn.
#pragma once
#include "ptx/base.cuh"

namespace maxsim {

// A position in a ring of `kSize` places, and the parity of how often it went round: what barriers of the place wait for.
template <int kSize>
struct RingPlace {
    u32 at = 0, round = 0;
    MS_FN void next() {
        if (++at == kSize) at = 0, round ^= 1;
    }
};

}  // namespace maxsim
