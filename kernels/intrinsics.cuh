// The one place that knows the machine: dynamic shared memory and global memory access, each with a twin
// for the tests' emulator (APPROXTOPK_EMULATED), which counts and checks every access.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

constexpr u32 ALL_LANES = 0xFFFFFFFFu;
constexpr u32 WARP = 32;

// The block's dynamic shared memory; its contents are arbitrary until written.
__device__ __forceinline__ u8* dynamic_shared() {
#ifdef APPROXTOPK_EMULATED
    return emulator::dynamic_shared();
#else
    extern __shared__ __align__(16) u8 memory[];
    return memory;
#endif
}

// Reads memory that nothing writes during this launch.
template <class T>
__device__ __forceinline__ T load(const T* address) {
#ifdef APPROXTOPK_EMULATED
    emulator::count_load(address, sizeof(T));
    return *address;
#else
    return __ldg(address);
#endif
}

template <class T>
__device__ __forceinline__ void store(T* address, T value) {
#ifdef APPROXTOPK_EMULATED
    emulator::count_store(address, sizeof(T));
#endif
    *address = value;
}

// Reads memory that other blocks wrote during this launch, before this block knew.
template <class T>
__device__ __forceinline__ T load_fresh(const T* address) {
#ifdef APPROXTOPK_EMULATED
    emulator::count_load(address, sizeof(T));
    return *address;
#else
    return __ldcg(address);
#endif
}

// Adds to a counter that many blocks share; returns what it was.
template <class T>
__device__ __forceinline__ T add_global(T* address, T value) {
#ifdef APPROXTOPK_EMULATED
    emulator::count_store(address, sizeof(T));
#endif
    return atomicAdd(address, value);
}

// Reads a counter in shared memory that other threads are adding to: some value it had or has.
template <class T>
__device__ __forceinline__ T glance(const T& counter) {
    return *const_cast<const volatile T*>(&counter);
}

// Byte b of the result is byte `selector >> 4 b & 7` of high:low; with 8 added to that digit, eight copies of the
// byte's top bit.
__device__ __forceinline__ u32 select_bytes(u32 low, u32 high, u32 selector) {
#ifdef APPROXTOPK_EMULATED
    const u64 both = u64(high) << 32 | low;
    u32 result = 0;
    for (int b = 0; b < 4; ++b) {
        const u32 digit = selector >> 4 * b & 15;
        const u8 byte = u8(both >> 8 * (digit & 7));
        result |= u32(digit & 8 ? (byte & 0x80 ? 0xFF : 0) : byte) << 8 * b;
    }
    return result;
#else
    // Not __byte_perm, which takes the 8 out of every digit.
    u32 result;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(result) : "r"(low), "r"(high), "r"(selector));
    return result;
#endif
}

// In each half: the lesser (or greater) of a + b and c, as unsigned 16-bit numbers. One instruction on sm_90.
template <bool LESSER>
__device__ __forceinline__ u32 add_then_bound_halves(u32 a, u32 b, u32 c) {
#ifdef APPROXTOPK_EMULATED
    u32 result = 0;
    for (int half = 0; half < 32; half += 16) {
        const u16 sum = u16((a >> half) + (b >> half)), bound = u16(c >> half);
        result |= u32((sum < bound) == LESSER ? sum : bound) << half;
    }
    return result;
#else
    return LESSER ? __viaddmin_u16x2(a, b, c) : __viaddmax_u16x2(a, b, c);
#endif
}

// A float32 with one bit pattern for all NaNs and +0 for -0. Subnormals stay: no .ftz.
__device__ __forceinline__ u32 canonical_number(u32 bits) {
#ifdef APPROXTOPK_EMULATED
    const u32 magnitude = bits & 0x7FFFFFFF;
    return magnitude > 0x7F800000 ? 0x7FFFFFFF : magnitude ? bits : 0;
#else
    u32 result;
    asm("{.reg .f32 x; mov.b32 x, %1; add.rn.f32 x, x, 0f00000000; mov.b32 %0, x;}" : "=r"(result) : "r"(bits));
    return result;
#endif
}

