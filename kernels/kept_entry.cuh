// A kept entry as key and step: what serves every type and length.
#pragma once
#include "rows.cuh"

typedef Index Step;
typedef Entry Kept;
constexpr Kept NOTHING = EMPTY;

__device__ __forceinline__ Key kept_key(const Kept& kept) { return kept.key; }
__device__ __forceinline__ Step kept_step(const Kept& kept) { return kept.index; }
__device__ __forceinline__ bool is_nothing(const Kept& kept) { return kept.index == NOWHERE; }
__device__ __forceinline__ bool beats(const Kept& a, const Kept& b) { return better(a, b); }
__device__ __forceinline__ bool beats_earlier(const Kept& a, const Kept& b) { return a.key > b.key; }

// Insertion without a branch: only where it is one comparison.
constexpr bool BRANCHLESS = KEEP == 1;
__device__ __forceinline__ void insert_branchless(Kept (&kept)[KEEP], const Kept& entry) {
    if (beats_earlier(entry, kept[0])) kept[0] = entry;
}

#ifdef FLOAT
// Makes kept entries of the elements that one load brought.
struct Maker {
    Coding coding;

    __device__ __forceinline__ explicit Maker(const Coding& coding_) : coding(coding_) {}

    template <int N>
    __device__ __forceinline__ void operator()(const Pack<Element, N>& pack, Step step, Kept (&kept)[N]) const {
#pragma unroll
        for (int v = 0; v < N; ++v) kept[v] = {key_of(pack.item[v], coding), step};
    }
};
#endif
