// The best KEEP entries of one bucket, best first, in registers.
//
// Macros: KEEP, and PACKED (0, 1). How an entry is kept is what the walk's speed hangs on, hence three ways. Each has
// its type Kept, made by a Maker, and the same functions on it: beats(a, b) for any two, and beats_earlier(a, b) and
// insert_branchless for an entry `a` of a later step than all it is compared with, none of them empty.
#pragma once
#include "rows.cuh"
#if PACKED
#include "kept_packed.cuh"
#elif FLOAT && BITS == 32 && KEEP == 1
#include "kept_number.cuh"
#else
#include "kept_entry.cuh"
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
        if (EARLIER && BRANCHLESS) {
            insert_branchless(kept, entry);
            return;
        }
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
