// Elements of any float type as the real numbers they are, the numbers of a row, and sums of such over a block.
//
// Macros: those of rows.cuh, with FLOAT 1. CuPy compiles with -ftz=true: what is float32 here is an approximation
// anyway, or goes through intrinsics that keep subnormals.
#pragma once
#include "block.cuh"
#include "rows.cuh"

// What k, l, the threshold and their derivatives are stored as, and what is computed in where that will do.
#if BITS == 64
typedef double Real;
typedef u64 RealBits;
#else
typedef float Real;
typedef u32 RealBits;
#endif
constexpr bool BRAIN = LARGEST_NUMBER == 0x7F80;
constexpr Element SIGN_BIT = Element(u64(1) << (BITS - 1));
constexpr Element MAGNITUDE_BITS = Element(SIGN_BIT - 1);

// The bits of an element's value as a Real, which holds it exactly.
__device__ __forceinline__ RealBits real_bits(Element element) {
#if BITS == 16
    return from_half<BRAIN>(element);
#else
    return element;
#endif
}
__device__ __forceinline__ Element element_of_bits(RealBits bits) {
#if BITS == 16
    return to_half<BRAIN>(bits);
#else
    return bits;
#endif
}

__device__ __forceinline__ double bits_as_double(u64 bits) { return __longlong_as_double(i64(bits)); }
__device__ __forceinline__ double wide(u64 bits) { return bits_as_double(bits); }
__device__ __forceinline__ double wide(u32 bits) { return widened(bits); }
__device__ __forceinline__ RealBits narrow(double value) {
#if BITS == 64
    return u64(__double_as_longlong(value));
#else
    return narrowed(value);
#endif
}
__device__ __forceinline__ RealBits bits_of(double value) { return narrow(value); }
#if BITS != 64
__device__ __forceinline__ u32 bits_of(float value) { return __float_as_uint(value); }
#endif
__device__ __forceinline__ Real real_of(RealBits bits) {
#if BITS == 64
    return bits_as_double(bits);
#else
    return __uint_as_float(bits);
#endif
}

constexpr u64 INFINITE = 0x7FF0000000000000, NOT_A_NUMBER = 0x7FF8000000000000;  // as float64
// 1 / l, or the greatest Real, nearly, of an l that has no such inverse.
__device__ __forceinline__ Real inverse(double l) {
    constexpr double MOST = BITS == 64 ? 1e308 : 3e38;
    return Real(1 / l < MOST ? 1 / l : MOST);
}
__device__ __forceinline__ bool is_nan(double value) { return value != value; }

// A real number of every row, or one for all, as the bits of a float64, where the array is null.
struct Number {
    u64 bits;
    PerRow array;
};

// The real number of a row.
__device__ __forceinline__ double load_number(const PerRow& array, const Batch& batch, u64 row) {
    const i64 offset = row_offset(batch, array.strides, row);
    return wide(load(static_cast<const RealBits*>(array.at) + offset));
}
__device__ __forceinline__ double load_number(const Number& number, const Batch& batch, u64 row) {
    return number.array.at ? load_number(number.array, batch, row) : bits_as_double(number.bits);
}

// Entry i of row `row` of a result of shape (outer, n, inner), contiguous, is `inner` entries behind entry i - 1.
__device__ __forceinline__ Element* row_of(Element* result, u64 row, i64 n, i64 inner) {
    u64 within = 0;
    const u64 outer = inner == 1 ? row : divide(row, u64(inner), within);
    return result + outer * u64(n) * u64(inner) + within;
}

// Functions of some size, compiled once for a kernel.
__device__ __noinline__ double raised(double base, double exponent) { return pow(base, exponent); }
__device__ __noinline__ double cube_root(double x) { return cbrt(x); }

// 1 / (p - 1): what a distance from the threshold is raised to, by multiplication for p = 2 and p = 4/3.
struct Power {
    i64 known;  // 1: the distance itself; 3: its cube; 0: any other
    u64 bits;   // of the exponent, a float64

    __device__ __forceinline__ double exponent() const { return bits_as_double(bits); }

    __device__ __forceinline__ double operator()(double distance) const {
        if (known == 1) return distance;
        if (known == 3) return distance * distance * distance;
        return raised(distance, exponent());
    }

    // The distance of which `value` is the power.
    __device__ __forceinline__ double root(double value) const {
        if (known == 1) return value;
        if (known == 3) return cube_root(value);
        return raised(value, 1 / exponent());
    }
};

// A sum of many terms, as exact as if it had twice the digits.
template <class T>
struct Total {
    T sum, lost;

    __device__ __forceinline__ void add(T term) {
        const T whole = term - lost;
        const T next = sum + whole;
        lost = (next - sum) - whole;
        sum = next;
    }
    __device__ __forceinline__ double value() const { return double(sum) - double(lost); }
};

// What a block adds up in: N numbers of every warp.
template <int N>
struct Sums {
    double of[N][WARP];
};

// Adds up N numbers of all threads, in every thread and always in the same order. ALONE: only of the calling warp,
// whose lanes all take part; otherwise every thread of the block must call.
template <int N>
__device__ __forceinline__ void add_up(double (&numbers)[N], Sums<N>& shared, bool alone) {
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
#pragma unroll 1
    for (int d = WARP / 2; d > 0; d /= 2)
#pragma unroll
        for (int i = 0; i < N; ++i) numbers[i] += __shfl_xor_sync(ALL_LANES, numbers[i], d);
    if (alone) return;
    if (lane == 0)
#pragma unroll
        for (int i = 0; i < N; ++i) shared.of[i][warp] = numbers[i];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < N; ++i) numbers[i] = shared.of[i][0];
#pragma unroll 1
    for (u32 w = 1; w < warps; ++w)
#pragma unroll
        for (int i = 0; i < N; ++i) numbers[i] += shared.of[i][w];
    __syncthreads();
}
