// Pieces that a whole block runs together; every thread of the block must call them.
#pragma once
#include "intrinsics.cuh"

// Sum of `value` over the threads before this one; `total` is the sum over all. `shared` holds 32 elements,
// free again when this returns.
template <class T>
__device__ __forceinline__ T block_exclusive_sum(T value, T& total, T* shared) {
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    T sum = value;
#pragma unroll
    for (u32 d = 1; d < WARP; d *= 2) {
        T before = __shfl_up_sync(ALL_LANES, sum, d);
        if (lane >= d) sum += before;
    }
    if (lane == WARP - 1) shared[warp] = sum;
    __syncthreads();
    T base = 0;
    total = 0;
#pragma unroll 1
    for (u32 w = 0; w < warps; ++w) {
        T part = shared[w];
        if (w < warp) base += part;
        total += part;
    }
    __syncthreads();
    return base + sum - value;
}

// Whether this block is the last of `blocks` that come here: it then sees what the others wrote before they came, by
// load_fresh, and the counter is zero again. No block waits for another. `shared` is one element.
__device__ __forceinline__ bool comes_last(u32* counter, u32 blocks, u32* shared) {
    // Every thread's writes come before the counting.
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        const u32 before = add_global(counter, 1u);
        if (before == blocks - 1) store(counter, 0u);
        *shared = before;
    }
    __syncthreads();
    const bool last = *shared == blocks - 1;
    __threadfence();
    __syncthreads();
    return last;
}

// The smallest power of two that is at least `value` (value >= 1).
__device__ __forceinline__ u32 next_power_of_two(u32 value) { return value <= 1 ? 1 : 2u << (31 - __clz(value - 1)); }
