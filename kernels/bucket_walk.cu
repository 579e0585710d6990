// Walks over the buckets of rows; what they keep is the result, or candidates in the workspace.
#include "walk.cuh"

extern "C" __global__ void __launch_bounds__(256, 1) bucket_walk(const __grid_constant__ WalkParams p) {
    const Team team(u32(p.lane_threads), u32(p.step_threads), !p.interleaved && p.inner == 1);
    u64 partition, within;
    u64 group = divide(blockIdx.x, u64(p.output.partitions), partition) * team.lane_threads + team.lane_thread;
    const bool active = team.takes_part() && group < u64(p.groups);
    if (!active) group = 0;
    const u64 slab = divide(group, u64(p.groups_per_slab), within);
    walk(p, team, slab, within, partition, active, p.output.places(),
         [&](const Place& place, u64 j, const Entry& entry) {
             put(p.output, place, u64(p.buckets), p.rows.axis_stride, j, entry);
         });
}
