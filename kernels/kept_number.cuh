// The one kept entry of a bucket of float32, as a canonical float (one NaN, no -0) and a step: two instructions less
// an element than its key, which is made when the bucket is done.
#pragma once
#include "rows.cuh"

typedef Index Step;
struct Kept {
    u32 number;
    Index step;
};
constexpr Kept NOTHING = {0, NOWHERE};

__device__ __forceinline__ Key kept_key(const Kept& kept) { return key_of(kept.number, Coding()); }
__device__ __forceinline__ Step kept_step(const Kept& kept) { return kept.step; }
__device__ __forceinline__ bool is_nothing(const Kept& kept) { return kept.step == NOWHERE; }
__device__ __forceinline__ Entry entry_of(const Kept& kept) {
    return is_nothing(kept) ? EMPTY : Entry{kept_key(kept), kept.step};
}
__device__ __forceinline__ bool beats(const Kept& a, const Kept& b) { return better(entry_of(a), entry_of(b)); }
__device__ __forceinline__ bool beats_earlier(const Kept& a, const Kept& b) { return kept_key(a) > kept_key(b); }

constexpr bool BRANCHLESS = true;
__device__ __forceinline__ void insert_branchless(Kept (&kept)[KEEP], const Kept& entry) {
    const u32 best = better_number<LARGEST>(kept[0].number, entry.number);
    // Equal keys are equal bits here.
    if (best != kept[0].number) kept[0].step = entry.step;
    kept[0].number = best;
}

// Makes kept entries of the elements that one load brought.
struct Maker {
    __device__ __forceinline__ explicit Maker(const Coding& coding) {}

    template <int N>
    __device__ __forceinline__ void operator()(const Pack<Element, N>& pack, Step step, Kept (&kept)[N]) const {
#pragma unroll
        for (int v = 0; v < N; ++v) kept[v] = {canonical_number(pack.item[v]), step};
    }
};
