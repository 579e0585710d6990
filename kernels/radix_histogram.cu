// Adds the digits of a block's part of a row to the row's histogram of this pass.
#include "radix_split.cuh"

extern "C" __global__ void __launch_bounds__(512, 1) radix_histogram(const __grid_constant__ SplitParams p) {
    Scratch& scratch = *reinterpret_cast<Scratch*>(dynamic_shared());
    const Part part(p);
    const int pass = int(p.pass);
    const Cut cut = known(p, part, pass, scratch);
    if (cut.done) return;
    count_digits(part.source, part.begin, part.end, cut, pass, scratch);
    Count* histogram = p.histograms + (part.cut_row * PASSES + u64(pass)) * BINS;
    for (u32 bin = threadIdx.x; bin < BINS; bin += blockDim.x)
        if (scratch.histogram[bin]) add_global(histogram + bin, scratch.histogram[bin]);
}
