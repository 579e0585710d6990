// Counts for a few targets of each row, in registers: every entry is compared twice with every target.
//
// Macros besides those of the included files: TARGETS (of a row, at most).
#include "rank.cuh"

#if FLOAT
constexpr bool UP = LARGEST;
#else
constexpr bool UP = true;
#endif

struct Tally {
    u32 above, reached;  // entries that rank above the target's value; those and the ones equal to it
};

// Counts whole words of entries for one target.
#if FLOAT && VECTOR > 1 && BITS >= 32
// As floats. Where the target is NaN, with the largest number in its place: what is above that is NaN.
struct Counter {
    Element bound;
    bool is_nan;
    u32 above, reached;

    __device__ __forceinline__ void start(Key target, const Coding& coding) {
        above = reached = 0;
        is_nan = target == NAN_KEY;
        element_of(target, coding, bound);
        if (is_nan) bound = LARGEST_NUMBER;
    }

    __device__ __forceinline__ void add(Word word) {
        count_beating<UP, false>(word, bound, above);
        count_beating<UP, true>(word, bound, reached);
    }

    __device__ __forceinline__ Tally tally(u32 seen) const {
        if (is_nan) return UP ? Tally{0, above} : Tally{reached, seen};
        return {above, reached};
    }
};
#elif VECTOR > 1 && BITS <= 16 && (FLOAT || BITS == 8)
// As two floats of 16 bits in a word. Those of 8 bits become such as in Gate, and bytes as unsigned as keys are become
// subnormal ones, of the same order. NaN targets as above.
struct Counter {
#if FLOAT
    static constexpr bool BRAIN = LARGEST_NUMBER == (BITS == 8 ? 0x7E : 0x7F80);
    static constexpr u32 BELOW = BITS == 8 && BRAIN ? ~0u : 0;
#else
    static constexpr bool BRAIN = false;
    u32 flip;
#endif
    // They differ where +0 and -0 do.
    u32 above_bound, reached_bound;
    bool is_nan;
    u32 above, reached;

    __device__ __forceinline__ void start(Key target, const Coding& coding) {
        above = reached = 0;
#if FLOAT
        Element element;
        element_of(target, coding, element);
        is_nan = target == NAN_KEY;
        if (is_nan) element = LARGEST_NUMBER;
        u32 low = element == 0 ? 1u << (BITS - 1) : element, high = element;
        if (BITS == 8) {
            low = low << 8 | (BELOW & 0xFF);
            high = high << 8 | (BELOW & 0xFF);
        }
        above_bound = held((UP ? high : low) * 0x10001);
        reached_bound = held((UP ? low : high) * 0x10001);
#else
        is_nan = false;
        flip = held(u32(coding.flip) / 0x1000000 * 0x1010101);
        above_bound = reached_bound = held(target / 0x1000000 * 0x10001);
#endif
    }

    __device__ __forceinline__ void add(Word word) {
#if BITS == 16
        add_halves(word);
#elif FLOAT
        add_halves(select_bytes(word, BELOW, 0x1404));
        add_halves(select_bytes(word, BELOW, 0x3424));
#else
        add_halves(select_bytes(word ^ flip, 0, 0x4140));
        add_halves(select_bytes(word ^ flip, 0, 0x4342));
#endif
    }

    __device__ __forceinline__ Tally tally(u32 seen) const {
        if (is_nan) return UP ? Tally{0, above} : Tally{reached, seen};
        return {above, reached};
    }

  private:
    __device__ __forceinline__ void add_halves(u32 halves) {
        count_beating_halves<UP, false, BRAIN>(halves, above_bound, above);
        count_beating_halves<UP, true, BRAIN>(halves, reached_bound, reached);
    }
};
#else
// By keys.
struct Counter {
    Key target;
    Coding coding;
    u32 above, reached;

    __device__ __forceinline__ void start(Key target_, const Coding& coding_) {
        target = target_;
        coding = coding_;
        above = reached = 0;
    }

