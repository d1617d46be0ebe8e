// What the lanes of a warp do together.
#pragma once
#include "ptx/base.cuh"

namespace maxsim {

// Sum over this lane and those before it.
MS_FN u32 running_sum(u32 x) {
    u32 lane = lane_index();
    for (u32 step = 1; step < kWarp; step *= 2) {
        u32 other = shuffle(x, lane >= step ? lane - step : lane);
        if (lane >= step) x += other;
    }
    return x;
}

}  // namespace maxsim
