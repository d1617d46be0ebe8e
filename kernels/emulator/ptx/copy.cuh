// The emulator's `ptx/copy.cuh`: a copy happens when somebody waits for it, as late as it may.
#pragma once
#include "ptx/base.cuh"

namespace maxsim {

MS_FN void copy_async(void* to, const void* from, bool valid) {
    emulator::check_shared(to, 16, 16);
    if (valid && reinterpret_cast<uintptr_t>(from) % 16 != 0) emulator::fail("misaligned asynchronous copy");
    emulator::poison(to, 16);
    emulator::block->self->open.push_back([to, from, valid] {
        if (valid) std::memcpy(to, from, 16);
        else std::memset(to, 0, 16);
    });
}

MS_FN void copy_commit() {
    auto* self = emulator::block->self;
    self->copies.push_back(std::move(self->open));
    self->open.clear();
}

template <int kLeft>
MS_FN void copy_wait() {
    auto& groups = emulator::block->self->copies;
    while (groups.size() > kLeft) {
        for (auto& copy : groups.front()) copy();
        groups.erase(groups.begin());
    }
}

}  // namespace maxsim
