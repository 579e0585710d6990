// Filters rows with several blocks each, which put their survivors into one list per row, in any order.
#include "filter.cuh"

extern "C" __global__ void __launch_bounds__(512, 1) filter_split(const __grid_constant__ FilterParams p) {
    Filter& filter = *reinterpret_cast<Filter*>(dynamic_shared());
    u64 partition;
    const u64 row = divide(blockIdx.x, u64(p.partitions), partition);
    const RowCut cut = whole_row(p, row);
    const Key threshold = sample_threshold(cut.source, u64(p.sample), u64(p.rank), filter);
    const u64 begin = partition * u64(p.partition_entries);
    const u64 end = begin + u64(p.partition_entries);
    keep_survivors(cut.source, begin, end < cut.source.positions ? end : cut.source.positions, threshold,
                   u64(p.capacity), filter);
    __syncthreads();
    const u64 kept = filter.kept;
    if (threadIdx.x == 0) {
        filter.scratch.sums[0] = add_global(p.counts + row * 2, Count(kept));
        add_global(p.counts + row * 2 + 1, Count(filter.above));
        if (partition == 0) store(p.thresholds + row, threshold);
    }
    __syncthreads();
    const u64 base = filter.scratch.sums[0];
    for (u64 slot = threadIdx.x; slot < kept && base + slot < u64(p.capacity); slot += blockDim.x)
        store_pair(p.survivors, row * u64(p.capacity) + base + slot, filter.survivors()[slot]);
}
