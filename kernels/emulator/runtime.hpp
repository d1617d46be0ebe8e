// Runs a kernel's text on the host: the threads of a block as fibers of one host thread, what only hardware has as
// operations in which all lanes of a warp (or all threads of a block) meet.
//
// What this checks: indices, masks, layouts of fragments and descriptors, barriers that not everybody reaches
// (reported as a deadlock), copies that are read before they were waited for (memory holds NaN until then), reads and
// writes outside global and shared memory (guard pages). What it cannot see: races between barriers, memory ordering,
// the tensor cores' own rounding, register pressure, time.
#pragma once

#include <sys/mman.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <vector>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace emulator {

constexpr size_t kStack = 128 << 10;
constexpr size_t kPage = 4096;

[[noreturn]] inline void fail(const char* what) {
    std::fprintf(stderr, "emulator: %s\n", what);
    std::abort();
}

// What a fiber that cannot go on waits for: a counter that has to move on.
struct Wait {
    const uint64_t* counter = nullptr;
    uint64_t seen = 0;
    const char* what = nullptr;
};

struct Fiber {
#if defined(__x86_64__)
    void* stack_pointer = nullptr;
#else
    ucontext_t context{};
#endif
    uint32_t thread = 0;
    bool done = false;
    Wait wait;
    std::vector<std::vector<std::function<void()>>> copies;  // closed groups of asynchronous copies
    std::vector<std::function<void()>> open;                 // the group that is still open
    std::vector<std::vector<std::function<void()>>> products;  // the same of a warpgroup's products
    std::vector<std::function<void()>> open_products;
};

// Threads that meet: a warp or a named barrier.
struct Meeting {
    uint64_t round = 0;
    uint32_t arrived = 0;
    const char* what = nullptr;
    std::vector<void*> items;
};

struct Block {
    uint32_t grid[2], index[2], threads = 0;
    uint8_t* shared = nullptr;
    size_t shared_bytes = 0;
    std::vector<Fiber> fibers;
    std::vector<Meeting> warps;
    Meeting named[16];
    Fiber* self = nullptr;
    std::deque<std::function<void()>> engine;  // what the copy engine was asked for
    std::function<void()> kernel;
#if !defined(__x86_64__)
    ucontext_t scheduler{};
#else
    void* scheduler = nullptr;
#endif
};

inline thread_local Block* block = nullptr;

