// The bucketed selection in one launch: blocks walk over a row's buckets, and the one that comes last merges what
// the row's blocks kept, selects the best k of it, and puts them in order, in its shared memory.
#include "walk.cuh"
#include "radix.cuh"
#include "reduce.cuh"
#include "sort.cuh"

struct BucketRowParams {
    WalkParams walk;     // output.pairs: candidates, `places` of each bucket; output.kept: k_b
    i64 places;          // k_b, and one more for the guard
    i64 lane_blocks;     // blocks that share the lanes of a row
    i64 k;
    u32* counters;       // one a row, zero before and after; null for one block a row
    u8* exact;           // the certificate, if any
};

// What the block that comes last has in shared memory; candidates follow, then the sorted entries.
struct __align__(16) Finish {
    Scratch scratch;
    Entry extremes[WARP];

    __device__ __forceinline__ Entry* candidates() { return reinterpret_cast<Entry*>(this + 1); }
};

// Of a bucket, the best of what its partitions kept, best first.
__device__ __forceinline__ void merge_partitions(const BucketRowParams& p, u64 row, u64 bucket, Entry (&best)[KEEP]) {
#pragma unroll
    for (int j = 0; j < KEEP; ++j) best[j] = EMPTY;
    const u64 b = u64(p.walk.buckets), places = u64(p.places), partitions = u64(p.walk.output.partitions);
    for (u64 partition = 0; partition < partitions; ++partition) {
        for (u64 j = 0; j < places; ++j) {
            const u64 position = ((row * partitions + partition) * places + j) * b + bucket;
            Entry entry = load_fresh_pair(p.walk.output.pairs, position);
            // Those behind the first loser are no better.
            if (!better(entry, best[KEEP - 1])) break;
#pragma unroll
            for (int i = 0; i < KEEP; ++i) {
                const Entry loser = chosen<false>(entry, best[i]);
                best[i] = chosen<true>(entry, best[i]);
                entry = loser;
            }
        }
    }
}

__device__ __forceinline__ void finish_row(const BucketRowParams& p, u64 row, const Element* base) {
    Finish& finish = *reinterpret_cast<Finish*>(dynamic_shared());
    Entry* candidates = finish.candidates();
    const u64 b = u64(p.walk.buckets), kept = u64(p.walk.output.kept), count = b * kept, k = u64(p.k);
    Entry guard = EMPTY;
    for (u64 bucket = threadIdx.x; bucket < b; bucket += blockDim.x) {
        Entry best[KEEP];
        merge_partitions(p, row, bucket, best);
#pragma unroll
        for (int j = 0; j < KEEP; ++j) {
            if (u64(j) < kept) candidates[j * b + bucket] = best[j];
            else if (u64(j) < u64(p.places)) guard = chosen<true>(guard, best[j]);
        }
    }
    __syncthreads();

    const Source source = {count, candidates};
    Cut cut = Cut::whole(k);
    cut.done = k == count;
    cut = select_cut(source, cut, finish.scratch);
    Entry* sorted = candidates + count;
    const u32 size = next_power_of_two(u32(k));
    for (u32 slot = u32(k) + threadIdx.x; slot < size; slot += blockDim.x) sorted[slot] = EMPTY;
    select_entries(source, 0, count, cut, Before{0, 0}, k, finish.scratch,
                   [&](u64 slot, const Entry& entry) { sorted[slot] = entry; });
    __syncthreads();
    block_sort(sorted, size);
    for (u32 slot = threadIdx.x; slot < u32(k); slot += blockDim.x)
        emit(p.walk.output.result, row, slot, sorted[slot], base, p.walk.rows.axis_stride);

    if (!p.exact) return;
    // Exact, if and only if no bucket rejected an entry that ranks before the last of the answer.
    guard = block_extreme<true>(guard, finish.extremes);
    if (threadIdx.x == 0) store(p.exact + row, u8(!better(guard, sorted[k - 1])));
}

extern "C" __global__ void __launch_bounds__(512, 1) bucket_row(const __grid_constant__ BucketRowParams p) {
    const WalkParams& w = p.walk;
    const u64 partitions = u64(w.output.partitions), blocks = u64(p.lane_blocks) * partitions;
    u64 block, partition;
    const u64 row = divide(blockIdx.x, blocks, block);
    const u64 lane_block = divide(block, partitions, partition);
    const Team team(u32(w.lane_threads), u32(w.step_threads), !w.interleaved);
    const u64 within = lane_block * team.lane_threads + team.lane_thread;
    const bool active = team.takes_part() && within < u64(w.groups_per_slab);
    walk(w, team, row, active ? within : 0, partition, active, u64(p.places),
         [&](const Place& place, u64 j, const Entry& entry) {
             const u64 position = (row * partitions + partition) * u64(p.places) + j;
             store_pair(w.output.pairs, position * u64(w.buckets) + place.bucket, entry);
         });
    if (blocks > 1) {
        if (!comes_last(p.counters + row, u32(blocks), reinterpret_cast<u32*>(dynamic_shared()))) return;
    } else {
        __syncthreads();
    }
    finish_row(p, row, w.rows.x + row_offset(w.rows.batch, w.rows.strides, row));
}
