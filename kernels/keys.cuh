// Elements as ordered integer keys: a better entry has a greater key, and equal entries have equal keys.
//
// Macros: BITS (8, 16, 32, 64). Kernels that read x, and so make keys, also need FLOAT (0, 1) and, for floats,
// LARGEST (0, 1) and LARGEST_NUMBER, the magnitude bits of the largest value that is not NaN. What turns keys
// back into elements, once per entry of the result, is told at run time, so that fewer kernels are compiled.
//
// Keys of narrow types stand in the upper bits of a 32-bit word, the lower bits zero: arithmetic wraps where
// it should, and a step number can ride below.
#pragma once
#include "intrinsics.cuh"

#if BITS == 64
typedef u64 Key;
typedef u64 Element;
#elif BITS == 32
typedef u32 Key;
typedef u32 Element;
#elif BITS == 16
typedef u32 Key;
typedef u16 Element;
#else
typedef u32 Key;
typedef u8 Element;
#endif

constexpr int KEY_WIDTH = sizeof(Key) * 8;
constexpr int KEY_SHIFT = KEY_WIDTH - BITS;
constexpr Key SIGN = Key(1) << (KEY_WIDTH - 1);

// How elements became keys. Floats: key = +-s + zero, with s the value as a signed integer (-0 and +0 both 0),
// and NaNs became nan. Integers: key = u ^ flip.
struct Coding {
    i64 is_float, largest;
    u64 zero, nan, flip;
};

#ifdef FLOAT
#if FLOAT
// With A the largest number, s + A runs from 0 (-inf) to 2A (+inf), and the NaNs of either sign all wrap to
// above 2A: one min makes them equal. For "smallest", -s is moved up by the width of the NaNs instead, which
// puts them at the bottom.
constexpr Key UNIT = Key(1) << KEY_SHIFT;
constexpr Key A = Key(LARGEST_NUMBER) << KEY_SHIFT;
constexpr Key NAN_KEY = LARGEST ? A + A + UNIT : Key(0) - A - A - UNIT - UNIT;
constexpr Key ZERO_KEY = LARGEST ? A : Key(0) - A - UNIT;
#endif

__device__ __forceinline__ Key key_of(Element element, const Coding& coding) {
    const Key u = Key(element) << KEY_SHIFT;
#if FLOAT
    const Key negative = (Key(0) - (u >> (KEY_WIDTH - 1))) ^ (LARGEST ? Key(0) : ~Key(0));
    const Key key = (((u & ~SIGN) ^ negative) - negative) + ZERO_KEY;
    return LARGEST ? (key < NAN_KEY ? key : NAN_KEY) : (key > NAN_KEY ? key : NAN_KEY);
#else
    return u ^ Key(coding.flip);
#endif
}
#endif

// The element a key came from, or false where several have that key (NaNs, zeros) and x must be asked.
__device__ __forceinline__ bool element_of(Key key, const Coding& coding, Element& element) {
    if (!coding.is_float) {
        element = Element((key ^ Key(coding.flip)) >> KEY_SHIFT);
        return true;
    }
    const Key s = coding.largest ? key - Key(coding.zero) : Key(coding.zero) - key;
    element = Element(((s & SIGN) ? (Key(0) - s) | SIGN : s) >> KEY_SHIFT);
    return key != Key(coding.nan) && s != 0;
}
