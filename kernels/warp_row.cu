// Selects few entries exactly from short rows, in one launch that reads them once: LANES neighbouring lanes of a warp
// hold a row in registers. As the warp works on all its rows at once, few lanes and many entries of each cost least.
//
// The k-th best of the lanes' own best entries is a bound that at least k entries reach, and in most rows not many
// more. These survivors are ranked by comparing each with all. Where they are too many (ties, or entries in few lanes),
// the row's best entry is taken k times instead.
//
// Macros besides those of the included files: LANES (8, 16 or 32; at least k), ENTRIES (of a lane), VECTOR (neighbours
// that one load brings; it divides ENTRIES).
#define PACKED (BITS <= 16)
#define KEEP 1
#include "rows.cuh"
#if PACKED
#include "kept_packed.cuh"
#else
#include "kept_entry.cuh"
#endif

struct SmallParams {
    Rows rows;
    i64 rows_count;
    i64 k;
    Result result;
};

constexpr u32 CAPACITY = LANES + 32;
constexpr u32 AT_ONCE = 4;

// What elements are read as: those of narrow types several at once.
#if VECTOR > 1 && BITS < 32
typedef u32 Word;
#else
typedef Element Word;
#endif
constexpr u32 PER_WORD = sizeof(Word) / sizeof(Element);

// A row's piece of shared memory.
struct __align__(16) Survivors {
    Kept found[CAPACITY + AT_ONCE];
    Kept ordered[LANES];
};

#if PACKED
__device__ __forceinline__ Kept kept_of(Key key, Step position) { return key | (STEP_MASK - position); }
__device__ __forceinline__ Kept shuffle_xor(Kept kept, int lanes) { return __shfl_xor_sync(ALL_LANES, kept, lanes); }
__device__ __forceinline__ bool ahead(Kept a, Kept b) { return a > b; }
#else
__device__ __forceinline__ Kept kept_of(Key key, Step position) { return {key, position}; }
__device__ __forceinline__ Kept shuffle_xor(const Kept& kept, int lanes) {
    return {__shfl_xor_sync(ALL_LANES, kept.key, lanes), __shfl_xor_sync(ALL_LANES, kept.index, lanes)};
}
// As beats(), without a branch.
__device__ __forceinline__ bool ahead(const Kept& a, const Kept& b) {
    return (a.key > b.key) | ((a.key == b.key) & (a.index < b.index));
}
#endif

// Where a lane's entry `e` stands in the row.
__device__ __forceinline__ u32 position_of(u32 e, u32 lane) {
    return e / VECTOR * (LANES * VECTOR) + lane * VECTOR + e % VECTOR;
}

// An element that none is worse than.
__device__ __forceinline__ Element worst_element(const Coding& coding) {
#if FLOAT
    return LARGEST ? Element(LARGEST_NUMBER) | Element(1) << (BITS - 1) : Element(-1);
#else
    return Element(Key(coding.flip) >> KEY_SHIFT);
#endif
}

