// What the derivatives share: a row and its cotangent, read together.
#pragma once
#include "real.cuh"

// An array of x's shape: where its rows begin, as those of x, and its step along the axis.
struct Along {
    const Element* at;
    Strides strides;
    i64 step;
};

// A row of x and one of the cotangent.
struct Vectors {
    const Element* x;
    i64 x_step;
    const Element* g;
    i64 g_step;

    // Calls take(i, x, g) for a thread's share of the entries, in order: every so many of them, whatever their address.
    // The cotangent is read where wants(x), and 0 elsewhere.
    template <class Wants, class Take>
    __device__ __forceinline__ void for_each(u64 n, Wants wants, Take take) const {
        constexpr int FLIGHT = 4;
#pragma unroll 1
        for (u64 start = threadIdx.x; start < n; start += u64(blockDim.x) * FLIGHT) {
            Pack<Element, FLIGHT> entries, cotangents;
#pragma unroll
            for (int v = 0; v < FLIGHT; ++v) {
                const u64 i = start + u64(v) * blockDim.x;
                entries.item[v] = i < n ? load(x + i64(i) * x_step) : Element(0);
            }
#pragma unroll
            for (int v = 0; v < FLIGHT; ++v) {
                const u64 i = start + u64(v) * blockDim.x;
                const bool is_wanted = i < n && wants(entries.item[v]);
                cotangents.item[v] = is_wanted ? load(g + i64(i) * g_step) : Element(0);
            }
#pragma unroll 1
            for (u64 i = start, v = 0; v < FLIGHT && i < n; i += blockDim.x, ++v)
                take(i, entries.shift(), cotangents.shift());
        }
    }
};

// No derivative exceeds this, so that sums of them stay finite.
constexpr double STEEPEST = BITS == 64 ? 1e150 : 1e30;
