// Adds the digits of a block's part of a row to the row's histogram of this pass.
#include "radix_split.cuh"

#if FROM_X
// The second pass: as count_digits, and lists the keys that were counted.
__device__ __forceinline__ void count_and_list(const Part& part, const List& list, const Cut& cut, Scratch& scratch) {
    const Digit digit(1);
    u32& slots = reinterpret_cast<u32&>(scratch.digit);
    if (threadIdx.x == 0) slots = 0;
    clear_digits(scratch);
    u64 above = 0;
    for (u64 position = part.begin + u64(threadIdx.x) * READ; position < part.end; position += u64(blockDim.x) * READ) {
        Key key[READ];
        const u32 there = part.source.read(position, key);
#pragma unroll
        for (int v = 0; v < READ; ++v) {
            const int side = there >> v & 1 ? cut.side(key[v], part.source, position + v) : -1;
            above += side == 1;
            if (side != 0) continue;
            atomicAdd(&scratch.histogram[digit(key[v], part.source, position + v)], Count(1));
            const u32 slot = atomicAdd(&slots, 1u);
            if (slot < list.capacity) store(list.keys + slot, key[v]);
        }
    }
    u64 all_above;
    block_exclusive_sum(above, all_above, scratch.sums);
    if (threadIdx.x == 0) {
        store(list.counts, Count(slots));
        store(list.counts + 1, Count(all_above));
    }
}

// A later pass: the digits of the listed keys.
__device__ __forceinline__ void count_listed(const Part& part, const List& list, const Cut& cut, int pass,
                                             Scratch& scratch) {
    const Digit digit(pass);
    clear_digits(scratch);
    const u64 count = load(list.counts);
    for (u64 i = threadIdx.x; i < count; i += blockDim.x) {
        const Key key = load(list.keys + i);
        if (cut.side(key, part.source, 0) == 0) atomicAdd(&scratch.histogram[digit(key, part.source, 0)], Count(1));
    }
    __syncthreads();
}
#endif

extern "C" __global__ void __launch_bounds__(512, 1) radix_histogram(const __grid_constant__ SplitParams p) {
    Scratch& scratch = *reinterpret_cast<Scratch*>(dynamic_shared());
    const Part part(p);
    const int pass = int(p.pass);
    const Cut cut = known(p, part, pass, scratch);
    if (cut.done) return;
#if FROM_X
    const List list(p, part);
    if (pass == 1 && list.capacity) count_and_list(part, list, cut, scratch);
    else if (pass > 1 && list.complete(p, part)) count_listed(part, list, cut, pass, scratch);
    else
#endif
        count_digits(part.source, part.begin, part.end, cut, pass, scratch);
    Count* histogram = p.histograms + (part.which * PASSES + u64(pass)) * BINS;
    for (u32 bin = threadIdx.x; bin < BINS; bin += blockDim.x)
        if (scratch.histogram[bin]) add_global(histogram + bin, scratch.histogram[bin]);
}
