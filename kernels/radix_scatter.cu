// Takes what a block's part of a row has of the answer, behind what the parts before it have.
#include "radix_split.cuh"

extern "C" __global__ void __launch_bounds__(512, 1) radix_scatter(const __grid_constant__ SplitParams p) {
    Scratch& scratch = *reinterpret_cast<Scratch*>(dynamic_shared());
    const Part part(p);
    const Cut cut = load_cut(p.cuts + part.cut_row * PASSES + PASSES - 1);

    const Count* counts = p.counts + part.cut_row * 2 * u64(p.partitions);
    u64 sure = 0, maybe = 0;
    for (u64 earlier = threadIdx.x; earlier < part.partition; earlier += blockDim.x) {
        sure += load(counts + earlier);
        maybe += load(counts + p.partitions + earlier);
    }
    Before before;
    block_exclusive_sum(sure, before.sure, scratch.sums);
    block_exclusive_sum(maybe, before.maybe, scratch.sums);

    const u64 base = part.cut_row * u64(p.k);
    if (!p.result.values && part.partition == 0)
        for (u64 slot = part.k + threadIdx.x; slot < u64(p.k); slot += blockDim.x)
            store_pair(p.pairs, base + slot, EMPTY);
    select_entries(part.source, part.begin, part.end, cut, before, part.k, scratch, [&](u64 slot, const Entry& entry) {
        if (p.result.values) emit(p.result, part.row, part.bucket * u64(p.k) + slot, entry, part.row_x, p.axis_stride);
        else store_pair(p.pairs, base + slot, entry);
    });
}
