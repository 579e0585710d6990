// A quick first look at elements while a row streams by.
#pragma once
#include "keys.cuh"

// Lets through the elements whose key is not below a threshold, and maybe some that are (NaNs), in fewer
// instructions than making the key.
#if BITS == 32 && FLOAT && !defined(APPROXTOPK_EMULATED)
struct Gate {
    float bound;

    __device__ __forceinline__ Gate(Key threshold, const Coding& coding) {
        Element element;
        element_of(threshold, coding, element);
        bound = __int_as_float(threshold == NAN_KEY ? 0x7FFFFFFF : int(element));
    }

    __device__ __forceinline__ bool operator()(Element element) const {
        const float value = __int_as_float(int(element));
        return LARGEST ? not_less(value, bound) : not_greater(value, bound);
    }
};
#else
struct Gate {
    Key threshold;
    Coding coding;

    __device__ __forceinline__ Gate(Key threshold_, const Coding& coding_) : threshold(threshold_), coding(coding_) {}

    __device__ __forceinline__ bool operator()(Element element) const { return key_of(element, coding) >= threshold; }
};
#endif
