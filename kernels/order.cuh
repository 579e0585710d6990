// What the launches share that order a result too large for one block: tiles are sorted (order_tiles), then
// neighbouring runs are merged, twice as long with every launch (order_merge).
#pragma once
#include "sort.cuh"

struct OrderParams {
    Pairs from;        // (row, k)
    Pairs to;          // unless the result is written
    Rows rows;
    i64 k;
    i64 tile;          // entries of a block, a power of two
    i64 tiles;         // of a row
    i64 run;           // order_merge: length of the sorted runs, a multiple of the tile
    Result result;
};

// The tile of this block: entries [begin, end) of row `row`.
struct Tile {
    u64 row, begin, end;

    __device__ __forceinline__ explicit Tile(const OrderParams& p) {
        u64 tile;
        row = divide(blockIdx.x, u64(p.tiles), tile);
        begin = tile * u64(p.tile);
        end = begin + u64(p.tile) < u64(p.k) ? begin + u64(p.tile) : u64(p.k);
    }
};

__device__ __forceinline__ void put(const OrderParams& p, u64 row, const Element* base, u64 slot, const Entry& entry) {
    if (p.result.values) emit(p.result, row, slot, entry, base, p.rows.axis_stride);
    else store_pair(p.to, row * u64(p.k) + slot, entry);
}
