// The soft top-k mask: y = phi((x - tau) / l) with tau such that a row's y sum to k. One block per row.
//
// Macros besides those of the included files: SMOOTH (0: phi is a power cut off at 0 and 1, so that few entries of most
// rows matter; 1: a sigmoid or the distribution function of Laplace, to which all contribute).
constexpr bool MAGNITUDE = false;
#include "soft.cuh"

struct MaskParams {
    Rows rows;
    Number k, l;
    Power power;  // SMOOTH 0
    i64 is_laplace;  // SMOOTH 1
    Element* y;
    i64 inner;
    i64 capacity;  // entries that can be listed; SMOOTH 0
    i64 copy;  // SOURCE 3: where in shared memory, in bytes
};

#if SMOOTH
// A row's entries relative to the K-th best, `centre`, in units of l.
struct Problem {
    Real centre, per_l;
    bool is_laplace;
    // The threshold, and what it loses as a Real.
    Real at, lost;

    __device__ __forceinline__ Problem(double centre_, double l, bool is_laplace_)
        : centre(Real(centre_)), per_l(inverse(l)), is_laplace(is_laplace_), at(0), lost(0) {}

    __device__ __forceinline__ void move(double threshold) {
        at = Real(threshold);
        lost = Real(threshold - double(at));
    }

    // How far phi of an entry is from 0, or in the upper half from 1, and its slope.
    __device__ __forceinline__ Real operator()(Real x, bool& is_upper, Real& slope) const {
        const Real distance = difference(x, centre);
        const Real u = multiply_add(distance, per_l, -at);
        is_upper = u >= 0;
        const Real size = is_upper ? u : -u;
        const Real tail = exponential(-size);
        Real part;
        if (is_laplace) {
            slope = part = Real(0.5) * tail;
        } else {
            const Real whole = 1 / (1 + tail);
            part = tail * whole;
            slope = part * whole;
        }
        // What rounding u lost moves phi by as much as rounding phi does, and all entries of a row alike.
        if (BITS != 64 && size < 64) {
            const Real low = multiply_add(distance, per_l, -(u + at)) - lost;
            part = multiply_add(is_upper ? -low : low, slope, part);
        }
        return part;
    }

    static __device__ __forceinline__ float exponential(float x) { return expf(x); }
    static __device__ __forceinline__ double exponential(double x) { return exp(x); }
    static __device__ __forceinline__ float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
    static __device__ __forceinline__ double multiply_add(double a, double b, double c) { return fma(a, b, c); }

    // The inverse of phi.
    __device__ __forceinline__ double quantile(double y) const {
        if (!is_laplace) return log(y / (1 - y));
        return y < 0.5 ? log(2 * y) : -log(2 * (1 - y));
    }
};

// Finds the threshold in units of l, relative to the K-th best. k entries of `count` finite ones are wanted, where the
// next better (than the next integer below k) is `next` below the K-th in units of l.
__device__ __forceinline__ void solve(Problem& problem, const Source& source, double k, double count, double next,
                                      Soft& soft) {
    const double rank = ceil(k), whole = floor(k);
    // The side of which less is wanted, whose sum's logarithm bends little.
    const bool mirrored = k > 0.5 * count;
    const double wanted = mirrored ? count - k : k;
    const double low = next - problem.quantile(k / (whole + 1));
    const double high = -problem.quantile((k - rank + 1) / (count - rank + 1));
    Bracket bracket(low, high, low + 0.5 * (high - low));
    const u64 length = source.positions - source.shift;
#pragma unroll 1
    for (;;) {
        problem.move(bracket.at);
        // Of what is not 0 or 1, so that however many ones are exact.
        Total<Real> parts = {0, 0}, slopes = {0, 0};
        Count uppers = 0;
        for_each(source, length, [&](Element element) {
            if ((element & MAGNITUDE_BITS) == Element(LARGEST_NUMBER)) return;
            Real slope;
            bool is_upper;
            const Real part = problem(real_of(real_bits(element)), is_upper, slope);
            uppers += is_upper;
            parts.add(is_upper ? -part : part);
            slopes.add(slope);
        });
        double sums[3] = {double(uppers), parts.value(), slopes.value()};
        add_up(sums, soft.sums, false);
        const double value = (sums[0] - k) + sums[1];
        if (value == 0) break;
        double newton = value;
        const double excess = (mirrored ? -value : value) / wanted;
        if (fabs(excess) > 1e-3) newton = (mirrored ? -wanted : wanted) * (1 + excess) * log(1 + excess);
        // A step leaves less than its square.
        if (bracket.go_on(value > 0, newton / sums[2], BITS == 64 ? 1e-8 : 1e-4, BITS == 64 ? 1e-16 : 1e-8)) break;
    }
    problem.move(bracket.at);
}
#else
// Finds the threshold in units of l, relative to the K-th best, between -1 and 0.
__device__ __forceinline__ double solve(const MaskParams& p, const Source& source, const Found& found, double k,
                                        double centre, double l, Soft& soft) {
    const bool alone = found.is_listed && found.listed <= FEW;
    const u64 count = found.is_listed ? found.listed : source.positions - source.shift;
    const double exponent = p.power.exponent();
    if (!alone || threadIdx.x < WARP) {
        // Alone between those that count fully and those that do not count, the K-th best has what is left of k.
        const double share = k - (ceil(k) - 1);
        Bracket bracket(-1, 0, share < 1 ? -p.power.root(share) : -1);
#pragma unroll 1
        for (;;) {
            double full = 0, part = 0, slope = 0;
#pragma unroll 1
            for (u64 i = threadIdx.x; i < count; i += alone ? WARP : blockDim.x) {
                double distance;
                if (found.is_listed) {
                    distance = bits_as_double(soft.list()[i]);
                } else {
                    const Key key = key_of(source.element(i + source.shift), source.coding);
                    if (key < found.low) continue;
                    distance = (value_of(key) - centre) / l;
                }
                const double u = distance - bracket.at;
                if (u >= 1) {
                    full += 1;
                } else if (u > 0) {
                    const double y = p.power(u);
                    part += y;
                    slope += exponent * y / u;
                }
            }
            double sums[3] = {full, part, slope};
            add_up(sums, soft.sums, alone);
            const double wanted = k - (double(found.above) + sums[0]), value = sums[1] - wanted;
            if (fabs(value) <= 2.3e-16 * sums[1]) break;
            // Of the sum's root, which is straight where one entry has most of it.
            double newton = value;
            if (wanted > 0 && fabs(value) > 1e-3 * sums[1])
                newton = exponent * sums[1] * (1 - p.power.root(wanted / sums[1]));
            // A power below 1 is steepest where it begins: a small step there may have long to go.
            if (bracket.go_on(value > 0, newton / sums[2], exponent < 1 ? 0 : 4e-16, 2.3e-16)) break;
        }
        if (threadIdx.x == 0) soft.answer = bracket.at;
    }
    __syncthreads();
    return soft.answer;
}
#endif