#if defined(__x86_64__)
extern "C" void maxsim_emulator_switch(void** from, void* to);
asm(R"(
.text
.local maxsim_emulator_switch
maxsim_emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
inline void leave() { maxsim_emulator_switch(&block->self->stack_pointer, block->scheduler); }
inline void enter(Fiber& fiber) { maxsim_emulator_switch(&block->scheduler, fiber.stack_pointer); }
#else
inline void leave() { swapcontext(&block->self->context, &block->scheduler); }
inline void enter(Fiber& fiber) { swapcontext(&block->scheduler, &fiber.context); }
#endif

// Waits until `counter` is no longer `seen`.
inline void wait_for(const uint64_t& counter, uint64_t seen, const char* what) {
    while (counter == seen) {
        block->self->wait = {&counter, seen, what};
        leave();
    }
    block->self->wait = {};
}

// `count` threads meet; the last one does `work` with what all of them brought, in the order of `place`.
template <class Work>
void meet(Meeting& meeting, uint32_t count, uint32_t place, void* item, const char* what, Work work) {
    if (meeting.arrived == 0) {
        meeting.what = what;
        meeting.items.assign(count, nullptr);
    }
    if (meeting.what != what || meeting.items.size() != count) {
        std::fprintf(stderr, "emulator: thread %u is at %s while others of its group are at %s\n",
                     block->self->thread, what, meeting.what);
        std::abort();
    }
    meeting.items[place] = item;
    if (++meeting.arrived == count) {
        work(meeting.items);
        meeting.arrived = 0;
        meeting.round++;
    } else {
        wait_for(meeting.round, meeting.round, what);
    }
}

template <class Item, class Work>
void meet_warp(Item& item, const char* what, Work work) {
    uint32_t thread = block->self->thread;
    meet(block->warps[thread / 32], 32, thread % 32, &item, what,
         [&](std::vector<void*>& items) { work(reinterpret_cast<Item**>(items.data())); });
}
// Who comes is not who meets: any `count` threads make a named barrier go on.
inline void meet_named(uint32_t id, uint32_t count) {
    Meeting& meeting = block->named[id];
    meet(meeting, count, meeting.arrived, nullptr, "a barrier", [](std::vector<void*>&) {});
}

// Copies wait until somebody waits for them; what they are to write is NaN until then.
inline void poison(void* to, size_t bytes) { std::memset(to, 0xff, bytes); }

inline void check_shared(const void* pointer, size_t bytes, size_t alignment) {
    auto at = reinterpret_cast<const uint8_t*>(pointer);
    if (at < block->shared || at + bytes > block->shared + block->shared_bytes) fail("outside shared memory");
    if (reinterpret_cast<uintptr_t>(pointer) % alignment != 0) fail("misaligned address in shared memory");
}

inline void fiber_main() {
    block->kernel();
    block->self->done = true;
    for (auto& group : block->self->copies)
        if (!group.empty()) fail("a thread ended with copies under way");
    if (!block->self->open.empty()) fail("a thread ended with copies under way");
    for (auto& group : block->self->products)
        if (!group.empty()) fail("a thread ended with products under way");
    if (!block->self->open_products.empty()) fail("a thread ended with products under way");
    leave();
    fail("a fiber ran on");
}

// Memory that ends where a page begins that nobody may touch.
inline uint8_t* guarded(size_t bytes) {
    size_t pages = (bytes + kPage - 1) / kPage * kPage;
    auto base = static_cast<uint8_t*>(
        mmap(nullptr, pages + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base == MAP_FAILED || mprotect(base + pages, kPage, PROT_NONE) != 0) fail("no memory");
    return base;
}

inline void prepare(Fiber& fiber, uint8_t* stack) {
#if defined(__x86_64__)
    auto top = reinterpret_cast<void**>(stack + kStack);
    // What `switch` pops: six registers and the address to go to; a word above it, as after a call, aligns the stack.
    top -= 1;
    *--top = reinterpret_cast<void*>(&fiber_main);
    top -= 6;
    std::memset(static_cast<void*>(top), 0, 6 * sizeof(void*));
    fiber.stack_pointer = top;
#else
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stack;
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_main, 0);
#endif
}

inline void run_block(Block& state, uint8_t* stacks) {
    block = &state;
    poison(state.shared, state.shared_bytes);
    state.fibers.assign(state.threads, {});
    state.warps.assign((state.threads + 31) / 32, {});
    for (Meeting& meeting : state.named) meeting = {};
    for (uint32_t thread = 0; thread < state.threads; thread++) {
        state.fibers[thread].thread = thread;
        prepare(state.fibers[thread], stacks + thread * kStack);
    }
    for (uint32_t left = state.threads; left > 0;) {
        bool moved = false;
        for (Fiber& fiber : state.fibers) {
            if (fiber.done || (fiber.wait.counter && *fiber.wait.counter == fiber.wait.seen)) continue;
            state.self = &fiber;
            enter(fiber);
            moved = true;
            left -= fiber.done;
        }
        if (!moved && !state.engine.empty()) {
            state.engine.front()();
            state.engine.pop_front();
        } else if (!moved) {
            for (Fiber& fiber : state.fibers)
                if (!fiber.done) std::fprintf(stderr, "thread %u waits at %s\n", fiber.thread, fiber.wait.what);
            fail("deadlock");
        }
    }
    if (!state.engine.empty()) fail("a block ended with bulk copies under way");
    block = nullptr;
}

// Runs all blocks of a grid, one after the other.
template <class Kernel>
void launch(Kernel kernel, uint32_t grid_x, uint32_t grid_y, uint32_t threads, uint32_t shared_bytes) {
    Block state;
    state.grid[0] = grid_x, state.grid[1] = grid_y, state.threads = threads;
    size_t shared_pages = (shared_bytes + kPage - 1) / kPage * kPage;
    uint8_t* shared = guarded(shared_pages);
    // From 1024 bytes on alignment is the device's; the end of what was asked for is the end of what can be used as
    // well as alignment allows.
    state.shared = shared, state.shared_bytes = shared_bytes;
    state.kernel = kernel;
    size_t stack_bytes = threads * kStack;
    auto stacks = static_cast<uint8_t*>(
        mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (stacks == MAP_FAILED) fail("no memory for stacks");
    for (uint32_t y = 0; y < grid_y; y++) {
        for (uint32_t x = 0; x < grid_x; x++) {
            state.index[0] = x, state.index[1] = y;
            run_block(state, stacks);
        }
    }
    munmap(stacks, stack_bytes);
    munmap(shared, shared_pages + kPage);
}

}  // namespace emulator

// Defines what the loader calls to run `NAME` with parameters of type `PARAMS`.
#define EMULATE(NAME, PARAMS)                                                                                   \
    extern "C" void maxsim_emulate(const void* params, uint32_t grid_x, uint32_t grid_y, uint32_t threads,      \
                                   uint32_t shared) {                                                           \
        PARAMS copy;                                                                                            \
        std::memcpy(static_cast<void*>(&copy), params, sizeof(copy));                                           \
        emulator::launch([&copy] { NAME(copy); }, grid_x, grid_y, threads, shared);                             \
    }
