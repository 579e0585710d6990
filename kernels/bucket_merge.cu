// Merges the partitions of a row that was walked by several blocks: of every bucket, the best k_b of all the
// candidates that its partitions kept. Candidates are laid out (row, partition x k_b, bucket).
#include "bucket.cuh"

struct MergeParams {
    Pairs candidates;
    i64 per_bucket;  // candidates of one bucket: partitions x k_b
    Rows rows;
    Output output;
    i64 buckets;
    i64 lanes;  // rows x buckets
    i64 lane_threads, step_threads;  // of a block
};

extern "C" __global__ void __launch_bounds__(256, 1) bucket_merge(const __grid_constant__ MergeParams p) {
    const u64 b = u64(p.buckets);
    const Team team(u32(p.lane_threads), u32(p.step_threads), false);
    u64 lane = u64(blockIdx.x) * team.lane_threads + team.lane_thread;
    const bool active = team.takes_part() && lane < u64(p.lanes);
    if (!active) lane = 0;
    u64 bucket;
    const u64 row = divide(lane, b, bucket);

    Queue queue[1];
    queue[0].clear();
    const u64 origin = row * u64(p.per_bucket) * b + bucket;
    if (active) {
        for (u64 at = team.step_thread; at < u64(p.per_bucket); at += team.step_threads)
            queue[0].insert<false>(load_pair(p.candidates, origin + at * b));
    }
    merge_step_threads(queue, team);
    if (!active || team.step_thread != 0) return;

    const Place place = {row, bucket, 0, find_row(p.rows, row).base};
#pragma unroll 1
    for (u64 j = 0; j < p.output.places(); ++j) put(p.output, place, b, p.rows.axis_stride, j, queue[0].pop());
}
