// What the soft top-k kernels share: the K-th best of a row and the entries near it, a safeguarded root, and the
// result written.
//
// One block has a row. A row that fits shared memory is read once (SOURCE 3); a longer one is read again for every
// pass (SOURCE 0). Sums of floats are taken in the order of the entries, whatever the row's address: a row has the
// same answer alone and in a batch.
//
// The including file says by MAGNITUDE whether rows are ordered by magnitude.
#pragma once
#include "radix.cuh"
#include "real.cuh"

static_assert(FROM_X && FLOAT && LARGEST, "rows of x, greatest first");

constexpr Key INFINITE_KEY = A + A;  // -inf has the key 0

// The key by which an entry is ordered.
__device__ __forceinline__ Key order_of(Key key) { return MAGNITUDE && key < A ? A + A - key : key; }

// The value, as a Real's bits, that a key stands for; of NaNs an infinity.
__device__ __forceinline__ RealBits bits_of_key(Key key) {
    const Key s = (key < INFINITE_KEY ? key : INFINITE_KEY) - A;
    return real_bits(Element((s & SIGN ? (Key(0) - s) | SIGN : s) >> KEY_SHIFT));
}
__device__ __forceinline__ double value_of(Key key) { return wide(bits_of_key(key)); }

// A key that surely no entry has that exceeds `value` by more than `margin` (or UP: that falls below it by more).
template <bool UP>
__device__ __forceinline__ Key bound(double value, double margin) {
    const Key key = key_of(element_of_bits(narrow(UP ? value + margin : value - margin)), Coding{});
    // One step for the rounding.
    if (UP) return key < INFINITE_KEY ? key + UNIT : key;
    return key > UNIT ? key - UNIT : 0;
}

// What a block keeps in shared memory; the list of entries follows.
struct __align__(16) Soft {
    Scratch scratch;
    Sums<3> sums;
    double answer;
    u64 least, most;
    Count count[4];

    __device__ __forceinline__ u64* list() { return reinterpret_cast<u64*>(this + 1); }
};

// How many entries of the row are NaN, +infinity, and the least there is: -infinity, or 0 by magnitude.
struct Special {
    u64 nan, infinite, least;
};

// The K-th best of a row, and the entries near it.
struct Found {
    Key kth, next;  // `next` is the key of the next best entry, where it was asked for
    Key low;        // entries from this key on matter,
    bool is_listed;
    u64 listed;     // so many of them are in the list, in order of position,
    u64 above;      // and so many are not: they are better than all that are
};

// The sum of `mine` over all threads.
__device__ __forceinline__ u64 block_total(u64 mine, Soft& soft) {
    u64 total;
    block_exclusive_sum(mine, total, soft.scratch.sums);
    return total;
}

// Counts, in shared memory, the digits of the listed keys that have the cut's leading bits.
__device__ __forceinline__ void count_listed(u64 listed, const Source& source, const Cut& cut, int pass, Soft& soft) {
    const Digit digit(pass);
    clear_digits(soft.scratch);
    for (u64 i = threadIdx.x; i < listed; i += blockDim.x) {
        const Key key = Key(soft.list()[i]);
        if ((key & Key(cut.key_mask)) == Key(cut.key))
            atomicAdd(&soft.scratch.histogram[digit(key, source, 0)], Count(1));
    }
    __syncthreads();
}

// The same of all entries of the row.
__device__ __forceinline__ void count_row(const Source& source, const Cut& cut, int pass, Soft& soft) {
    const Digit digit(pass);
    clear_digits(soft.scratch);
    for (u64 position = u64(threadIdx.x) * READ; position < source.positions; position += u64(blockDim.x) * READ) {
        Key key[READ];
        const u32 there = source.read(position, key);
#pragma unroll
        for (int v = 0; v < READ; ++v) {
            const Key order = order_of(key[v]);
            if (there >> v & 1 && (order & Key(cut.key_mask)) == Key(cut.key))
                atomicAdd(&soft.scratch.histogram[digit(order, source, 0)], Count(1));
        }
    }
    __syncthreads();
}

