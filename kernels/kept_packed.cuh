// A kept entry of an 8- or 16-bit type as one 32-bit word, the key above the step it came from: one integer
// comparison decides order and ties.
#pragma once
#include "rows.cuh"

typedef u32 Kept;
typedef u32 Step;
constexpr Step STEP_MASK = (Step(1) << KEY_SHIFT) - 1;
constexpr Kept NOTHING = 0;  // no entry: steps are less than STEP_MASK

__device__ __forceinline__ Key kept_key(Kept kept) { return kept & ~STEP_MASK; }
__device__ __forceinline__ Step kept_step(Kept kept) { return STEP_MASK - (kept & STEP_MASK); }
__device__ __forceinline__ bool is_nothing(Kept kept) { return kept == NOTHING; }
__device__ __forceinline__ bool beats(Kept a, Kept b) { return a > b; }
__device__ __forceinline__ bool beats_earlier(Kept a, Kept b) { return a > b; }

// Two instructions a slot: at these lengths cheaper than to ask first.
constexpr bool BRANCHLESS = KEEP <= 4;
__device__ __forceinline__ void insert_branchless(Kept (&kept)[KEEP], Kept entry) {
#pragma unroll
    for (int j = 0; j < KEEP; ++j) {
        const Kept stays = kept[j] > entry ? kept[j] : entry;
        entry = kept[j] > entry ? entry : kept[j];
        kept[j] = stays;
    }
}

// Makes kept entries of the elements that one load brought, on whole words: keys of several elements at once, and
// one byte selection that puts key and step together.
struct Maker {
    Coding coding;
    u32 turn;  // what a word of elements is combined with; in a register, since a logic instruction takes one constant

#if FLOAT
    static constexpr u32 ZERO = ZERO_KEY >> 16;
    static constexpr u32 TURNED = (ZERO ^ ((ZERO + 1) & 0xFFFF)) * 0x10001;
#endif

    __device__ __forceinline__ explicit Maker(const Coding& coding_) : coding(coding_) {
#if FLOAT
        // Not ZERO: a known constant would be made anew for every word.
        turn = held((u32(coding.zero) >> 16) * 0x10001 ^ (LARGEST ? 0 : TURNED));
#else
        turn = held(BITS == 16 ? (u32(coding.flip) >> 16) * 0x10001 : (u32(coding.flip) >> 24) * 0x1010101);
#endif
    }

    template <int N>
    __device__ __forceinline__ void operator()(const Pack<Element, N>& pack, Step step, Kept (&kept)[N]) const {
        constexpr int PER_WORD = 4 / sizeof(Element);
        const u32 below = STEP_MASK - step;
        if constexpr (N < PER_WORD) {
#pragma unroll
            for (int v = 0; v < N; ++v) kept[v] = key_of(pack.item[v], coding) | below;
        } else {
#pragma unroll
            for (int w = 0; w < N / PER_WORD; ++w) {
                u32 word = 0;
#pragma unroll
                for (int v = 0; v < PER_WORD; ++v) word |= u32(pack.item[w * PER_WORD + v]) << v * BITS;
                Kept* to = kept + w * PER_WORD;
#if FLOAT && BITS == 8
                const u32 low = key_halves(select_bytes(word, 0, 0x1404));
                const u32 high = key_halves(select_bytes(word, 0, 0x3424));
                to[0] = select_bytes(below, low, 0x5210);
                to[1] = select_bytes(below, low, 0x7210);
                to[2] = select_bytes(below, high, 0x5210);
                to[3] = select_bytes(below, high, 0x7210);
#elif BITS == 8
                word ^= turn;
#pragma unroll
                for (int v = 0; v < 4; ++v) to[v] = select_bytes(below, word, 0x4210 + (v << 12));
#else
#if FLOAT
                word = key_halves(word);
#else
                word ^= turn;
#endif
                to[0] = select_bytes(below, word, 0x5410);
                to[1] = select_bytes(below, word, 0x7610);
#endif
            }
        }
    }

#if FLOAT
    // key_of for two elements, each in the upper bits of one half of a word; their keys stand there too.
    __device__ __forceinline__ u32 key_halves(u32 halves) const {
        const u32 sign = select_bytes(halves, 0, 0xBB99);
        constexpr u32 FLIP = (0xF0 & 0xCC) ^ (LARGEST ? 0xAA : 0x55), TURN = (0xF0 & 0xCC) ^ 0xAA;
        const u32 flipped = logic<FLIP>(halves, 0x7FFF7FFF, sign);
        const u32 zero = logic<TURN>(sign, TURNED, turn);
        return add_then_bound_halves<LARGEST>(flipped, zero, (NAN_KEY >> 16) * 0x10001);
    }
#endif
};