// Reads the row at x. Where it has no entry the worst one stands: being behind, it is worse than all of the row.
// Of every entry a lane holds the key, together with the position where both fit a word.
__device__ __forceinline__ void read_row(const Element* x, i64 stride, u32 length, u32 lane, const Coding& coding,
                                         Key (&keys)[ENTRIES]) {
    const Element worst = worst_element(coding);
    Word word[ENTRIES / PER_WORD];
#pragma unroll
    for (u32 w = 0; w < ENTRIES / PER_WORD; ++w) word[w] = PER_WORD == 1 ? worst : worst * (~Word(0) / Element(-1));
    // Held, or the compiler works the address out for every load.
    const Element* at = reinterpret_cast<const Element*>(held(reinterpret_cast<u64>(x + i64(lane * VECTOR) * stride)));
    constexpr u32 BYTES = sizeof(Element) * VECTOR;
    if (VECTOR > 1 && (reinterpret_cast<u64>(x) | length * sizeof(Element)) % BYTES == 0) {
#pragma unroll
        for (u32 e = 0; e < ENTRIES; e += VECTOR) {
            if (position_of(e, lane) >= length) continue;
            const auto pack = load_pack<Word, VECTOR / PER_WORD>(reinterpret_cast<const Word*>(at + position_of(e, 0)));
#pragma unroll
            for (u32 w = 0; w < VECTOR / PER_WORD; ++w) word[e / PER_WORD + w] = pack.item[w];
        }
    } else {
#pragma unroll
        for (u32 e = 0; e < ENTRIES; ++e) {
            if (position_of(e, lane) >= length) continue;
            const Word element = load(at + i64(position_of(e, 0)) * stride);
            const u32 shift = e % PER_WORD * BITS;
            if (PER_WORD == 1) word[e] = element;
            else word[e / PER_WORD] = (word[e / PER_WORD] & ~(Word(Element(-1)) << shift)) | element << shift;
        }
    }
#if PACKED
    const Maker make(coding);
#endif
#pragma unroll
    for (u32 e = 0; e < ENTRIES; e += VECTOR) {
        Pack<Element, VECTOR> pack;
#pragma unroll
        for (u32 v = 0; v < VECTOR; ++v) pack.item[v] = Element(word[(e + v) / PER_WORD] >> v % PER_WORD * BITS);
#if PACKED
        Kept made[VECTOR];
        make(pack, position_of(e, lane), made);
#pragma unroll
        for (u32 v = 0; v < VECTOR; ++v) keys[e + v] = made[v] - v;
#else
#pragma unroll
        for (u32 v = 0; v < VECTOR; ++v) keys[e + v] = key_of(pack.item[v], coding);
#endif
    }
}

// Of one value of every lane of a row, the greatest in the first lane, and so on.
__device__ __forceinline__ Key sorted(Key value, u32 lane) {
#pragma unroll
    for (u32 run = 2; run <= LANES; run *= 2) {
#pragma unroll
        for (u32 distance = run / 2, partner = run - 1; distance > 0; distance /= 2, partner = distance) {
            const Key other = __shfl_xor_sync(ALL_LANES, value, int(partner));
            value = lane & distance ? min(value, other) : max(value, other);
        }
    }
    return value;
}

// What at least k of the entries reach.
__device__ __forceinline__ Key bound_of(const Key (&held)[ENTRIES], u32 lane, u32 k) {
    Key best = held[0];
#pragma unroll
    for (u32 e = 1; e < ENTRIES; ++e) best = max(best, held[e]);
    best = sorted(best, lane);
    if (2 * k <= LANES) return __shfl_sync(ALL_LANES, best, int(k) - 1, LANES);

    // The k-th best of as many would be too low: take the lanes' second best entries too. i of the best are not below
    // the i-th of them, and j of the second best not below theirs; for i + j = k the lesser is a bound.
    Key first = held[0], second = 0;
#pragma unroll
    for (u32 e = 1; e < ENTRIES; ++e) {
        second = max(second, min(first, held[e]));
        first = max(first, held[e]);
    }
    second = sorted(second, lane);
    const Key partner = __shfl_sync(ALL_LANES, second, int(k - 2 - lane), LANES);
    Key bound = lane + 1 < k ? min(best, partner) : lane + 1 == k ? best : 0;
#pragma unroll
    for (u32 d = LANES / 2; d > 0; d /= 2) bound = max(bound, __shfl_xor_sync(ALL_LANES, bound, int(d)));
    return bound;
}

