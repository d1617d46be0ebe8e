// Asynchronous copies of 16 bytes from global to shared memory (sm_80; plain copies before that).
#pragma once
#include "ptx/base.cuh"

namespace maxsim {

// Copies 16 bytes, or writes zeros without reading where `valid` is false. Both addresses are multiples of 16.
MS_FN void copy_async(void* to, const void* from, bool valid) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
                 "r"(valid ? 16 : 0)
                 : "memory");
#else
    *static_cast<U4*>(to) = valid ? load_once(from) : U4{0, 0, 0, 0};
#endif
}

// Closes the group of copies this thread started since the last one.
MS_FN void copy_commit() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most `kLeft` of this thread's groups are under way.
template <int kLeft>
MS_FN void copy_wait() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
#endif
}

}  // namespace maxsim
