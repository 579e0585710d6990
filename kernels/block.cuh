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

// The smallest power of two that is at least `value` (value >= 1).
__device__ __forceinline__ u32 next_power_of_two(u32 value) { return value <= 1 ? 1 : 2u << (31 - __clz(value - 1)); }