    __device__ __forceinline__ void add(Word word) {
#if VECTOR > 1 && BITS == 16
        // The entry in the upper half decides, whatever stands in the lower one.
        const Key keys = word ^ (Key(coding.flip) >> 16 | Key(coding.flip));
        add_key(keys);
        add_key(keys << 16);
#else
        add_key(key_of(element_at(word, 0), coding));
#endif
    }

    __device__ __forceinline__ Tally tally(u32 seen) const { return {above, reached}; }

  private:
    __device__ __forceinline__ void add_key(Key key) {
        count_greater<false>(key, target | (LEAST_STEP - 1), above);
        count_greater<true>(key, target, reached);
    }
};
#endif

// The targets of a row, and what one thread has counted for them.
struct Ranks {
    Entry target[TARGETS];
    Counter counter[TARGETS];
    Index ahead[TARGETS];  // the load that holds the target, until this thread's loads have come there; then NOWHERE
    Counts counts[TARGETS];
    u32 seen;              // entries so far

    // Those of `equal` that this thread has met stand before the target.
    __device__ __forceinline__ void pass(int t) {
        const Tally tally = counter[t].tally(seen);
        counts[t].before += tally.reached - tally.above;
        ahead[t] = NOWHERE;
    }

    // Counts the entries in whole loads, thread `thread` of `team`.
    __device__ __forceinline__ void stream(const Piece& piece, u32 thread, u32 team) {
        // A warp's loads at a time are neighbours, so that one address does for all.
        const Index last = piece.last, step = WARP * UNROLL, stride = team * UNROLL, lane = thread % WARP;
        Index at = piece.first + thread / WARP * step;
        while (at < last) {
            // The loop until a load is not there, or holds a target or comes after it.
            Index next = last;
#pragma unroll
            for (int t = 0; t < TARGETS; ++t) next = min(next, ahead[t]);
            while (at + step <= next) {
                Pack<Word, WORDS> pack[UNROLL];
#pragma unroll
                for (int u = 0; u < UNROLL; ++u) pack[u] = piece.words(u64(at + lane) + u * WARP);
                at += stride;
                seen += UNROLL * VECTOR;
#pragma unroll
                for (int u = 0; u < UNROLL; ++u) add(pack[u]);
            }
            if (at >= last) break;
            Pack<Word, WORDS> pack[UNROLL];
#pragma unroll
            for (int u = 0; u < UNROLL; ++u)
                if (at + lane + u * WARP < last) pack[u] = piece.words(u64(at + lane) + u * WARP);
            // One load at a time, the same code for all.
#pragma unroll 1
            for (Index number = at + lane; number < at + step; number += WARP) {
#pragma unroll
                for (int t = 0; t < TARGETS; ++t)
                    if (number >= ahead[t]) pass(t);
                if (number < last) {
                    seen += VECTOR;
                    add(pack[0]);
                }
#pragma unroll
                for (int u = 0; u + 1 < UNROLL; ++u) pack[u] = pack[u + 1];
            }
            // What this thread loads next comes after these targets.
#pragma unroll
            for (int t = 0; t < TARGETS; ++t)
                if (ahead[t] < at + step) pass(t);
            at += stride;
        }
#pragma unroll
        for (int t = 0; t < TARGETS; ++t) {
            const Tally tally = counter[t].tally(seen);
            if (ahead[t] != NOWHERE) pass(t);
            counts[t].above += tally.above;
            counts[t].equal += tally.reached - tally.above;
        }
    }

  private:
    __device__ __forceinline__ void add(const Pack<Word, WORDS>& pack) {
#pragma unroll
        for (int w = 0; w < WORDS; ++w)
#pragma unroll
            for (int t = 0; t < TARGETS; ++t) counter[t].add(pack.item[w]);
    }
};