#ifdef APPROXTOPK_EMULATED
// The order of floats: that of these numbers, -0 like +0, and NaNs above the rest.
template <int WIDTH, u64 INFINITE>
__device__ __forceinline__ i64 float_rank(u64 bits) {
    const u64 magnitude = bits & ((u64(1) << (WIDTH - 1)) - 1);
    if (magnitude > INFINITE) return i64(~u64(0) >> 1);
    return bits >> (WIDTH - 1) & 1 ? -i64(magnitude) : i64(magnitude);
}
#endif

// The better of two float32: the greater, NaN if there is one; or the lesser, a number if there is one. Canonical ones
// (of one NaN and no -0) below sm_80.
template <bool LARGEST_WINS>
__device__ __forceinline__ u32 better_number(u32 a, u32 b) {
#ifdef APPROXTOPK_EMULATED
    return (float_rank<32, 0x7F800000>(a) > float_rank<32, 0x7F800000>(b)) == LARGEST_WINS ? a : b;
#elif __CUDA_ARCH__ < 800
    const int x = int(a) ^ (int(a) >> 31 & 0x7FFFFFFF), y = int(b) ^ (int(b) >> 31 & 0x7FFFFFFF);
    return (x > y) == LARGEST_WINS ? a : b;
#else
    u32 result;
    if (LARGEST_WINS)
        asm("{.reg .f32 x, y; mov.b32 x, %1; mov.b32 y, %2; max.NaN.f32 x, x, y; mov.b32 %0, x;}"
            : "=r"(result)
            : "r"(a), "r"(b));
    else
        asm("{.reg .f32 x, y; mov.b32 x, %1; mov.b32 y, %2; min.f32 x, x, y; mov.b32 %0, x;}"
            : "=r"(result)
            : "r"(a), "r"(b));
    return result;
#endif
}

// Makes the compiler hold a value of a loop in a register, where it would rather work it out again every time.
__device__ __forceinline__ u32 held(u32 value) {
#ifndef APPROXTOPK_EMULATED
    asm volatile("" : "+r"(value));
#endif
    return value;
}
__device__ __forceinline__ u64 held(u64 value) {
#ifndef APPROXTOPK_EMULATED
    asm volatile("" : "+l"(value));
#endif
    return value;
}

// Any function of three bits, bit by bit, in one instruction: TABLE is that function of 0xF0, 0xCC and 0xAA.
template <u32 TABLE>
__device__ __forceinline__ u32 logic(u32 a, u32 b, u32 c) {
    u32 result;
#ifdef APPROXTOPK_EMULATED
    result = 0;
    for (u32 at = 0; at < 8; ++at)
        if (TABLE >> at & 1) result |= (at & 4 ? a : ~a) & (at & 2 ? b : ~b) & (at & 1 ? c : ~c);
#else
    asm("lop3.b32 %0, %1, %2, %3, %4;" : "=r"(result) : "r"(a), "r"(b), "r"(c), "n"(TABLE));
#endif
    return result;
}

// N neighbouring elements, read by one instruction of N * sizeof(T) bytes (at most 16) when aligned so.
template <class T, int N>
struct __align__(sizeof(T) * N) Pack {
    T item[N];

    // The first element; the others move up, and `last` behind them. For loops that are not unrolled, where an index
    // would be no constant.
    __device__ __forceinline__ T shift(T last = T(0)) {
        const T first = item[0];
#pragma unroll
        for (int i = 0; i + 1 < N; ++i) item[i] = item[i + 1];
        item[N - 1] = last;
        return first;
    }
};

template <class T, int N>
__device__ __forceinline__ Pack<T, N> load_pack(const T* address) {
    constexpr int BYTES = sizeof(T) * N;
    static_assert(BYTES <= 16, "one load moves at most 16 bytes");
    union {
        Pack<T, N> pack;
        u8 u1;
        u16 u2;
        u32 u4;
        u64 u8_;
        uint4 u16_;
    } data;
    if constexpr (BYTES == 16) data.u16_ = load(reinterpret_cast<const uint4*>(address));
    else if constexpr (BYTES == 8) data.u8_ = load(reinterpret_cast<const u64*>(address));
    else if constexpr (BYTES == 4) data.u4 = load(reinterpret_cast<const u32*>(address));
    else if constexpr (BYTES == 2) data.u2 = load(reinterpret_cast<const u16*>(address));
    else data.u1 = load(reinterpret_cast<const u8*>(address));
    return data.pack;
}

