// Sorts the tiles of a row, each in a block's shared memory.
#include "order.cuh"

extern "C" __global__ void __launch_bounds__(512) order_tiles(const __grid_constant__ OrderParams p) {
    Entry* entries = reinterpret_cast<Entry*>(dynamic_shared());
    const Tile tile(p);
    const Element* row_base = find_row(p.rows, tile.row).base;
    const u32 count = u32(tile.end - tile.begin);
    const u32 size = next_power_of_two(count);
    for (u32 i = threadIdx.x; i < size; i += blockDim.x)
        entries[i] = i < count ? load_pair(p.from, tile.row * u64(p.k) + tile.begin + i) : EMPTY;
    __syncthreads();
    block_sort(entries, size);
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) put(p, tile.row, row_base, tile.begin + i, entries[i]);
}
