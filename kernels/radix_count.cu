// Counts, when all digits are known, what a block's part of a row has of the answer.
#include "radix_split.cuh"

extern "C" __global__ void __launch_bounds__(512, 1) radix_count(const __grid_constant__ SplitParams p) {
    Scratch& scratch = *reinterpret_cast<Scratch*>(dynamic_shared());
    const Part part(p);
    const Cut cut = known(p, part, PASSES, scratch);
    u64 sure = 0, maybe = 0;
    for (u64 position = part.begin + u64(threadIdx.x) * VECTOR; position < part.end;
         position += u64(blockDim.x) * VECTOR) {
        Key key[VECTOR];
        u32 sure_bits, maybe_bits;
        take_sides(part.source, position, cut, key, sure_bits, maybe_bits);
        sure += __popc(sure_bits);
        maybe += __popc(maybe_bits);
    }
    u64 sures, maybes;
    block_exclusive_sum(sure, sures, scratch.sums);
    block_exclusive_sum(maybe, maybes, scratch.sums);
    if (threadIdx.x == 0) {
        Count* counts = p.counts + part.cut_row * 2 * u64(p.partitions) + part.partition;
        store(counts, Count(sures));
        store(counts + p.partitions, Count(maybes));
    }
}