// Copies 16 bytes, both ends aligned so, from global to shared memory, without waiting where the machine can;
// wait_for_copies() of the same thread waits, and a barrier tells the others.
__device__ __forceinline__ void copy_to_shared(void* shared, const void* global) {
#if defined(APPROXTOPK_EMULATED) || __CUDA_ARCH__ < 800
    *static_cast<uint4*>(shared) = load(static_cast<const uint4*>(global));
#else
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(u32(__cvta_generic_to_shared(shared))), "l"(global)
                 : "memory");
#endif
}
__device__ __forceinline__ void wait_for_copies() {
#if !defined(APPROXTOPK_EMULATED) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// In each half of a word, the better of two float16 (or bfloat16, BRAIN), as better_number. From sm_80 on.
template <bool LARGEST_WINS, bool BRAIN>
__device__ __forceinline__ u32 better_halves(u32 a, u32 b) {
    u32 result;
#ifdef APPROXTOPK_EMULATED
    constexpr u64 INFINITE = BRAIN ? 0x7F80 : 0x7C00;
    result = 0;
    for (int half = 0; half < 32; half += 16) {
        const u32 x = a >> half & 0xFFFF, y = b >> half & 0xFFFF;
        result |= ((float_rank<16, INFINITE>(x) > float_rank<16, INFINITE>(y)) == LARGEST_WINS ? x : y) << half;
    }
#else
    if (LARGEST_WINS && BRAIN) asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(result) : "r"(a), "r"(b));
    else if (LARGEST_WINS) asm("max.NaN.f16x2 %0, %1, %2;" : "=r"(result) : "r"(a), "r"(b));
    else if (BRAIN) asm("min.bf16x2 %0, %1, %2;" : "=r"(result) : "r"(a), "r"(b));
    else asm("min.f16x2 %0, %1, %2;" : "=r"(result) : "r"(a), "r"(b));
#endif
    return result;
}

// Whether a float32 (u32) or float64 (u64) is not less than the bound, which NaN is not; or LARGEST false: is at most
// the bound, which NaN is not either. CuPy compiles with -ftz=true, under which C++'s comparisons would take
// subnormals for zero; without the .ftz suffix these do not.
template <bool LARGEST_WINS>
__device__ __forceinline__ bool reaches(u32 bits, u32 bound) {
#ifdef APPROXTOPK_EMULATED
    const i64 rank = float_rank<32, 0x7F800000>(bits), least = float_rank<32, 0x7F800000>(bound);
    return LARGEST_WINS ? rank >= least : rank <= least;
#else
    int result;
    if (LARGEST_WINS)
        asm("{.reg .pred p; .reg .f32 x, y; mov.b32 x, %1; mov.b32 y, %2; setp.geu.f32 p, x, y; selp.s32 %0, 1, 0, p;}"
            : "=r"(result)
            : "r"(bits), "r"(bound));
    else
        asm("{.reg .pred p; .reg .f32 x, y; mov.b32 x, %1; mov.b32 y, %2; setp.le.f32 p, x, y; selp.s32 %0, 1, 0, p;}"
            : "=r"(result)
            : "r"(bits), "r"(bound));
    return result;
#endif
}
template <bool LARGEST_WINS>
__device__ __forceinline__ bool reaches(u64 bits, u64 bound) {
#ifdef APPROXTOPK_EMULATED
    constexpr u64 INFINITE = 0x7FF0000000000000;
    const i64 rank = float_rank<64, INFINITE>(bits), least = float_rank<64, INFINITE>(bound);
    return LARGEST_WINS ? rank >= least : rank <= least;
#else
    int result;
    if (LARGEST_WINS)
        asm("{.reg .pred p; .reg .f64 x, y; mov.b64 x, %1; mov.b64 y, %2; setp.geu.f64 p, x, y; selp.s32 %0, 1, 0, p;}"
            : "=r"(result)
            : "l"(bits), "l"(bound));
    else
        asm("{.reg .pred p; .reg .f64 x, y; mov.b64 x, %1; mov.b64 y, %2; setp.le.f64 p, x, y; selp.s32 %0, 1, 0, p;}"
            : "=r"(result)
            : "l"(bits), "l"(bound));
    return result;
#endif
}

