"""The emulator itself: it computes what a GPU would, and reports what a GPU would let pass."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from emulator import BuildError, Emulator, EmulatorError, Range, build, sanitizer_environment

SEEDS = range(12)

COMMON = r"""
struct Params { const int* x; int* y; unsigned* counter; long long n; };
static __device__ int* shared() { return reinterpret_cast<int*>(emulator::dynamic_shared()); }
static __device__ int load(const int* p) { emulator::count_load(p, sizeof *p); return *p; }
static __device__ void store(int* p, int v) { emulator::count_store(p, sizeof *p); *p = v; }
"""


def kernel_source(body: str) -> str:
    """A kernel named `kernel` around statements that see `p`, `s` (shared ints) and `t` (the thread)."""
    return (
        COMMON
        + 'extern "C" __global__ void __launch_bounds__(1024) kernel(const __grid_constant__ Params p) {\n'
        + "int* s = shared(); const int t = threadIdx.x; (void)s; (void)t;\n"
        + body
        + "\n}\n"
    )


class Run:
    """One small problem: an int32 input, an int32 output, a zeroed counter, and ranges over all three."""

    def __init__(self, body, x=(), outputs=1024, *, defines=(), emulator=None):
        self.x = np.ascontiguousarray(x, np.int32)
        self.y = np.zeros(outputs, np.int32)
        self.counter = np.zeros(1, np.uint32)
        self.emulator = emulator or Emulator()
        self.kernel = self.emulator.compile(kernel_source(body), defines, "kernel")

    def __call__(self, grid=1, block=64, shared=4096, seed=0, n=None):
        """Launch; returns the output, a copy."""
        self.y[:] = 0
        self.counter[:] = 0
        arrays = (self.x, self.y, self.counter)
        params = struct.pack("4q", *(a.ctypes.data for a in arrays), self.x.size if n is None else n)
        ranges = [Range(a.ctypes.data, a.nbytes, a is not self.x) for a in arrays]
        self.stats = self.emulator.launch(self.kernel, grid, block, shared, params, ranges, seed=seed)
        return self.y.copy()


def integers(count, low=-1000, high=1000):
    return np.random.default_rng(count).integers(low, high, count).astype(np.int32)


# ---- What works on a GPU works here -------------------------------------------------------------------------

BLOCK_SUM = """
    s[t] = load(p.x + blockIdx.x * blockDim.x + t);
    for (int half = blockDim.x / 2; half; half /= 2) {
        __syncthreads();
        if (t < half) s[t] += s[t + half];
    }
    if (t == 0) store(p.y + blockIdx.x, s[0]);
"""

WARP_SCAN = """
    int v = load(p.x + t);
    for (int d = 1; d < 32; d *= 2) {
        const int other = __shfl_up_sync(0xffffffffu, v, d);
        if (t % 32 >= d) v += other;
    }
    if (t % 32 == 31) s[t / 32] = v;
    __syncthreads();
    for (int w = 0; w < t / 32; ++w) v += s[w];
    store(p.y + t, v);
"""

HISTOGRAM = """
    for (int i = t; i < 16; i += blockDim.x) s[i] = 0;
    __syncthreads();
    for (long long i = blockIdx.x * blockDim.x + t; i < p.n; i += gridDim.x * blockDim.x)
        atomicAdd(&s[load(p.x + i) & 15], 1);
    __syncthreads();
    if (t < 16) atomicAdd(p.y + t, s[t]);
"""

LAST_BLOCK = """
    store(p.y + blockIdx.x, load(p.x + blockIdx.x) * 2);
    __threadfence();
    if (atomicAdd(p.counter, 1u) == gridDim.x - 1) {
        int sum = 0;
        for (unsigned i = 0; i < gridDim.x; ++i) sum += load(p.y + i);
        store(p.y + gridDim.x, sum);
        store(p.y + gridDim.x + 1, blockIdx.x);
    }
