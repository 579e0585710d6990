// Stable radix sort of items in shared memory, by a whole block: for lists that a bitonic network takes too long for.
#pragma once
#include "block.cuh"

constexpr int SORT_BITS = 8;
constexpr u32 SORT_BINS = 1u << SORT_BITS;

// Sorts `count` items by `passes` digits, digit(item, pass) from the least to the most significant, greatest first;
// equal ones stay in order. Items move between `items` and `spare`; the sorted ones are returned. `counts` holds
// SORT_BINS numbers for every warp, `sums` 32. The caller has synchronised, and may read at once.
template <class Item, class Digit>
__device__ __forceinline__ Item* block_radix_sort(Item* items, Item* spare, u32 count, int passes, u32* counts,
                                                  u32* sums, Digit digit) {
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    // Every warp has a stretch of whole rounds of 32 items.
    const u32 stretch = (count + warps * WARP - 1) / (warps * WARP) * WARP;
    const u32 begin = warp * stretch < count ? warp * stretch : count;
    const u32 end = begin + stretch < count ? begin + stretch : count;
    u32* own = counts + warp * SORT_BINS;
#pragma unroll 1
    for (int pass = 0; pass < passes; ++pass) {
        auto bin_of = [&](const Item& item) { return (SORT_BINS - 1) ^ (digit(item, pass) & (SORT_BINS - 1)); };
        for (u32 bin = lane; bin < SORT_BINS; bin += WARP) own[bin] = 0;
        __syncwarp();
        for (u32 i = begin + lane; i < end; i += WARP) atomicAdd(own + bin_of(items[i]), 1u);
        __syncthreads();
        // Where the first item of each bin and warp goes: bin by bin, warp by warp within.
        u32 before = 0;
#pragma unroll 1
        for (u32 first = 0; first < SORT_BINS; first += blockDim.x) {
            const u32 bin = first + threadIdx.x;
            u32 inside = 0;
            if (bin < SORT_BINS)
                for (u32 w = 0; w < warps; ++w) inside += counts[w * SORT_BINS + bin];
            u32 total;
            u32 at = before + block_exclusive_sum(inside, total, sums);
            before += total;
            if (bin < SORT_BINS)
                for (u32 w = 0; w < warps; ++w) {
                    const u32 here = counts[w * SORT_BINS + bin];
                    counts[w * SORT_BINS + bin] = at;
                    at += here;
                }
        }
        __syncthreads();
#pragma unroll 1
        for (u32 start = begin; start < end; start += WARP) {
            const bool there = start + lane < end;
            const Item item = items[there ? start + lane : start];
            // Lanes without an item form a bin of their own.
            const u32 bin = there ? bin_of(item) : SORT_BINS;
            const u32 peers = __match_any_sync(ALL_LANES, bin);
            const u32 rank = __popc(peers & ((1u << lane) - 1));
            const u32 base = there ? own[bin] : 0;
            __syncwarp();
            if (there && rank == 0) own[bin] = base + __popc(peers);
            __syncwarp();
            if (there) spare[base + rank] = item;
        }
        __syncthreads();
        Item* other = items;
        items = spare;
        spare = other;
    }
    return items;
}