// Counts what is special of a row, whose first digits are in the histogram. All threads learn it.
__device__ __forceinline__ Special count_special(const Source& source, Soft& soft) {
    constexpr Key LEAST = MAGNITUDE ? A : 0;
    const Digit digit(0);
    // Digits that +infinity and NaN have and no other, and those of the least and some more.
    const bool any = soft.scratch.histogram[digit(INFINITE_KEY, source, 0)] != 0;
    const bool some = soft.scratch.histogram[digit(LEAST, source, 0)] != 0;
    if (!any && !some) return {0, 0, 0};
    if (threadIdx.x < 3) soft.count[threadIdx.x] = 0;
    __syncthreads();
    Count nan = 0, infinite = 0, least = 0;
    for (u64 position = u64(threadIdx.x) * READ; position < source.positions; position += u64(blockDim.x) * READ) {
        Key key[READ];
        const u32 there = source.read(position, key);
#pragma unroll
        for (int v = 0; v < READ; ++v) {
            const Key order = order_of(key[v]);
            nan += there >> v & 1 && order > INFINITE_KEY;
            infinite += there >> v & 1 && order == INFINITE_KEY;
            least += there >> v & 1 && order == LEAST;
        }
    }
    if (nan) atomicAdd(&soft.count[0], nan);
    if (infinite) atomicAdd(&soft.count[1], infinite);
    if (least) atomicAdd(&soft.count[2], least);
    __syncthreads();
    return {soft.count[0], soft.count[1], soft.count[2]};
}

// The least key from `border` on, which is the K-th best, and the greatest below it.
__device__ __forceinline__ void find_neighbours(const Source& source, Found& found, Key border, Soft& soft) {
    if (threadIdx.x == 0) {
        soft.least = ~u64(0);
        soft.most = 0;
    }
    __syncthreads();
    u64 least = ~u64(0), most = 0;
    auto take = [&](Key key) {
        if (key < border) most = most > key ? most : key;
        else least = least < key ? least : key;
    };
    if (found.is_listed) {
        for (u64 i = threadIdx.x; i < found.listed; i += blockDim.x) take(Key(soft.list()[i]));
    } else {
        for (u64 position = u64(threadIdx.x) * READ; position < source.positions; position += u64(blockDim.x) * READ) {
            Key key[READ];
            const u32 there = source.read(position, key);
#pragma unroll
            for (int v = 0; v < READ; ++v)
                if (there >> v & 1) take(order_of(key[v]));
        }
    }
    atomicMin(&soft.least, least);
    atomicMax(&soft.most, most);
    __syncthreads();
    found.kth = Key(soft.least);
    found.next = Key(soft.most);
}

// Lists the keys from `low` to `high` in order of position and returns true, unless they are more than `capacity`.
__device__ __forceinline__ bool collect(const Source& source, Key low, Key high, u64 capacity, Soft& soft,
                                        Found& found) {
    const u64 tile = u64(blockDim.x) * READ;
    u64 listed = 0, above = 0;
    for (u64 start = 0; start < source.positions; start += tile) {
        const u64 position = start + u64(threadIdx.x) * READ;
        Key key[READ];
        const u32 there = position < source.positions ? source.read(position, key) : 0;
        u32 stays = 0;
#pragma unroll
        for (int v = 0; v < READ; ++v) {
            key[v] = order_of(key[v]);
            const bool is_there = there >> v & 1;
            stays |= u32(is_there && key[v] >= low && key[v] <= high) << v;
            above += is_there && key[v] > high;
        }
        // Most tiles have nothing to give.
        if (!__syncthreads_or(int(stays))) continue;
        u32 total;
        u64 slot = listed + block_exclusive_sum(u32(__popc(stays)), total, reinterpret_cast<u32*>(soft.scratch.sums));
        listed += total;
        if (listed > capacity) return false;
#pragma unroll 1
        for (; stays; stays >>= 1) {
            if (stays & 1) soft.list()[slot++] = key[0];
#pragma unroll
            for (int w = 0; w + 1 < READ; ++w) key[w] = key[w + 1];
        }
    }
    found.listed = listed;
    found.above = block_total(above, soft);
    return true;
}

