// The emulator's `ptx/bulk.cuh`: the copy engine works only when nobody else can go on.
#pragma once
#include "ptx/base.cuh"

namespace maxsim {

// As `Emulator::tensor_map` in Rust fills it in.
struct alignas(64) TensorMap {
    u64 words[16];
};

// Phase (1 bit), arrivals expected (15) and missing (15), bytes missing (33, may be negative for a while).
using Barrier = u64;

struct BarrierState {
    u32 phase, expected, missing;
    i64 bytes;

    explicit BarrierState(Barrier word)
        : phase(word & 1),
          expected(word >> 1 & 0x7fff),
          missing(word >> 16 & 0x7fff),
          bytes(static_cast<i64>(word) >> 31) {}
    Barrier word() {
        if (missing == 0 && bytes == 0) phase ^= 1, missing = expected;
        return static_cast<Barrier>(bytes) << 31 | Barrier(missing) << 16 | Barrier(expected) << 1 | phase;
    }
};

MS_FN void barrier_init(Barrier* barrier, u32 count) {
    emulator::check_shared(barrier, 8, 8);
    *barrier = Barrier(count) << 16 | Barrier(count) << 1;
}
MS_FN void barrier_init_done() {}
MS_FN void barrier_change(Barrier* barrier, u32 arrivals, i64 bytes) {
    BarrierState state(*barrier);
    if (arrivals > state.missing) emulator::fail("more arrivals than a barrier expects");
    state.missing -= arrivals;
    state.bytes += bytes;
    *barrier = state.word();
}
MS_FN void barrier_arrive(Barrier* barrier) { barrier_change(barrier, 1, 0); }
MS_FN void barrier_expect(Barrier* barrier, u32 bytes) { barrier_change(barrier, 1, bytes); }
MS_FN void barrier_wait(Barrier* barrier, u32 parity) {
    while (BarrierState(*barrier).phase == parity)
        emulator::wait_for(reinterpret_cast<const uint64_t&>(*barrier), *barrier, "a transaction barrier");
}

MS_FN void tensor_prefetch(const TensorMap*) {}

MS_FN void tensor_copy(void* to, const TensorMap* map, u32 column, u32 row, Barrier* barrier) {
    const u64* w = map->words;
    u64 address = w[0], element = w[1], columns = w[2], rows = w[3], stride = w[4], box = w[5];
    emulator::check_shared(to, box * 128, 1024);
    emulator::poison(to, box * 128);
    emulator::block->engine.push_back([=] {
        auto out = static_cast<u8*>(to);
        for (u64 r = 0; r < box; r++) {
            for (u64 b = 0; b < 128; b++) {
                // Bits 4–6 of the address take bits 7–9 along.
                u64 at = r * 128 + (b ^ (r % 8) << 4);
                u64 c = column + b / element;
                bool inside = row + r < rows && c < columns;
                out[at] = inside ? reinterpret_cast<const u8*>(address)[(row + r) * stride + c * element + b % element] : 0;
            }
        }
        barrier_change(barrier, 0, -static_cast<i64>(box * 128));
    });
}

MS_FN void bulk_copy(void* to, const void* from, u32 bytes, Barrier* barrier) {
    emulator::check_shared(to, bytes, 16);
    if (reinterpret_cast<uintptr_t>(from) % 16 != 0 || bytes % 16 != 0) emulator::fail("misaligned bulk copy");
    emulator::poison(to, bytes);
    emulator::block->engine.push_back([=] {
        std::memcpy(to, from, bytes);
        barrier_change(barrier, 0, -static_cast<i64>(bytes));
    });
}

}  // namespace maxsim
