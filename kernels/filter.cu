// Exact selection of few entries from a long row in one streaming pass: a threshold from a spread sample of the
// row, a filter whose loop is one comparison, and an ordering of the few survivors in shared memory.
//
// The sample is the same whoever takes it, so that the blocks of a split row need not wait for each other. Where
// it misleads, found out on the device, the block that finishes the row reads it again: once when entries equal to
// the threshold are too many to keep, by radix selection when survivors are too few or too many.
//
// Macros besides those of the included files: SAMPLE (loads of a thread that make up the sample), UNROLL (loads in
// flight). PAIRS is 0.
#include "radix.cuh"
#include "sort.cuh"

struct FilterParams {
    const Element* x;
    Batch batch;
    i64 n, axis_stride;
    i64 k;
    i64 rank;               // the threshold is the sample's entry of this rank, 1 for the best
    i64 capacity;           // survivors a block can keep
    i64 partitions;         // blocks of a row
    i64 partition_entries;  // a multiple of VECTOR x threads of a block
    Pairs survivors;        // split rows: (row, partition, capacity)
    Count* counts;          // split rows: (row, partition, 2): survivors, those above the threshold
    Key* thresholds;        // split rows: (row)
    Result result;
};

// What a filtering block keeps in shared memory; the survivors follow.
struct __align__(16) Filter {
    Scratch scratch;
    u64 kept, above;  // survivors so far, and those above the threshold; kept stops counting some beyond capacity

    __device__ __forceinline__ Entry* survivors() { return reinterpret_cast<Entry*>(this + 1); }
};

