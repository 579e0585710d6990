// The CUDA C++ vocabulary of the kernels, on a CPU. Included before every kernel source.
#pragma once

#include "interface.h"

#define __global__ __attribute__((visibility("hidden")))
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))

// What the compiler of the real kernel may rely on is checked here instead.
#define __builtin_assume(condition) ((condition) ? (void)0 : emulator::broken_assumption(#condition, __LINE__))

// ---- Built-in variables and vector types --------------------------------------------------------------------

using emulator::blockDim;
using emulator::blockIdx;
using emulator::gridDim;
using emulator::threadIdx;
constexpr int warpSize = 32;

using uint3 = emulator::Index;

#define EMULATOR_VECTORS(type, name)                                                                    \
    struct alignas(2 * sizeof(type)) name##2 {                                                          \
        type x, y;                                                                                      \
    };                                                                                                  \
    struct alignas(4 * sizeof(type) > 16 ? 16 : 4 * sizeof(type)) name##4 {                             \
        type x, y, z, w;                                                                                \
    };                                                                                                  \
    static inline name##2 make_##name##2(type x, type y) { return name##2{x, y}; }                      \
    static inline name##4 make_##name##4(type x, type y, type z, type w) { return name##4{x, y, z, w}; }

EMULATOR_VECTORS(signed char, char)
EMULATOR_VECTORS(unsigned char, uchar)
EMULATOR_VECTORS(short, short)
EMULATOR_VECTORS(unsigned short, ushort)
EMULATOR_VECTORS(int, int)
EMULATOR_VECTORS(unsigned int, uint)
EMULATOR_VECTORS(long long, longlong)
EMULATOR_VECTORS(unsigned long long, ulonglong)
EMULATOR_VECTORS(float, float)
EMULATOR_VECTORS(double, double)
#undef EMULATOR_VECTORS

// ---- Arithmetic ---------------------------------------------------------------------------------------------

namespace emulator {

template <class To, class From>
static inline To bits_as(From from) {
    static_assert(sizeof(From) <= sizeof(To), "the value does not fit");
    To to{};
    __builtin_memcpy(&to, &from, sizeof(From));
    return to;
}

template <class To>
static inline To bits_to(unsigned long long bits) {
    static_assert(sizeof(To) <= sizeof(bits), "shuffles carry at most 8 bytes");
    To to;
    __builtin_memcpy(&to, &bits, sizeof(To));
    return to;
}

// Keeps an argument out of template deduction, so that atomicAdd(&unsigned, 1) compiles as it does in CUDA.
template <class T>
struct Same {
    using type = T;
};

}  // namespace emulator

// Mixed operands take the usual arithmetic conversions, as CUDA's overloads do.
template <class A, class B>
static inline constexpr auto min(A a, B b) -> decltype(a + b) {
    using C = decltype(a + b);
    return C(b) < C(a) ? C(b) : C(a);
}
template <class A, class B>
static inline constexpr auto max(A a, B b) -> decltype(a + b) {
    using C = decltype(a + b);
    return C(a) < C(b) ? C(b) : C(a);
}

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline unsigned long long __brevll(unsigned long long x) {
    x = (x >> 1 & 0x5555555555555555ull) | (x & 0x5555555555555555ull) << 1;
    x = (x >> 2 & 0x3333333333333333ull) | (x & 0x3333333333333333ull) << 2;
    x = (x >> 4 & 0x0f0f0f0f0f0f0f0full) | (x & 0x0f0f0f0f0f0f0f0full) << 4;
    return __builtin_bswap64(x);
}
static inline unsigned __brev(unsigned x) { return unsigned(__brevll(x) >> 32); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((unsigned long long)a * b >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return unsigned((((unsigned long long)high << 32 | low) << (shift & 31)) >> 32);
}
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return unsigned(((unsigned long long)high << 32 | low) >> (shift & 31));
}
static inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
    const unsigned long long bytes = (unsigned long long)high << 32 | low;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) {
        const unsigned pick = selector >> 4 * i & 15;
        unsigned byte = unsigned(bytes >> 8 * (pick & 7)) & 255;
        if (pick & 8) byte = byte & 128 ? 255 : 0;  // bit 3 asks for copies of the byte's sign
        result |= byte << 8 * i;
    }
    return result;
}
static inline unsigned __float_as_uint(float x) { return emulator::bits_as<unsigned>(x); }
static inline int __float_as_int(float x) { return emulator::bits_as<int>(x); }
static inline float __uint_as_float(unsigned x) { return emulator::bits_as<float>(x); }
static inline float __int_as_float(int x) { return emulator::bits_as<float>(x); }
static inline long long __double_as_longlong(double x) { return emulator::bits_as<long long>(x); }
static inline double __longlong_as_double(long long x) { return emulator::bits_as<double>(x); }

