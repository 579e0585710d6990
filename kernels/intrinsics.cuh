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

// The better of two canonical float32: the greater, NaN if there is one; or the lesser, a number if there is one.
template <bool LARGEST_WINS>
__device__ __forceinline__ u32 better_number(u32 a, u32 b) {
#if defined(APPROXTOPK_EMULATED) || __CUDA_ARCH__ < 800
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

#ifndef APPROXTOPK_EMULATED
// Comparisons that hold when an operand is NaN. CuPy compiles with -ftz=true, under which C++'s would take
// subnormals for zero; without the .ftz suffix these do not.
__device__ __forceinline__ bool not_less(float a, float b) {
    int result;
    asm("{ .reg .pred p; setp.geu.f32 p, %1, %2; selp.s32 %0, 1, 0, p; }" : "=r"(result) : "f"(a), "f"(b));
    return result;
}

__device__ __forceinline__ bool not_greater(float a, float b) {
    int result;
    asm("{ .reg .pred p; setp.leu.f32 p, %1, %2; selp.s32 %0, 1, 0, p; }" : "=r"(result) : "f"(a), "f"(b));
    return result;
}
#endif