// Whether one half does, of two float16 (or bfloat16, BRAIN), the bound's half beside it.
template <bool LARGEST_WINS, bool BRAIN>
__device__ __forceinline__ bool reaches_halves(u32 halves, u32 bound) {
#ifdef APPROXTOPK_EMULATED
    constexpr u64 INFINITE = BRAIN ? 0x7F80 : 0x7C00;
    bool any = false;
    for (int half = 0; half < 32; half += 16) {
        const i64 rank = float_rank<16, INFINITE>(halves >> half & 0xFFFF);
        const i64 least = float_rank<16, INFINITE>(bound >> half & 0xFFFF);
        any |= LARGEST_WINS ? rank >= least : rank <= least;
    }
    return any;
#else
#if __CUDA_ARCH__ < 900
    // A bfloat16 is the upper half of a float32.
    if (BRAIN)
        return reaches<LARGEST_WINS>(halves << 16, bound << 16) |
               reaches<LARGEST_WINS>(halves & 0xFFFF0000, bound & 0xFFFF0000);
#else
    if (BRAIN) {
        int result;
        if (LARGEST_WINS)
            asm("{.reg .pred p, q; setp.geu.bf16x2 p|q, %1, %2; or.pred p, p, q; selp.s32 %0, 1, 0, p;}"
                : "=r"(result)
                : "r"(halves), "r"(bound));
        else
            asm("{.reg .pred p, q; setp.le.bf16x2 p|q, %1, %2; or.pred p, p, q; selp.s32 %0, 1, 0, p;}"
                : "=r"(result)
                : "r"(halves), "r"(bound));
        return result;
    }
#endif
    int result;
    if (LARGEST_WINS)
        asm("{.reg .pred p, q; setp.geu.f16x2 p|q, %1, %2; or.pred p, p, q; selp.s32 %0, 1, 0, p;}"
            : "=r"(result)
            : "r"(halves), "r"(bound));
    else
        asm("{.reg .pred p, q; setp.le.f16x2 p|q, %1, %2; or.pred p, p, q; selp.s32 %0, 1, 0, p;}"
            : "=r"(result)
            : "r"(halves), "r"(bound));
    return result;
#endif
}

// Counts a number if it is greater than the bound, or OR_EQUAL equal to it: a comparison and an addition under its
// predicate.
template <bool OR_EQUAL>
__device__ __forceinline__ void count_greater(u32 number, u32 bound, u32& count) {
#ifdef APPROXTOPK_EMULATED
    count += number > bound || (OR_EQUAL && number == bound);
#else
    if (OR_EQUAL)
        asm("{.reg .pred p; setp.ge.u32 p, %1, %2; @p add.u32 %0, %0, 1;}" : "+r"(count) : "r"(number), "r"(bound));
    else asm("{.reg .pred p; setp.gt.u32 p, %1, %2; @p add.u32 %0, %0, 1;}" : "+r"(count) : "r"(number), "r"(bound));
#endif
}
template <bool OR_EQUAL>
__device__ __forceinline__ void count_greater(u64 number, u64 bound, u32& count) {
#ifdef APPROXTOPK_EMULATED
    count += number > bound || (OR_EQUAL && number == bound);
#else
    if (OR_EQUAL)
        asm("{.reg .pred p; setp.ge.u64 p, %1, %2; @p add.u32 %0, %0, 1;}" : "+r"(count) : "l"(number), "l"(bound));
    else asm("{.reg .pred p; setp.gt.u64 p, %1, %2; @p add.u32 %0, %0, 1;}" : "+r"(count) : "l"(number), "l"(bound));
#endif
}

#ifdef APPROXTOPK_EMULATED
// Whether a float beats the bound, as count_beating.
template <bool LARGEST_WINS, bool OR_EQUAL>
__device__ __forceinline__ bool beats(i64 rank, i64 bound) {
    return (OR_EQUAL && rank == bound) || (LARGEST_WINS ? rank > bound : rank < bound);
}
#endif

