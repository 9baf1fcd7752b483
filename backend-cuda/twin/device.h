// A CUDA device in C++: what kernels/ use of the language and of PTX, so that the same files run on a processor.
//
// A block runs on one thread of the system, its own threads on stacks of their own (fibers), and other blocks meanwhile on other threads; a barrier, a shuffle and a fragment operation hand over to
// the scheduler. Threads are run under a schedule that the launch's seed chooses: in order, in random order, or a warp as far as it goes before the next one
// runs at all. What a kernel must not rely on is made to go wrong: shared memory is NaN in every byte for every block, asynchronous copies happen at once or, in
// every other launch, only when they are waited for, and a barrier that not every thread reaches is an error.
//
// It says nothing of speed, of memory that is weaker than this machine's, or of how tensor cores round.
#pragma once
#define CPU_TWIN 1
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <sys/mman.h>
#include <thread>
#include <vector>

typedef uint16_t u16;
typedef uint32_t u32;
typedef unsigned long long u64;
#define __device__
#define __forceinline__ inline
#define __align__(n) __attribute__((aligned(n)))

namespace twin {
// What the driver hands over; driver.cpp has the same.
struct Launch {
    unsigned grid[3], threads, shared;
    uint64_t seed;
};
struct Index {
    unsigned x, y, z;
};

// Saves the stack it is called on and goes on on another; by a jump, since a return to another caller is never foreseen by the processor.
extern "C" void twin_switch(void** save, void* load);
asm(R"(.text
.local twin_switch
.type twin_switch,@function
twin_switch:
 pushq %rbp
 pushq %rbx
 pushq %r12
 pushq %r13
 pushq %r14
 pushq %r15
 movq %rsp,(%rdi)
 movq %rsi,%rsp
 popq %r15
 popq %r14
 popq %r13
 popq %r12
 popq %rbx
 popq %rbp
 popq %rcx
 jmp *%rcx
.size twin_switch,.-twin_switch
)");

enum class State { Ready, Barrier, Warp, Done };
struct Copy {
    void* to;
    const void* from;
    bool zero;
};
const size_t STACK = 128 << 10;
struct Fiber {
    void* stack_pointer;
    State state;
    uint32_t generation; // of the warp's exchange that it waits for
    std::vector<std::vector<Copy>> committed;
    std::vector<Copy> open;
};
// Lanes exchange bytes through here; two buffers, so that a fast lane's next exchange leaves a slow one's alone.
struct Warp {
    uint32_t arrived, mask, generation;
    unsigned char bytes[2][32][64];
};
// The stacks of a block's threads, side by side: on large pages where the system has them, for every switch touches another one.
struct Stacks {
    char* memory = nullptr;
    size_t count = 0;
    void grow(size_t n) {
        if (n <= count) return;
        free(memory);
        memory = (char*)aligned_alloc(2 << 20, (n * STACK + (2 << 20) - 1) & ~(size_t)((2 << 20) - 1));
        if (!memory) abort();
        madvise(memory, n * STACK, MADV_HUGEPAGE);
        count = n;
    }
    // Where stack i begins, downwards. Not all at the same place of their pages, which would share a few lines of the cache.
    void** top(size_t i) const { return (void**)(memory + (i + 1) * STACK - i % 61 * 320); }
    ~Stacks() { free(memory); }
};
// A stream of numbers that is quick to draw: xorshift64*.
struct Random {
    uint64_t state;
    explicit Random(uint64_t seed) : state(seed * 0x9e3779b97f4a7c15ull + 0x2545f4914f6cdd1dull) {}
    uint32_t below(uint32_t n) {
        state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
        return (uint32_t)((state * 0x2545f4914f6cdd1dull >> 32) * n >> 32);
    }
    void shuffle(std::vector<unsigned>& order) {
        for (unsigned i = order.size(); i > 1; i--) std::swap(order[i - 1], order[below(i)]);
    }
};
struct Block {
    std::vector<Fiber> fibers;
    Stacks stacks;
    std::vector<Warp> warps;
    std::map<const void*, std::unique_ptr<char[]>> shared; // by the place of its declaration
    std::unique_ptr<char[]> dynamic;
    size_t dynamic_bytes = 0;
    Index block, grid;
    unsigned threads = 0, current = 0;
    void* scheduler = nullptr;
    void (*body)(const void*) = nullptr;
    const void* params = nullptr;
    const char* fault = nullptr;
    bool eager = false; // copies are made at once
};
// Not in the static part of a thread's storage: a process may load more kernels than that has room for.
static thread_local Block* here = nullptr;

static inline Fiber& me() { return here->fibers[here->current]; }
static inline void pause(State state) {
    Fiber& fiber = me();
    fiber.state = state;
    twin_switch(&fiber.stack_pointer, here->scheduler);
}
static inline void fault(const char* what) {
    if (!here->fault) here->fault = what;
    for (;;) pause(State::Done);
}
static void enter() {
    here->body(here->params);
    for (;;) pause(State::Done);
}
static char* aligned(std::unique_ptr<char[]>& memory) { return (char*)(((uintptr_t)memory.get() + 127) & ~(uintptr_t)127); }
static inline void* shared(const void* place, size_t bytes) {
    auto& memory = here->shared[place];
    if (!memory) {
        memory.reset(new char[bytes + 128]);
        memset(memory.get(), 0xff, bytes + 128);
    }
    return aligned(memory);
}
static inline unsigned lane() { return here->current % 32; }

// Deposits n bytes, waits until every lane of the mask has, and shows all of them.
template <size_t n> static const unsigned char (*exchange(uint32_t mask, const void* bytes))[64] {
    Fiber& fiber = me();
    Warp& warp = here->warps[here->current / 32];
    if (!(mask >> lane() & 1)) fault("a lane outside its own mask");
    if (warp.arrived && warp.mask != mask) fault("lanes with different masks");
    const unsigned buffer = warp.generation & 1;
    memcpy(warp.bytes[buffer][lane()], bytes, n);
    warp.mask = mask;
    warp.arrived |= 1u << lane();
    fiber.generation = warp.generation;
    if (warp.arrived == mask) {
        warp.arrived = 0;
        warp.generation++;
    } else {
        pause(State::Warp);
    }
    return warp.bytes[buffer];
}
template <class T> static inline T shuffle(uint32_t mask, T value, unsigned from) {
    auto all = exchange<sizeof value>(mask, &value);
    if (!(mask >> (from & 31) & 1)) fault("a shuffle from a lane outside the mask");
    memcpy(&value, all[from & 31], sizeof value);
    return value;
}

// Runs thread i until it waits; whether it ran at all.
static bool step(Block& block, unsigned i) {
    Fiber& fiber = block.fibers[i];
    if (fiber.state == State::Warp && block.warps[i / 32].generation != fiber.generation) fiber.state = State::Ready;
    if (fiber.state != State::Ready) return false;
    block.current = i;
    twin_switch(&block.scheduler, fiber.stack_pointer);
    return true;
}

static const char* run_block(Block& block, Random& random, uint64_t seed) {
    const unsigned n = block.threads, warps = (n + 31) / 32;
    for (unsigned i = 0; i < n; i++) {
        Fiber& fiber = block.fibers[i];
        fiber.state = State::Ready;
        fiber.committed.clear();
        fiber.open.clear();
        void** top = block.stacks.top(i);
        *--top = nullptr;
        *--top = (void*)enter;
        for (int k = 0; k < 6; k++) *--top = nullptr;
        fiber.stack_pointer = top;
    }
    std::vector<unsigned> order(seed % 3 == 2 ? warps : n);
    for (unsigned i = 0; i < order.size(); i++) order[i] = i;
    for (;;) {
        bool progress = false;
        if (seed % 3 != 0) random.shuffle(order);
        for (unsigned i : order) {
            if (seed % 3 != 2) {
                progress |= step(block, i);
                continue;
            }
            for (bool any = true; any;) { // the whole warp, as far as it goes
                any = false;
                for (unsigned thread = 32 * i; thread < std::min(n, 32 * i + 32); thread++) any |= step(block, thread);
                progress |= any;
            }
        }
        unsigned done = 0, waiting = 0;
        for (unsigned i = 0; i < n; i++) {
            done += block.fibers[i].state == State::Done;
            waiting += block.fibers[i].state == State::Barrier;
        }
        if (block.fault) return block.fault;
        if (done == n) return nullptr;
        if (waiting == n) {
            for (unsigned i = 0; i < n; i++) block.fibers[i].state = State::Ready;
        } else if (!progress) {
            return waiting ? "a barrier that not every thread reaches" : "lanes that wait for others that never come";
        }
    }
}

// Blocks first .. last of a launch, in order; what went wrong, or null.
static const char* run_blocks(const Launch& launch, void (*body)(const void*), const void* params, uint64_t first, uint64_t last) {
    // Stacks are used again; not by way of the thread's storage, of which there is little (see `here`).
    static std::mutex mutex;
    static std::vector<std::unique_ptr<Block>> idle;
    std::unique_ptr<Block> owned;
    {
        std::lock_guard<std::mutex> lock(mutex);
        if (!idle.empty()) owned = std::move(idle.back()), idle.pop_back();
    }
    if (!owned) owned.reset(new Block());
    Block& block = *owned;
    here = &block;
    block.threads = launch.threads;
    block.grid = {launch.grid[0], launch.grid[1], launch.grid[2]};
    block.body = body;
    block.params = params;
    block.fault = nullptr;
    block.eager = launch.seed % 2;
    if (block.fibers.size() < launch.threads) block.fibers.resize(launch.threads);
    if (block.warps.size() < (launch.threads + 31) / 32) block.warps.resize((launch.threads + 31) / 32);
    block.stacks.grow(launch.threads);
    if (block.dynamic_bytes < launch.shared) block.dynamic.reset(new char[launch.shared + 128]), block.dynamic_bytes = launch.shared;
    Random random(launch.seed + (first << 32));
    const char* fault = nullptr;
    for (uint64_t i = first; i < last && !fault; i++) {
        const uint64_t x = launch.grid[0], y = launch.grid[1];
        block.block = {(unsigned)(i % x), (unsigned)(i / x % y), (unsigned)(i / x / y)};
        block.shared.clear();
        if (block.dynamic) memset(block.dynamic.get(), 0xff, block.dynamic_bytes + 128);
        for (Warp& warp : block.warps) warp.arrived = warp.mask = warp.generation = 0;
        fault = run_block(block, random, launch.seed);
    }
    std::lock_guard<std::mutex> lock(mutex);
    idle.push_back(std::move(owned));
    return fault;
}

// A launch; what went wrong, or null. Many blocks are shared out among threads of the system, for a kernel may not count on an order of blocks.
static const char* run(const Launch& launch, void (*body)(const void*), const void* params) {
    const uint64_t blocks = (uint64_t)launch.grid[0] * launch.grid[1] * launch.grid[2];
    const uint64_t shares = std::max<uint64_t>(1, std::min<uint64_t>(std::thread::hardware_concurrency(), blocks / 64));
    std::vector<const char*> faults(shares, nullptr);
    std::vector<std::thread> others;
    auto share = [&](uint64_t i) { faults[i] = run_blocks(launch, body, params, blocks * i / shares, blocks * (i + 1) / shares); };
    for (uint64_t i = 1; i < shares; i++) others.emplace_back(share, i);
    share(0);
    for (std::thread& other : others) other.join();
    for (const char* fault : faults)
        if (fault) return fault;
    return nullptr;
}
} // namespace twin

