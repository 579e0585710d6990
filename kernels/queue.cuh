// The best KEEP entries of one bucket, best first, in registers.
//
// Macros: KEEP, and PACKED (0, 1): a narrow key and the step it came from in one 32-bit word, so that one
// integer comparison decides order and ties.
#pragma once
#include "rows.cuh"

#if PACKED
typedef u32 Kept;
typedef u32 Step;
constexpr Step STEP_MASK = (Step(1) << KEY_SHIFT) - 1;
constexpr Kept NOTHING = 0;

// `step` must be less than STEP_MASK.
__device__ __forceinline__ Kept make_kept(Key key, Step step) { return key | (STEP_MASK - step); }
__device__ __forceinline__ Key kept_key(Kept kept) { return kept & ~STEP_MASK; }
__device__ __forceinline__ Step kept_step(Kept kept) { return STEP_MASK - (kept & STEP_MASK); }
__device__ __forceinline__ bool is_nothing(Kept kept) { return kept == NOTHING; }
__device__ __forceinline__ bool beats(Kept a, Kept b) { return a > b; }
__device__ __forceinline__ bool beats_earlier(Kept a, Kept b) { return a > b; }
#else
typedef Index Step;
typedef Entry Kept;
constexpr Kept NOTHING = EMPTY;

__device__ __forceinline__ Kept make_kept(Key key, Step step) { return {key, step}; }
__device__ __forceinline__ Key kept_key(const Kept& kept) { return kept.key; }
__device__ __forceinline__ Step kept_step(const Kept& kept) { return kept.index; }
__device__ __forceinline__ bool is_nothing(const Kept& kept) { return kept.index == NOWHERE; }
__device__ __forceinline__ bool beats(const Kept& a, const Kept& b) { return better(a, b); }
// For `b` of an earlier step than `a` and not empty: equal keys stay.
__device__ __forceinline__ bool beats_earlier(const Kept& a, const Kept& b) { return a.key > b.key; }
#endif

struct Queue {
    Kept kept[KEEP];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int j = 0; j < KEEP; ++j) kept[j] = NOTHING;
    }

    // EARLIER: every slot holds an entry of an earlier step than `entry`.
    template <bool EARLIER>
    __device__ __forceinline__ void insert(const Kept& entry) {
        if (!wins<EARLIER>(entry, kept[KEEP - 1])) return;
#pragma unroll
        for (int j = KEEP - 1; j > 0; --j) {
            if (wins<EARLIER>(entry, kept[j - 1])) kept[j] = kept[j - 1];
            else if (wins<EARLIER>(entry, kept[j])) kept[j] = entry;
        }
        if (wins<EARLIER>(entry, kept[0])) kept[0] = entry;
    }

    // The best entry, which leaves the queue. Moving the others keeps every index a constant, so that loops over
    // entries need not be unrolled to stay in registers.
    __device__ __forceinline__ Kept pop() {
        const Kept best = kept[0];
#pragma unroll
        for (int j = 0; j + 1 < KEEP; ++j) kept[j] = kept[j + 1];
        kept[KEEP - 1] = NOTHING;
        return best;
    }

    template <bool EARLIER>
    static __device__ __forceinline__ bool wins(const Kept& a, const Kept& b) {
        return EARLIER ? beats_earlier(a, b) : beats(a, b);
    }
};

// Moves every queue one place to the front, the first to the end: for loops over queues, as with pop().
template <int QUEUES>
__device__ __forceinline__ void rotate(Queue (&queue)[QUEUES]) {
    const Queue first = queue[0];
#pragma unroll
    for (int v = 0; v + 1 < QUEUES; ++v) queue[v] = queue[v + 1];
    queue[QUEUES - 1] = first;
}