// Counts a float32 (u32) or float64 (u64) if it beats the bound, a number, or OR_EQUAL if it is equal to it: the
// greater beats the lesser, and NaN every number; or LARGEST_WINS false: the lesser the greater, and NaN none. Exact
// with subnormals, as reaches().
template <bool LARGEST_WINS, bool OR_EQUAL>
__device__ __forceinline__ void count_beating(u32 bits, u32 bound, u32& count) {
#ifdef APPROXTOPK_EMULATED
    constexpr u64 INFINITE = 0x7F800000;
    count += beats<LARGEST_WINS, OR_EQUAL>(float_rank<32, INFINITE>(bits), float_rank<32, INFINITE>(bound));
#else
    if (LARGEST_WINS && OR_EQUAL)
        asm("{.reg .pred p; .reg .f32 x, y; mov.b32 x, %1; mov.b32 y, %2; setp.geu.f32 p, x, y; @p add.u32 %0, %0, 1;}"
            : "+r"(count)
            : "r"(bits), "r"(bound));
    else if (LARGEST_WINS)
        asm("{.reg .pred p; .reg .f32 x, y; mov.b32 x, %1; mov.b32 y, %2; setp.gtu.f32 p, x, y; @p add.u32 %0, %0, 1;}"
            : "+r"(count)
            : "r"(bits), "r"(bound));
    else if (OR_EQUAL)
        asm("{.reg .pred p; .reg .f32 x, y; mov.b32 x, %1; mov.b32 y, %2; setp.le.f32 p, x, y; @p add.u32 %0, %0, 1;}"
            : "+r"(count)
            : "r"(bits), "r"(bound));
    else
        asm("{.reg .pred p; .reg .f32 x, y; mov.b32 x, %1; mov.b32 y, %2; setp.lt.f32 p, x, y; @p add.u32 %0, %0, 1;}"
            : "+r"(count)
            : "r"(bits), "r"(bound));
#endif
}
template <bool LARGEST_WINS, bool OR_EQUAL>
__device__ __forceinline__ void count_beating(u64 bits, u64 bound, u32& count) {
#ifdef APPROXTOPK_EMULATED
    constexpr u64 INFINITE = 0x7FF0000000000000;
    count += beats<LARGEST_WINS, OR_EQUAL>(float_rank<64, INFINITE>(bits), float_rank<64, INFINITE>(bound));
#else
    if (LARGEST_WINS && OR_EQUAL)
        asm("{.reg .pred p; .reg .f64 x, y; mov.b64 x, %1; mov.b64 y, %2; setp.geu.f64 p, x, y; @p add.u32 %0, %0, 1;}"
            : "+r"(count)
            : "l"(bits), "l"(bound));
    else if (LARGEST_WINS)
        asm("{.reg .pred p; .reg .f64 x, y; mov.b64 x, %1; mov.b64 y, %2; setp.gtu.f64 p, x, y; @p add.u32 %0, %0, 1;}"
            : "+r"(count)
            : "l"(bits), "l"(bound));
    else if (OR_EQUAL)
        asm("{.reg .pred p; .reg .f64 x, y; mov.b64 x, %1; mov.b64 y, %2; setp.le.f64 p, x, y; @p add.u32 %0, %0, 1;}"
            : "+r"(count)
            : "l"(bits), "l"(bound));
    else
        asm("{.reg .pred p; .reg .f64 x, y; mov.b64 x, %1; mov.b64 y, %2; setp.lt.f64 p, x, y; @p add.u32 %0, %0, 1;}"
            : "+r"(count)
            : "l"(bits), "l"(bound));
#endif
}

// The same of two float16 (or bfloat16, BRAIN), each with the bound's half beside it.
template <bool LARGEST_WINS, bool OR_EQUAL, bool BRAIN>
__device__ __forceinline__ void count_beating_halves(u32 halves, u32 bound, u32& count) {
#ifdef APPROXTOPK_EMULATED
    constexpr u64 INFINITE = BRAIN ? 0x7F80 : 0x7C00;
    for (int half = 0; half < 32; half += 16)
        count += beats<LARGEST_WINS, OR_EQUAL>(float_rank<16, INFINITE>(halves >> half & 0xFFFF),
                                               float_rank<16, INFINITE>(bound >> half & 0xFFFF));
#else
    u32 beating;  // all bits of halves that do
#if __CUDA_ARCH__ < 900
    if (BRAIN) {
        // A bfloat16 is the upper half of a float32.
        count_beating<LARGEST_WINS, OR_EQUAL>(halves << 16, bound << 16, count);
        count_beating<LARGEST_WINS, OR_EQUAL>(halves & 0xFFFF0000, bound & 0xFFFF0000, count);
        return;
    }
#else
    if (BRAIN) {
        if (LARGEST_WINS && OR_EQUAL) asm("set.geu.u32.bf16x2 %0, %1, %2;" : "=r"(beating) : "r"(halves), "r"(bound));
        else if (LARGEST_WINS) asm("set.gtu.u32.bf16x2 %0, %1, %2;" : "=r"(beating) : "r"(halves), "r"(bound));
        else if (OR_EQUAL) asm("set.le.u32.bf16x2 %0, %1, %2;" : "=r"(beating) : "r"(halves), "r"(bound));
        else asm("set.lt.u32.bf16x2 %0, %1, %2;" : "=r"(beating) : "r"(halves), "r"(bound));
    } else
#endif
    {
        if (LARGEST_WINS && OR_EQUAL) asm("set.geu.u32.f16x2 %0, %1, %2;" : "=r"(beating) : "r"(halves), "r"(bound));
        else if (LARGEST_WINS) asm("set.gtu.u32.f16x2 %0, %1, %2;" : "=r"(beating) : "r"(halves), "r"(bound));
        else if (OR_EQUAL) asm("set.le.u32.f16x2 %0, %1, %2;" : "=r"(beating) : "r"(halves), "r"(bound));
        else asm("set.lt.u32.f16x2 %0, %1, %2;" : "=r"(beating) : "r"(halves), "r"(bound));
    }
    // -1 times -1 for one byte of each half.
    count = u32(__dp4a(int(beating), 0x00FF00FF, int(count)));
#endif
}

