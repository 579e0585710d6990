// Exact selection with one block per row, in one launch: radix passes over the row, then one pass that takes
// what is in the answer, in order of position.
//
// A row may be cut to its buckets, each selected by a block of its own: the bucketed algorithm for more kept
// entries than registers hold. Macros besides those of the included files: OUTPUT (0: candidate pairs; 1: the
// result, unsorted; 2: the result, sorted in shared memory).
#include "radix.cuh"
#include "sort.cuh"

struct RowParams {
    const Element* x;
    Batch batch;
    i64 n, axis_stride;
    Pairs candidates;      // PAIRS: n of them per row
    i64 buckets;           // 1: whole rows
    i64 interleaved;
    i64 k;                 // entries to take per bucket, or all if there are fewer
    Result result;
    Pairs pairs;
};

extern "C" __global__ void __launch_bounds__(512, 1) radix_row(const __grid_constant__ RowParams p) {
    Scratch& scratch = *reinterpret_cast<Scratch*>(dynamic_shared());
    u64 bucket;
    const u64 row = divide(blockIdx.x, u64(p.buckets), bucket);
#if PAIRS
    const Element* row_x = p.x + row_offset(p.batch, row);
    const Source source = {u64(p.n), p.candidates, row * u64(p.n)};
    const u64 length = u64(p.n);
#else
    const RowCut cut_row(p.x, p.batch, row, bucket, u64(p.n), u64(p.buckets), p.interleaved != 0, p.axis_stride,
                         p.result.coding);
    const Element* row_x = cut_row.row_x;
    const Source source = cut_row.source;
    const u64 length = source.positions - source.shift;
#endif
    const u64 k = u64(p.k) < length ? u64(p.k) : length;

    Cut cut = Cut::whole(k);
    cut.done = k == length;
    cut = select_cut(source, cut, scratch);

#if OUTPUT == 2
    Entry* sorted = reinterpret_cast<Entry*>(dynamic_shared() + sizeof(Scratch));
    const u32 size = next_power_of_two(u32(k));
    for (u32 slot = u32(k) + threadIdx.x; slot < size; slot += blockDim.x) sorted[slot] = EMPTY;
    auto put = [&](u64 slot, const Entry& entry) { sorted[slot] = entry; };
#elif OUTPUT == 1
    auto put = [&](u64 slot, const Entry& entry) {
        emit(p.result, row, bucket * u64(p.k) + slot, entry, row_x, p.axis_stride);
    };
#else
    const u64 base = u64(blockIdx.x) * u64(p.k);
    for (u64 slot = k + threadIdx.x; slot < u64(p.k); slot += blockDim.x) store_pair(p.pairs, base + slot, EMPTY);
    auto put = [&](u64 slot, const Entry& entry) { store_pair(p.pairs, base + slot, entry); };
#endif
    select_entries(source, 0, source.positions, cut, Before{0, 0}, k, scratch, put);

#if OUTPUT == 2
    __syncthreads();
    block_sort(sorted, size);
    for (u32 slot = threadIdx.x; slot < u32(k); slot += blockDim.x)
        emit(p.result, row, slot, sorted[slot], row_x, p.axis_stride);
#endif
}
