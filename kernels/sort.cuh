// Ordering of entries, best first, within a block.
#pragma once
#include "block.cuh"
#include "rows.cuh"

// Sorts `size` entries of shared memory (a power of two) by a bitonic network. The caller has synchronised.
__device__ __forceinline__ void block_sort(Entry* entries, u32 size) {
#pragma unroll 1
    for (u32 run = 2; run <= size; run *= 2) {
#pragma unroll 1
        for (u32 distance = run / 2; distance > 0; distance /= 2) {
#pragma unroll 1
            for (u32 pair = threadIdx.x; pair < size / 2; pair += blockDim.x) {
                const u32 low = 2 * pair - (pair & (distance - 1));
                const u32 high = low + distance;
                const Entry a = entries[low], b = entries[high];
                const bool best_first = (low & run) == 0;
                if (better(b, a) == best_first) {
                    entries[low] = b;
                    entries[high] = a;
                }
            }
            __syncthreads();
        }
    }
}
