// Where rows lie in the input, where their entries go in the output, and entries on the way.
//
// Macros: WIDE (0, 1: positions along the axis need 64 bits), BATCH_DIMS (how many batch dimensions a launch can
// describe).
#pragma once
#include "keys.cuh"

#if WIDE
typedef u64 Index;
#else
typedef u32 Index;
#endif
constexpr Index NOWHERE = ~Index(0);

// Quotient and remainder; 32-bit where the numbers allow, because the GPU divides 64-bit numbers slowly.
__device__ __forceinline__ u64 divide(u64 number, u64 by, u64& remainder) {
    if ((number | by) >> 32 == 0) {
        u32 quotient = u32(number) / u32(by);
        remainder = u32(number) - quotient * u32(by);
        return quotient;
    }
    u64 quotient = number / by;
    remainder = number - quotient * by;
    return quotient;
}

// The axes other than the one selected along, outermost first, merged where strides allow.
struct Batch {
    i64 dims;
    i64 extent[BATCH_DIMS];
    i64 stride[BATCH_DIMS];
};

// The offset, in elements, of a row's first entry.
__device__ __forceinline__ i64 row_offset(const Batch& batch, u64 row) {
    i64 offset = 0;
#pragma unroll 1
    for (int d = int(batch.dims) - 1; d > 0; --d) {
        u64 coordinate;
        row = divide(row, u64(batch.extent[d]), coordinate);
        offset += i64(coordinate) * batch.stride[d];
    }
    return offset + i64(row) * batch.stride[0];
}

// An entry on the way to the result. Better: greater key, then lower index. NOWHERE marks an empty slot, which
// is worse than every entry.
struct Entry {
    Key key;
    Index index;
};
constexpr Entry EMPTY = {0, NOWHERE};

__device__ __forceinline__ bool better(const Entry& a, const Entry& b) {
    return a.key > b.key || (a.key == b.key && a.index < b.index);
}

// Entries in the workspace.
struct Pairs {
    Key* key;
    Index* index;
};

__device__ __forceinline__ Entry load_pair(const Pairs& pairs, u64 position) {
    return {load(pairs.key + position), load(pairs.index + position)};
}

__device__ __forceinline__ void store_pair(const Pairs& pairs, u64 position, const Entry& entry) {
    store(pairs.key + position, entry.key);
    store(pairs.index + position, entry.index);
}

// The arrays the caller gets, of shape (outer, k, inner), contiguous; null when the launch is not the last.
struct Result {
    Element* values;
    void* indices;
    i64 wide_indices;  // 64-bit ones
    i64 k, inner;
    Coding coding;
};

// Writes entry `slot` of row `row`, whose first input element is *x and neighbours `axis_stride` apart.
__device__ __forceinline__ void emit(const Result& result, u64 row, u64 slot, const Entry& entry, const Element* x,
                                     i64 axis_stride) {
    u64 within = 0;
    const u64 outer = result.inner == 1 ? row : divide(row, u64(result.inner), within);
    const u64 position = (outer * u64(result.k) + slot) * u64(result.inner) + within;
    Element element;
    if (!element_of(entry.key, result.coding, element)) element = load(x + i64(entry.index) * axis_stride);
    store(result.values + position, element);
    if (result.wide_indices) store(static_cast<i64*>(result.indices) + position, i64(entry.index));
    else store(static_cast<int*>(result.indices) + position, int(entry.index));
}
