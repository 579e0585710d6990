// What the walk over buckets and the merge of its partitions share: teams of threads, and where entries go.
#pragma once
#include "queue.cuh"

struct Output {
    Result result;  // where candidates go when they are the result
    Pairs pairs;    // where they go otherwise
    i64 partitions;
    i64 kept;       // k_b, at most KEEP
};

// Where a row's bucket stands in the output.
struct Place {
    u64 row;
    u64 bucket;
    u64 partition;
    const Element* x;
};

// The j-th best of a bucket: candidate (partition, j, bucket) of its row, or entry (j, bucket) of the result.
__device__ __forceinline__ void put(const Output& output, const Place& place, u64 buckets, i64 axis_stride, u64 j,
                                    const Entry& entry) {
    if (output.result.values) {
        emit(output.result, place.row, j * buckets + place.bucket, entry, place.x, axis_stride);
    } else {
        const u64 position = (place.row * u64(output.partitions) + place.partition) * u64(output.kept) + j;
        store_pair(output.pairs, position * buckets + place.bucket, entry);
    }
}

// Threads of a block that walk the same lanes, at different steps, merge their queues pairwise; the first of
// them ends with the best of all. `lane_thread` and `step_thread` place this thread among `lane_threads` x
// `step_threads`, both powers of two.
template <int QUEUES>
__device__ __forceinline__ void merge_step_threads(Queue (&queue)[QUEUES], u32 lane_thread, u32 lane_threads,
                                                   u32 step_thread, u32 step_threads) {
    Kept* shared = reinterpret_cast<Kept*>(dynamic_shared());
    for (u32 half = step_threads / 2; half > 0; half /= 2) {
        const u32 slots = half * lane_threads;
        const bool gives = step_thread >= half && step_thread < 2 * half;
        Kept* slot = shared + (step_thread & (half - 1)) * lane_threads + lane_thread;
#pragma unroll 1
        for (int v = 0; v < QUEUES; ++v, rotate(queue))
#pragma unroll
            for (int j = 0; j < KEEP; ++j)
                if (gives) slot[(v * KEEP + j) * slots] = queue[0].kept[j];
        __syncthreads();
        if (step_thread < half) {
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

// Splits the block's threads: `adjacent_steps` gives neighbouring threads neighbouring steps, otherwise
// neighbouring lanes.
struct Team {
    u32 lane_thread, lane_threads, step_thread, step_threads;

    __device__ __forceinline__ Team(u32 step_threads_, bool adjacent_steps)
        : lane_threads(blockDim.x / step_threads_), step_threads(step_threads_) {
        lane_thread = adjacent_steps ? threadIdx.x / step_threads : threadIdx.x & (lane_threads - 1);
        step_thread = adjacent_steps ? threadIdx.x & (step_threads - 1) : threadIdx.x / lane_threads;
    }
};
