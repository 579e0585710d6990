// A quick first look at elements while a row streams by, at whole words: in each the elements' best is found together
// with the words seen before, and one comparison then tells of all of them.
//
// Macros besides those of the included files: VECTOR (elements of a load).
#pragma once
#include "keys.cuh"

#if BITS == 64
typedef u64 Word;
#else
typedef u32 Word;
#endif
constexpr int PER_WORD = VECTOR > 1 ? sizeof(Word) / sizeof(Element) : 1;  // elements that are looked at together
constexpr int WORDS = VECTOR / PER_WORD;                                   // of a load

// How far apart keys are at least, and the greatest.
constexpr Key LEAST_STEP = Key(1) << KEY_SHIFT;
#if FLOAT
constexpr Key BEST_KEY = LARGEST ? NAN_KEY : Key(-1) << KEY_SHIFT;
#else
constexpr Key BEST_KEY = Key(-1) << KEY_SHIFT;
#endif

// A word full of copies of one element.
__device__ __forceinline__ Word filled(Element element) { return element * (Word(-1) / Element(-1)); }

// Element `v` of a word.
__device__ __forceinline__ Element element_at(Word word, int v) { return Element(word >> v * BITS); }

// Lets through the words with an element whose key is not below a threshold, and maybe some others, in fewer
// instructions than making keys: look() and look(seen, ...) take in words, passes() tells whether one of them is let
// through.
#if !FLOAT && BITS < 64
// Keys from the threshold up are those of consecutive integers, modulo 2^BITS: an element has such a key if and only
// if its distance from the first is at most theirs. Of 8 bits, elements are looked at in the upper byte of halves, and
// whatever stands in the lower one changes nothing.
struct Gate {
    typedef u32 Seen;  // the least distance so far, of either half
    u32 minus_first, width;

    __device__ __forceinline__ Gate(Key threshold, const Coding& coding) {
        const Key first = (coding.largest ? threshold : BEST_KEY) ^ Key(coding.flip);
        constexpr u32 HALVES = BITS == 32 ? 1 : 0x10001;
        minus_first = held(((Key(0) - first) >> (BITS == 32 ? 0 : 16)) * HALVES);
        width = held(BITS == 32 ? BEST_KEY - threshold : (BEST_KEY - threshold) | 0xFFFFFF >> (BITS == 16 ? 8 : 0));
    }

    __device__ __forceinline__ Seen look(Word word) const { return look(~0u, word); }

    __device__ __forceinline__ Seen look(Seen seen, Word word) const {
        if (BITS == 32) return min(word + minus_first, seen);
        if (BITS == 8) seen = add_then_bound_halves<true>(word << 8, minus_first, seen);
        return add_then_bound_halves<true>(word, minus_first, seen);
    }

    __device__ __forceinline__ bool passes(Seen seen) const {
        return seen <= width || (BITS < 32 && seen << 16 <= width);
    }
};
#elif FLOAT && BITS < 64 && (defined(APPROXTOPK_EMULATED) || __CUDA_ARCH__ >= 800)
// The best number so far, as a float. Largest: NaN once one came, and NaN passes any bound. Smallest: NaNs, the worst,
// go unseen where there is a number. -0 passes the bound +0, and the other way round.
//
// Of 8 bits, elements are looked at in the upper byte of halves: e5m2 above 0 is a float16 of the same order, e4m3fn
// above 0xFF a bfloat16, in which the one NaN of either sign is one and nothing is infinite. There -0 is less than +0.
struct Gate {
    typedef u32 Seen;
    static constexpr bool BRAIN = BITS == 8 ? LARGEST_NUMBER == 0x7E : LARGEST_NUMBER == 0x7F80;
    static constexpr u32 BELOW = BITS == 8 && BRAIN ? ~0u : 0;
    u32 bound;
    bool everything;  // the bound is NaN or less, to which numbers do not compare

    __device__ __forceinline__ Gate(Key threshold, const Coding& coding) {
        Element element;
        element_of(threshold, coding, element);
        if (LARGEST && element == 0) element = Element(1) << (BITS - 1);
        if (LARGEST && threshold == NAN_KEY) element = LARGEST_NUMBER;
        bound = element;
        if (BITS == 8) bound = bound << 8 | (BELOW & 0xFF);
        bound = held(bound * (BITS == 32 ? 1 : 0x10001));
        everything = !LARGEST && threshold <= NAN_KEY;
    }

    __device__ __forceinline__ Seen look(Word word) const {
        if (BITS == 8) return better(low_bytes(word), high_bytes(word));
        return word;
    }

    __device__ __forceinline__ Seen look(Seen seen, Word word) const {
        if (BITS == 8) return better(better(seen, low_bytes(word)), high_bytes(word));
        return better(seen, word);
    }

    __device__ __forceinline__ bool passes(Seen seen) const {
        if constexpr (BITS == 32) return everything | reaches<LARGEST>(seen, bound);
        else return everything | reaches_halves<LARGEST, BRAIN>(seen, bound);
    }

  private:
    static __device__ __forceinline__ u32 low_bytes(Word word) { return select_bytes(word, BELOW, 0x1404); }
    static __device__ __forceinline__ u32 high_bytes(Word word) { return select_bytes(word, BELOW, 0x3424); }

    static __device__ __forceinline__ u32 better(u32 a, u32 b) {
        if constexpr (BITS == 32) return better_number<LARGEST>(a, b);
        else return better_halves<LARGEST, BRAIN>(a, b);
    }
};
#else
// Whether one was let through, element by element.
struct Gate {
    typedef bool Seen;
    Key threshold;
    Coding coding;
#if FLOAT && BITS >= 32
    Element bound;

    __device__ __forceinline__ Gate(Key threshold_, const Coding& coding_) : threshold(threshold_), coding(coding_) {
        element_of(threshold, coding, bound);
        if (LARGEST && threshold == NAN_KEY) bound = LARGEST_NUMBER;
    }

    __device__ __forceinline__ Seen look(Word word) const { return reaches<LARGEST>(word, bound); }

    __device__ __forceinline__ bool passes(Seen seen) const { return seen | (!LARGEST && threshold <= NAN_KEY); }
#else
    __device__ __forceinline__ Gate(Key threshold_, const Coding& coding_) : threshold(threshold_), coding(coding_) {}

    __device__ __forceinline__ Seen look(Word word) const {
        bool any = false;
#pragma unroll
        for (int v = 0; v < PER_WORD; ++v) any |= key_of(element_at(word, v), coding) >= threshold;
        return any;
    }

    __device__ __forceinline__ bool passes(Seen seen) const { return seen; }
#endif

    __device__ __forceinline__ Seen look(Seen seen, Word word) const { return seen | look(word); }
};
#endif
