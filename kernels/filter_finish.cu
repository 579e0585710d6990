// Finishes rows that filter_split has filtered, with one block per row.
#include "filter.cuh"

extern "C" __global__ void __launch_bounds__(512, 1) filter_finish(const __grid_constant__ FilterParams p) {
    Filter& filter = *reinterpret_cast<Filter*>(dynamic_shared());
    const u64 row = blockIdx.x;
    const RowCut cut = whole_row(p, row);
    const u64 kept = load(p.counts + row * 2);
    for (u64 slot = threadIdx.x; slot < kept && slot < u64(p.capacity); slot += blockDim.x)
        filter.survivors()[slot] = load_pair(p.survivors, row * u64(p.capacity) + slot);
    if (threadIdx.x == 0) {
        filter.kept = kept;
        filter.above = load(p.counts + row * 2 + 1);
    }
    __syncthreads();
    finish_row(p, row, cut.row_x, cut.source, load(p.thresholds + row), filter);
}