// Finds the K-th best entry of a row (rank K, from 1 to n), unless the row is settled otherwise, and returns whether it
// did.
//
// settle(special) says whether what is special of the row settles it. window(least, most, low, high) tells which keys
// matter if the K-th lies between two keys. Where there may be a list, they are listed as soon as they are few enough.
template <class Settle, class Window>
__device__ __forceinline__ bool find(const Source& source, u64 rank, bool want_next, u64 capacity, Soft& soft,
                                     Found& found, Settle settle, Window window) {
    Cut cut = Cut::whole(rank);
    found.is_listed = false;
    found.above = 0;
    bool is_full = false;
#pragma unroll 1
    for (int pass = 0;; ++pass) {
        if (pass > 0 && found.is_listed) count_listed(found.listed, source, cut, pass, soft);
        else count_row(source, cut, pass, soft);
        if (pass == 0 && settle(count_special(source, soft))) return false;
        cut = narrow(cut, pass, soft.scratch);
        const bool last = pass + 1 == KEY_PASSES || cut.done;
        const Key least = Key(cut.key), most = least | ~Key(cut.key_mask);
        // Once two digits are known, the others change little of the window.
        if (capacity && !found.is_listed && (pass < 2 || last) && !is_full) {
            Key high;
            window(least, most, found.low, high);
            // As many as have the window's first digits, as long as it is those that are known.
            u64 likely = 0;
            if (pass == 0) {
                const Digit digit(0);
                const u32 end = digit(high, source, 0);
                for (u32 bin = digit(found.low, source, 0) + threadIdx.x; bin <= end; bin += blockDim.x)
                    likely += soft.scratch.histogram[bin];
                likely = block_total(likely, soft);
            }
            if (likely <= capacity) {
                found.is_listed = collect(source, found.low, high, capacity, soft, found);
                is_full = !found.is_listed;
            }
        }
        if (!last) continue;
        found.kth = found.next = least;
        // All that have the leading bits are among the best: the K-th is the least of them, the next the best of the
        // others.
        if (cut.done && (want_next || pass + 1 < KEY_PASSES)) find_neighbours(source, found, least, soft);
        if (!want_next) found.next = found.kth;
        return true;
    }
}

// Calls take(element) for a thread's share of the entries, in order: every so many of them, whatever their address.
template <class Take>
__device__ __forceinline__ void for_each(const Source& source, u64 length, Take take) {
    constexpr int FLIGHT = SOURCE == 3 ? 1 : 4;
#pragma unroll 1
    for (u64 start = threadIdx.x; start < length; start += u64(blockDim.x) * FLIGHT) {
        Pack<Element, FLIGHT> elements;
#pragma unroll
        for (int v = 0; v < FLIGHT; ++v) {
            const u64 i = start + u64(v) * blockDim.x;
            elements.item[v] = i < length ? source.element(i + source.shift) : Element(0);
        }
#pragma unroll 1
        for (u64 i = start, v = 0; v < FLIGHT && i < length; i += blockDim.x, ++v) take(elements.shift());
    }
}

// Evaluations of a function at most: they are a handful, and if not, the second half of so many halve the bracket.
constexpr int MOST_STEPS = 128;

// A root between `low`, where the function is not negative, and `high`, where it is not positive: Newton's steps, or
// halves (of the logarithm between positive numbers) where these leave the bracket or do not get on. The first that
// leaves it at either end tries the end.
struct Bracket {
    double low, high, at, step, before;
    int steps;
    bool may_end_low, may_end_high;  // the ends are still to be tried

