// The derivative of the soft top-k of magnitudes, from x and the threshold tau, in the terms of soft_magnitude.cu: with
// T the entries that are themselves in the result, M those that are made smaller, d = r' and c the average of sign(x) g
// over M that the threshold passes on. One block per row.
#include "vjp.cuh"

struct MagnitudeVjpParams {
    Rows rows;
    Along g;
    PerRow tau, rest;
    Number l;
    Power power;
    Element* dx;
    RealBits *dk, *dl;
    i64 inner;
};

// What an entry of M has: r, its slope, and the cotangent of its magnitude.
struct Part {
    double r, slope, g;
};

// Whether the entry, above the threshold, is of M.
__device__ __forceinline__ bool is_part(const MagnitudeVjpParams& p, double tau, double l, Element element, Element g,
                                        Part& part) {
    const double z = wide(real_bits(element & MAGNITUDE_BITS)) - tau;
    part.r = p.power(z / l);
    if (part.r >= tau) return false;
    part.slope = min(p.power.exponent() * part.r / z, STEEPEST);
    part.g = wide(real_bits(g ^ (element & SIGN_BIT)));
    return true;
}

extern "C" __global__ void __launch_bounds__(512, 1) soft_magnitude_vjp(const __grid_constant__ MagnitudeVjpParams p) {
    Sums<3>& shared = *reinterpret_cast<Sums<3>*>(dynamic_shared());
    const u64 row = blockIdx.x, n = u64(p.rows.n);
    const Row found = find_row(p.rows, row);
    const Vectors vectors = {found.base, p.rows.axis_stride, p.g.at + row_offset(p.rows.batch, p.g.strides, row),
                             p.g.step};
    const double l = load_number(p.l, p.rows.batch, row);
    double tau = load_number(p.tau, p.rows.batch, row);
    if (p.rest.at) tau += load_number(p.rest, p.rows.batch, row);
    // Magnitudes are compared as bits, which is exact; not for the few that are 0 or NaN at a threshold of 0 or NaN.
    RealBits threshold = narrow(tau);
    if (wide(threshold) > tau) --threshold;
    auto is_above = [&](Element x) { return real_bits(x & MAGNITUDE_BITS) > threshold; };
    const bool is_bad = is_nan(tau) || !(l > 0 && l < bits_as_double(INFINITE));

    double sums[3] = {0, 0, 0};  // of r, of slopes, of cotangents of parts of magnitudes
    vectors.for_each(n, is_above, [&](u64, Element element, Element g) {
        Part part;
        if (!is_above(element) || is_bad || !is_part(p, tau, l, element, g, part)) return;
        sums[0] += part.r;
        sums[1] += part.slope;
        sums[2] += part.g + part.slope * part.g;
    });
    add_up(sums, shared, false);
    // As sums[0] / tau entries are wanted beside those that are in the result themselves.
    const double whole = sums[0] > 0 || sums[1] > 0 ? sums[0] / tau + sums[1] : 0;
    const double passed = whole > 0 ? sums[2] / whole : 0;

    Element* dx = row_of(p.dx, row, p.rows.n, p.inner);
    const Element bad = element_of_bits(narrow(bits_as_double(NOT_A_NUMBER)));
    double more[3] = {0, 0, 0};
    vectors.for_each(n, is_above, [&](u64 i, Element element, Element g) {
        Element value = is_bad ? bad : Element(0);
        if (is_above(element) && !is_bad) {
            Part part;
            value = g;
            if (is_part(p, tau, l, element, g, part)) {
                const double change = part.g - passed;
                more[0] += part.r * change;
                value = element_of_bits(narrow(part.g + part.slope * change)) ^ (element & SIGN_BIT);
            }
        }
        store(dx + i64(i) * p.inner, value);
    });
    add_up(more, shared, false);
    if (threadIdx.x == 0) {
        const double not_a_number = bits_as_double(NOT_A_NUMBER);
        store(p.dk + row, narrow(is_bad ? not_a_number : passed != 0 ? tau * passed : 0.0));
        store(p.dl + row, narrow(is_bad ? not_a_number : -(p.power.exponent() / l) * more[0]));
    }
}