// CUDA's compiler knows these without a header; here they are the C library's.
extern "C" {
double exp(double), log(double), pow(double, double), cbrt(double), fma(double, double, double);
double fabs(double), floor(double), ceil(double), sqrt(double);
float expf(float), logf(float), fabsf(float), fmaf(float, float, float);
}

// ---- Barriers and warp intrinsics ---------------------------------------------------------------------------
// `line` defaults to the caller's line in the joined source: it tells call sites apart and names them in errors.

static inline void __syncthreads(int line = __builtin_LINE()) {
    emulator::wait_for_block(emulator::Wait::syncthreads, false, line);
}
static inline int __syncthreads_count(int predicate, int line = __builtin_LINE()) {
    return int(emulator::wait_for_block(emulator::Wait::syncthreads_count, predicate, line));
}
static inline int __syncthreads_and(int predicate, int line = __builtin_LINE()) {
    return emulator::wait_for_block(emulator::Wait::syncthreads_and, predicate, line) == blockDim.x;
}
static inline int __syncthreads_or(int predicate, int line = __builtin_LINE()) {
    return emulator::wait_for_block(emulator::Wait::syncthreads_or, predicate, line) != 0;
}
static inline void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE()) {
    emulator::wait_for_warp(emulator::Wait::syncwarp, mask, 0, 0, line);
}

namespace emulator {

template <class T>
static inline T shuffle(Wait kind, unsigned mask, T value, int source, int line) {
    return bits_to<T>(wait_for_warp(kind, mask, bits_as<unsigned long long>(value), unsigned(source), line));
}

static inline int lane() { return int(threadIdx.x & 31u); }

}  // namespace emulator

template <class T>
static inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, int line = __builtin_LINE()) {
    const int segment = emulator::lane() & ~(width - 1);
    return emulator::shuffle(emulator::Wait::shfl, mask, value, segment | (source & (width - 1)), line);
}
template <class T>
static inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, int line = __builtin_LINE()) {
    const int lane = emulator::lane(), source = lane - int(delta);
    const bool inside = source >= (lane & ~(width - 1));
    return emulator::shuffle(emulator::Wait::shfl_up, mask, value, inside ? source : lane, line);
}
template <class T>
static inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, int line = __builtin_LINE()) {
    const int lane = emulator::lane(), source = lane + int(delta);
    const bool inside = source <= (lane | (width - 1));
    return emulator::shuffle(emulator::Wait::shfl_down, mask, value, inside ? source : lane, line);
}
template <class T>
static inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, int line = __builtin_LINE()) {
    const int lane = emulator::lane(), source = lane ^ lanes;
    // A lane may read from its own and from earlier segments, not from later ones.
    const bool inside = source <= (lane | (width - 1));
    return emulator::shuffle(emulator::Wait::shfl_xor, mask, value, inside ? source : lane, line);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return unsigned(emulator::wait_for_warp(emulator::Wait::ballot, mask, predicate != 0, 0, line));
}
static inline int __any_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return int(emulator::wait_for_warp(emulator::Wait::any, mask, predicate != 0, 0, line));
}
static inline int __all_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return int(emulator::wait_for_warp(emulator::Wait::all, mask, predicate != 0, 0, line));
}
template <class T>
static inline unsigned __match_any_sync(unsigned mask, T value, int line = __builtin_LINE()) {
    const auto bits = emulator::bits_as<unsigned long long>(value);
    return unsigned(emulator::wait_for_warp(emulator::Wait::match_any, mask, bits, 0, line));
}

