// What the kernels share that select few entries exactly from a long row in one streaming pass: a threshold from a
// spread sample of the row, a filter whose loop is one comparison, and an ordering of the few survivors in shared
// memory.
//
// The sample is the same whoever takes it, so that the blocks of a split row need not wait for each other. Where
// it misleads, found out on the device, the block that finishes the row reads it again: once when entries equal to
// the threshold are too many to keep, by radix selection when survivors are too few or too many.
//
// Macros besides those of the included files: UNROLL (loads in flight). SOURCE is 0 or 3.
#pragma once
#include "gate.cuh"
#include "radix.cuh"
#include "sort.cuh"

struct FilterParams {
    Rows rows;
    i64 k;
    i64 copy;               // SOURCE 3: where in shared memory, in bytes
    i64 sample;             // loads that make up the sample of a row of n entries; of a shorter row as dense a one
    i64 rank;               // the threshold is the sample's entry of this rank, 1 for the best
    i64 capacity;           // survivors of a row that can be kept
    i64 partitions;         // blocks of a row
    i64 partition_entries;  // a multiple of VECTOR x threads of a block
    Pairs survivors;        // split rows: (row, capacity)
    u32* counts;  // split rows: (row, 3): survivors, those equal to the threshold, blocks done; zero before and after
    Result result;
};

// So many survivors are worth a selection before they are sorted, if fewer are wanted.
constexpr u32 LEAST_CUT = 1024;

// What a filtering block keeps in shared memory; the survivors follow.
struct __align__(16) Filter {
    Scratch scratch;
    u32 kept, equal;  // survivors so far, and those equal to the threshold, which do not all count beyond capacity

    __device__ __forceinline__ Entry* survivors() { return reinterpret_cast<Entry*>(this + 1); }
};

// The words of the load of this number from the row's beginning on, all of which exists.
__device__ __forceinline__ Pack<Word, WORDS> load_words(const Source& source, u64 number) {
    if constexpr (VECTOR == 1) {
        return {filled(source.element(number))};
    } else {
#if SOURCE == 3
        return reinterpret_cast<const Pack<Word, WORDS>*>(source.copy)[number];
#else
        return load_pack<Word, WORDS>(reinterpret_cast<const Word*>(source.x - source.shift) + number * WORDS);
#endif
    }
}

// The loads, by number, that lie entirely in [begin, end) of a row. `begin` is a multiple of VECTOR, and so is `end`
// but where the row ends.
struct Whole {
    u64 first, last;

    __device__ __forceinline__ Whole(const Source& source, u64 begin, u64 end) {
        first = begin / VECTOR + (begin < source.shift ? 1 : 0);
        last = end / VECTOR;
        if (last < first) last = first;
    }

    // Calls take(position) for the entries of [begin, end) before and behind these loads, one a thread.
    template <class Take>
    __device__ __forceinline__ void ends(const Source& source, u64 begin, u64 end, Take take) const {
        if (VECTOR == 1 || threadIdx.x >= 2 * VECTOR) return;
        const bool before = threadIdx.x < VECTOR;
        const u64 position = threadIdx.x + (before ? begin : last * VECTOR - VECTOR);
        if (position >= source.shift && position < (before && first * VECTOR < end ? first * VECTOR : end))
            take(position);
    }
};

// The key of the given rank, 1 for the best, among key_at(i) for i from 0 to `size`.
template <class KeyAt>
__device__ __forceinline__ Key ranked_key(const Source& source, u32 size, u64 rank, Filter& filter, KeyAt key_at) {
    Cut cut = Cut::whole(rank);
#pragma unroll 1
    for (int pass = 0; pass < KEY_PASSES; ++pass) {
        const Digit digit(pass);
        clear_digits(filter.scratch);
        for (u32 i = threadIdx.x; i < size; i += blockDim.x)
            if (cut.side(key_at(i), source, i) == 0)
                atomicAdd(&filter.scratch.histogram[digit(key_at(i), source, i)], Count(1));
        __syncthreads();
        cut = narrow(cut, pass, filter.scratch);
    }
    return Key(cut.key);
}

#if SOURCE == 3
// A key that at least k entries of the row reach, or all if there are fewer: the k-th best of the best of as many
// slices of the row as threads have entries at a time.
__device__ __forceinline__ Key find_threshold(const FilterParams& p, const Source& source, Filter& filter) {
    Key best[VECTOR];
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) best[v] = 0;
    const Whole whole(source, 0, source.positions);