"""


@pytest.mark.parametrize("seed", SEEDS)
def test_block_sum(seed):
    x = integers(8 * 256)
    y = Run(BLOCK_SUM, x)(grid=8, block=256, seed=seed)
    np.testing.assert_array_equal(y[:8], x.reshape(8, 256).sum(1))


@pytest.mark.parametrize("seed", SEEDS)
def test_scan_by_shuffles(seed):
    x = integers(1024)
    np.testing.assert_array_equal(Run(WARP_SCAN, x)(block=1024, seed=seed), np.cumsum(x))


@pytest.mark.parametrize("seed", SEEDS)
def test_histogram_by_atomics(seed):
    x = integers(5000, 0)
    y = Run(HISTOGRAM, x)(grid=5, block=96, seed=seed)
    np.testing.assert_array_equal(y[:16], np.bincount(x & 15, minlength=16))


def test_last_block_to_finish_is_any_block():
    x = integers(10)
    run = Run(LAST_BLOCK, x)
    last = set()
    for seed in range(40):
        y = run(grid=10, block=1, seed=seed)
        np.testing.assert_array_equal(y[:11], [*(2 * x), 2 * x.sum()])
        last.add(int(y[11]))
    assert len(last) > 5


@pytest.mark.parametrize("grid", [1, 2, 3, 64, 100, 1000])
def test_every_block_runs_once(grid):
    run = Run("atomicAdd(p.y + blockIdx.x, 1 + (gridDim.x == p.n));")
    for seed in SEEDS:
        np.testing.assert_array_equal(run(grid=grid, block=1, seed=seed, n=grid), [2] * grid + [0] * (1024 - grid))


def test_a_partial_warp():
    y = Run("store(p.y + t, __reduce_add_sync(t < 32 ? 0xffffffffu : 0xffu, 1));")(block=40)
    np.testing.assert_array_equal(y[:41], [32] * 32 + [8] * 8 + [0])


# Each expression in terms of lane l, against the same in NumPy.
LANES = np.arange(32)
WARP_CASES = {
    "__shfl_sync(all, l * 3, l + 5)": (LANES + 5) % 32 * 3,
    "__shfl_sync(all, l, 1, 8)": LANES // 8 * 8 + 1,
    "__shfl_up_sync(all, l, 3)": np.where(LANES < 3, LANES, LANES - 3),
    "__shfl_up_sync(all, l, 3, 8)": np.where(LANES % 8 < 3, LANES, LANES - 3),
    "__shfl_down_sync(all, l, 3)": np.where(LANES > 28, LANES, LANES + 3),
    "__shfl_down_sync(all, l, 3, 8)": np.where(LANES % 8 > 4, LANES, LANES + 3),
    "__shfl_xor_sync(all, l, 9)": LANES ^ 9,
    "(int)(__shfl_xor_sync(all, (1ull << 40) + l, 1) >> 40)": 1 + 0 * LANES,
    "(int)__shfl_xor_sync(all, (short)-l, 1)": -(LANES ^ 1),
    "(int)(2 * __shfl_xor_sync(all, l + 0.5f, 1))": 2 * (LANES ^ 1) + 1,
    "(int)__ballot_sync(all, l % 3 == 0)": sum(1 << i for i in range(0, 31, 3)) + 0 * LANES,
    "__any_sync(all, l == 7)": 1 + 0 * LANES,
    "__any_sync(all, 0)": 0 * LANES,
    "__all_sync(all, l < 32)": 1 + 0 * LANES,
    "__all_sync(all, l != 7)": 0 * LANES,
    "(int)__match_any_sync(all, l % 16)": (1 << LANES % 16 | 1 << LANES % 16 + 16).astype(np.int64),
    "__reduce_add_sync(all, l - 20)": LANES.sum() - 640 + 0 * LANES,
    "__reduce_max_sync(all, l - 40)": -9 + 0 * LANES,
    "__reduce_min_sync(all, l - 20)": -20 + 0 * LANES,
    "(int)__reduce_max_sync(all, (unsigned)(l - 20))": -1 + 0 * LANES,
    "(int)__reduce_min_sync(all, (unsigned)(l - 20))": 0 * LANES,
    "(int)__reduce_or_sync(all, 1u << l % 5)": 31 + 0 * LANES,
    "(int)__reduce_and_sync(all, ~(1u << l % 5))": ~31 + 0 * LANES,
    "(int)__reduce_xor_sync(all, 1u << l % 31)": ((1 << 31) - 1) ^ 1 + 0 * LANES,
    "__syncthreads_count(l % 3 == 0)": 11 + 0 * LANES,
    "__syncthreads_and(l < 32)": 1 + 0 * LANES,
    "__syncthreads_and(l < 31)": 0 * LANES,
    "__syncthreads_or(l == 3)": 1 + 0 * LANES,
    "__syncthreads_or(l == 33)": 0 * LANES,
}


def test_warp_intrinsics():
    body = "const int l = t; const unsigned all = 0xffffffffu;\n"
    body += "\n".join(f"store(p.y + {i} * 32 + t, {text});" for i, text in enumerate(WARP_CASES))
    run = Run(body, outputs=32 * len(WARP_CASES))
    for seed in SEEDS:
        y = run(block=32, seed=seed).reshape(-1, 32)
        for row, (text, expected) in zip(y, WARP_CASES.items(), strict=True):
            np.testing.assert_array_equal(row, expected.astype(np.uint32).view(np.int32), err_msg=text)


SCALAR_CASES = {
    "__popc(0xf0f0u)": 8,
    "__popcll(~0ull)": 64,
    "__clz(1)": 31,
    "__clz(0)": 32,
    "__clzll(1)": 63,
    "__clzll(0)": 64,
    "__ffs(0)": 0,
    "__ffs(8)": 4,
    "__ffsll(1ll << 40)": 41,
    "__brev(1u) == 0x80000000u": 1,
    "__brev(0x12345678u) == 0x1e6a2c48u": 1,
    "__brevll(2ull) == 1ull << 62": 1,
    "__umulhi(1u << 31, 6u)": 3,
    "__umul64hi(1ull << 63, 6ull)": 3,
    "__funnelshift_l(0x80000000u, 1u, 1)": 3,
    "__funnelshift_r(2u, 1u, 1) == 0x80000001u": 1,
    "__byte_perm(0x33221100u, 0x77665544u, 0x7410u) == 0x77441100u": 1,
    "__byte_perm(0x00008000u, 0u, 0x9998u) == 0xffffff00u": 1,
    "__float_as_uint(1.0f) == 0x3f800000u": 1,
    "__uint_as_float(0x3f800000u) == 1.0f": 1,
    "__float_as_int(-0.0f) < 0": 1,
    "__int_as_float(0) == 0.0f": 1,
    "__double_as_longlong(1.0) == 0x3ff0000000000000ll": 1,
    "__longlong_as_double(0x3ff0000000000000ll) == 1.0": 1,
    "min(3, 7ll) == 3 && max(3u, 2) == 3u && max(1.5f, 1) == 1.5f": 1,
    "sizeof(min(1, 1ll))": 8,
    "min(-1, 1u)": 1,
    "make_uint4(1, 2, 3, 4).w": 4,
    "make_ulonglong2(1, 2).y": 2,
    "alignof(uint4) * 100 + alignof(ulonglong2) * 10 + alignof(uint2)": 1768,
    "warpSize": 32,
}


def test_arithmetic():
    body = "\n".join(f"store(p.y + {i}, int({text}));" for i, text in enumerate(SCALAR_CASES))
    y = Run(body)(block=1)
    assert dict(zip(SCALAR_CASES, y.tolist(), strict=False)) == SCALAR_CASES


@pytest.mark.parametrize(
    ("text", "left", "returned"),
    [
        ("atomicAdd(a, 3u)", 13, 10),
        ("atomicAdd(a, -1)", 9, 10),
        ("atomicSub(a, 3)", 7, 10),
        ("atomicMax(a, 30)", 30, 10),
        ("atomicMin(a, 30)", 10, 10),
        ("atomicAnd(a, 6)", 2, 10),
        ("atomicOr(a, 5)", 15, 10),
        ("atomicXor(a, 3)", 9, 10),
        ("atomicExch(a, 1)", 1, 10),
        ("atomicInc(a, 10)", 0, 10),
        ("atomicInc(a, 11)", 11, 10),
        ("atomicCAS(a, 10, 4)", 4, 10),
        ("atomicCAS(a, 11, 4)", 10, 10),
    ],
)
@pytest.mark.parametrize("kind", ["unsigned", "int", "unsigned long long"])
def test_atomics(kind, text, left, returned):
    run = Run(f"auto* a = reinterpret_cast<{kind}*>(s); *a = 10; store(p.y + 1, int({text})); store(p.y, int(*a));")
    assert run(block=1)[:2].tolist() == [left, returned]


def test_divergent_groups_of_one_warp_do_not_meet():
    body = """
        const unsigned half = t < 16 ? 0xffffu : 0xffff0000u;
        int v = 1;
        if (t < 16) for (int i = 0; i < 3; ++i) v += __reduce_add_sync(half, v);
        else v = __reduce_max_sync(half, t);
        store(p.y + t, __shfl_xor_sync(0xffffffffu, v, 16));
    """
    run = Run(body)
    for seed in SEEDS:
        np.testing.assert_array_equal(run(block=32, seed=seed)[:32], [31] * 16 + [17**3] * 16)


def test_spinning_on_an_atomic_makes_progress():
    run = Run("if (t == 0) while (atomicAdd(p.counter, 0u) < 63u) {} else atomicAdd(p.counter, 1u);")
    for seed in SEEDS:
        run(seed=seed)
    run = Run("if (t == 0) while (*p.counter < 63u) __nanosleep(10); else atomicAdd(p.counter, 1u);")
    for seed in SEEDS:
        run(seed=seed)


# ---- Planted bugs -------------------------------------------------------------------------------------------


def caught(run, expected, **launch):
    """How many of the seeds show a wrong result."""
    return sum(not np.array_equal(run(seed=seed, **launch)[: len(expected)], expected) for seed in SEEDS)


READ_AFTER_WRITE = """
    s[t] = t + 1;
    {barrier}
    store(p.y + t, s[(t + {distance}) % blockDim.x]);
