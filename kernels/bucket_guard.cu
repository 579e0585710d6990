// Takes the worst of every bucket's k_b + 1 best entries out of the candidates: it is the bucket's guard. One block per
// bucket of a row.
#include "reduce.cuh"

struct GuardParams {
    Pairs candidates;  // (row, bucket, per_bucket)
    i64 per_bucket;  // k_b + 1; fewer entries, with empty ones behind them, are all kept
    Pairs guards;  // (row, bucket)
};

extern "C" __global__ void __launch_bounds__(256, 1) bucket_guard(const __grid_constant__ GuardParams p) {
    Entry* shared = reinterpret_cast<Entry*>(dynamic_shared());
    const u64 base = u64(blockIdx.x) * u64(p.per_bucket);
    Entry worst = UNBEATEN;
    u64 where = 0;
    for (u64 at = threadIdx.x; at < u64(p.per_bucket); at += blockDim.x) {
        const Entry entry = load_fresh_pair(p.candidates, base + at);
        if (!better(worst, entry)) continue;
        worst = entry;
        where = at;
    }
    const Entry guard = block_extreme<false>(worst, shared);
    if (threadIdx.x == 0) store_pair(p.guards, blockIdx.x, guard);
    // No two entries have one index, but for empty ones, which are no guards.
    if (guard.index != NOWHERE && threadIdx.x < u64(p.per_bucket) && worst.index == guard.index)
        store_pair(p.candidates, base + where, EMPTY);
}
