// Where given entries, the targets, stand in their rows: how many entries rank above a target's value, how many are
// equal to it, and how many of those come before it. Counting takes one reading of the row, and orders nothing.
//
// A row is read by some warps of a block, its team, by a whole block, or by several blocks, each of which reads a
// piece; of these the one that comes last adds up what the others left in the workspace.
//
// Macros besides those of the included files: UNROLL (loads in flight).
#pragma once
#include "block.cuh"
#include "gate.cuh"
#include "rows.cuh"

struct RankParams {
    Rows rows;
    i64 rows_count, inner;
    PerRow index;        // the targets of each row; null: one target, the same in all rows
    i64 index_step;      // between the targets of a row
    const Element* value;  // the targets' values in place of their indices; null: none
    Strides value_strides;
    i64 value_step;
    i64 target;          // that one target
    i64 m;               // targets of a row
    i64 chunk, chunks;   // of which a block counts for so many; blocks that it takes
    i64 team;            // threads that read a row, or a piece of it
    i64 pieces;          // blocks of a row; with several, or with several chunks, a team is a whole block
    i64 piece_entries;   // a multiple of VECTOR
    u32* parts;          // pieces > 1: (row, target, piece, 3)
    u32* done;           // pieces > 1: (row, chunk), blocks that are done; zero before and after
    void* rank;          // (outer, m, inner), contiguous; null: the counts are wanted
    void* greater;       // the same, null where ranks are wanted
    void* equal;         // the same
    void* valid;         // (outer, inner), null where ranks are wanted
    i64 wide;            // results of 64 bits
    i64 ties;            // one of those below; with ranks only
    i64 base;            // the rank of the first entry
    Coding coding;
};

// What is counted for one target. `above` of a target that is no entry of its row is ABSENT.
struct Counts {
    u32 above, equal, before;
};
constexpr u32 ABSENT = ~0u;

// Where an entry ranks among its equals, numbered as in approxtopk/rank_request.py; 0 is the best of their ranks.
constexpr i64 PESSIMISTIC = 1, AVERAGE = 2, FIRST = 3;

// Entries of a row in positions `begin` to `end`, of which the loads `first` to `last` lie entirely among them. Loads
// are aligned: position p is entry p - shift, and load l is positions l VECTOR and following.
struct Piece {
    const Element* x;
    i64 stride;
    u32 shift;
    u64 begin, end;
    Index first, last;
    Coding coding;

    __device__ __forceinline__ Piece(const RankParams& p, const Row& row, u64 piece) {
        x = row.base;
        stride = p.rows.axis_stride;
        shift = VECTOR > 1 ? u32(reinterpret_cast<u64>(x) / sizeof(Element) % VECTOR) : 0;
        coding = p.coding;
        const u64 positions = row.length + shift;
        begin = piece * u64(p.piece_entries);
        end = begin + u64(p.piece_entries);
        if (end > positions) end = positions;
        first = Index(begin / VECTOR + (begin < shift ? 1 : 0));
        last = Index(end / VECTOR);
        if (last < first) last = first;
    }

    __device__ __forceinline__ Key key(u64 position) const {
        return key_of(load(x + (i64(position) - i64(shift)) * stride), coding);
    }

    // A whole load.
    __device__ __forceinline__ Pack<Word, WORDS> words(u64 number) const {
        if constexpr (VECTOR == 1) return {filled(load(x + i64(number) * stride))};
        else return load_pack<Word, WORDS>(reinterpret_cast<const Word*>(x - shift) + number * WORDS);
    }

    // Calls take(position) for the entries before and behind whole loads, one a thread of the first 2 VECTOR.
    template <class Take>
    __device__ __forceinline__ void ends(u32 thread, Take take) const {
        if (VECTOR == 1 || thread >= 2 * VECTOR) return;
        const u64 whole_begin = u64(first) * VECTOR, whole_end = u64(last) * VECTOR;
        const bool ahead = thread < VECTOR;
        const u64 position = thread + (ahead ? begin : whole_end - VECTOR);
        if (position >= shift && position < (ahead && whole_begin < end ? whole_begin : end)) take(position);
    }
};