#define EMULATOR_REDUCE(name, type, kind)                                                      \
    static inline type name(unsigned mask, type value, int line = __builtin_LINE()) {          \
        const unsigned long long wide = (unsigned long long)(long long)value;                  \
        return type(emulator::wait_for_warp(emulator::Wait::kind, mask, wide, 0, line));       \
    }
EMULATOR_REDUCE(__reduce_add_sync, int, reduce_add)
EMULATOR_REDUCE(__reduce_add_sync, unsigned, reduce_add)
EMULATOR_REDUCE(__reduce_max_sync, int, reduce_max_signed)
EMULATOR_REDUCE(__reduce_max_sync, unsigned, reduce_max)
EMULATOR_REDUCE(__reduce_min_sync, int, reduce_min_signed)
EMULATOR_REDUCE(__reduce_min_sync, unsigned, reduce_min)
EMULATOR_REDUCE(__reduce_and_sync, unsigned, reduce_and)
EMULATOR_REDUCE(__reduce_or_sync, unsigned, reduce_or)
EMULATOR_REDUCE(__reduce_xor_sync, unsigned, reduce_xor)
#undef EMULATOR_REDUCE

// ---- Memory -------------------------------------------------------------------------------------------------
// Only one thread runs at a time, so an atomic is a plain read-modify-write and a fence is nothing.

#define EMULATOR_ATOMIC(name, result)                                          \
    template <class T>                                                         \
    static inline T name(T* address, typename emulator::Same<T>::type value) { \
        emulator::before_atomic(address, sizeof(T));                           \
        const T old = *address;                                                \
        *address = result;                                                     \
        return old;                                                            \
    }
EMULATOR_ATOMIC(atomicAdd, old + value)
EMULATOR_ATOMIC(atomicSub, old - value)
EMULATOR_ATOMIC(atomicMax, value > old ? value : old)
EMULATOR_ATOMIC(atomicMin, value < old ? value : old)
EMULATOR_ATOMIC(atomicAnd, (old & value))
EMULATOR_ATOMIC(atomicOr, old | value)
EMULATOR_ATOMIC(atomicXor, old ^ value)
EMULATOR_ATOMIC(atomicExch, value)
EMULATOR_ATOMIC(atomicInc, old >= value ? T(0) : T(old + 1))
#undef EMULATOR_ATOMIC

template <class T>
static inline T atomicCAS(T* address, typename emulator::Same<T>::type expected,
                          typename emulator::Same<T>::type value) {
    emulator::before_atomic(address, sizeof(T));
    const T old = *address;
    if (old == expected) *address = value;
    return old;
}

static inline void __threadfence() {}
static inline void __threadfence_block() {}
static inline void __nanosleep(unsigned) { emulator::yield(); }

template <class T>
static inline T __ldg(const T* address) {
    return *address;
}

// ---- How the core enters a kernel ---------------------------------------------------------------------------

namespace emulator {

template <class Params>
static inline void call(void (*kernel)(Params), const void* params) {
    kernel(*static_cast<const Params*>(params));
}

template <class Params>
static constexpr unsigned long params_bytes(void (*)(Params)) {
    static_assert(sizeof(Params) % 8 == 0, "a kernel takes one struct of 8-byte members");
    return sizeof(Params);
}

}  // namespace emulator

#define EMULATOR_ENTRY(kernel)                                                                              \
    extern "C" __attribute__((visibility("default"))) const unsigned long emulator_params_bytes =           \
        emulator::params_bytes(kernel);                                                                     \
    extern "C" __attribute__((visibility("default"))) void emulator_entry(const void* params) {             \
        emulator::call(kernel, params);                                                                     \
    }
