// Radix selection of the best k entries of a row, digit by digit from the top, on keys and then, for entries
// that do not come in index order, on indices.
//
// Macros besides those of the included files: SOURCE, where the entries are (0: in x; 1: candidate pairs in the
// workspace; 2: candidates in shared memory; 3: in x, copied to shared memory first), VECTOR (entries of x one load
// brings; 1 for strided rows).
#pragma once
#include "block.cuh"
#include "rows.cuh"

#define FROM_X (SOURCE == 0 || SOURCE == 3)

typedef Index Count;  // of entries of a row

constexpr int READ = FROM_X ? VECTOR : 1;  // entries read at once

constexpr int DIGIT = 11;
constexpr u32 BINS = 1u << DIGIT;
constexpr int KEY_PASSES = (BITS + DIGIT - 1) / DIGIT;
constexpr int INDEX_PASSES = !FROM_X ? (int(sizeof(Index)) * 8 + DIGIT - 1) / DIGIT : 0;
constexpr int PASSES = KEY_PASSES + INDEX_PASSES;

// The entries of one row, in positions 0 to `positions`.
struct Source {
    u64 positions;
#if SOURCE == 1
    Pairs pairs;
    u64 base;
#elif SOURCE == 2
    const Entry* entries;
#else
    const Element* x;  // the first entry
    i64 stride;
    u32 shift;         // loads are aligned: position p is entry p - shift
    Index first_index, index_stride;
    Coding coding;
#endif
#if SOURCE == 3
    Element* copy;     // by position, aligned to 16 bytes

    // Copies the row; all threads of the block must call.
    __device__ __forceinline__ void bring() const {
        const i64 length = i64(positions) - i64(shift);
        for (u64 position = u64(threadIdx.x) * VECTOR; position < positions; position += u64(blockDim.x) * VECTOR) {
            const i64 i = i64(position) - i64(shift);
            if (VECTOR > 1 && i >= 0 && i + VECTOR <= length) {
                copy_to_shared(copy + position, x + i);
            } else {
#pragma unroll 1
                for (int v = 0; v < VECTOR; ++v)
                    if (i + v >= 0 && i + v < length) copy[position + v] = load(x + (i + v) * stride);
            }
        }
        wait_for_copies();
        __syncthreads();
    }
#endif

#if FROM_X
    __device__ __forceinline__ Element element(u64 position) const {
#if SOURCE == 3
        return copy[position];
#else
        return load(x + (i64(position) - i64(shift)) * stride);
#endif
    }

    // VECTOR neighbours, all of which exist.
    __device__ __forceinline__ Pack<Element, VECTOR> pack(u64 position) const {
#if SOURCE == 3
        return *reinterpret_cast<const Pack<Element, VECTOR>*>(copy + position);
#else
        return load_pack<Element, VECTOR>(x + (i64(position) - i64(shift)));
#endif
    }
#endif

    // The keys of the entries from `position` on; bit v of the return value says whether entry v exists.
    __device__ __forceinline__ u32 read(u64 position, Key (&key)[READ]) const {
#if !FROM_X
        if (position >= positions) return 0;
#if SOURCE == 1
        key[0] = load(pairs.key + base + position);
#else
        key[0] = entries[position].key;
#endif
        return 1;
#else
        const i64 i = i64(position) - i64(shift);
        const i64 length = i64(positions) - i64(shift);
        Pack<Element, VECTOR> elements;
        u32 there = (1u << VECTOR) - 1;
        if (VECTOR > 1 && i >= 0 && i + VECTOR <= length) {
            elements = pack(position);
        } else {
            there = 0;
#pragma unroll 1
            for (int v = 0; v < VECTOR; ++v) {
                const bool is_there = i + v >= 0 && i + v < length;
                elements.shift(is_there ? element(position + v) : Element(0));
                there |= u32(is_there) << v;
            }
        }
#pragma unroll
        for (int v = 0; v < VECTOR; ++v) key[v] = key_of(elements.item[v], coding);
        return there;
#endif
    }

    // Where the entry at `position` stands along the axis.
    __device__ __forceinline__ Index index(u64 position) const {
#if SOURCE == 1
        return load(pairs.index + base + position);
#elif SOURCE == 2
        return entries[position].index;
#else
        return first_index + Index(position - shift) * index_stride;
#endif
    }
};

