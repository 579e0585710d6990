// The derivative of the soft top-k mask, from its result y alone: with d = phi' / l of the entries between 0 and 1, and
// averages weighted by d, dx = d (g - mean g), dk = mean g, dl = -sum of d g (u - mean u). One block per row.
//
// Macros besides those of the included files: SMOOTH, as in soft_mask.cu.
#include "vjp.cuh"

struct MaskVjpParams {
    Rows rows;  // y
    Along g;
    Number l;
    Power power;  // SMOOTH 0
    i64 is_laplace;  // SMOOTH 1
    Element* dx;
    RealBits *dk, *dl;
    i64 inner;
};

#if SMOOTH
typedef Real Work;
#else
typedef double Work;
#endif

__device__ __forceinline__ Work work_of(Element element) {
#if SMOOTH
    return real_of(real_bits(element));
#else
    return wide(real_bits(element));
#endif
}
__device__ __forceinline__ float logarithm(float x) { return logf(x); }
__device__ __forceinline__ double logarithm(double x) { return log(x); }

// l phi'(u) and u where phi(u) = y, for y between 0 and 1.
__device__ __forceinline__ Work slope_at(const MaskVjpParams& p, Work y, Work& u) {
#if SMOOTH
    const Work rest = 1 - y;
    if (p.is_laplace) {
        const bool lower = y < rest;
        const Work tail = lower ? y : rest;
        // What is too small for arithmetic counts nothing.
        u = tail > 0 ? logarithm(2 * tail) : 0;
        if (!lower) u = -u;
        return tail;
    }
    const Work slope = y * rest;
    u = slope > 0 ? logarithm(y / rest) : 0;
    return slope;
#else
    if (p.power.known == 1) {
        u = y;
        return 1;
    }
    u = p.power.root(y);
    return u > 0 ? p.power.exponent() * (y / u) : STEEPEST;
#endif
}

extern "C" __global__ void __launch_bounds__(512, 1) soft_mask_vjp(const __grid_constant__ MaskVjpParams p) {
    Sums<3>& shared = *reinterpret_cast<Sums<3>*>(dynamic_shared());
    const u64 row = blockIdx.x, n = u64(p.rows.n);
    const Row found = find_row(p.rows, row);
    const Vectors vectors = {found.base, p.rows.axis_stride, p.g.at + row_offset(p.rows.batch, p.g.strides, row),
                             p.g.step};
    const double l = load_number(p.l, p.rows.batch, row);
    const Work steepest = Work(STEEPEST * l);
    const Element one = element_of_bits(narrow(1.0));
    auto is_active = [&](Element y) { return Element(y - 1) < Element(one - 1); };

    bool is_bad = false;
    Total<Work> weight = {0, 0}, cotangent = {0, 0}, distance = {0, 0};
    vectors.for_each(n, is_active, [&](u64, Element element, Element g) {
        if (!is_active(element)) {
            is_bad |= Element(element & MAGNITUDE_BITS) > Element(LARGEST_NUMBER);
            return;
        }
        Work u;
        const Work slope = min(slope_at(p, work_of(element), u), steepest);
        weight.add(slope);
        cotangent.add(slope * work_of(g));
        distance.add(slope * u);
    });
    is_bad = __syncthreads_or(is_bad) || !(l > 0 && l < bits_as_double(INFINITE));
    double sums[3] = {weight.value(), cotangent.value(), distance.value()};
    add_up(sums, shared, false);
    const bool any = sums[0] > 0;
    const double mean = any ? sums[1] / sums[0] : 0;
    const Work mean_g = Work(mean), lost = Work(mean - double(mean_g)), mean_u = Work(any ? sums[2] / sums[0] : 0);

    Element* dx = row_of(p.dx, row, p.rows.n, p.inner);
    const Element bad = element_of_bits(narrow(bits_as_double(NOT_A_NUMBER)));
    Total<Work> strength = {0, 0};
#if SMOOTH
    const Work per_l = inverse(l);
#endif
    vectors.for_each(n, is_active, [&](u64 i, Element element, Element g) {
        Element value = is_bad ? bad : Element(0);
        if (is_active(element) && !is_bad) {
            Work u;
            const Work slope = min(slope_at(p, work_of(element), u), steepest);
            const Work change = slope * ((work_of(g) - mean_g) - lost);
            strength.add(change * (u - mean_u));
#if SMOOTH
            value = element_of_bits(bits_of(change * per_l));
#else
            value = element_of_bits(narrow(change / l));
#endif
        }
        store(dx + i64(i) * p.inner, value);
    });
    double more[3] = {strength.value(), 0, 0};
    add_up(more, shared, false);
    if (threadIdx.x == 0) {
        store(p.dk + row, narrow(is_bad ? bits_as_double(NOT_A_NUMBER) : mean));
        store(p.dl + row, narrow(is_bad ? bits_as_double(NOT_A_NUMBER) : -more[0] / l));
    }
}
