// What the launches of an exact selection with several blocks per row share: one per digit adds up histograms
// (radix_histogram), one counts what every block will take (radix_count), one takes it (radix_scatter). No block waits
// for another; each finds out by itself, from the histogram that the launch before left, what the next digit is.
//
// As in radix_row, a row may be cut to its buckets: a "cut row" below is a row or one of its buckets.
#pragma once
#include "radix.cuh"

struct SplitParams {
    Rows rows;
    Pairs candidates;       // SOURCE 1
    i64 per_row;            // candidates of a row
    i64 buckets;            // 1: whole rows
    i64 interleaved;
    i64 partitions;         // blocks of a cut row
    i64 partition_entries;  // a multiple of VECTOR x threads of a block
    i64 k;                  // entries to take per bucket, or all if there are fewer
    i64 pass;               // radix_histogram: which
    Count* histograms;      // (cut row, pass, BINS), zero before and after
    Cut* cuts;              // (cut row, pass): what is known after each pass
    Count* counts;          // (cut row, 2, partition): sure, maybe
    Key* lists;  // (cut row, partition, capacity): keys with the first digit, so that few blocks read their
                 // part of x again before the end
    Count* listed;  // (cut row, partition, 2): how many have it, and how many a greater one
    i64 capacity;  // 0: no lists
    Result result;
    Pairs pairs;
};

struct Part {
    u64 row, bucket, which, partition, begin, end, length, k;  // which: cut row
    const Element* base;
    Source source;

    __device__ __forceinline__ explicit Part(const SplitParams& p) {
        which = divide(blockIdx.x, u64(p.partitions), partition);
        row = divide(which, u64(p.buckets), bucket);
        const Row found = find_row(p.rows, row);
        base = found.base;
#if SOURCE == 1
        source = {u64(p.per_row), p.candidates, row * u64(p.per_row)};
        length = u64(p.per_row);
#else
        source = cut_row(p.rows, found, bucket, u64(p.buckets), p.interleaved != 0, p.result.coding);
        length = source.positions - source.shift;
#endif
        k = u64(p.k) < length ? u64(p.k) : length;
        begin = partition * u64(p.partition_entries);
        end = begin + u64(p.partition_entries);
        if (begin > source.positions) begin = source.positions;
        if (end > source.positions) end = source.positions;
    }
};

#if FROM_X
// A block's list of the keys with the first digit; it is known after the second pass.
struct List {
    Key* keys;
    Count* counts;
    u64 capacity;

    __device__ __forceinline__ List(const SplitParams& p, const Part& part) {
        const u64 block = part.which * u64(p.partitions) + part.partition;
        capacity = u64(p.capacity);
        keys = p.lists + block * capacity;
        counts = p.listed + block * 2;
    }

    // Whether it has all of them. It is not written when the first digit decides.
    __device__ __forceinline__ bool complete(const SplitParams& p, const Part& part) const {
        return capacity && !load(&p.cuts[part.which * PASSES].done) && load(counts) <= capacity;
    }
};
#endif

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
    Cut* cuts = p.cuts + part.which * PASSES;
    Cut cut = Cut::whole(part.k);
    cut.done = part.k == part.length;
    if (pass == 0) return cut;
    if (pass > 1) cut = load_cut(cuts + pass - 2);
    if (!cut.done) {
        const Count* histogram = p.histograms + (part.which * PASSES + u64(pass - 1)) * BINS;
        for (u32 bin = threadIdx.x; bin < BINS; bin += blockDim.x) scratch.histogram[bin] = load(histogram + bin);
        __syncthreads();
        cut = narrow(cut, pass - 1, scratch);
    }
    if (part.partition == 0 && threadIdx.x == 0) store_cut(cuts + pass - 1, cut);
    return cut;
}
