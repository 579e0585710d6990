// Counts, when all digits are known, what a block's part of a row has of the answer.
#include "radix_split.cuh"

extern "C" __global__ void __launch_bounds__(512, 1) radix_count(const __grid_constant__ SplitParams p) {
    Scratch& scratch = *reinterpret_cast<Scratch*>(dynamic_shared());
    const Part part(p);
    const Cut cut = known(p, part, PASSES, scratch);
    u64 sure = 0, maybe = 0;
    auto count_all = [&] {
        for (u64 position = part.begin + u64(threadIdx.x) * READ; position < part.end;
             position += u64(blockDim.x) * READ) {
            Key key[READ];
            u32 sure_bits, maybe_bits;
            take_sides(part.source, position, cut, key, sure_bits, maybe_bits);
            sure += __popc(sure_bits);
            maybe += __popc(maybe_bits);
        }
    };
#if FROM_X
    const List list(p, part);
    if (list.complete(p, part)) {
        const u64 count = load(list.counts);
        for (u64 i = threadIdx.x; i < count; i += blockDim.x) {
            const int side = cut.side(load(list.keys + i), part.source, 0);
            sure += side == 1;
            maybe += side == 0;
        }
        if (threadIdx.x == 0) sure += load(list.counts + 1);
    } else {
        count_all();
    }
#else
    count_all();
#endif
    u64 sures, maybes;
    block_exclusive_sum(sure, sures, scratch.sums);
    block_exclusive_sum(maybe, maybes, scratch.sums);
    if (threadIdx.x == 0) {
        Count* counts = p.counts + part.which * 2 * u64(p.partitions) + part.partition;
        store(counts, Count(sures));
        store(counts + p.partitions, Count(maybes));
    }
}
