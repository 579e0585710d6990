// Selects from rows by filter, in one launch. A row may be split over blocks: each filters its part, and the one that
// comes last finishes the row. A row that fits shared memory is read once (SOURCE 3), by one block.
#include "filter.cuh"

extern "C" __global__ void __launch_bounds__(512, 1) filter_row(const __grid_constant__ FilterParams p) {
    Filter& filter = *reinterpret_cast<Filter*>(dynamic_shared());
    u64 partition;
    const u64 row = divide(blockIdx.x, u64(p.partitions), partition);
    const Row found = find_row(p.rows, row);
    Source source = cut_row(p.rows, found, 0, 1, true, p.result.coding);
#if SOURCE == 3
    source.copy = reinterpret_cast<Element*>(dynamic_shared() + p.copy);
    source.bring();
#endif
    const Key threshold = find_threshold(p, source, filter);
    const u64 begin = partition * u64(p.partition_entries);
    const u64 end = begin + u64(p.partition_entries);
    keep_survivors(source, begin, end < source.positions ? end : source.positions, threshold, u64(p.capacity), filter);
    __syncthreads();
    if (p.partitions > 1 && !gather_survivors(p, row, filter)) return;
    finish_row(p, row, found.base, source, threshold, filter);
}