// The key of the given rank in a sample of loads that are spread evenly over the row.
__device__ __forceinline__ Key sample_threshold(const Source& source, u64 rank, Scratch& scratch) {
    Key key[SAMPLE][VECTOR];
    u32 there[SAMPLE];
    const u64 loads = (source.positions + VECTOR - 1) / VECTOR;
#pragma unroll
    for (int s = 0; s < SAMPLE; ++s) {
        u64 unused;
        const u64 number = u64(s) * blockDim.x + threadIdx.x;
        there[s] = source.read(divide(number * loads, u64(blockDim.x) * SAMPLE, unused) * VECTOR, key[s]);
    }
    Cut cut = Cut::whole(rank);
    for (int pass = 0; pass < KEY_PASSES; ++pass) {
        const Digit digit(pass);
        clear_digits(scratch);
#pragma unroll
        for (int s = 0; s < SAMPLE; ++s) count_digits(source, 0, key[s], there[s], cut, digit, scratch);
        __syncthreads();
        cut = narrow(cut, pass, scratch);
    }
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
        else if (filter.kept > capacity) return;
        const u64 slot = atomicAdd(&filter.kept, u64(1));
        if (slot < capacity) filter.survivors()[slot] = {key, source.index(position)};
    };
    for (u64 position = begin + u64(threadIdx.x) * VECTOR; position < end; position += UNROLL * stride) {
        const i64 i = i64(position) - i64(source.shift);
        if (VECTOR > 1 && i >= 0 && position + (UNROLL - 1) * stride < end &&
            i + i64((UNROLL - 1) * stride) + VECTOR <= length) {
            Pack<Element, VECTOR> pack[UNROLL];
#pragma unroll
            for (int u = 0; u < UNROLL; ++u) pack[u] = load_pack<Element, VECTOR>(source.x + i + i64(u * stride));
#pragma unroll
            for (int u = 0; u < UNROLL; ++u) {
                bool any = false;
#pragma unroll
                for (int v = 0; v < VECTOR; ++v) any |= gate(pack[u].item[v]);
                if (!any) continue;
#pragma unroll
                for (int v = 0; v < VECTOR; ++v)
                    keep(key_of(pack[u].item[v], source.coding), position + u * stride + v);
            }
        } else {
#pragma unroll 1
            for (u64 at = position; at < end && at < position + UNROLL * stride; at += stride) {
                Key key[VECTOR];
                const u32 there = source.read(at, key);
#pragma unroll
                for (int v = 0; v < VECTOR; ++v)
                    if (there >> v & 1) keep(key[v], at + v);
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
    for (u32 slot = u32(count) + threadIdx.x; slot < size; slot += blockDim.x) filter.survivors()[slot] = EMPTY;
    __syncthreads();
    block_sort(filter.survivors(), size);
    for (u32 slot = threadIdx.x; slot < u32(k); slot += blockDim.x)
        emit(p.result, row, slot, filter.survivors()[slot], row_x, p.axis_stride);
}

__device__ __forceinline__ RowCut whole_row(const FilterParams& p, u64 row) {
    return RowCut(p.x, p.batch, row, 0, u64(p.n), 1, true, p.axis_stride, p.result.coding);
}

// One block per row, in one launch.
extern "C" __global__ void __launch_bounds__(512, 1) filter_row(const __grid_constant__ FilterParams p) {
    Filter& filter = *reinterpret_cast<Filter*>(dynamic_shared());
    const u64 row = blockIdx.x;
    const RowCut cut = whole_row(p, row);
    if (threadIdx.x == 0) filter.kept = filter.above = 0;
    const Key threshold = sample_threshold(cut.source, u64(p.rank), filter.scratch);
    keep_survivors(cut.source, 0, cut.source.positions, threshold, u64(p.capacity), filter);
    __syncthreads();
    finish_row(p, row, cut.row_x, cut.source, threshold, filter);
}

// Several blocks per row, which leave their survivors in memory.
extern "C" __global__ void __launch_bounds__(512, 1) filter_split(const __grid_constant__ FilterParams p) {
    Filter& filter = *reinterpret_cast<Filter*>(dynamic_shared());
    u64 partition;
    const u64 row = divide(blockIdx.x, u64(p.partitions), partition);
    const RowCut cut = whole_row(p, row);
    if (threadIdx.x == 0) filter.kept = filter.above = 0;
    const Key threshold = sample_threshold(cut.source, u64(p.rank), filter.scratch);
    const u64 begin = partition * u64(p.partition_entries);
    const u64 end = begin + u64(p.partition_entries);
    keep_survivors(cut.source, begin, end < cut.source.positions ? end : cut.source.positions, threshold,
                   u64(p.capacity), filter);
    __syncthreads();
    const u64 kept = filter.kept, stored = kept < u64(p.capacity) ? kept : u64(p.capacity);
    for (u64 slot = threadIdx.x; slot < stored; slot += blockDim.x)
        store_pair(p.survivors, u64(blockIdx.x) * u64(p.capacity) + slot, filter.survivors()[slot]);
    if (threadIdx.x == 0) {
        store(p.counts + u64(blockIdx.x) * 2, Count(kept));
        store(p.counts + u64(blockIdx.x) * 2 + 1, Count(filter.above));
        if (partition == 0) store(p.thresholds + row, threshold);
    }
}

// One block per row, which gathers what the blocks of the row left.
extern "C" __global__ void __launch_bounds__(512, 1) filter_finish(const __grid_constant__ FilterParams p) {
    Filter& filter = *reinterpret_cast<Filter*>(dynamic_shared());
    const u64 row = blockIdx.x;
    const RowCut cut = whole_row(p, row);
    u64 all = 0, above = 0;
    for (u64 first = 0; first < u64(p.partitions); first += blockDim.x) {
        const u64 partition = first + threadIdx.x;
        const u64 segment = row * u64(p.partitions) + partition;
        u64 kept = 0, kept_above = 0, total, total_above;
        if (partition < u64(p.partitions)) {
            kept = load(p.counts + segment * 2);
            kept_above = load(p.counts + segment * 2 + 1);
        }
        const u64 base = all + block_exclusive_sum(kept, total, filter.scratch.sums);
        block_exclusive_sum(kept_above, total_above, filter.scratch.sums);
        for (u64 slot = 0; slot < kept && base + slot < u64(p.capacity); ++slot)
            filter.survivors()[base + slot] = load_pair(p.survivors, segment * u64(p.capacity) + slot);
        all += total;
        above += total_above;
    }
    if (threadIdx.x == 0) {
        filter.kept = all;
        filter.above = above;
    }
    __syncthreads();
    finish_row(p, row, cut.row_x, cut.source, load(p.thresholds + row), filter);
}
