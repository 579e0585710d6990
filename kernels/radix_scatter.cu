// Takes what a block's part of a row has of the answer, behind what the parts before it have.
#include "radix_split.cuh"

extern "C" __global__ void __launch_bounds__(512, 1) radix_scatter(const __grid_constant__ SplitParams p) {
    Scratch& scratch = *reinterpret_cast<Scratch*>(dynamic_shared());
    const Part part(p);
    const Cut cut = load_cut(p.cuts + part.which * PASSES + PASSES - 1);

    const Count* counts = p.counts + part.which * 2 * u64(p.partitions);
    u64 sure = 0, maybe = 0;
    for (u64 earlier = threadIdx.x; earlier < part.partition; earlier += blockDim.x) {
        sure += load(counts + earlier);
        maybe += load(counts + p.partitions + earlier);
    }
    Before before;
    block_exclusive_sum(sure, before.sure, scratch.sums);
    block_exclusive_sum(maybe, before.maybe, scratch.sums);

    auto put = [&](u64 slot, const Entry& entry) {
        if (p.result.values)
            emit(p.result, part.row, part.bucket * u64(p.k) + slot, entry, part.base, p.rows.axis_stride);
        else store_pair(p.pairs, part.which * u64(p.k) + slot, entry);
    };
    if (part.partition == 0)
        for (u64 slot = part.k + threadIdx.x; slot < u64(p.k); slot += blockDim.x) put(slot, EMPTY);
    // Zero again for the next run; nothing in this launch reads them.
    Count* histograms = p.histograms + part.which * PASSES * BINS;
    for (u64 bin = part.partition * blockDim.x + threadIdx.x; bin < u64(PASSES) * BINS;
         bin += u64(p.partitions) * blockDim.x)
        store(histograms + bin, Count(0));
    select_entries(part.source, part.begin, part.end, cut, before, part.k, scratch, put);
}
