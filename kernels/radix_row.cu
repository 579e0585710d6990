// Exact selection with one block per row, in one launch: radix passes over the row, then one pass that takes
// what is in the answer, in order of position.
//
// A row may be cut to its buckets, each selected by a block of its own: the bucketed algorithm for more kept
// entries than registers hold. A row that fits shared memory is read once (SOURCE 3). Macros besides those of the
// included files: OUTPUT (0: candidate pairs; 1: the result, unsorted; 2: the result, sorted in shared memory by a
// network; 3: by radix, where the row's copy was; 4: so too, as words of a key of 8 or 16 bits and a position of 16).
#include "radix.cuh"
#include "radix_sort.cuh"
#include "sort.cuh"

struct RowParams {
    Rows rows;
    Pairs candidates;      // SOURCE 1
    i64 per_row;           // candidates of a row
    i64 buckets;           // 1: whole rows
    i64 interleaved;
    i64 k;                 // entries to take per bucket, or all if there are fewer
    i64 copy;              // SOURCE 3: where in shared memory, in bytes
    Result result;
    Pairs pairs;
};

#if OUTPUT >= 3
#if OUTPUT == 4
typedef u32 Item;
__device__ __forceinline__ Item item_of(const Entry& entry) { return entry.key | u32(entry.index); }
__device__ __forceinline__ Key key_of_item(Item item) { return item; }
__device__ __forceinline__ Entry entry_of(Item item) { return {item & ~0xFFFFu, Index(item & 0xFFFF)}; }
#else
typedef Entry Item;
__device__ __forceinline__ Item item_of(const Entry& entry) { return entry; }
__device__ __forceinline__ Key key_of_item(const Item& item) { return item.key; }
__device__ __forceinline__ Entry entry_of(const Item& item) { return item; }
#endif
#endif

extern "C" __global__ void __launch_bounds__(512, 1) radix_row(const __grid_constant__ RowParams p) {
    Scratch& scratch = *reinterpret_cast<Scratch*>(dynamic_shared());
    u64 bucket;
    const u64 row = divide(blockIdx.x, u64(p.buckets), bucket);
    const Row found = find_row(p.rows, row);
#if SOURCE == 1
    const Source source = {u64(p.per_row), p.candidates, row * u64(p.per_row)};
    const u64 length = u64(p.per_row);
#else
    Source source = cut_row(p.rows, found, bucket, u64(p.buckets), p.interleaved != 0, p.result.coding);
    const u64 length = source.positions - source.shift;
#if SOURCE == 3
    source.copy = reinterpret_cast<Element*>(dynamic_shared() + p.copy);
    source.bring();
#endif
#endif
    const u64 k = u64(p.k) < length ? u64(p.k) : length;

    Cut cut = Cut::whole(k);
    cut.done = k == length;
    cut = select_cut(source, cut, scratch);

#if OUTPUT == 2
    Entry* sorted = reinterpret_cast<Entry*>(dynamic_shared() + sizeof(Scratch));
    const u32 size = next_power_of_two(u32(p.k));
    for (u32 slot = u32(k) + threadIdx.x; slot < size; slot += blockDim.x) sorted[slot] = EMPTY;
    auto put = [&](u64 slot, const Entry& entry) { sorted[slot] = entry; };
#elif OUTPUT >= 3
    u32* counts = reinterpret_cast<u32*>(dynamic_shared() + sizeof(Scratch));
    Item* items = reinterpret_cast<Item*>(counts + blockDim.x / WARP * SORT_BINS);
    auto put = [&](u64 slot, const Entry& entry) { items[slot] = item_of(entry); };
#elif OUTPUT == 1
    auto put = [&](u64 slot, const Entry& entry) {
        emit(p.result, row, bucket * u64(p.k) + slot, entry, found.base, p.rows.axis_stride);
    };
#else
    auto put = [&](u64 slot, const Entry& entry) { store_pair(p.pairs, u64(blockIdx.x) * u64(p.k) + slot, entry); };
#endif
#if OUTPUT < 2
    for (u64 slot = k + threadIdx.x; slot < u64(p.k); slot += blockDim.x) put(slot, EMPTY);
#endif
    select_entries(source, 0, source.positions, cut, Before{0, 0}, k, scratch, put);

#if OUTPUT == 2
    __syncthreads();
    block_sort(sorted, size);
    for (u32 slot = threadIdx.x; slot < u32(p.k); slot += blockDim.x)
        emit(p.result, row, slot, sorted[slot], found.base, p.rows.axis_stride);
#elif OUTPUT >= 3
    __syncthreads();
    // They came in the order of their positions, which equal ones keep.
    Item* spare = reinterpret_cast<Item*>(dynamic_shared() + p.copy);
    items = block_radix_sort(
        items, spare, u32(k), BITS / SORT_BITS, counts, reinterpret_cast<u32*>(scratch.sums),
        [](const Item& item, int pass) { return u32(key_of_item(item) >> (KEY_SHIFT + pass * SORT_BITS)); });
    for (u32 slot = threadIdx.x; slot < u32(p.k); slot += blockDim.x)
        emit(p.result, row, slot, slot < u32(k) ? entry_of(items[slot]) : EMPTY, found.base, p.rows.axis_stride);
#endif
}
