// What the launches of an exact selection with several blocks per row share: one per digit adds up histograms
// (radix_histogram), one counts what every block will take (radix_count), one takes it (radix_scatter). No block waits
// for another; each finds out by itself, from the histogram that the launch before left, what the next digit is.
//
// As in radix_row, a row may be cut to its buckets: a "cut row" below is a row or one of its buckets.
#pragma once
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
