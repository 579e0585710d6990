// Exact selection with several blocks per row: a launch per digit that adds up histograms, one that counts what
// every block will take, one that takes it. No block waits for another; each finds out by itself, from the
// histogram that the launch before left, what the next digit is.
//
// As in radix_row, a row may be cut to its buckets: a "cut row" below is a row or one of its buckets.
#include "radix.cuh"

struct SplitParams {
    const Element* x;
    Batch batch;
    i64 n, axis_stride;
    Pairs candidates;       // PAIRS: n of them per row
    i64 buckets;            // 1: whole rows
    i64 interleaved;
    i64 partitions;         // blocks of a cut row
    i64 partition_entries;  // a multiple of VECTOR x threads of a block
    i64 k;                  // entries to take per bucket, or all if there are fewer
    i64 pass;               // radix_histogram: which
    Count* histograms;      // (cut row, pass, BINS), zero at first
    Cut* cuts;              // (cut row, pass): what is known after each pass
    Count* counts;          // (cut row, 2, partition): sure, maybe
    Result result;
    Pairs pairs;
};

struct Part {
    u64 row, bucket, cut_row, partition, begin, end, k;
    const Element* row_x;
    Source source;

    __device__ __forceinline__ explicit Part(const SplitParams& p) {
        cut_row = divide(blockIdx.x, u64(p.partitions), partition);
        row = divide(cut_row, u64(p.buckets), bucket);
#if PAIRS
        row_x = p.x + row_offset(p.batch, row);
        source = {u64(p.n), p.candidates, row * u64(p.n)};
        const u64 length = u64(p.n);
#else
        const RowCut cut(p.x, p.batch, row, bucket, u64(p.n), u64(p.buckets), p.interleaved != 0, p.axis_stride,
                         p.result.coding);
        row_x = cut.row_x;
        source = cut.source;
        const u64 length = source.positions - source.shift;
#endif
        k = u64(p.k) < length ? u64(p.k) : length;
        begin = partition * u64(p.partition_entries);
        end = begin + u64(p.partition_entries);
        if (begin > source.positions) begin = source.positions;
        if (end > source.positions) end = source.positions;
    }
};

__device__ __forceinline__ Cut load_cut(const Cut* from) {
    Cut cut;
    for (u32 w = 0; w < sizeof(Cut) / sizeof(u64); ++w)
        reinterpret_cast<u64*>(&cut)[w] = load(reinterpret_cast<const u64*>(from) + w);
    return cut;
}

__device__ __forceinline__ void store_cut(Cut* to, const Cut& cut) {
    for (u32 w = 0; w < sizeof(Cut) / sizeof(u64); ++w)
        store(reinterpret_cast<u64*>(to) + w, reinterpret_cast<const u64*>(&cut)[w]);
}

// What is known before pass `pass` (PASSES: after the last), worked out by every block of the row from the
// histogram of the pass before, and left in memory by the first for the next launch.
__device__ __forceinline__ Cut known(const SplitParams& p, const Part& part, int pass, Scratch& scratch) {
    if (pass == 0) return Cut::whole(part.k);
    Cut* cuts = p.cuts + part.cut_row * PASSES;
    Cut cut = pass == 1 ? Cut::whole(part.k) : load_cut(cuts + pass - 2);
    if (!cut.done) {
        const Count* histogram = p.histograms + (part.cut_row * PASSES + u64(pass - 1)) * BINS;
        for (u32 bin = threadIdx.x; bin < BINS; bin += blockDim.x) scratch.histogram[bin] = load(histogram + bin);
        __syncthreads();
        cut = narrow(cut, pass - 1, scratch);
    }
    if (part.partition == 0 && threadIdx.x == 0) store_cut(cuts + pass - 1, cut);
    return cut;
}

extern "C" __global__ void __launch_bounds__(512, 1) radix_histogram(const __grid_constant__ SplitParams p) {
    Scratch& scratch = *reinterpret_cast<Scratch*>(dynamic_shared());
    const Part part(p);
    const int pass = int(p.pass);
    const Cut cut = known(p, part, pass, scratch);
    if (cut.done) return;
    count_all_digits(part.source, part.begin, part.end, cut, pass, scratch);
    Count* histogram = p.histograms + (part.cut_row * PASSES + u64(pass)) * BINS;
    for (u32 bin = threadIdx.x; bin < BINS; bin += blockDim.x)
        if (scratch.histogram[bin]) add_global(histogram + bin, scratch.histogram[bin]);
}

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
        if (p.result.values)
            emit(p.result, part.row, part.bucket * u64(p.k) + slot, entry, part.row_x, p.axis_stride);
        else store_pair(p.pairs, base + slot, entry);
    });
}
