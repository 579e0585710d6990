// What the kernels share that select few entries exactly from a long row in one streaming pass: a threshold from a
// spread sample of the row, a filter whose loop is one comparison, and an ordering of the few survivors in shared
// memory.
//
// The sample is the same whoever takes it, so that the blocks of a split row need not wait for each other. Where
// it misleads, found out on the device, the block that finishes the row reads it again: once when entries equal to
// the threshold are too many to keep, by radix selection when survivors are too few or too many.
//
// Macros besides those of the included files: UNROLL (loads in flight). PAIRS is 0.
#pragma once
#include "gate.cuh"
#include "radix.cuh"
#include "sort.cuh"

struct FilterParams {
    const Element* x;
    Batch batch;
    i64 n, axis_stride;
    i64 k;
    i64 sample;             // loads that make up the sample
    i64 rank;               // the threshold is the sample's entry of this rank, 1 for the best
    i64 capacity;           // survivors of a row that can be kept
    i64 partitions;         // blocks of a row
    i64 partition_entries;  // a multiple of VECTOR x threads of a block
    Pairs survivors;        // split rows: (row, capacity)
    Count* counts;          // split rows: (row, 2): survivors, those above the threshold; zero at first
    Key* thresholds;        // split rows: (row)
    Result result;
};

// What a filtering block keeps in shared memory; the survivors follow.
struct __align__(16) Filter {
    Scratch scratch;
    u64 kept, above;  // survivors so far, and those above the threshold; kept stops counting some beyond capacity

    __device__ __forceinline__ Entry* survivors() { return reinterpret_cast<Entry*>(this + 1); }
};

// The key of the given rank in a sample of loads that are spread evenly over the row. The sample lies where the
// survivors will, of which there are none yet.
__device__ __forceinline__ Key sample_threshold(const Source& source, u64 loads, u64 rank, Filter& filter) {
    Key* sample = reinterpret_cast<Key*>(filter.survivors());
    const u64 all = (source.positions + VECTOR - 1) / VECTOR;
#pragma unroll 1
    for (u64 number = threadIdx.x; number < loads; number += blockDim.x) {
        Key key[VECTOR];
        u64 unused;
        const u32 there = source.read(divide(number * all, loads, unused) * VECTOR, key);
#pragma unroll
        for (int v = 0; v < VECTOR; ++v) sample[number * VECTOR + v] = there >> v & 1 ? key[v] : 0;
    }
    Cut cut = Cut::whole(rank);
    for (int pass = 0; pass < KEY_PASSES; ++pass) {
        const Digit digit(pass);
        clear_digits(filter.scratch);
        for (u64 i = threadIdx.x; i < loads * VECTOR; i += blockDim.x)
            if (cut.side(sample[i], source, i) == 0)
                atomicAdd(&filter.scratch.histogram[digit(sample[i], source, i)], Count(1));
        __syncthreads();
        cut = narrow(cut, pass, filter.scratch);
    }
    if (threadIdx.x == 0) filter.kept = filter.above = 0;
    __syncthreads();
    return Key(cut.key);
}

// Keeps the entries of [begin, end) that are not below the threshold, in any order.
__device__ __forceinline__ void keep_survivors(const Source& source, u64 begin, u64 end, Key threshold, u64 capacity,
                                               Filter& filter) {
    const Gate gate(threshold, source.coding);
    const u64 stride = u64(blockDim.x) * VECTOR;
    const i64 length = i64(source.positions) - i64(source.shift);
    auto keep = [&](Key key, u64 position) {
        if (key < threshold) return;
        if (key > threshold) atomicAdd(&filter.above, u64(1));
        // Once too many are known, a few more equal to the threshold need no counting.
        else if (glance(filter.kept) > capacity) return;
        const u64 slot = atomicAdd(&filter.kept, u64(1));
        if (slot < capacity) filter.survivors()[slot] = {key, source.index(position)};
    };
    for (u64 position = begin + u64(threadIdx.x) * VECTOR; position < end; position += UNROLL * stride) {
        const i64 i = i64(position) - i64(source.shift);
        const u64 last = (UNROLL - 1) * stride;
        if (VECTOR > 1 && i >= 0 && position + last < end && i + i64(last) + VECTOR <= length) {
            Pack<Element, VECTOR> pack[UNROLL];
#pragma unroll
            for (int u = 0; u < UNROLL; ++u) pack[u] = load_pack<Element, VECTOR>(source.x + i + i64(u * stride));
#pragma unroll
            for (int u = 0; u < UNROLL; ++u) {
                bool any = false;
#pragma unroll
                for (int v = 0; v < VECTOR; ++v) any |= gate(pack[u].item[v]);
                if (!any) continue;
#pragma unroll 1
                for (int v = 0; v < VECTOR; ++v)
                    keep(key_of(pack[u].shift(), source.coding), position + u * stride + v);
            }
        } else {
            // Entry by entry: strided rows, and the ends of the others.
#pragma unroll 1
            for (u32 e = 0; e < UNROLL * VECTOR; ++e) {
                const u64 at = position + e / VECTOR * stride + e % VECTOR;
                const i64 entry = i64(at) - i64(source.shift);
                if (entry >= 0 && entry < length && at < end + e % VECTOR)
                    keep(key_of(load(source.x + entry * source.stride), source.coding), at);
            }
        }
    }
}

// Writes the row's best k, best first, given its survivors or the news that they do not suffice.
__device__ __forceinline__ void finish_row(const FilterParams& p, u64 row, const Element* row_x, const Source& source,
                                           Key threshold, Filter& filter) {
    const u64 k = u64(p.k), above = filter.above, kept = filter.kept;
    u64 count = kept;
    if (kept < k || kept > u64(p.capacity)) {
        Cut cut = Cut::whole(k);
        if (kept >= k && above < k) {
            // All above the threshold are in the answer, and of those equal to it the first.
            cut = {threshold, ~u64(0), 0, 0, k - above, 0};
        } else {
            cut = select_cut(source, cut, filter.scratch);
        }
        __syncthreads();
        Entry* survivors = filter.survivors();
        select_entries(source, 0, source.positions, cut, Before{0, 0}, k, filter.scratch,
                       [&](u64 slot, const Entry& entry) { survivors[slot] = entry; });
        count = k;
    }
    const u32 size = next_power_of_two(u32(count));
#pragma unroll 1
    for (u32 slot = u32(count) + threadIdx.x; slot < size; slot += blockDim.x) filter.survivors()[slot] = EMPTY;
    __syncthreads();
    block_sort(filter.survivors(), size);
#pragma unroll 1
    for (u32 slot = threadIdx.x; slot < u32(k); slot += blockDim.x)
        emit(p.result, row, slot, filter.survivors()[slot], row_x, p.axis_stride);
}

__device__ __forceinline__ RowCut whole_row(const FilterParams& p, u64 row) {
    return RowCut(p.x, p.batch, row, 0, u64(p.n), 1, true, p.axis_stride, p.result.coding);
}
