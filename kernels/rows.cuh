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

// The axes other than the one selected along, outermost first, merged where the strides of all arrays allow.
struct Batch {
    i64 dims;
    i64 extent[BATCH_DIMS];
};

// Steps of an array along them, in elements.
struct Strides {
    i64 step[BATCH_DIMS];
};

// The offset of a row's element in an array.
__device__ __forceinline__ i64 row_offset(const Batch& batch, const Strides& strides, u64 row) {
    i64 offset = 0;
#pragma unroll 1
    for (int d = int(batch.dims) - 1; d > 0; --d) {
        u64 coordinate;
        row = divide(row, u64(batch.extent[d]), coordinate);
        offset += i64(coordinate) * strides.step[d];
    }
    return offset + i64(row) * strides.step[0];
}

// An integer of every row, of any integer type; null for none.
struct PerRow {
    const void* at;
    i64 bytes, is_signed;
    Strides strides;
};

// The integer at an offset; from 2^63 on, negative.
__device__ __forceinline__ i64 load_integer(const PerRow& array, i64 offset) {
    i64 value;
    if (array.bytes == 8) value = load(static_cast<const i64*>(array.at) + offset);
    else if (array.bytes == 4) value = load(static_cast<const int*>(array.at) + offset);
    else if (array.bytes == 2) value = load(static_cast<const short*>(array.at) + offset);
    else value = load(static_cast<const signed char*>(array.at) + offset);
    // What is not signed was read as if it were.
    return array.is_signed || value >= 0 || array.bytes == 8 ? value : value + (i64(1) << array.bytes * 8);
}

// The rows of x, seen as (outer, n, inner).
struct Rows {
    const Element* x;
    Batch batch;
    Strides strides;
    i64 n, axis_stride;
    PerRow starts, lengths;
};

// One row: its element 0, and which of its elements exist.
struct Row {
    const Element* base;
    Index first;
    u64 length;
};

// Of a ragged row only the elements in [start, start + length) exist, as far as there are such.
__device__ __forceinline__ Row find_row(const Rows& rows, u64 row) {
    // As row_offset, for three arrays at once.
    i64 offset = 0, start_offset = 0, length_offset = 0;
#pragma unroll 1
    for (int d = int(rows.batch.dims) - 1; d >= 0; --d) {
        u64 coordinate = row;
        if (d > 0) row = divide(row, u64(rows.batch.extent[d]), coordinate);
        offset += i64(coordinate) * rows.strides.step[d];
        start_offset += i64(coordinate) * rows.starts.strides.step[d];
        length_offset += i64(coordinate) * rows.lengths.strides.step[d];
    }
    Row found = {rows.x + offset, 0, u64(rows.n)};
    if (!rows.starts.at && !rows.lengths.at) return found;
    const i64 start = rows.starts.at ? load_integer(rows.starts, start_offset) : 0;
    const bool before = start < 0 && rows.starts.is_signed;
    const i64 first = before ? 0 : u64(start) < u64(rows.n) ? start : rows.n;
    i64 end = rows.n;
    if (rows.lengths.at) {
        u64 length = u64(load_integer(rows.lengths, length_offset));
        if (rows.lengths.is_signed && i64(length) < 0) length = 0;
        if (before) length = length > u64(0) - u64(start) ? length + u64(start) : 0;
        if (length < u64(end - first)) end = first + i64(length);
    }
    found.first = Index(first);
    found.length = u64(end - first);
    return found;
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

// A pair that another block wrote during this launch.
__device__ __forceinline__ Entry load_fresh_pair(const Pairs& pairs, u64 position) {
    return {load_fresh(pairs.key + position), load_fresh(pairs.index + position)};
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
    u64 padding;       // the value where a row has no entry left
    Coding coding;
};

// Where entry `slot` of row `row` goes.
__device__ __forceinline__ u64 result_position(const Result& result, u64 row, u64 slot) {
    u64 within = 0;
    const u64 outer = result.inner == 1 ? row : divide(row, u64(result.inner), within);
    return (outer * u64(result.k) + slot) * u64(result.inner) + within;
}

// Writes entry `slot` of row `row`, whose element 0 is *base and neighbours `axis_stride` apart. An empty entry has
// the index -1.
__device__ __forceinline__ void emit(const Result& result, u64 row, u64 slot, const Entry& entry, const Element* base,
                                     i64 axis_stride) {
    const u64 position = result_position(result, row, slot);
    const bool is_there = entry.index != NOWHERE;
    Element element = Element(result.padding);
    if (is_there && !element_of(entry.key, result.coding, element))
        element = load(base + i64(entry.index) * axis_stride);
    store(result.values + position, element);
    if (result.wide_indices) store(static_cast<i64*>(result.indices) + position, is_there ? i64(entry.index) : -1);
    else store(static_cast<int*>(result.indices) + position, is_there ? int(entry.index) : -1);
}
