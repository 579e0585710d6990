// Finishes rows that filter_split has filtered, with one block per row.
#include "filter.cuh"

extern "C" __global__ void __launch_bounds__(512, 1) filter_finish(const __grid_constant__ FilterParams p) {
    Filter& filter = *reinterpret_cast<Filter*>(dynamic_shared());
    const u64 row = blockIdx.x;
    const RowCut cut = whole_row(p, row);
    u64 all = 0, above = 0;
    for (u64 first = 0; first < u64(p.partitions); first += blockDim.x) {
        const u64 partition = first + threadIdx.x;
        const u64 segment = row * u64(p.partitions) + partition;
        u64 kept = 0, kept_above = 0, total, total_above;
        if (partition < u64(p.partitions)) {
            kept = load(p.counts + segment * 2);
            kept_above = load(p.counts + segment * 2 + 1);
        }
        const u64 base = all + block_exclusive_sum(kept, total, filter.scratch.sums);
        block_exclusive_sum(kept_above, total_above, filter.scratch.sums);
        for (u64 slot = 0; slot < kept && base + slot < u64(p.capacity); ++slot)
            filter.survivors()[base + slot] = load_pair(p.survivors, segment * u64(p.capacity) + slot);
        all += total;
        above += total_above;
    }
    if (threadIdx.x == 0) {
        filter.kept = all;
        filter.above = above;
    }
    __syncthreads();
    finish_row(p, row, cut.row_x, cut.source, load(p.thresholds + row), filter);
}