#define KERNEL(name, Params, most_threads, ...)                                                                                  \
    static void name##_body(const Params& p);                                                                                    \
    extern "C" __attribute__((visibility("default"))) const size_t twin_params_##name = sizeof(Params);                          \
    extern "C" __attribute__((visibility("default"))) const char* twin_kernel_##name(const twin::Launch* launch, const void* p) { \
        if (launch->threads > most_threads) return "more threads than the kernel is compiled for";                               \
        return twin::run(*launch, [](const void* p) { name##_body(*(const Params*)p); }, p);                                     \
    }                                                                                                                            \
    static void name##_body(const Params& p)
#define SHARED(T, name, n)             \
    static const char name##_place = 0; \
    T* const name = (T*)twin::shared(&name##_place, sizeof(T) * (n))
#define DYNAMIC_SHARED(name) unsigned char* const name = (unsigned char*)twin::aligned(twin::here->dynamic)

#define threadIdx (twin::Index{twin::here->current, 0, 0})
#define blockIdx (twin::here->block)
#define blockDim (twin::Index{twin::here->threads, 1, 1})
#define gridDim (twin::here->grid)
static inline void __syncthreads() { twin::pause(twin::State::Barrier); }
static inline void __syncwarp(u32 mask = 0xffffffffu) {
    const char nothing = 0;
    twin::exchange<1>(mask, &nothing);
}
template <class T> static inline T __shfl_xor_sync(u32 mask, T value, int other) { return twin::shuffle(mask, value, twin::lane() ^ other); }
template <class T> static inline T __shfl_sync(u32 mask, T value, int from) { return twin::shuffle(mask, value, from); }

static inline float __uint_as_float(u32 bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
static inline u32 __float_as_uint(float x) {
    u32 bits;
    memcpy(&bits, &x, 4);
    return bits;
}
static inline u32 __umulhi(u32 a, u32 b) { return (u64)a * b >> 32; }
static inline u32 min(u32 a, u32 b) { return a < b ? a : b; }
static inline u32 max(u32 a, u32 b) { return a > b ? a : b; }

// Conversions, rounded to nearest even.
static inline u16 bf16_bits(float x) {
    const u32 bits = __float_as_uint(x);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
static inline float f16_value(u16 bits) {
    const u32 sign = (u32)(bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 1023;
    if (exponent == 31) return __uint_as_float(sign | 0x7f800000 | fraction << 13);
    if (exponent != 0) return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13);
    return __uint_as_float(sign | __float_as_uint((float)fraction * 0x1p-24f));
}
static inline u16 f16_bits(float x) {
    const u32 bits = __float_as_uint(x), size = bits & 0x7fffffff;
    const u16 sign = bits >> 16 & 0x8000;
    if (size > 0x7f800000) return 0x7fff;
    if (size >= 0x477ff000) return sign | 0x7c00; // from the tie above the largest on
    if (size < 0x38800000) return sign | (u16)nearbyintf(ldexpf(__uint_as_float(size), 24));
    const u32 rounded = size + 0xfff + (size >> 13 & 1);
    return sign | (u16)((rounded >> 13) - (112 << 10));
}
