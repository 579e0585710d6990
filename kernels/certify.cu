// Tells of every row's bucketed answer whether it is the exact one: it is, if and only if no bucket's guard, the best
// entry it rejected, ranks before the worst entry of the answer. One block per row.
#include "reduce.cuh"

struct CertifyParams {
    Pairs guards;  // (row, buckets)
    i64 buckets;
    Result result;
    u8* exact;
};

extern "C" __global__ void __launch_bounds__(256, 1) certify(const __grid_constant__ CertifyParams p) {
    Entry* shared = reinterpret_cast<Entry*>(dynamic_shared());
    const u64 row = blockIdx.x;
    Entry guard = EMPTY, worst = UNBEATEN;
    for (u64 bucket = threadIdx.x; bucket < u64(p.buckets); bucket += blockDim.x)
        guard = chosen<true>(guard, load_pair(p.guards, row * u64(p.buckets) + bucket));
    for (u64 slot = threadIdx.x; slot < u64(p.result.k); slot += blockDim.x) {
        const u64 position = result_position(p.result, row, slot);
        const i64 index = p.result.wide_indices ? load(static_cast<const i64*>(p.result.indices) + position)
                                                : load(static_cast<const int*>(p.result.indices) + position);
        if (index < 0) continue;
        worst = chosen<false>(worst, {key_of(load(p.result.values + position), p.result.coding), Index(index)});
    }
    guard = block_extreme<true>(guard, shared);
    worst = block_extreme<false>(worst, shared);
    if (threadIdx.x == 0) store(p.exact + row, u8(!better(guard, worst)));
}
