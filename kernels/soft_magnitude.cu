// The soft top-k of magnitudes: x made sparse. With s = |x|, z = max(s - tau, 0), r = (z / l)^a and tau such that a
// row's min(1, r / tau) sum to k, the result is x where r >= tau, sign(x) (z + r) elsewhere. One block per row.
constexpr bool MAGNITUDE = true;
#include "soft.cuh"

struct MagnitudeParams {
    Rows rows;
    Number k, l;
    Power power;
    Element* y;
    RealBits *tau, *rest;  // of every row: the threshold, and what is left of it, which its type cannot tell
    i64 inner;
    i64 capacity;  // entries that can be listed
    i64 copy;      // SOURCE 3: where in shared memory, in bytes
};

// The threshold of a row is `base` + l `at`: at, in units of l, is what is solved for. The base is 0, or where the
// threshold is not much below it the K-th best magnitude, so that both the threshold and distances from it are exact.
struct Problem {
    double l, base, at;

    __device__ __forceinline__ double tau() const { return base + l * at; }
};

// The distance, in units of l, of a magnitude from the threshold at which its share is 1: the w with w^a + l w = s,
// whose w^a is the threshold. With l q in place of l, q w is the distance at which its share is q^a.
__device__ __noinline__ double distance_alone(double s, double l, i64 known, u64 exponent_bits) {
    const Power power = {known, exponent_bits};
    const double exponent = power.exponent();
    // From the side on which Newton's steps do not overshoot: above if w^a bends up.
    const double part = exponent < 1 ? 0.5 * s : s;
    const double most = part / l, other = power.root(part);
    double w = most < other ? most : other;
#pragma unroll 1
    for (int step = 0; step < MOST_STEPS; ++step) {
        if (!(w > 0)) break;
        const double value = power(w);
        const double next = w - (value + l * w - s) / (exponent * value / w + l);
        const bool enough = fabs(next - w) <= 4e-16 * w;
        w = next;
        if (enough) break;
    }
    return w;
}

// Finds the threshold of a row whose K-th best magnitude, K the integer next to k, is `kth`.
__device__ __forceinline__ Problem pose(double kth, double l, const Power& power) {
    const double w = distance_alone(kth, l, power.known, power.bits), tau = power(w);
    Problem problem = {l, 0, 0};
    if (tau < 0.5 * kth) {
        problem.at = tau / l;
    } else {
        problem.base = kth;
        problem.at = -w;
    }
    // All K best count fully here, but for rounding.
    problem.at -= fabs(problem.at) * ROUNDING;
    return problem;
}

__device__ __forceinline__ void solve(Problem& problem, const Power& power, const Source& source, const Found& found,
                                      double k, double kth, Soft& soft) {
    const bool alone = found.is_listed && found.listed <= FEW;
    const u64 count = found.is_listed ? found.listed : source.positions - source.shift;
    const double exponent = power.exponent();
    if (!alone || threadIdx.x < WARP) {
        Bracket bracket(problem.at, problem.base > 0 ? 0 : kth / problem.l, problem.at);
        // Alone between those that count fully and those that do not count, the K-th best has what is left of k.
        const double share = k - (ceil(k) - 1);
        if (share < 1) {
            const double part = power.root(share);
            const double w = distance_alone(kth, problem.l * part, power.known, power.bits);
            bracket.at = problem.base > 0 ? -w * part : power(w) / problem.l;
        }
#pragma unroll 1
        for (;;) {
            problem.at = bracket.at;
            const double tau = problem.tau();
            double full = 0, part = 0, slope = 0;
#pragma unroll 1
            for (u64 i = threadIdx.x; i < count; i += alone ? WARP : blockDim.x) {
                double distance;
                if (found.is_listed) {
                    distance = bits_as_double(soft.list()[i]);
                } else {
                    const Key key = order_of(key_of(source.element(i + source.shift), source.coding));
                    if (key < found.low) continue;
                    distance = (value_of(key) - problem.base) / problem.l;
                }
                const double z = distance - bracket.at;
                if (!(z > 0)) continue;
                const double r = power(z);
                if (r >= tau) {
                    full += 1;
                } else {
                    part += r;
                    slope += exponent * r / z;
                }
            }
            double sums[3] = {full, part, slope};
            add_up(sums, soft.sums, alone);
            // Those that count fully lack as many thresholds, which the others have.
            const double missing = k - (double(found.above) + sums[0]), wanted = missing * tau;
            const double value = sums[1] - wanted;
            if (fabs(value) <= 2.3e-16 * sums[1]) break;
            double newton = value / (sums[2] + missing * problem.l);
            if (wanted > 0 && fabs(value) > 1e-3 * sums[1]) {
                // Of the roots of both, which are straight where one entry has most of the sum.
                const double has = power.root(sums[1]), wants = power.root(wanted);
                newton = exponent * (has - wants) / (has * sums[2] / sums[1] + wants * problem.l / tau);
            }
            // A power below 1 is steepest where it begins: a small step there may have long to go.
            const double least = 4.5e-16 * fabs(bracket.at);
            if (bracket.go_on(value > 0, newton, exponent < 1 ? 0 : 2 * least, least)) break;
        }
        if (threadIdx.x == 0) soft.answer = bracket.at;
    }
    __syncthreads();
    problem.at = soft.answer;
}