// The row's entry of rank `lane`, for ranks below k.
__device__ __forceinline__ Kept best_in_turn(const Key (&held)[ENTRIES], u32 lane, u32 k) {
    Kept mine = NOTHING;
    u32 left = ~0u;  // bit e: entry e is not yet taken
#pragma unroll 1
    for (u32 rank = 0; rank < k; ++rank) {
        Key key = 0;
        u32 which = WARP;
#pragma unroll
        for (int e = ENTRIES - 1; e >= 0; --e) {
            const bool leads = bool(left >> e & 1) & (held[e] >= key);
            key = leads ? held[e] : key;
            which = leads ? u32(e) : which;
        }
        Kept best = which < WARP ? kept_of(key, position_of(which, lane)) : NOTHING;
#pragma unroll 1
        for (u32 d = LANES / 2; d > 0; d /= 2) {
            const Kept other = shuffle_xor(best, int(d));
            if (beats(other, best)) best = other;
        }
        if (lane == rank) mine = best;
        const u32 taken = u32(kept_step(best));
        if (taken / VECTOR % LANES == lane) left &= ~(1u << (taken / (LANES * VECTOR) * VECTOR + taken % VECTOR));
    }
    return mine;
}

extern "C" __global__ void __launch_bounds__(128, 4) warp_row(const __grid_constant__ SmallParams p) {
    const u32 lane = threadIdx.x % LANES, team = threadIdx.x / LANES, k = u32(p.k);
    u64 row = u64(blockIdx.x) * (blockDim.x / LANES) + team;
    // Lanes without a row do as the last row's, to stay with their warp.
    const bool is_there = row < u64(p.rows_count);
    if (!is_there) row = u64(p.rows_count) - 1;
    const Row found = find_row(p.rows, row);
    const u32 length = u32(found.length);
    const i64 stride = VECTOR > 1 ? 1 : p.rows.axis_stride;
    Key held[ENTRIES];
    const Element* x = found.base + i64(found.first) * stride;
    const Coding& coding = p.result.coding;
    read_row(x, stride, length, lane, coding, held);

    const Key bound = bound_of(held, lane, k);
    u32 reach = 0;  // bit e: entry e reaches the bound
#pragma unroll
    for (u32 e = 0; e < ENTRIES; ++e) reach |= u32(held[e] >= bound) << e;
    u32 slot = __popc(reach);
#pragma unroll
    for (u32 d = 1; d < LANES; d *= 2) {
        const u32 before = __shfl_up_sync(ALL_LANES, slot, d, LANES);
        if (lane >= d) slot += before;
    }
    const u32 count = __shfl_sync(ALL_LANES, slot, LANES - 1, LANES);
    slot -= __popc(reach);

    Kept mine;  // the entry of rank `lane`
    if (__all_sync(ALL_LANES, count <= CAPACITY)) {
        Survivors& shared = reinterpret_cast<Survivors*>(dynamic_shared())[team];
        // An index into registers must be a constant: the few elements are read again.
        for (; reach; reach &= reach - 1) {
            const u32 position = position_of(__ffs(reach) - 1, lane);
            const Element element = position < length ? load(x + i64(position) * stride) : worst_element(coding);
            shared.found[slot++] = kept_of(key_of(element, coding), position);
        }
        if (lane < AT_ONCE) shared.found[count + lane] = NOTHING;
        __syncwarp();
#pragma unroll 1
        for (u32 at = lane; at < count; at += LANES) {
            const Kept own = shared.found[at];
            u32 rank = 0;
#pragma unroll 1
            for (u32 other = 0; other < count; other += AT_ONCE)
#pragma unroll
                for (u32 o = 0; o < AT_ONCE; ++o) rank += ahead(shared.found[other + o], own);
            if (rank < k) shared.ordered[rank] = own;
        }
        __syncwarp();
        mine = shared.ordered[lane];
    } else {
        mine = best_in_turn(held, lane, k);
    }
    if (!is_there || lane >= k) return;
    const bool exists = kept_step(mine) < length;
    const Entry entry = exists ? Entry{kept_key(mine), found.first + Index(kept_step(mine))} : EMPTY;
    emit(p.result, row, lane, entry, found.base, p.rows.axis_stride);
}