#if FROM_X
// A row of x cut to one of its buckets (the whole row when buckets is 1).
__device__ __forceinline__ Source cut_row(const Rows& rows, const Row& row, u64 bucket, u64 buckets, bool interleaved,
                                          const Coding& coding) {
    Source source;
    u64 longer;
    const u64 size = divide(row.length, buckets, longer);
    const u64 start = row.first + (interleaved ? bucket : bucket * size + (bucket < longer ? bucket : longer));
    source.first_index = Index(start);
    source.index_stride = interleaved ? Index(buckets) : 1;
    source.x = row.base + i64(start) * rows.axis_stride;
    source.stride = i64(source.index_stride) * rows.axis_stride;
    source.shift = u32(reinterpret_cast<u64>(source.x) / sizeof(Element) % VECTOR);
    source.coding = coding;
    source.positions = size + (bucket < longer ? 1 : 0) + source.shift;
    return source;
}
#endif

// What is known of the answer: entries whose leading bits exceed these are in it, and of those that have just
// these bits, `need` are. `done`: all of them are.
struct Cut {
    u64 key, key_mask, index, index_mask, need, done;

    static __device__ __forceinline__ Cut whole(u64 k) { return {0, 0, 0, 0, k, 0}; }

    // Of the entry at `position`: 1: in the answer; 0: has the leading bits; -1: not in the answer.
    __device__ __forceinline__ int side(Key entry, const Source& source, u64 position) const {
        const Key lead = entry & Key(key_mask);
        if (lead != Key(key)) return lead > Key(key) ? 1 : -1;
        if (FROM_X || !index_mask) return 0;
        const Index order = ~source.index(position) & Index(index_mask);
        return order == Index(index) ? 0 : order > Index(index) ? 1 : -1;
    }
};

// The bits that pass `pass` looks at: `width` of them, from bit `low` of the key, or of the inverted index.
struct Digit {
    bool of_key;
    int low, width;

    __device__ __forceinline__ explicit Digit(int pass) {
        of_key = pass < KEY_PASSES;
        const int word = of_key ? KEY_WIDTH : int(sizeof(Index)) * 8;
        const int floor = of_key ? KEY_SHIFT : 0;
        const int high = word - DIGIT * (of_key ? pass : pass - KEY_PASSES);
        low = high - DIGIT > floor ? high - DIGIT : floor;
        width = high - low;
    }

    __device__ __forceinline__ u32 operator()(Key key, const Source& source, u64 position) const {
        const u32 mask = (1u << width) - 1;
        if (FROM_X || of_key) return u32(key >> low) & mask;
        return u32(Index(~source.index(position)) >> low) & mask;
    }
};

// What a block needs in shared memory while it selects.
struct __align__(16) Scratch {
    Count histogram[BINS];
    u64 sums[WARP];
    u64 digit, above, inside;
};

// Empties the histogram.
__device__ __forceinline__ void clear_digits(Scratch& scratch) {
#pragma unroll 1
    for (u32 bin = threadIdx.x; bin < BINS; bin += blockDim.x) scratch.histogram[bin] = 0;
    __syncthreads();
}

// Counts, in shared memory, the digits of the entries in [begin, end) that have the cut's leading bits.
__device__ __forceinline__ void count_digits(const Source& source, u64 begin, u64 end, const Cut& cut, int pass,
                                             Scratch& scratch) {
    const Digit digit(pass);
    clear_digits(scratch);
    for (u64 position = begin + u64(threadIdx.x) * READ; position < end; position += u64(blockDim.x) * READ) {
        Key key[READ];
        const u32 there = source.read(position, key);
#pragma unroll
        for (int v = 0; v < READ; ++v)
            if (there >> v & 1 && cut.side(key[v], source, position + v) == 0)
                atomicAdd(&scratch.histogram[digit(key[v], source, position + v)], Count(1));
    }
    __syncthreads();
}