extern "C" __global__ void __launch_bounds__(512, 1) soft_magnitude(const __grid_constant__ MagnitudeParams p) {
    Soft& soft = *reinterpret_cast<Soft*>(dynamic_shared());
    const u64 row = blockIdx.x;
    Source source = cut_row(p.rows, find_row(p.rows, row), 0, 1, false, Coding{});
#if SOURCE == 3
    source.copy = reinterpret_cast<Element*>(dynamic_shared() + p.copy);
    source.bring();
#endif
    const double k = load_number(p.k, p.rows.batch, row), l = load_number(p.l, p.rows.batch, row);
    const double n = double(p.rows.n);
    const u64 rank = k > 0 && k < n ? u64(ceil(k)) : 1;

    // What needs no threshold that is solved for: entries as they are, or a constant, or only the infinite ones.
    Ends ends = {0, 0, true, 0};
    Problem problem = {1, 0, 0};
    auto settle = [&](const Special& special) {
        if (special.nan || is_nan(k) || !(l > 0 && l < bits_as_double(INFINITE))) {
            problem.base = bits_as_double(NOT_A_NUMBER);
            ends.keep = false;
            ends.constant = element_of_bits(narrow(problem.base));
        } else if (k <= 0) {
            problem.base = bits_as_double(INFINITE);
            ends.keep = false;
        } else if (n - double(special.least) <= k) {
            // Few enough are not 0.
        } else if (double(special.infinite) >= k) {
            problem.base = bits_as_double(INFINITE);
            ends.low = INFINITE_KEY - UNIT;
            ends.high = INFINITE_KEY;
        } else {
            return false;
        }
        return true;
    };
    auto near = [&](Key least, Key most, Key& low, Key& high) {
        const double smallest = value_of(least), greatest = value_of(most);
        const Problem first = pose(smallest > 0 ? smallest : 0, l, p.power);
        low = bound<false>(first.tau(), first.base * ROUNDING);
        const double full = greatest + l * p.power.root(greatest);
        high = bound<true>(full, full * ROUNDING);
    };
    Found found;
    if (find(source, rank, false, u64(p.capacity), soft, found, settle, near)) {
        const double kth = value_of(found.kth);
        problem = pose(kth, l, p.power);
        for (u64 i = threadIdx.x; found.is_listed && i < found.listed; i += blockDim.x)
            soft.list()[i] = u64(__double_as_longlong((value_of(Key(soft.list()[i])) - problem.base) / l));
        __syncthreads();
        solve(problem, p.power, source, found, k, kth, soft);
        const double tau = problem.tau(), full = tau + l * p.power.root(tau);
        ends.low = bound<false>(tau, kth * ROUNDING);
        ends.high = bound<true>(full, full * ROUNDING);
    }
    const double tau = problem.tau();
    if (threadIdx.x == 0) {
        const RealBits nearest = narrow(tau);
        const double rest = tau - wide(nearest);
        store(p.tau + row, nearest);
        store(p.rest + row, narrow(is_nan(rest) ? 0.0 : rest));
    }
    write_row(source, row_of(p.y, row, p.rows.n, p.inner), p.inner, ends, [&](Key key, Element element) {
        const double z = (value_of(key) - problem.base) / problem.l - problem.at;
        if (!(z > 0)) return Element(0);
        const double r = p.power(z);
        if (r >= tau) return element;
        return Element(element_of_bits(narrow(z * problem.l + r)) | (element & SIGN_BIT));
    });
}
