// The best, or the worst, entry that the threads of a block have.
#pragma once
#include "block.cuh"
#include "rows.cuh"

// No entry is worse than EMPTY, none better than this.
constexpr Entry UNBEATEN = {~Key(0), 0};

template <bool BEST>
__device__ __forceinline__ Entry chosen(const Entry& a, const Entry& b) {
    return better(a, b) == BEST ? a : b;
}

// Of all threads' entries the best (or worst), in every thread. `shared` holds 32 entries, free again when this
// returns; every thread of the block must call.
template <bool BEST>
__device__ __forceinline__ Entry block_extreme(Entry mine, Entry* shared) {
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
#pragma unroll 1
    for (u32 d = WARP / 2; d > 0; d /= 2) {
        const Entry other = {__shfl_xor_sync(ALL_LANES, mine.key, int(d)),
                             __shfl_xor_sync(ALL_LANES, mine.index, int(d))};
        mine = chosen<BEST>(mine, other);
    }
    if (lane == 0) shared[warp] = mine;
    __syncthreads();
    mine = shared[0];
#pragma unroll 1
    for (u32 w = 1; w < warps; ++w) mine = chosen<BEST>(mine, shared[w]);
    __syncthreads();
    return mine;
}