    __device__ __forceinline__ Bracket(double low_, double high_, double start)
        : low(low_),
          high(high_),
          at(start),
          step(high_ - low_),
          before(high_ - low_),
          steps(0),
          may_end_low(true),
          may_end_high(true) {}

    // Goes on from `at`, where the function has this sign; returns whether that ends it: with a step of Newton's that
    // is less than `enough`, or any that is at most `least`.
    __device__ __forceinline__ bool go_on(bool is_positive, double newton, double enough, double least) {
        if (fabs(newton) < enough) {
            at += newton;
            return true;
        }
        if (is_positive) {
            low = at;
            may_end_low = false;
        } else {
            high = at;
            may_end_high = false;
        }
        double next = at + newton;
        if (next <= low && may_end_low) {
            next = low;
            may_end_low = false;
        } else if (next >= high && may_end_high) {
            next = high;
            may_end_high = false;
        } else if (!(next > low && next < high && fabs(newton) <= 0.5 * before && steps < MOST_STEPS / 2)) {
            next = low > 0 ? sqrt(low) * sqrt(high) : low + 0.5 * (high - low);
        }
        before = step;
        step = fabs(next - at);
        at = next;
        return step <= least || ++steps == MOST_STEPS;
    }
};

// So many listed entries are left to one warp.
constexpr u64 FEW = 8 * WARP;
// What float64 arithmetic may be wrong by, for every unit of the numbers in it, and some more.
constexpr double ROUNDING = 1e-15;

// The result of a row: 0 for entries up to the key `low`, a constant (or keep: the entry itself) from `high` on, where
// both say so the latter, and the function middle(key, element) between.
struct Ends {
    Key low, high;
    bool keep;
    Element constant;
};

template <class Middle>
__device__ __forceinline__ void write_row(const Source& source, Element* result, i64 inner, const Ends& ends,
                                          Middle middle) {
    const i64 length = i64(source.positions) - i64(source.shift);
    const bool aligned = inner == 1 && u32(reinterpret_cast<u64>(result) / sizeof(Element) % VECTOR) == source.shift;
    for (u64 position = u64(threadIdx.x) * VECTOR; position < source.positions; position += u64(blockDim.x) * VECTOR) {
        const i64 i = i64(position) - i64(source.shift);
        const bool whole = i >= 0 && i + VECTOR <= length;
        Pack<Element, VECTOR> elements;
        if (VECTOR > 1 && whole) {
            elements = source.pack(position);
        } else {
#pragma unroll 1
            for (int v = 0; v < VECTOR; ++v)
                elements.shift(i + v >= 0 && i + v < length ? source.element(position + v) : Element(0));
        }
        bool any = false;
#pragma unroll
        for (int v = 0; v < VECTOR; ++v) {
            const Key key = order_of(key_of(elements.item[v], source.coding));
            any |= key >= ends.high || key > ends.low;
        }
        if (!any) {
            elements = {};
        } else {
#pragma unroll 1
            for (int v = 0; v < VECTOR; ++v) {
                const Element element = elements.item[0];
                const Key key = order_of(key_of(element, source.coding));
                Element value = 0;
                if (key >= ends.high) value = ends.keep ? element : ends.constant;
                else if (key > ends.low) value = middle(key, element);
                elements.shift(value);
            }
        }
        if (VECTOR > 1 && aligned && whole) {
            union {
                Pack<Element, VECTOR> pack;
                uint4 word;
            } data;
            data.pack = elements;
            store(reinterpret_cast<uint4*>(result + i), data.word);
        } else {
#pragma unroll 1
            for (int v = 0; v < VECTOR; ++v) {
                const Element value = elements.shift();
                if (i + v >= 0 && i + v < length) store(result + (i + v) * inner, value);
            }
        }
    }
}
