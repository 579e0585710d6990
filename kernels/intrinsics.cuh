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

// N neighbouring elements, read by one instruction of N * sizeof(T) bytes (at most 16) when aligned so.
template <class T, int N>
struct __align__(sizeof(T) * N) Pack {
    T item[N];

    // The first element; the others move up. For loops that are not unrolled, where an index would be no constant.
    __device__ __forceinline__ T pop() {
        const T first = item[0];
#pragma unroll
        for (int i = 0; i + 1 < N; ++i) item[i] = item[i + 1];
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
