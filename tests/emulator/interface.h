// What a compiled kernel and the emulator's core (core.cpp) know of each other.
// Kept free of standard headers: every kernel variant includes it, and compile time is what CI waits for.
#pragma once

namespace emulator {

struct Index {
    unsigned x, y, z;
};

// The running thread's coordinates. Plain globals: only one OS thread is ever inside a launch, and the core
// rewrites threadIdx at every switch. Calls into the core are opaque, so the compiler reloads them afterwards.
extern Index threadIdx, blockIdx, blockDim, gridDim;

// Where a thread may wait. The order is that of `wait_names` in core.cpp.
enum class Wait : int {
    none,
    syncthreads,
    syncthreads_count,
    syncthreads_and,
    syncthreads_or,
    syncwarp,
    shfl,
    shfl_up,
    shfl_down,
    shfl_xor,
    ballot,
    any,
    all,
    match_any,
    reduce_add,
    reduce_max,
    reduce_max_signed,
    reduce_min,
    reduce_min_signed,
    reduce_and,
    reduce_or,
    reduce_xor,
    kinds
};

// Waits for every thread of the block; returns how many passed a non-zero `predicate`.
unsigned wait_for_block(Wait kind, bool predicate, int line);

// Waits for the lanes of `mask` and returns this lane's result. `source` is the lane a shuffle reads.
unsigned long long wait_for_warp(Wait kind, unsigned mask, unsigned long long value, unsigned source, int line);

// Start of the block's dynamic shared memory, aligned to 128 bytes.
unsigned char* dynamic_shared();

// Every global access passes here first: bytes are counted, alignment and (when registered) ranges checked.
void count_load(const void* address, unsigned long bytes);
void count_store(const void* address, unsigned long bytes);

// Called before every atomic operation: checks the address, and now and then lets another thread go first.
void before_atomic(const void* address, unsigned long bytes);

// Lets another thread of the block run.
void yield();

[[noreturn]] void broken_assumption(const char* condition, int line);

}  // namespace emulator