// The cut after `pass`, whose histogram is in scratch.
__device__ __forceinline__ Cut narrow(Cut cut, int pass, Scratch& scratch) {
    const Digit digit(pass);
    const u32 bins = 1u << digit.width;
    const u32 per_thread = (bins + blockDim.x - 1) / blockDim.x;
    // Thread 0 has the greatest digits.
    const u32 skipped = threadIdx.x * per_thread;
    const u32 top = skipped < bins ? bins - skipped : 0;
    const u32 bottom = top > per_thread ? top - per_thread : 0;
    u64 mine = 0;
#pragma unroll 1
    for (u32 bin = bottom; bin < top; ++bin) mine += scratch.histogram[bin];
    u64 total;
    u64 above = block_exclusive_sum(mine, total, scratch.sums);
    if (above < cut.need && cut.need <= above + mine) {
        u32 bin = top - 1;
#pragma unroll 1
        while (above + scratch.histogram[bin] < cut.need) above += scratch.histogram[bin--];
        scratch.digit = bin;
        scratch.above = above;
        scratch.inside = scratch.histogram[bin];
    }
    __syncthreads();
    const u64 mask = ((u64(1) << digit.width) - 1) << digit.low;
    (digit.of_key ? cut.key : cut.index) |= scratch.digit << digit.low;
    (digit.of_key ? cut.key_mask : cut.index_mask) |= mask;
    cut.need -= scratch.above;
    cut.done = scratch.inside == cut.need;
    __syncthreads();
    return cut;
}

// What is known of the answer after as many passes over the row as it takes.
__device__ __forceinline__ Cut select_cut(const Source& source, Cut cut, Scratch& scratch) {
    for (int pass = 0; pass < PASSES && !cut.done; ++pass) {
        count_digits(source, 0, source.positions, cut, pass, scratch);
        cut = narrow(cut, pass, scratch);
    }
    return cut;
}

// How many entries stand before a place: those surely in the answer, and those with the cut's leading bits.
struct Before {
    u64 sure, maybe;
};

// On which side of the cut the entries from `position` on are: bit v of `sure` and of `maybe`.
__device__ __forceinline__ void take_sides(const Source& source, u64 position, const Cut& cut, Key (&key)[READ],
                                           u32& sure, u32& maybe) {
    sure = maybe = 0;
    const u32 there = source.read(position, key);
#pragma unroll
    for (int v = 0; v < READ; ++v) {
        if (!(there >> v & 1)) continue;
        const int side = cut.side(key[v], source, position + v);
        sure |= u32(side == 1) << v;
        maybe |= u32(side == 0) << v;
    }
}

// Calls put(slot, entry) for the answer's entries in [begin, end), in order of position: slot 0 for the
// first, and so on, until `k` of them are found. Of the entries with the cut's leading bits, the first `need` are
// in the answer.
template <class Put>
__device__ __forceinline__ void select_entries(const Source& source, u64 begin, u64 end, const Cut& cut, Before before,
                                               u64 k, Scratch& scratch, Put put) {
    const u64 tile = u64(blockDim.x) * READ;
    for (u64 start = begin; start < end; start += tile) {
        const u64 position = start + u64(threadIdx.x) * READ;
        Key key[READ];
        u32 sure = 0, maybe = 0;
        if (position < end) take_sides(source, position, cut, key, sure, maybe);
        // Most tiles of a long row have nothing to give.
        if (!__syncthreads_or(sure | maybe)) continue;
        u32 total;
        // A tile has at most 512 x 16 entries, so that both counts fit one word.
        const u32 counts =
            block_exclusive_sum(u32(__popc(sure) | __popc(maybe) << 16), total, reinterpret_cast<u32*>(scratch.sums));
        u64 sures = before.sure + (counts & 0xFFFF), maybes = before.maybe + (counts >> 16);
#pragma unroll 1
        for (int v = 0; v < READ && (sure | maybe) >> v; ++v) {
            const bool is_sure = sure >> v & 1, is_maybe = maybe >> v & 1;
            if (is_sure || (is_maybe && maybes < cut.need)) {
                const u64 slot = sures + (maybes < cut.need ? maybes : cut.need);
                put(slot, Entry{key[0], source.index(position + v)});
            }
            sures += is_sure;
            maybes += is_maybe;
            // Moving the keys keeps the index a constant, and the loop small.
#pragma unroll
            for (int w = 0; w + 1 < READ; ++w) key[w] = key[w + 1];
        }
        before.sure += total & 0xFFFF;
        before.maybe += total >> 16;
        if (before.sure + (before.maybe < cut.need ? before.maybe : cut.need) >= k) return;
    }
}