#pragma unroll 1
    for (u64 number = whole.first + threadIdx.x; number < whole.last; number += blockDim.x) {
        const Pack<Word, WORDS> pack = load_words(source, number);
#pragma unroll
        for (int v = 0; v < VECTOR; ++v)
            best[v] = max(best[v], key_of(element_at(pack.item[v / PER_WORD], v % PER_WORD), source.coding));
    }
    whole.ends(source, 0, source.positions,
               [&](u64 position) { best[0] = max(best[0], key_of(source.element(position), source.coding)); });
    Key* sample = reinterpret_cast<Key*>(filter.survivors());
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) sample[v * blockDim.x + threadIdx.x] = best[v];
    if (threadIdx.x == 0) filter.kept = filter.equal = 0;
    return ranked_key(source, blockDim.x * VECTOR, u64(p.rank), filter, [&](u32 i) { return sample[i]; });
}
#else
// The key of the given rank in a sample of loads that are spread evenly over the row; the least of all where the
// sample is not so large.
__device__ __forceinline__ Key find_threshold(const FilterParams& p, const Source& source, Filter& filter) {
    Key* sample = reinterpret_cast<Key*>(filter.survivors());
    const u64 length = source.positions - source.shift, rank = u64(p.rank);
    const Whole whole(source, 0, source.positions);
    const u64 all = whole.last - whole.first;
    u64 loads = u64(p.sample), unused;
    if (length < u64(p.rows.n)) loads = divide(loads * length, u64(p.rows.n), unused);
    if (loads > all) loads = all;
    if (threadIdx.x == 0) filter.kept = filter.equal = 0;
    __syncthreads();
    if (loads * VECTOR < rank) return 0;
    // In 32 bits and as many below, rounded up: the spread is as if each were divided by itself.
    const u64 spacing = ((all << 32) + loads - 1) / loads;
#pragma unroll 1
    for (u64 number = threadIdx.x; number < loads; number += blockDim.x) {
        const Pack<Word, WORDS> pack = load_words(source, whole.first + (number * spacing >> 32));
#pragma unroll
        for (int v = 0; v < VECTOR; ++v)
            sample[number * VECTOR + v] = key_of(element_at(pack.item[v / PER_WORD], v % PER_WORD), source.coding);
    }
    return ranked_key(source, u32(loads) * VECTOR, rank, filter, [&](u32 i) { return sample[i]; });
}
#endif

// words[which], which lie in registers.
template <int N>
__device__ __forceinline__ Word chosen_word(const Word (&words)[N], u32 which) {
    static_assert(N == 1 || N % 2 == 0, "a power of two");
    if constexpr (N == 1) return words[0];
    else {
        Word half[N / 2];
#pragma unroll
        for (int w = 0; w < N / 2; ++w) half[w] = which & 1 ? words[2 * w + 1] : words[2 * w];
        return chosen_word(half, which >> 1);
    }
}

// Keeps the entries of [begin, end) that are not below the threshold, in any order.
__device__ __forceinline__ void keep_survivors(const Source& source, u64 begin, u64 end, Key threshold, u64 capacity,
                                               Filter& filter) {
    auto keep = [&](Key key, u64 position) {
        if (key < threshold) return;
        if (key == threshold) {
            // Once too many are known, a few more equal to the threshold need no counting.
            if (glance(filter.kept) > capacity) return;
            atomicAdd(&filter.equal, 1u);
        }
        const u32 slot = atomicAdd(&filter.kept, 1u);
        if (slot < capacity) filter.survivors()[slot] = {key, source.index(position)};
    };

    const Whole whole(source, begin, end);
    whole.ends(source, begin, end,
               [&](u64 position) { keep(key_of(source.element(position), source.coding), position); });

    // A warp's loads at a time are neighbours, so that one address does for all.
    Gate gate(threshold, source.coding);
    bool only_above = false;
    const Index last = Index(whole.last);
    const Index full_end = last > (UNROLL - 1) * WARP ? last - (UNROLL - 1) * WARP : 0;
    const Index stride = blockDim.x * UNROLL;
    Index at = Index(whole.first) + threadIdx.x / WARP * (WARP * UNROLL) + threadIdx.x % WARP;
    while (at < last) {
        Pack<Word, WORDS> pack[UNROLL] = {};
        u32 there = ~0u;
        if (at < full_end) {
            bool passes;
            do {
#pragma unroll
                for (int u = 0; u < UNROLL; ++u) pack[u] = load_words(source, u64(at) + u * WARP);
                at += stride;
                Gate::Seen seen = gate.look(pack[0].item[0]);
#pragma unroll
                for (int w = 1; w < UNROLL * WORDS; ++w) seen = gate.look(seen, pack[w / WORDS].item[w % WORDS]);
                passes = gate.passes(seen);
            } while (!passes && at < full_end);
            if (!passes) continue;
        } else {
            there = 0;
#pragma unroll
            for (int u = 0; u < UNROLL; ++u) {
                if (at + u * WARP >= last) continue;
                pack[u] = load_words(source, u64(at) + u * WARP);
                there |= ((1u << WORDS) - 1) << u * WORDS;
            }
            at += stride;
        }

        // When too many are known, those equal to the threshold are no longer wanted.
        if (!only_above && glance(filter.kept) > capacity) {
            if (threshold == BEST_KEY) return;
            gate = Gate(threshold + LEAST_STEP, source.coding);
            only_above = true;
        }

        // One word at a time, the same code for all.
        Word words[UNROLL * WORDS];
        u32 hits = 0;
#pragma unroll
        for (int w = 0; w < UNROLL * WORDS; ++w) {
            words[w] = pack[w / WORDS].item[w % WORDS];
            hits |= u32(gate.passes(gate.look(words[w]))) << w;
        }
#pragma unroll 1
        for (hits &= there; hits; hits &= hits - 1) {
            const u32 which = __ffs(hits) - 1;
            const u64 load = u64(at) - stride + which / WORDS * WARP;
            const Word word = chosen_word(words, which);
#pragma unroll 1
            for (u32 v = 0; v < PER_WORD; ++v)
                keep(key_of(element_at(word, v), source.coding), load * VECTOR + which % WORDS * PER_WORD + v);
        }
    }
}