// Between floats of different widths, rounded to the nearest, subnormals kept: CuPy compiles with -ftz=true, under
// which C++'s conversions of float32 would take them for zero.
__device__ __forceinline__ double widened(u32 bits) {
#ifdef APPROXTOPK_EMULATED
    return double(__uint_as_float(bits));
#else
    double result;
    asm("{.reg .f32 x; mov.b32 x, %1; cvt.f64.f32 %0, x;}" : "=d"(result) : "r"(bits));
    return result;
#endif
}
__device__ __forceinline__ u32 narrowed(double value) {
#ifdef APPROXTOPK_EMULATED
    return __float_as_uint(float(value));
#else
    u32 result;
    asm("{.reg .f32 x; cvt.rn.f32.f64 x, %1; mov.b32 %0, x;}" : "=r"(result) : "d"(value));
    return result;
#endif
}

// The bits of a float32, and of the float16 (or bfloat16, BRAIN) nearest to it.
template <bool BRAIN>
__device__ __forceinline__ u32 from_half(u16 half) {
    if (BRAIN) return u32(half) << 16;
#ifdef APPROXTOPK_EMULATED
    const u32 sign = u32(half & 0x8000) << 16, magnitude = half & 0x7FFF;
    if (magnitude < 0x400) return sign | __float_as_uint(float(magnitude) * 5.9604644775390625e-8f);
    return sign | (magnitude << 13) + (magnitude >= 0x7C00 ? 0x70000000u : 0x38000000u);
#else
    u32 result;
    asm("{.reg .f32 x; cvt.f32.f16 x, %1; mov.b32 %0, x;}" : "=r"(result) : "h"(half));
    return result;
#endif
}
template <bool BRAIN>
__device__ __forceinline__ u16 to_half(u32 bits) {
    if (BRAIN) {
        if ((bits & 0x7FFFFFFF) > 0x7F800000) return 0x7FFF;
        return u16((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
    }
#ifdef APPROXTOPK_EMULATED
    const u32 sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFFFFFF;
    if (magnitude > 0x7F800000) return 0x7FFF;
    if (magnitude >= 0x477FF000) return u16(sign | 0x7C00);
    // Below 2^-14 the last place is that of 0.5 as a float32.
    if (magnitude < 0x38800000)
        return u16(sign | __float_as_uint(__uint_as_float(magnitude) + 0.5f) - __float_as_uint(0.5f));
    return u16(sign | (magnitude + 0xFFF + (magnitude >> 13 & 1) >> 13) - (112 << 10));
#else
    u16 result;
    asm("{.reg .f32 x; mov.b32 x, %1; cvt.rn.f16.f32 %0, x;}" : "=h"(result) : "r"(bits));
    return result;
#endif
}

// a - b, subnormals kept.
__device__ __forceinline__ float difference(float a, float b) {
#ifdef APPROXTOPK_EMULATED
    return a - b;
#else
    float result;
    asm("sub.rn.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
    return result;
#endif
}
__device__ __forceinline__ double difference(double a, double b) { return a - b; }