extern "C" __global__ void __launch_bounds__(512, 1) soft_mask(const __grid_constant__ MaskParams p) {
    Soft& soft = *reinterpret_cast<Soft*>(dynamic_shared());
    const u64 row = blockIdx.x;
    Source source = cut_row(p.rows, find_row(p.rows, row), 0, 1, false, Coding{});
#if SOURCE == 3
    source.copy = reinterpret_cast<Element*>(dynamic_shared() + p.copy);
    source.bring();
#endif
    const double k = load_number(p.k, p.rows.batch, row), l = load_number(p.l, p.rows.batch, row);
    const double n = double(p.rows.n);
    // The K-th best that is asked for; any will do where the row turns out to be settled otherwise.
    const bool inside = k > 0 && k < n;
    const u64 rank = inside ? u64(ceil(k)) : 1;

    // What needs no threshold: the same for all, or for all but the worst.
    Ends ends = {0, 0, false, 0};
    double infinite = 0, finite = n;
    auto settle = [&](const Special& special) {
        infinite = double(special.infinite);
        finite = n - double(special.least) - infinite;
        double constant = 1;
        bool is_settled = true;
        if (special.nan || is_nan(k) || !(l > 0 && l < bits_as_double(INFINITE))) {
            constant = bits_as_double(NOT_A_NUMBER);
        } else if (k <= 0) {
            constant = 0;
        } else if (finite + infinite <= k) {
            ends.high = UNIT;
        } else if (infinite >= k) {
            ends.low = INFINITE_KEY - UNIT;
            ends.high = INFINITE_KEY;
            constant = k / infinite;
        } else {
            is_settled = false;
        }
        ends.constant = element_of_bits(narrow(constant));
        return is_settled;
    };
    Found found;
    Element* result = row_of(p.y, row, p.rows.n, p.inner);

#if SMOOTH
    Problem problem(0, 1, false);
    if (find(source, rank, k == floor(k), 0, soft, found, settle, [](Key, Key, Key&, Key&) {})) {
        const double centre = value_of(found.kth);
        problem = Problem(centre, l, p.is_laplace != 0);
        // An infinite entry is settled, and takes a whole of k.
        solve(problem, source, k - infinite, finite, (value_of(found.next) - centre) / l, soft);
        ends.high = INFINITE_KEY;
    }
    write_row(source, result, p.inner, ends, [&](Key, Element element) {
        Real slope;
        bool is_upper;
        const Real part = problem(real_of(real_bits(element)), is_upper, slope);
        return element_of_bits(bits_of(is_upper ? 1 - part : part));
    });
#else
    auto near = [&](Key least, Key most, Key& low, Key& high) {
        const double smallest = value_of(least), greatest = value_of(most);
        low = bound<false>(smallest - l, (fabs(smallest) + l) * ROUNDING);
        high = bound<true>(greatest + l, (fabs(greatest) + l) * ROUNDING);
    };
    double centre = 0, threshold = 0;
    if (find(source, rank, false, u64(p.capacity), soft, found, settle, near)) {
        centre = value_of(found.kth);
        for (u64 i = threadIdx.x; found.is_listed && i < found.listed; i += blockDim.x)
            soft.list()[i] = u64(__double_as_longlong((value_of(Key(soft.list()[i])) - centre) / l));
        __syncthreads();
        threshold = solve(p, source, found, k, centre, l, soft);
        const double tau = centre + threshold * l, margin = (fabs(centre) + l) * ROUNDING;
        ends.low = bound<false>(tau, margin);
        ends.high = bound<true>(tau + l, margin);
    }
    write_row(source, result, p.inner, ends, [&](Key key, Element) {
        const double u = (value_of(key) - centre) / l - threshold;
        return element_of_bits(narrow(u >= 1 ? 1.0 : u > 0 ? p.power(u) : 0.0));
    });
#endif
}