// Adds the survivors of this block to the row's list. In the block that comes last it returns true, and the row's
// survivors are all here.
__device__ __forceinline__ bool gather_survivors(const FilterParams& p, u64 row, Filter& filter) {
    u32* counts = p.counts + row * 3;
    u32* shared = reinterpret_cast<u32*>(filter.scratch.sums);
    const u64 first = row * u64(p.capacity), kept = filter.kept;
    if (threadIdx.x == 0) {
        *shared = add_global(counts, filter.kept);
        add_global(counts + 1, filter.equal);
    }
    __syncthreads();
    const u64 base = *shared;
    for (u64 slot = threadIdx.x; slot < kept && base + slot < u64(p.capacity); slot += blockDim.x)
        store_pair(p.survivors, first + base + slot, filter.survivors()[slot]);
    __syncthreads();
    if (!comes_last(counts + 2, u32(p.partitions), shared)) return false;
    const u32 all = load_fresh(counts);
    for (u64 slot = threadIdx.x; slot < all && slot < u64(p.capacity); slot += blockDim.x)
        filter.survivors()[slot] = load_fresh_pair(p.survivors, first + slot);
    if (threadIdx.x == 0) {
        filter.kept = all;
        filter.equal = load_fresh(counts + 1);
    }
    __syncthreads();
    if (threadIdx.x < 2) store(counts + threadIdx.x, 0u);
    return true;
}

// Leaves of the survivors those that are among the best k, and all that are equal to the k-th; returns how many.
__device__ __forceinline__ u32 cut_survivors(const Source& source, u32 count, u64 k, Filter& filter) {
    Entry* survivors = filter.survivors();
    const Key kth = ranked_key(source, count, k, filter, [&](u32 i) { return survivors[i].key; });
    u32 left = 0;
#pragma unroll 1
    for (u32 start = 0; start < count; start += blockDim.x) {
        const u32 i = start + threadIdx.x;
        const Entry entry = i < count ? survivors[i] : EMPTY;
        const bool stays = i < count && entry.key >= kth;
        u32 stay;
        // Entries move to the front, behind none that is still to be read.
        const u32 slot = left + block_exclusive_sum(u32(stays), stay, reinterpret_cast<u32*>(filter.scratch.sums));
        if (stays) survivors[slot] = entry;
        left += stay;
    }
    __syncthreads();
    return left;
}

// Writes the row's best k, best first, given its survivors or the news that they do not suffice.
__device__ __forceinline__ void finish_row(const FilterParams& p, u64 row, const Element* base, const Source& source,
                                           Key threshold, Filter& filter) {
    const u64 length = source.positions - source.shift;
    const u64 k = u64(p.k) < length ? u64(p.k) : length, kept = filter.kept, above = kept - filter.equal;
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
    } else if (count > LEAST_CUT && next_power_of_two(u32(count)) > next_power_of_two(u32(k))) {
        count = cut_survivors(source, u32(count), k, filter);
    }
    const u32 size = next_power_of_two(u32(count));
#pragma unroll 1
    for (u32 slot = u32(count) + threadIdx.x; slot < size; slot += blockDim.x) filter.survivors()[slot] = EMPTY;
    __syncthreads();
    block_sort(filter.survivors(), size);
#pragma unroll 1
    for (u32 slot = threadIdx.x; slot < u32(p.k); slot += blockDim.x)
        emit(p.result, row, slot, slot < size ? filter.survivors()[slot] : EMPTY, base, p.rows.axis_stride);
}
