// What the walk over buckets and the merge of its partitions share: teams of threads, and where entries go.
#pragma once
#include "queue.cuh"

struct Output {
    Result result;  // where candidates go when they are the result
    Pairs pairs;    // where they go otherwise
    Pairs guards;   // (row, bucket): where the best entry that a bucket rejects goes, if anywhere
    i64 partitions;
    i64 kept;       // k_b; at most KEEP, with the guard

    __device__ __forceinline__ u64 places() const { return u64(kept) + (guards.key ? 1 : 0); }
};

// Where a row's bucket stands in the output.
struct Place {
    u64 row;
    u64 bucket;
    u64 partition;
    const Element* base;  // the row's element 0
};

// The j-th best of a bucket: candidate (partition, j, bucket) of its row, or entry (j, bucket) of the result; behind
// the kept ones, the guard.
__device__ __forceinline__ void put(const Output& output, const Place& place, u64 buckets, i64 axis_stride, u64 j,
                                    const Entry& entry) {
    if (j == u64(output.kept)) {
        store_pair(output.guards, place.row * buckets + place.bucket, entry);
    } else if (output.result.values) {
        emit(output.result, place.row, j * buckets + place.bucket, entry, place.base, axis_stride);
    } else {
        const u64 position = (place.row * u64(output.partitions) + place.partition) * u64(output.kept) + j;
        store_pair(output.pairs, position * buckets + place.bucket, entry);
    }
}

// Splits the block's threads, but for some at its end: `adjacent_steps` gives neighbouring threads neighbouring steps,
// otherwise neighbouring lanes.
struct Team {
    u32 lane_thread, lane_threads, step_thread, step_threads;

    __device__ __forceinline__ Team(u32 lane_threads_, u32 step_threads_, bool adjacent_steps)
        : lane_threads(lane_threads_), step_threads(step_threads_) {
        const u32 shared_by = adjacent_steps ? step_threads : lane_threads;
        const u32 quotient = threadIdx.x / shared_by, remainder = threadIdx.x - quotient * shared_by;
        lane_thread = adjacent_steps ? quotient : remainder;
        step_thread = adjacent_steps ? remainder : quotient;
    }

    __device__ __forceinline__ bool takes_part() const {
        return lane_thread < lane_threads && step_thread < step_threads;
    }
};

// Threads of a block that walk the same lanes, at different steps, merge their queues pairwise; the first of
// them ends with the best of all.
template <int QUEUES>
__device__ __forceinline__ void merge_step_threads(Queue (&queue)[QUEUES], const Team& team) {
    Kept* shared = reinterpret_cast<Kept*>(dynamic_shared());
    for (u32 half = team.step_threads / 2; half > 0; half /= 2) {
        const u32 slots = half * team.lane_threads;
        const bool takes = team.takes_part() && team.step_thread < half;
        const bool gives = team.takes_part() && !takes && team.step_thread < 2 * half;
        Kept* slot = shared + (team.step_thread & (half - 1)) * team.lane_threads + team.lane_thread;
#pragma unroll 1
        for (int v = 0; v < QUEUES; ++v, rotate(queue))
#pragma unroll
            for (int j = 0; j < KEEP; ++j)
                if (gives) slot[(v * KEEP + j) * slots] = queue[0].kept[j];
        __syncthreads();
        if (takes) {
#pragma unroll 1
            for (int v = 0; v < QUEUES; ++v, rotate(queue)) {
                // The first loser ends it: those behind it are no better.
#pragma unroll 1
                for (int j = 0; j < KEEP; ++j) {
                    const Kept other = slot[(v * KEEP + j) * slots];
                    if (!beats(other, queue[0].kept[KEEP - 1])) break;
                    queue[0].template insert<false>(other);
                }
            }
        }
        __syncthreads();
    }
}
