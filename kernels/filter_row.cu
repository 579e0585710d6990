// Selects from rows by filter with one block per row, in one launch.
#include "filter.cuh"

extern "C" __global__ void __launch_bounds__(512, 1) filter_row(const __grid_constant__ FilterParams p) {
    Filter& filter = *reinterpret_cast<Filter*>(dynamic_shared());
    const u64 row = blockIdx.x;
    const RowCut cut = whole_row(p, row);
    const Key threshold = sample_threshold(cut.source, u64(p.sample), u64(p.rank), filter);
    keep_survivors(cut.source, 0, cut.source.positions, threshold, u64(p.capacity), filter);
    __syncthreads();
    finish_row(p, row, cut.row_x, cut.source, threshold, filter);
}
