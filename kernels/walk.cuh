// The walk over buckets, the priority-queue kernel of Key et al. 2024 (arXiv 2412.04358): every thread walks VECTOR
// neighbouring lanes of the row, one entry of each per step, and keeps the best KEEP of each in registers.
//
// A lane is a bucket of a row; with an axis that is not last, seen as (outer, n, inner), inner x b lanes stand
// side by side and are walked together. Macros besides those of the included files: VECTOR (lanes a thread),
// UNROLL (steps loaded before the first is used).
#pragma once
#include "bucket.cuh"

struct WalkParams {
    Rows rows;
    Output output;
    i64 inner;
    i64 buckets;
    i64 interleaved;
    i64 groups;            // threads that the lanes of all rows need, VECTOR lanes each
    i64 groups_per_slab;   // of one (n, inner) slab
    i64 partition_steps;   // steps of one partition, the same for all
    i64 lane_threads, step_threads;  // of a block
};

// Walks lanes within x VECTOR and following of slab `slab`, and calls put(place, j, entry) for the best `places`
// entries of each, j = 0 for the best.
template <class Put>
__device__ __forceinline__ void walk(const WalkParams& p, const Team& team, u64 slab, u64 within, u64 partition,
                                     bool active, u64 places, Put put) {
    const u64 b = u64(p.buckets);

    // Where this thread's first lane has its entry of step 0, and how far apart steps are.
    const Element* origin;
    i64 step_stride;
    Index full_end;  // from step 1 to here, all VECTOR lanes have an entry
#if VECTOR > 1
    // Rows need not be aligned: lanes are shifted so that loads are, and the first lanes of a slab begin one
    // step late, as the last of it. Needs slabs that are contiguous and a multiple of VECTOR lanes;
    // ragged rows only with inner = 1.
    const i64 lanes = i64(b) * p.inner;
    const Row row = find_row(p.rows, slab * u64(p.inner));
    const i64 length = i64(row.length) * p.inner;
    const Element* row_x = row.base + i64(row.first);
    const i64 shift = i64(reinterpret_cast<u64>(row_x) / sizeof(Element) % VECTOR);
    const i64 first_lane = i64(within) * VECTOR - shift;
    origin = row_x + first_lane;
    step_stride = lanes;
    const i64 reach = length - first_lane - VECTOR;
    u64 unused;
    full_end = reach < 0 ? 0 : Index(divide(u64(reach), u64(lanes), unused) + 1);
#else
    u64 c;
    const u64 bucket = divide(within, u64(p.inner), c);
    const i64 axis_stride = p.rows.axis_stride;
    const Row row = find_row(p.rows, slab * u64(p.inner) + c);
    u64 longer;
    const u64 size = divide(row.length, b, longer);
    const u64 start = row.first + (p.interleaved ? bucket : bucket * size + (bucket < longer ? bucket : longer));
    origin = row.base + i64(start) * axis_stride;
    step_stride = p.interleaved ? i64(b) * axis_stride : axis_stride;
    full_end = Index(size + (bucket < longer ? 1 : 0));
#endif

    Queue queue[VECTOR];
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) queue[v].clear();

    const Index begin = Index(partition * u64(p.partition_steps));
    const Index end = begin + Index(p.partition_steps);
#if PACKED
    const Index base = begin;
#else
    const Index base = 0;
#endif
    const Index stride = team.step_threads;
    Index step = begin + team.step_thread;

    // While slots may be empty (one step more where a lane may begin late), and where lanes end, entry by entry;
    // in between UNROLL steps at a time.
    int to_fill = KEEP + (VECTOR > 1 ? 1 : 0);
    const Index last = end < full_end ? end : full_end;
    const Index ahead = (UNROLL - 1) * stride;
    const Index full_speed_end = held(last > ahead ? last - ahead : Index(0));
    const u64 jump = held(u64(i64(stride) * step_stride) * sizeof(Element));  // bytes, modulo 2^64
    const Maker make(p.output.result.coding);
    while (active && step < end && step <= full_end) {
        const Element* from = origin + i64(step) * step_stride;
        if (to_fill > 0 || step >= full_speed_end) {
#pragma unroll
            for (int v = 0; v < VECTOR; ++v) {
#if VECTOR > 1
                const i64 flat = i64(step) * lanes + first_lane + v;
                const bool there = flat >= 0 && flat < length;
#else
                const bool there = step < full_end;
#endif
                if (!there) continue;
                Kept kept[1];
                make(Pack<Element, 1>{load(from + v)}, Step(step - base), kept);
                queue[v].insert<false>(kept[0]);
            }
            --to_fill;
            step += stride;
        } else {
            do {
                Pack<Element, VECTOR> pack[UNROLL];
#pragma unroll
                for (int u = 0; u < UNROLL; ++u) {
                    pack[u] = load_pack<Element, VECTOR>(from);
                    from = reinterpret_cast<const Element*>(reinterpret_cast<u64>(from) + jump);
                }
#pragma unroll
                for (int u = 0; u < UNROLL; ++u) {
                    Kept kept[VECTOR];
                    make(pack[u], Step(step - base + Index(u) * stride), kept);
#pragma unroll
                    for (int v = 0; v < VECTOR; ++v) queue[v].insert<true>(kept[v]);
                }
                step += UNROLL * stride;
            } while (step < full_speed_end);
        }
    }

    merge_step_threads(queue, team);
    if (!active || team.step_thread != 0) return;

#pragma unroll 1
    for (int v = 0; v < VECTOR; ++v, rotate(queue)) {
#if VECTOR > 1
        const bool late = first_lane + v < 0;
        u64 c;
        const u64 bucket = divide(u64(first_lane + v + (late ? lanes : 0)), u64(p.inner), c);
        const i64 first = i64(row.first) + i64(bucket) - (late ? i64(b) : 0);
        const Index element_stride = Index(b);
        const Place place = {slab * u64(p.inner) + c, bucket, partition, row.base + c};
#else
        const i64 first = i64(start);
        const Index element_stride = p.interleaved ? Index(b) : 1;
        const Place place = {slab * u64(p.inner) + c, bucket, partition, row.base};
#endif
#pragma unroll 1
        for (u64 j = 0; j < places; ++j) {
            const Kept kept = queue[0].pop();
            Entry entry = {kept_key(kept), Index(first) + (Index(kept_step(kept)) + base) * element_stride};
            if (is_nothing(kept)) entry = EMPTY;
            put(place, j, entry);
        }
    }
}
