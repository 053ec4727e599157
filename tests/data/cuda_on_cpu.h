// Enough of CUDA to run a kernel's own source on a CPU, for tests. Blocks run one after another. A thread is a fiber,
// which runs until it waits for others: all threads of a block must wait at the same places, or the process aborts.
#pragma once
#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __global__
#define __device__ static
#define __shared__
#define __launch_bounds__(...)

struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
struct uint3 { unsigned x, y, z; };
using std::max;
using std::min;

static uint3 threadIdx, blockIdx, gridDim;
extern "C" float4 memory[16384]; // shared memory
float4 memory[16384];

constexpr int MOST = 1024, STACK = 1 << 16;
static ucontext_t fibers[MOST];
static jmp_buf scheduler, here[MOST]; // a jump costs no call of the kernel, as a change of contexts would
static char stacks[MOST][STACK];
static bool ended[MOST];
static long long waits[MOST];
static float exchanged[2][MOST];
static int current;

static void wait() {
    ++waits[current];
    if (!_setjmp(here[current])) _longjmp(scheduler, 1);
}

static void __syncthreads() { wait(); }
static void __threadfence() {}

template <class T> static T atomicAdd(T *at, T value) {
    const T old = *at;
    *at += value;
    return old;
}

static float shuffled(float value, int lane, int from) {
    float *slots = exchanged[waits[current] % 2];
    slots[current] = value;
    wait();
    return from < 0 || from > 31 ? value : slots[current - lane + from];
}
static float __shfl_up_sync(unsigned, float value, int apart) {
    return shuffled(value, threadIdx.x % 32, static_cast<int>(threadIdx.x % 32) - apart);
}
static float __shfl_down_sync(unsigned, float value, int apart) {
    return shuffled(value, threadIdx.x % 32, static_cast<int>(threadIdx.x % 32) + apart);
}

template <class... A> struct Call {
    static void (*kernel)(A...);
    static void **arguments;
    template <size_t... I> static void unpacked(std::index_sequence<I...>) {
        kernel(*static_cast<std::remove_reference_t<A> *>(arguments[I])...);
    }
    static void body() {
        unpacked(std::index_sequence_for<A...>{});
        ended[current] = true;
        _longjmp(scheduler, 1);
    }
};
template <class... A> void (*Call<A...>::kernel)(A...);
template <class... A> void **Call<A...>::arguments;

static void run_block(int threads, void (*body)()) {
    for (int t = 0; t < threads; ++t) {
        getcontext(&fibers[t]);
        fibers[t].uc_stack.ss_sp = stacks[t], fibers[t].uc_stack.ss_size = STACK, fibers[t].uc_link = nullptr;
        ended[t] = false, waits[t] = 0;
        makecontext(&fibers[t], body, 0);
    }
    static bool running; // of no fiber's stack, and in no register that a jump restores
    for (running = true; running;) {
        running = false;
        for (volatile int t = 0; t < threads; t = t + 1) {
            if (ended[t]) continue;
            current = t, threadIdx = {static_cast<unsigned>(t), 0, 0};
            if (!_setjmp(scheduler)) {
                if (waits[t]) _longjmp(here[t], 1);
                setcontext(&fibers[t]);
            }
            running = running || !ended[t];
        }
        for (int t = 1; t < threads; ++t)
            if (ended[t] != ended[0] || waits[t] != waits[0]) std::fputs("threads of a block part\n", stderr), std::abort();
    }
}

template <class... A>
static void on_grid(void (*kernel)(A...), uint3 grid, int threads, void **arguments) {
    Call<A...>::kernel = kernel, Call<A...>::arguments = arguments;
    gridDim = grid;
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x; ++x) {
                blockIdx = {x, y, z};
                run_block(threads, &Call<A...>::body);
            }
}