extern "C" __global__ void __launch_bounds__(512, 1) rank(const __grid_constant__ RankParams p) {
    Counts* shared = reinterpret_cast<Counts*>(dynamic_shared());  // (warps, TARGETS)
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const u32 team = u32(p.team), thread = threadIdx.x % team, rows = blockDim.x / team;
    u64 number;
    const u64 first_row = divide(blockIdx.x, u64(p.pieces), number) * rows, row = first_row + threadIdx.x / team;

    Ranks ranks;
    ranks.seen = 0;
#pragma unroll
    for (int t = 0; t < TARGETS; ++t) {
        ranks.target[t] = EMPTY;
        ranks.counts[t] = {0, 0, 0};
    }
    if (row < u64(p.rows_count)) {
        const Row found = find_row(p.rows, row);
        if (number == 0 && thread == 0) emit_valid(p, row, found);
        const Piece piece(p, found, number);
        // One lane of each warp for every target.
        const Entry mine = lane < TARGETS && lane < p.m ? find_target(p, row, found, lane) : EMPTY;
        bool any = false;
#pragma unroll
        for (int t = 0; t < TARGETS; ++t) {
            const Entry target = {__shfl_sync(ALL_LANES, mine.key, t), __shfl_sync(ALL_LANES, mine.index, t)};
            const bool is_there = target.index != NOWHERE;
            any |= is_there;
            const u64 position = u64(target.index) + piece.shift;
            const Index load = Index(position / VECTOR);
            ranks.target[t] = target;
            ranks.counter[t].start(target.key, p.coding);
            ranks.ahead[t] = is_there && load >= piece.first ? load : NOWHERE;
        }
        if (any) {
            auto take = [&](u64 position) {
                const Key key = piece.key(position);
#pragma unroll
                for (int t = 0; t < TARGETS; ++t) {
                    ranks.counts[t].above += key > ranks.target[t].key;
                    ranks.counts[t].equal += key == ranks.target[t].key;
                    ranks.counts[t].before +=
                        key == ranks.target[t].key && position < u64(ranks.target[t].index) + piece.shift;
                }
            };
            piece.ends(thread, take);
            // The load that holds a target counts as coming after it.
#pragma unroll
            for (int t = 0; t < TARGETS; ++t) {
                if (VECTOR == 1 || ranks.ahead[t] >= piece.last || thread >= VECTOR) continue;
                const u64 position = u64(ranks.ahead[t]) * VECTOR + thread;
                if (position < u64(ranks.target[t].index) + piece.shift)
                    ranks.counts[t].before += piece.key(position) == ranks.target[t].key;
            }
            ranks.stream(piece, thread, team);
        }
    }

#pragma unroll
    for (int t = 0; t < TARGETS; ++t) {
        Counts counts = ranks.counts[t];
#pragma unroll
        for (u32 d = WARP / 2; d > 0; d /= 2) {
            counts.above += __shfl_xor_sync(ALL_LANES, counts.above, int(d));
            counts.equal += __shfl_xor_sync(ALL_LANES, counts.equal, int(d));
            counts.before += __shfl_xor_sync(ALL_LANES, counts.before, int(d));
        }
        if (ranks.target[t].index == NOWHERE) counts.above = ABSENT;
        if (lane == 0) shared[warp * TARGETS + t] = counts;
    }
    __syncthreads();
    if (threadIdx.x < rows * TARGETS) {
        const u32 t = threadIdx.x % TARGETS, warps = team / WARP;
        const Counts* counts = shared + threadIdx.x / TARGETS * warps * TARGETS + t;
        Counts sum = *counts;
        if (sum.above != ABSENT) {
            for (u32 w = 1; w < warps; ++w) {
                sum.above += counts[w * TARGETS].above;
                sum.equal += counts[w * TARGETS].equal;
                sum.before += counts[w * TARGETS].before;
            }
        }
        const u64 of_row = first_row + threadIdx.x / TARGETS;
        if (t < p.m && of_row < u64(p.rows_count)) put_counts(p, of_row, t, number, sum);
    }
    if (p.pieces > 1)
        add_pieces(p, first_row, 0, 0, u64(p.m), reinterpret_cast<u32*>(shared + blockDim.x / WARP * TARGETS));
}