// The index of target `number` of a row, and its key; NOWHERE if it is no entry of the row. A target that is given by
// its value stands at the front, where no entry is before it.
__device__ __forceinline__ Entry find_target(const RankParams& p, u64 row_index, const Row& row, u64 number) {
    if (p.value) {
        const i64 offset = row_offset(p.rows.batch, p.value_strides, row_index) + i64(number) * p.value_step;
        return {key_of(load(p.value + offset), p.coding), 0};
    }
    i64 index = p.target;
    if (p.index.at)
        index =
            load_integer(p.index, row_offset(p.rows.batch, p.index.strides, row_index) + i64(number) * p.index_step);
    // What is negative, or from 2^63 on, is too large.
    if (u64(index) >= row.length) return EMPTY;
    return {key_of(load(row.base + index * p.rows.axis_stride), p.coding), Index(index)};
}

__device__ __forceinline__ void store_integer(const RankParams& p, void* results, u64 position, i64 value) {
    if (p.wide) store(static_cast<i64*>(results) + position, value);
    else store(static_cast<int*>(results) + position, int(value));
}

// Writes how many entries a row has, where that is asked for.
__device__ __forceinline__ void emit_valid(const RankParams& p, u64 row, const Row& found) {
    if (p.valid) store_integer(p, p.valid, row, i64(found.length));
}

// Writes what was counted for target `number` of a row, or its rank; -1 of one that is no entry.
__device__ __forceinline__ void emit(const RankParams& p, u64 row, u64 number, bool absent, i64 above, i64 equal,
                                     i64 before) {
    u64 within = 0;
    const u64 outer = p.inner == 1 ? row : divide(row, u64(p.inner), within);
    const u64 position = (outer * u64(p.m) + number) * u64(p.inner) + within;
    if (!p.rank) {
        store_integer(p, p.greater, position, absent ? -1 : above);
        store_integer(p, p.equal, position, absent ? -1 : equal);
    } else if (p.ties == AVERAGE) {
        const double rank = absent ? -1 : double(p.base + above) + double(equal - 1) / 2;
        if (p.wide) store(static_cast<double*>(p.rank) + position, rank);
        else store(static_cast<float*>(p.rank) + position, float(rank));
    } else {
        const i64 others = p.ties == PESSIMISTIC ? equal - 1 : p.ties == FIRST ? before : 0;
        store_integer(p, p.rank, position, absent ? -1 : p.base + above + others);
    }
}

__device__ __forceinline__ u32* part_of(const RankParams& p, u64 row, u64 number, u64 piece) {
    return p.parts + ((row * u64(p.m) + number) * u64(p.pieces) + piece) * 3;
}

// Writes what a block counted for target `number` of a row: to the results, or for the block that comes last.
__device__ __forceinline__ void put_counts(const RankParams& p, u64 row, u64 number, u64 piece, const Counts& counts) {
    if (p.pieces == 1) {
        emit(p, row, number, counts.above == ABSENT, counts.above, counts.equal, counts.before);
        return;
    }
    u32* part = part_of(p, row, number, piece);
    store(part, counts.above);
    store(part + 1, counts.equal);
    store(part + 2, counts.before);
}

// In the block of a row that comes last, writes the sums for targets `begin` to `end`. All threads must call; `shared`
// is one element.
__device__ __forceinline__ void add_pieces(const RankParams& p, u64 row, u64 chunk, u64 begin, u64 end, u32* shared) {
    if (!comes_last(p.done + row * u64(p.chunks) + chunk, u32(p.pieces), shared)) return;
    for (u64 number = begin + threadIdx.x; number < end; number += blockDim.x) {
        i64 above = 0, equal = 0, before = 0;
        bool absent = false;
        for (u64 piece = 0; piece < u64(p.pieces); ++piece) {
            const u32* part = part_of(p, row, number, piece);
            const u32 here = load_fresh(part);
            absent = here == ABSENT;
            above += here;
            equal += load_fresh(part + 1);
            before += load_fresh(part + 2);
        }
        emit(p, row, number, absent, above, equal, before);
    }
}
