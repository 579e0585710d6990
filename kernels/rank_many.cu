// Counts for many targets of each row. They are sorted in shared memory, best first, and an entry that is not worse
// than all of them is counted at the first that it ranks before, found by binary search; sums over the targets follow.
#include "rank.cuh"
#include "sort.cuh"

// What is counted at each of the sorted targets.
struct Bins {
    u32* better;  // entries that rank before it, and before none of the targets ahead of it
    u32* before;  // those of them that are equal to it
    u32* behind;  // entries equal to it that rank behind it, and before the next target
};

// Puts in place of every element the sum of those up to it. `shared` holds 32 elements; all threads must call.
__device__ __forceinline__ void add_up(u32* elements, u32 size, u32* shared) {
    u32 sum = 0;
#pragma unroll 1
    for (u32 start = 0; start < size; start += blockDim.x) {
        const u32 i = start + threadIdx.x, mine = i < size ? elements[i] : 0;
        u32 total;
        const u32 earlier = block_exclusive_sum(mine, total, shared);
        if (i < size) elements[i] = sum + earlier + mine;
        sum += total;
    }
    __syncthreads();
}

// The first number below `count` for which holds(number), which then holds for all behind it; or `count`.
template <class Holds>
__device__ __forceinline__ u32 first_where(u32 count, Holds holds) {
    u32 low = 0, high = count;
#pragma unroll 1
    while (low < high) {
        const u32 middle = (low + high) / 2;
        if (holds(middle)) high = middle;
        else low = middle + 1;
    }
    return low;
}

__device__ __forceinline__ void count_entry(const Entry* targets, u32 count, const Bins& bins, const Entry& entry) {
    const u32 at = first_where(count, [&](u32 i) { return better(entry, targets[i]); });
    const bool is_before = at < count && targets[at].key == entry.key;
    if (at < count) atomicAdd(bins.better + at, 1u);
    if (is_before) atomicAdd(bins.before + at, 1u);
    else if (at > 0 && targets[at - 1].key == entry.key) atomicAdd(bins.behind + at - 1, 1u);
}

// Counts the entries of whole loads.
__device__ __forceinline__ void count_loads(const Piece& piece, const Entry* targets, u32 count, const Bins& bins) {
    const Key worst = targets[count - 1].key;
    const Gate gate(worst, piece.coding);
    const Index last = piece.last;
    // A warp's loads at a time are neighbours, so that one address does for all.
    Index at = piece.first + threadIdx.x / WARP * (WARP * UNROLL) + threadIdx.x % WARP;
#pragma unroll 1
    for (; at < last; at += blockDim.x * UNROLL) {
        Pack<Word, WORDS> pack[UNROLL] = {};
        u32 there = 0;
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) {
            if (at + u * WARP >= last) continue;
            pack[u] = piece.words(u64(at) + u * WARP);
            there |= ((1u << WORDS) - 1) << u * WORDS;
        }
        Gate::Seen seen = gate.look(pack[0].item[0]);
#pragma unroll
        for (int w = 1; w < UNROLL * WORDS; ++w) seen = gate.look(seen, pack[w / WORDS].item[w % WORDS]);
        if (!gate.passes(seen)) continue;
        // One word at a time, the same code for all; those that are there come first.
        Pack<Word, UNROLL * WORDS> words;
#pragma unroll
        for (int w = 0; w < UNROLL * WORDS; ++w) words.item[w] = pack[w / WORDS].item[w % WORDS];
#pragma unroll 1
        for (u32 w = 0; there >> w; ++w) {
            const Word word = words.shift();
            if (!gate.passes(gate.look(word))) continue;
            const u64 position = u64(at + w / WORDS * WARP) * VECTOR + w % WORDS * PER_WORD;
#pragma unroll 1
            for (u32 v = 0; v < PER_WORD; ++v) {
                const Key key = key_of(element_at(word, v), piece.coding);
                if (key >= worst) count_entry(targets, count, bins, {key, Index(position + v - piece.shift)});
            }
        }
    }
}

// What was counted for a target, given in the bins the sums up to each of the sorted targets.
__device__ __forceinline__ Counts counts_of(const Entry* targets, u32 count, const Bins& sums, const Entry& target) {
    if (target.index == NOWHERE) return {ABSENT, 0, 0};
    const u32 at = first_where(count, [&](u32 i) { return !better(targets[i], target); });
    // Those of its key, itself among them.
    const u32 begin = first_where(count, [&](u32 i) { return targets[i].key <= target.key; });
    const u32 end = first_where(count, [&](u32 i) { return targets[i].key < target.key; });
    const u32 ahead_before = begin ? sums.before[begin - 1] : 0, ahead_behind = begin ? sums.behind[begin - 1] : 0;
    const u32 before = sums.before[at] - ahead_before;
    const u32 equal = sums.before[end - 1] - ahead_before + sums.behind[end - 1] - ahead_behind;
    return {sums.better[at] - before, equal, before};
}

extern "C" __global__ void __launch_bounds__(512, 1) rank_many(const __grid_constant__ RankParams p) {
    u64 number, chunk;
    const u64 row = divide(divide(blockIdx.x, u64(p.pieces), number), u64(p.chunks), chunk);
    const u64 begin = chunk * u64(p.chunk), end = begin + u64(p.chunk) < u64(p.m) ? begin + u64(p.chunk) : u64(p.m);
    const u32 room = next_power_of_two(u32(p.chunk)), size = next_power_of_two(u32(end - begin));
    Entry* targets = reinterpret_cast<Entry*>(dynamic_shared());
    u32* shared = reinterpret_cast<u32*>(targets + room);
    const Bins bins = {shared + WARP, shared + WARP + room, shared + WARP + 2 * room};

    const Row found = find_row(p.rows, row);
    const Piece piece(p, found, number);
    if (number == 0 && chunk == 0 && threadIdx.x == 0) emit_valid(p, row, found);
    u32 count = 0;  // targets that are entries of the row
#pragma unroll 1
    for (u32 start = 0; start < size; start += blockDim.x) {
        const u32 i = start + threadIdx.x;
        const Entry target = begin + i < end ? find_target(p, row, found, begin + i) : EMPTY;
        if (i < size) {
            targets[i] = target;
            bins.better[i] = bins.before[i] = bins.behind[i] = 0;
        }
        count += __syncthreads_count(i < size && target.index != NOWHERE);
    }
    block_sort(targets, size);

    if (count > 0) {
        piece.ends(threadIdx.x, [&](u64 position) {
            count_entry(targets, count, bins, {piece.key(position), Index(position - piece.shift)});
        });
        count_loads(piece, targets, count, bins);
        __syncthreads();
        add_up(bins.better, count, shared);
        add_up(bins.before, count, shared);
        add_up(bins.behind, count, shared);
    }
#pragma unroll 1
    for (u64 target = begin + threadIdx.x; target < end; target += blockDim.x)
        put_counts(p, row, target, number, counts_of(targets, count, bins, find_target(p, row, found, target)));
    if (p.pieces > 1) add_pieces(p, row, chunk, begin, end, shared);
}
