// Transaction barriers and the bulk copy engine (sm_90).
#pragma once
#include "ptx/base.cuh"

namespace maxsim {

// Describes a matrix to the copy engine; made by the driver.
struct alignas(64) TensorMap {
    u64 words[16];
};

// A barrier in shared memory: a phase ends when `count` arrivals and all announced bytes have come.
using Barrier = u64;

MS_FN void barrier_init(Barrier* barrier, u32 count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count) : "memory");
}
// Makes initialised barriers known to the copy engine; a block-wide barrier has to follow.
MS_FN void barrier_init_done() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

MS_FN void barrier_arrive(Barrier* barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
// Arrives, and announces `bytes` that copies will bring.
MS_FN void barrier_expect(Barrier* barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                 : "memory");
}
// Waits until the phase of this parity has ended. The first phase has parity 0; waiting for parity 1 before it ends
// returns at once.
MS_FN void barrier_wait(Barrier* barrier, u32 parity) {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@done bra.uni finished;\n"
        "bra.uni again;\n"
        "finished:\n"
        "}\n" ::"r"(shared_address(barrier)),
        "r"(parity)
        : "memory");
}

MS_FN void tensor_prefetch(const TensorMap* map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// Box at `column`, `row` of a matrix to shared memory (1024-byte aligned, 128-byte rows swizzled). What lies outside the
// matrix arrives as zeros and counts as bytes all the same.
MS_FN void tensor_copy(void* to, const TensorMap* map, u32 column, u32 row, Barrier* barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
            shared_address(to)),
        "l"(map), "r"(shared_address(barrier)), "r"(column), "r"(row)
        : "memory");
}

// `bytes` bytes; addresses and size are multiples of 16.
MS_FN void bulk_copy(void* to, const void* from, u32 bytes, Barrier* barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(to)),
                 "l"(from), "r"(bytes), "r"(shared_address(barrier))
                 : "memory");
}

}  // namespace maxsim
