// Merges neighbouring sorted runs of a row. Tiles of the output are independent: each finds by binary search which
// entries of the two runs it gets (the merge path of Green, McColl and Bader 2012).
#include "order.cuh"

// How many of the first `diagonal` entries of the merge of two sorted sequences come from the first.
template <class Read>
__device__ __forceinline__ u64 merge_path(u64 diagonal, u64 first_length, u64 second_length, Read first, Read second) {
    u64 low = diagonal > second_length ? diagonal - second_length : 0;
    u64 high = diagonal < first_length ? diagonal : first_length;
    while (low < high) {
        const u64 middle = (low + high) / 2;
        if (better(second(diagonal - 1 - middle), first(middle))) high = middle;
        else low = middle + 1;
    }
    return low;
}

struct ReadPairs {
    Pairs pairs;
    u64 base;
    __device__ __forceinline__ Entry operator()(u64 i) const { return load_pair(pairs, base + i); }
};

struct ReadShared {
    const Entry* entries;
    __device__ __forceinline__ Entry operator()(u64 i) const { return entries[i]; }
};

extern "C" __global__ void __launch_bounds__(512) order_merge(const __grid_constant__ OrderParams p) {
    u64* bounds = reinterpret_cast<u64*>(dynamic_shared());
    Entry* entries = reinterpret_cast<Entry*>(dynamic_shared() + 2 * sizeof(u64));
    const Tile tile(p);
    const Element* row_base = find_row(p.rows, tile.row).base;

    // The two runs that this tile of the output is cut from.
    const u64 run = u64(p.run);
    const u64 base = tile.begin & ~(2 * run - 1);
    const u64 left = u64(p.k) - base;
    const u64 first_length = left < run ? left : run;
    const u64 second_length = left - first_length < run ? left - first_length : run;
    const ReadPairs first = {p.from, tile.row * u64(p.k) + base};
    const ReadPairs second = {p.from, first.base + first_length};
    const u64 diagonal = tile.begin - base, next_diagonal = tile.end - base;
    if (threadIdx.x < 2)
        bounds[threadIdx.x] =
            merge_path(threadIdx.x ? next_diagonal : diagonal, first_length, second_length, first, second);
    __syncthreads();
    const u64 from_first = bounds[0], from_second = diagonal - from_first;
    const u32 firsts = u32(bounds[1] - from_first);
    const u32 count = u32(tile.end - tile.begin), seconds = count - firsts;
    for (u32 i = threadIdx.x; i < count; i += blockDim.x)
        entries[i] = i < firsts ? first(from_first + i) : second(from_second + i - firsts);
    __syncthreads();

    // Every thread merges a stretch of the tile.
    const u32 stretch = (count + blockDim.x - 1) / blockDim.x;
    const u32 begin = threadIdx.x * stretch;
    const u32 end = begin + stretch < count ? begin + stretch : count;
    if (begin >= end) return;
    const ReadShared a = {entries}, b = {entries + firsts};
    u32 i = u32(merge_path(begin, firsts, seconds, a, b));
    u32 j = begin - i;
    for (u32 slot = begin; slot < end; ++slot) {
        const bool take_first = j >= seconds || (i < firsts && better(a(i), b(j)));
        put(p, tile.row, row_base, tile.begin + slot, take_first ? a(i++) : b(j++));
    }
}