"""

WRITE_AFTER_READ = """
    s[t] = t;
    __syncthreads();
    for (int i = 0; i < 3; ++i) {{
        const int v = s[(t + {distance}) % blockDim.x];
        {barrier}
        s[t] = v;
        __syncthreads();
    }}
    store(p.y + t, s[t]);
"""


@pytest.mark.parametrize("distance", [1, 32, 255])
@pytest.mark.parametrize("direction", [READ_AFTER_WRITE, WRITE_AFTER_READ])
def test_dropped_barrier(direction, distance):
    threads = np.arange(256)
    expected = (threads + (distance if direction is READ_AFTER_WRITE else 3 * distance)) % 256
    expected = expected + 1 if direction is READ_AFTER_WRITE else expected
    good = Run(direction.format(barrier="__syncthreads();", distance=distance))
    bad = Run(direction.format(barrier="", distance=distance))
    assert caught(good, expected, block=256) == 0
    assert caught(bad, expected, block=256) == len(SEEDS)


def test_dropped_barrier_between_warps_that_shuffle():
    """Warps that meet at many shuffles drift apart all the same."""
    body = """
        int v = t + 1;
        for (int d = 1; d < 32; d *= 2) v = max(v, __shfl_xor_sync(0xffffffffu, v, d));
        if (t % 32 == 0) s[t / 32] = v;
        {barrier}
        for (int d = 1; d < 32; d *= 2) v = max(v, __shfl_xor_sync(0xffffffffu, v, d));
        for (int w = 0; w < 8; ++w) v = max(v, s[w]);
        store(p.y + t, v);
    """
    expected = [256] * 256
    assert caught(Run(body.format(barrier="__syncthreads();")), expected, block=256) == 0
    assert caught(Run(body.format(barrier="")), expected, block=256) >= len(SEEDS) // 2


def test_dropped_syncwarp():
    body = "s[t] = t; {barrier} store(p.y + t, s[t ^ 1]);"
    expected = np.arange(32) ^ 1
    assert caught(Run(body.format(barrier="__syncwarp();")), expected, block=32) == 0
    assert caught(Run(body.format(barrier="")), expected, block=32) == len(SEEDS)


def test_a_read_modify_write_that_is_not_atomic():
    body = "for (int i = 0; i < 20; ++i) {{ {add} }}"
    assert caught(Run(body.format(add="atomicAdd(p.y, 1);")), [1280]) == 0
    assert caught(Run(body.format(add="store(p.y, load(p.y) + 1);")), [1280]) > 0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("if (t < 32) __syncthreads();\nelse __syncthreads();", r"divergent barrier.*line [89]\).*line [89]\)"),
        ("if (t < 32) __syncthreads();", "thread \\d+.*__syncthreads.*exited|exited.*__syncthreads"),
        ("if (t == 5) return;\n__syncthreads();", "thread 5.*exited|exited.*thread 5|thread 5 has exited"),
        ("if (t < 32) __syncthreads(); else __syncthreads_or(t);", "divergent barrier"),
        (
            "if (t % 32 != 3) __syncwarp(); else __syncthreads();",
            r"block 0: deadlock: threads 0-2, 4-31 wait at __syncwarp \(line 8, mask 0xffffffff\) for threads 3; "
            r"threads 3 wait at __syncthreads \(line 8\); threads 32-34, 36-63 wait",
        ),
        ("if (t != 3) __syncwarp();", "thread 3.*exited|has exited"),
        ("__shfl_sync(~(1u << t % 32), t, 0);", "does not name the calling lane"),
        ("__shfl_sync(0xffffffffu, t, 0); if (t < 40) __ballot_sync(0xffffffffu, 1);", "exited"),
        ("if (t < 16) __shfl_xor_sync(0xffffffffu, t, 1); else __ballot_sync(0xffffffffu, 1);", "divergent warp"),
        ("__syncwarp(t % 2 ? 0xffffffffu : 0x7fffffffu);", "divergent warp|exited|deadlock"),
        ("if (t < 4) __shfl_sync(15u, t, 5);", "reads from lane 5, which the mask 0x0000000f does not name"),
        ("if (t < 32) for (;;) if (__all_sync(0xffffffffu, t)) break; else if (t) return;", "exited"),
        ("store(p.y + 1024 + t, 1);", r"store of 4 bytes at 0x[0-9a-f]+ is outside every registered range"),
        ("load(p.x - 1);", "load of 4 bytes .* outside every registered range; the nearest is number 0"),
        ("store(const_cast<int*>(p.x), 1);", "number 0, which is read-only"),
        ("atomicAdd(p.y + 5000000, 1);", "atomic of 4 bytes .* outside"),
        ("emulator::count_load((const char*)p.x + 2, 4);", "load of 4 bytes .* not aligned"),
        ("s[1024] = 1;", "wrote outside its 4096 bytes of shared memory, at offset 4096"),
        ("s[-1] = 1;", "wrote outside its 4096 bytes of shared memory, at offset -4"),
        ("((char*)s)[4096 + 100] = 1;", "wrote outside its 4096 bytes of shared memory, at offset 4196"),
        ("atomicAdd(s + 1024, 1);", "atomic of 4 bytes at offset 4096, outside the 4096 bytes of shared memory"),
        ("s[100000] = 1;", "invalid memory access"),
        ("*(volatile int*)8 = 1;", "block 0, thread \\d+: invalid memory access at 0x8"),
        ("volatile char big[1000000]; for (int i = 999999; i >= 0; --i) big[i] = 1;", "stack overflow|invalid memory"),
        ("p.y[t] = p.y[t + 1] / p.y[t];", "integer division by zero"),
        ("__builtin_assume(t < 3);", r"thread \d+: __builtin_assume\(t < 3\) does not hold \(line 8\)"),
    ],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_reported(body, message, seed):
    run = Run(body, np.arange(4), 1024)
    with pytest.raises(EmulatorError, match=message):
        run(seed=seed)
    # The emulator is as good as new.
    assert Run("store(p.y, __syncthreads_count(1));")(seed=seed)[0] == 64


def test_a_stack_overflow_is_named():
    body = """
        struct Deep { static __device__ __noinline__ int go(int n) {
            volatile char frame[512]; frame[0] = n; return n ? go(n - 1) + frame[0] : 0; } };
        store(p.y, Deep::go(100000));
    """
    with pytest.raises(EmulatorError, match=r"thread \d+: stack overflow \(65536 bytes a thread\)"):
        Run(body)()


@pytest.mark.parametrize("body", ['for (;;) asm volatile("");', "for (;;) __syncthreads();", "while (p.n) load(p.x);"])
def test_an_endless_loop_is_given_up(body):
    with pytest.raises(EmulatorError, match="block 0, thread .*more than 1 s of processor time"):
        Run(body, [1], emulator=Emulator(seconds=1))()


def test_a_message_names_block_and_thread():
    with pytest.raises(EmulatorError, match="kernel: block 3, thread 5: store of 4 bytes"):
        Run("if (blockIdx.x == 3 && t == 5) store(p.y - 1, 1);")(grid=7)


def test_uninitialised_shared_memory_is_never_the_same():
    run = Run("store(p.y + blockIdx.x * blockDim.x + t, s[t]);")
    seen = [run(grid=4, seed=seed).reshape(-1, 64)[:4] for seed in SEEDS]
    rows = np.concatenate(seen)
    assert len({row.tobytes() for row in rows}) == len(rows)
    assert np.count_nonzero(rows) == rows.size


@pytest.mark.parametrize("nbytes", [0, 1, 4, 127, 128, 129, 5000, 232448 - 1024])
def test_shared_memory_has_exactly_the_size_asked_for(nbytes):
    fill = "unsigned char* b = emulator::dynamic_shared(); for (int i = t; i < p.n; i += blockDim.x) b[i] = 1;"
    run = Run(fill + "if (t == 0) store(p.y, (unsigned long long)b % 128);")
    assert run(shared=nbytes, n=nbytes)[0] == 0
    with pytest.raises(EmulatorError, match=f"wrote outside its {nbytes} bytes of shared memory"):
        run(shared=nbytes, n=nbytes + 1)


# ---- Reproducible, countable, safe to share -----------------------------------------------------------------

# Who takes which ticket shows the whole schedule.
TICKETS = "for (int i = 0; i < 4; ++i) { p.y[atomicAdd(p.counter, 1u)] = t; __syncwarp(); } __syncthreads();"


def test_same_seed_same_schedule():
    run = Run(TICKETS)
    seen = {seed: (run(block=128, seed=seed), run.stats) for seed in SEEDS}
    for seed, (y, stats) in seen.items():
        np.testing.assert_array_equal(run(block=128, seed=seed), y)
        assert run.stats == stats
    assert len({y.tobytes() for y, _ in seen.values()}) == len(SEEDS)


def test_an_emulator_draws_a_new_schedule_for_every_launch():
    def launches(seed):
        run = Run(TICKETS, emulator=Emulator(seed=seed))
        return [run(block=128, seed=None).tobytes() for _ in range(5)]

    assert launches(1) == launches(1)
    assert len({*launches(1), *launches(2)}) == 10


def test_traffic_is_counted():
    run = Run("store(p.y + t, load(p.x + t) + load(p.x));", integers(64))
    run(grid=3)
    assert run.stats.bytes_loaded == 3 * 64 * 8
    assert run.stats.bytes_stored == 3 * 64 * 4


def test_launches_from_many_threads():
    x = integers(2048)
    emulator = Emulator()

    def work(_):
        run = Run(BLOCK_SUM, x, emulator=emulator)
        return [run(grid=8, block=256, seed=None)[:8] for _ in range(20)]

    with ThreadPoolExecutor(8) as pool:
        for results in pool.map(work, range(8)):
            np.testing.assert_array_equal(results, [x.reshape(8, 256).sum(1)] * 20)


def test_faults_in_many_threads_leave_their_handlers_alone():
    failures = []

    def work():
        run = Run("*(volatile int*)8 = 1;")
        for _ in range(20):
            with pytest.raises(EmulatorError, match="invalid memory access"):
                run()
        failures.append(0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failures) == 4


def test_a_variant_is_compiled_once(tmp_path, monkeypatch):
    monkeypatch.setenv("APPROXTOPK_EMULATOR_CACHE", str(tmp_path))
    started = []
    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: (started.append(a[0]), real(*a, **k))[1])
    source = kernel_source("store(p.y, VALUE);")

    def compile_one(value):
        return Emulator().compile(source, (("VALUE", value),), "kernel")

    with ThreadPoolExecutor(8) as pool:
        kernels = list(pool.map(compile_one, [1, 2] * 8))
    assert len({kernel.path for kernel in kernels}) == 2
    assert sum("-o" in command for command in started) == 3  # the core and two variants
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".so"] * 3


def test_a_source_that_does_not_compile():
    with pytest.raises(BuildError, match=r"kernel.cu:8:.*nonsense"):
        Run("nonsense;")


@pytest.mark.parametrize(
    ("launch", "message"),
    [
        ({"block": 1025}, "block is 1025, must be between 1 and 1024"),
        ({"block": 0}, "block is 0"),
        ({"grid": 0}, "grid is 0"),
        ({"grid": 2**31}, "grid is 2147483648, must be between 1 and 2147483647"),
        ({"shared": 232448}, "shared_bytes is 232448, must be between 0 and 231424"),
    ],
)
def test_launches_that_no_device_takes(launch, message):
    with pytest.raises(EmulatorError, match=message):
        Run("")(**launch)


def test_parameters_of_the_wrong_size():
    run = Run("")
    with pytest.raises(EmulatorError, match="takes 32 bytes of parameters, got 8"):
        run.emulator.launch(run.kernel, 1, 1, 0, bytes(8))


def test_fill():
    x = np.ones(5, np.int32)
    Emulator().fill(x[1:].ctypes.data, 12, 0)
    np.testing.assert_array_equal(x, [1, 0, 0, 0, 1])
    Emulator().fill(x[4:].ctypes.data, 4, 255)
    assert x[4] == -1


def test_the_portable_context_switch(monkeypatch):
    """Processors other than x86-64 switch with ucontext, and schedule the same."""
    expected = Run(TICKETS)(block=128, seed=3)
    monkeypatch.setattr(build, "_COMMON", (*build._COMMON, "-DEMULATOR_UCONTEXT=1"))
    np.testing.assert_array_equal(Run(TICKETS)(block=128, seed=3), expected)
    with pytest.raises(EmulatorError, match="has exited|exited"):
        Run("if (t < 32) __syncthreads();")()


# ---- Address sanitizer --------------------------------------------------------------------------------------


def run_sanitized(body: str) -> subprocess.CompletedProcess:
    """Run a kernel over 64 heap ints, no ranges registered, in a process with the address sanitizer."""
    program = f"""
        import ctypes, struct, sys
        sys.path.insert(0, {str(Path(__file__).resolve().parent)!r})
        from emulator import Emulator
        malloc = ctypes.CDLL(None).malloc
        malloc.restype = ctypes.c_void_p
        pointer = malloc(ctypes.c_size_t(256))
        emulator = Emulator(sanitize=True)
        kernel = emulator.compile({kernel_source(body)!r}, (), "kernel")
        for seed in range(3):
            print(emulator.launch(kernel, 2, 64, 512, struct.pack("4q", pointer, pointer, 0, 64), seed=seed))
        print("done")
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    return subprocess.run(command, env=sanitizer_environment(), capture_output=True, text=True, timeout=120)


def test_sanitizer_passes_clean_code():
    done = run_sanitized("s[t] = t; __syncthreads(); p.y[t] = s[63 - t] + __shfl_xor_sync(0xffffffffu, t, 1);")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("done\n")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("p.y[t + 1] = 1;", "heap-buffer-overflow"),
        ("if (p.y[t - 1] == 12345) p.y[t] = 0;", "heap-buffer-overflow"),
        ("s[t + 65] = 1;", "heap-buffer-overflow"),
        ("int v[8]; for (int i = 0; i < 8; ++i) v[i] = t; p.y[t] = v[p.n - 56];", "stack-buffer-overflow"),
    ],
)
def test_sanitizer_reports(body, message):
    done = run_sanitized(body)
    assert done.returncode != 0
    assert f"AddressSanitizer: {message}" in done.stderr, done.stderr


def test_sanitizer_needs_its_environment():
    if "libasan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("this process has it")
    with pytest.raises(EmulatorError, match="sanitizer_environment"):
        Emulator(sanitize=True)
