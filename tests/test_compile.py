"""Every kernel variant that the planner can choose compiles as CuPy compiles it, and well: no GPU, no driver.

What stands here as a ceiling was found with NVRTC 12.9 and rounded up; a kernel that becomes leaner lowers it.
"""

from __future__ import annotations

import math
import random
import re
import time
from collections import Counter
from importlib.resources import files

import numpy as np
import pytest

from approxtopk.dtypes import DTYPES
from approxtopk.errors import InvalidArgument
from approxtopk.plan import Launch
from approxtopk.planning.devices import REFERENCES
from approxtopk.planning.select import plan_select
from approxtopk.planning.variants import Variant, covering, variants
from approxtopk.planning.walk import KEEP
from approxtopk.request import Request
from approxtopk.runtime.source import joined
from bench import nvrtc, sass
from bench.static import filter_loop, insertion_share, long_filter, loops, walk_loop, widest_walk

from .inputs import some

needs_nvrtc = pytest.mark.skipif(not nvrtc.available(), reason="NVRTC is not installed")
needs_nvdisasm = pytest.mark.skipif(not sass.available(), reason="nvidia-cuda-nvdisasm is not installed")

MAIN = "sm_90"
OTHERS = tuple(name for name in ("sm_70", "sm_75", "sm_80", "sm_86", "sm_89", "sm_100", "sm_120") if name in REFERENCES)
#: Tests that compile share the work in so many parts, which pytest-xdist spreads.
PARTS = 12
INTEGERS = [name for name, dtype in DTYPES.items() if dtype.kind != "f"]

#: Most registers of a thread, by kernel and KEEP, TARGETS or SMOOTH: for entries of 8 bytes, and of 16 (64-bit keys or
#: positions). A block of 256 threads leaves room for others up to 128; one of 512 can have no more.
REGISTERS: dict[str, dict[int, tuple[int, int]]] = {
    "bucket_walk": {
        1: (88, 96),
        2: (96, 104),
        3: (88, 96),
        4: (104, 112),
        6: (80, 104),
        8: (88, 104),
        12: (80, 136),
        16: (96, 176),
    },
    "bucket_merge": {
        1: (40, 48),
        2: (48, 48),
        3: (48, 56),
        4: (48, 64),
        6: (48, 80),
        8: (56, 104),
        12: (72, 136),
        16: (88, 168),
    },
    "bucket_row": {1: (96, 96), 2: (96, 128), 3: (96, 104), 4: (120, 112)},
    "bucket_guard": {0: (24, 24)},
    "certify": {0: (32, 32)},
    "filter_row": {0: (88, 88)},
    "radix_row": {0: (96, 104)},
    "radix_histogram": {0: (80, 64)},
    "radix_count": {0: (56, 64)},
    "radix_scatter": {0: (104, 104)},
    "warp_row": {0: (88, 96)},
    "order_tiles": {0: (40, 40)},
    "order_merge": {0: (40, 48)},
    "rank": {1: (72, 72), 4: (104, 112)},
    "rank_many": {0: (64, 72)},
    "soft_mask": {0: (104, 104), 1: (80, 88)},
    "soft_magnitude": {0: (120, 112)},
    "soft_mask_vjp": {0: (88, 96), 1: (64, 88)},
    "soft_magnitude_vjp": {0: (80, 88)},
}


# ---- The list ------------------------------------------------------------------------------------------------


def test_the_list_is_found_quickly() -> None:
    variants.cache_clear()
    start = time.process_time()
    found = variants(MAIN)
    assert time.process_time() - start < 4
    assert len(set(found)) == len(found)
    assert 0 < len(covering(found)) < 150


def test_the_covering_set_covers() -> None:
    found = variants(MAIN)
    facts = {(v.kernel, *define) for v in found for define in v.defines}
    assert facts == {(v.kernel, *define) for v in covering(found) for define in v.defines}


@pytest.mark.parametrize("seed", range(4))
def test_random_requests_stay_in_the_list(seed: int) -> None:
    rng = random.Random(seed)
    known = {architecture: set(variants(architecture)) for architecture in (MAIN, *OTHERS)}
    planned = 0
    while planned < 1000:
        request = random_request(rng)
        architecture = rng.choice((MAIN, *OTHERS))
        try:
            plan = plan_select(request, REFERENCES[architecture])
        except InvalidArgument:  # more blocks than a launch may have
            continue
        planned += 1
        for step in plan.steps:
            if isinstance(step, Launch):
                assert Variant(step.kernel, step.defines) in known[architecture], (request, step)


def random_request(rng: random.Random) -> Request:
    """A valid request, nothing allocated: lengths up to 2**36, up to six axes, any strides, ragged rows."""
    rank = rng.choice((1, 2, 2, 2, 3, 4, 6))
    axis = rng.randrange(rank)
    most = rng.choice((12, 36))
    n = int(2 ** rng.uniform(0, most)) if rng.random() < 0.5 else 2 ** rng.randrange(most + 1)
    rows = int(2 ** rng.uniform(0, 20))
    shape = [max(1, int(rows ** (1 / max(rank - 1, 1)) * rng.uniform(0.5, 2))) for _ in range(rank)]
    if rng.random() < 0.5:
        shape = [2 ** (extent.bit_length() - 1) for extent in shape]
    shape[axis] = n
    strides = [math.prod(shape[at + 1 :]) for at in range(rank)]
    layout = rng.choice(("contiguous", "contiguous", "permuted", "strided", "reversed", "broadcast", "padded"))
    if layout == "permuted":
        order = rng.sample(range(rank), rank)
        strides = [math.prod(shape[other] for other in order[order.index(at) + 1 :]) for at in range(rank)]
    elif layout == "strided":
        strides = [stride * rng.randint(1, 3) for stride in strides]
    elif layout == "reversed":
        strides[rng.randrange(rank)] *= -1
    elif layout == "broadcast":
        strides[rng.randrange(rank)] = 0
    elif layout == "padded":
        strides = [stride + (rng.randrange(9) if stride > 1 else 0) for stride in strides]
    k = min(n, rng.choice((1, 2, int(2 ** rng.uniform(0, 14)), max(1, n // 16))))
    named: dict[str, object] = {}
    name = rng.choice(("top_k", "approx_top_k", "approx_top_k", "approx_top_k"))
    if name == "approx_top_k":
        named["interleaved"] = rng.random() < 0.7
        named["recall_target"] = rng.choice((0.5, 0.8, 0.95, 0.99, 1.0))
        named["certify"] = rng.random() < 0.4
        if rng.random() < 0.8:
            kept = rng.choice((*KEEP, 5, 7, 10, 17, 40))
            least = -(-k // kept)
            b = min(n, max(least, rng.choice((1, 2, 3, 8, 60, 64, 100, 128, 1000, 1024, 2**16, n))))
            named |= {"k_per_bucket": max(kept, -(-k // b)), "buckets": b}
    batch = (*shape[:axis], *shape[axis + 1 :])
    for array in ("starts", "lengths"):
        if rng.random() < 0.3:
            steps = [math.prod(batch[at + 1 :]) * rng.choice((0, 1, 1, 2)) for at in range(rank - 1)]
            named[array] = (rng.choice(INTEGERS), batch, tuple(steps))
    return Request.build(
        name,
        tuple(shape),
        tuple(strides),
        rng.choice(list(DTYPES)),
        k,
        axis=axis,
        mode=rng.choice(("largest", "smallest")),
        sorted=rng.random() < 0.5,
        **named,
    )


# ---- The text ------------------------------------------------------------------------------------------------

SOURCES = sorted(path.name[:-3] for path in files("approxtopk.kernels").iterdir() if path.name.endswith(".cu"))
#: Macros that a source may test without being given them.
OPTIONAL = {"APPROXTOPK_EMULATED", "__CUDA_ARCH__", "FLOAT"}


def test_every_source_is_planned() -> None:
    assert sorted({variant.kernel for variant in variants(MAIN)}) == SOURCES


@pytest.mark.parametrize("source", SOURCES)
def test_the_text_is_complete(source: str) -> None:
    text = joined(source)
    assert "#include" not in text
    assert "#pragma once" not in text
    assert re.findall(r'extern "C" __global__ .*?(\w+)\(const __grid_constant__', text) == [source]


@pytest.mark.parametrize("source", SOURCES)
def test_macros_tested_are_given_and_macros_given_are_used(source: str) -> None:
    code = re.sub(r"//.*", "", joined(source))
    conditions = " ".join(re.findall(r"^#(?:if|ifdef|ifndef|elif) (.*)", code, re.MULTILINE))
    tested = set(re.findall(r"\b[A-Za-z_]\w*\b", conditions)) - {"defined"}
    tested -= set(re.findall(r"^#define (\w+)", code, re.MULTILINE)) | OPTIONAL
    for given in {frozenset(name for name, _ in v.defines) for v in variants(MAIN) if v.kernel == source}:
        assert tested <= given
        # A macro that changes nothing would only multiply the kernels to compile.
        assert all(re.search(rf"\b{name}\b", code) for name in given)


# ---- What the compiler makes of it ---------------------------------------------------------------------------


def complaints(variant: Variant, architecture: str) -> list[str]:
    """What is wrong with a variant, compiled."""
    try:
        usage = nvrtc.compile_variant(variant, architecture).usage
    except RuntimeError as error:
        return [f"{variant} on {architecture}: {error}"]
    found = [] if variant.kernel in usage else [f"{variant} on {architecture}: no entry point"]
    for kernel, use in usage.items():
        if use.spilled or use.stack:
            found.append(f"{variant} on {architecture}: {kernel} spills: {use}")
        most = ceiling(kernel, variant, architecture)
        if use.registers > most:
            found.append(f"{variant} on {architecture}: {kernel} takes {use.registers} registers, not {most}")
    return found


def ceiling(kernel: str, variant: Variant, architecture: str) -> int:
    """The most registers of a thread; sm_100 and sm_120 take up to a quarter more."""
    defines = dict(variant.defines)
    kind = next((defines[name] for name in ("KEEP", "TARGETS", "SMOOTH") if name in defines), 0)
    most = REGISTERS[kernel][kind][defines["BITS"] == 64 or defines["WIDE"] == 1]
    return most if architecture == MAIN else min(255, most * 13 // 10)


def check(work: tuple[Variant, ...], architecture: str, part: int) -> None:
    assert not [line for variant in work[part::PARTS] for line in complaints(variant, architecture)]


@needs_nvrtc
@pytest.mark.parametrize("part", some(range(PARTS), 3))
def test_common_variants(part: int) -> None:
    check(tuple(variant for variant in variants(MAIN) if variant.common), MAIN, part)


@needs_nvrtc
@pytest.mark.parametrize("architecture", [MAIN, *OTHERS])
def test_covering_variants(architecture: str) -> None:
    skip_unless_compiled(architecture)
    for part in range(PARTS):
        check(covering(variants(architecture)), architecture, part)


@needs_nvrtc
@pytest.mark.nightly
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("architecture", [MAIN, *OTHERS])
def test_all_variants(architecture: str, part: int) -> None:
    skip_unless_compiled(architecture)
    check(variants(architecture), architecture, part)


def skip_unless_compiled(architecture: str) -> None:
    if architecture == "sm_70" and nvrtc.version() >= (13, 0):
        pytest.skip("NVRTC 13 no longer compiles for sm_70")
    if architecture in ("sm_100", "sm_120") and nvrtc.version() < (12, 8):
        pytest.skip("NVRTC before 12.8 does not know this architecture")


# ---- Machine code --------------------------------------------------------------------------------------------

#: Instructions of the walk's loop for one element at k_b = 1, all and those that run at half rate. A Hopper GPU
#: reads at full bandwidth with about 14 of the latter for 4 bytes, 7 for 2 and 3.4 for 1.
LOOP: dict[tuple[str, str], tuple[float, float]] = {
    ("float32", "largest"): (5.4, 3.6),
    ("float32", "smallest"): (5.4, 3.6),
    ("float16", "largest"): (5.0, 4.4),
    ("float16", "smallest"): (5.0, 4.4),
    ("bfloat16", "largest"): (5.0, 4.4),
    ("bfloat16", "smallest"): (5.0, 4.4),
    ("int8", "largest"): (2.8, 2.5),
    ("float8_e4m3fn", "largest"): (5.1, 4.8),
    ("float64", "largest"): (20.0, 18.2),
}


@needs_nvrtc
@needs_nvdisasm
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int8", "float8_e4m3fn"])
def test_the_walk_loads_16_bytes_at_once(dtype: str) -> None:
    variant = widest_walk(dtype, "largest", 1)
    assert dict(variant.defines)["VECTOR"] * DTYPES[dtype].itemsize == 16
    loop = walk_loop(variant).instructions
    assert sass.count(loop, r"\bLDG\.E\.128\b") == dict(variant.defines)["UNROLL"]
    assert sass.count(loop, r"\b(LDL|STL|STS|LDS|ST\.|STG)") == 0, "the loop only loads"


@needs_nvrtc
@needs_nvdisasm
@pytest.mark.parametrize("kernel", ["bucket_walk", "bucket_row"])
@pytest.mark.parametrize(("dtype", "mode"), LOOP)
def test_instructions_an_element(dtype: str, mode: str, kernel: str) -> None:
    loop, elements, *_ = walk_loop(widest_walk(dtype, mode, 1, kernel))
    most, most_half_rate = LOOP[dtype, mode]
    counts = Counter(re.sub(r"^@!?\w+ +", "", text).split(" ")[0] for text in loop)
    assert len(loop) / elements <= most, counts
    assert sass.half_rate(loop) / elements <= most_half_rate, counts


#: Instructions of filter_row's loop for one element, all and those that run at half rate.
FILTER_LOOP: dict[str, tuple[float, float]] = {
    "float32": (1.8, 1.4),
    "int32": (1.8, 1.3),
    "uint32": (1.8, 1.3),
    "float16": (0.7, 0.5),
    "bfloat16": (0.7, 0.5),
    "int16": (0.9, 0.7),
    "uint16": (0.9, 0.7),
    "int8": (1.1, 0.7),
    "float8_e4m3fn": (1.2, 1.0),
    "float8_e5m2": (1.2, 1.0),
    "float64": (6.2, 3.2),
    "int64": (7.8, 4.6),
}


@needs_nvrtc
@needs_nvdisasm
@pytest.mark.parametrize("mode", ["largest", "smallest"])
@pytest.mark.parametrize("dtype", FILTER_LOOP)
def test_instructions_an_element_of_the_filter(dtype: str, mode: str) -> None:
    loop, elements, *_ = filter_loop(long_filter(dtype, mode))
    most, most_half_rate = FILTER_LOOP[dtype]
    assert len(loop) / elements <= most, loop
    assert sass.half_rate(loop) / elements <= most_half_rate, loop
    assert sass.count(loop, r"\b(LDL|STL|STS|LDS|ST\.|STG|ATOM)") == 0, "the loop only loads"


# What the emulator cannot see: it runs portable twins of these instructions.


@needs_nvrtc
@needs_nvdisasm
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_filter_lets_nan_pass_as_the_best_only(dtype: str) -> None:
    loops = [filter_loop(long_filter(dtype, mode)).instructions for mode in ("largest", "smallest")]
    best, compare = r"\bV?[FH]MNMX2?\b\S*", r"\b[FH]SETP2?\b\S*"
    for loop, number in zip(loops, (True, False), strict=True):
        assert sass.count(loop, best) > 0
        assert (sass.count(loop, best + r"\.NAN\b") == sass.count(loop, best)) == number
        # Not less than the bound, or NaN; at most the bound, or its opposite.
        assert sass.count(loop, compare) == sass.count(loop, compare + (r"\.GEU\b" if number else r"\.(LE|GTU)\b")) == 1


@needs_nvrtc
@needs_nvdisasm
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_narrow_floats_spread_their_sign_bits(dtype: str) -> None:
    for mode in ("largest", "smallest"):
        loop, elements, *_ = walk_loop(widest_walk(dtype, mode, 1))
        # One for two elements. __byte_perm would compile to 0x3311, which copies the bytes and not their signs.
        assert sass.count(loop, r"\bPRMT\b.*\b0xbb99\b") == elements // 2


@needs_nvrtc
@needs_nvdisasm
@pytest.mark.parametrize("kernel", ["bucket_walk", "bucket_row", "filter_row", "radix_row", "warp_row"])
def test_no_instruction_takes_subnormals_for_zero(kernel: str) -> None:
    floats = [v for v in variants(MAIN) if v.common and v.kernel == kernel and ("FLOAT", 1) in v.defines]
    # Narrow ones are compared as floats only where a row is filtered.
    widths = (16, 32) if kernel == "filter_row" else (32,)
    for largest in (0, 1):
        for bits in widths:
            variant = next(v for v in floats if {("LARGEST", largest), ("BITS", bits)} <= set(v.defines))
            blocks = sass.disassemble(nvrtc.compile_variant(variant, MAIN).cubin, kernel)
            # Conversions in integer divisions may.
            flushing = r"\b(FADD|V?[FH]MNMX2?|[FH]SETP2?)\S*\.FTZ"
            assert not sum(sass.count(block.instructions, flushing) for block in blocks), variant


def test_the_share_of_steps_in_which_a_warp_inserts() -> None:
    rng = np.random.default_rng(0)
    lanes, size, kept = 32, 128, 4
    x = rng.random((300, lanes, size))
    ranks = np.stack([(x[..., :at] > x[..., at : at + 1]).sum(-1) for at in range(size)], -1)  # among those before
    assert (ranks < kept).any(axis=1).mean() == pytest.approx(insertion_share(lanes, size, kept), abs=0.01)


@needs_nvrtc
@needs_nvdisasm
def test_the_static_table() -> None:
    rows = list(loops(("sm_90",), ("float32",)))
    assert [row["k_per_bucket"] for row in rows] == [None, None, *KEEP]
    for row in rows:
        assert row["spilled"] == 0 and 0 < row["occupancy"] <= 1 and row["half_rate"] <= row["instructions"]
    exact, walk = rows[0], rows[2]
    assert exact["load"] < walk["load"] < 0.5  # both wait for memory, not for instructions


# ---- Compile time --------------------------------------------------------------------------------------------

#: Seconds that CALIBRATION takes on the machines the limits are meant for, when idle.
CALIBRATION_SECONDS = 0.12
CALIBRATION = """
template <int N> __device__ __forceinline__ float step(float x, const float* y) {
    x = x * y[N] + y[N + 1]; if (x > y[N + 2]) x = x * x; return step<N - 1>(x, y) + x;
}
template <> __device__ __forceinline__ float step<0>(float x, const float* y) { return x + y[0]; }
extern "C" __global__ void calibration(const float* y, float* z) { z[threadIdx.x] = step<120>(y[threadIdx.x], y); }
"""


def slowness() -> float:
    """How many times slower than meant this machine compiles at the moment; 1 when it is as fast."""
    seconds = min(nvrtc.compile_text(CALIBRATION, (f"-arch={MAIN}",)).seconds for _ in range(3))
    return max(1.0, seconds / CALIBRATION_SECONDS)


@needs_nvrtc
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "float64"])
@pytest.mark.parametrize("kept", KEEP)
def test_a_walk_compiles_quickly(dtype: str, kept: int) -> None:
    compiles_quickly(widest_walk(dtype, "largest", kept), 0.3 if kept <= 8 else 0.6)


#: The fused walk is a walk and a selection; several targets are compared in as many ways as words have entries; the
#: soft ones solve for a threshold besides.
SLOW = {"bucket_row": 0.6, "rank": 0.6, "rank_many": 0.6, "soft_mask": 1.0, "soft_magnitude": 1.0}
SLOW |= {"soft_mask_vjp": 0.6, "soft_magnitude_vjp": 0.6}


@needs_nvrtc
@pytest.mark.parametrize("source", [source for source in SOURCES if source != "bucket_walk"])
def test_the_other_kernels_compile_quickly(source: str) -> None:
    # Those that have most values of macros no other has; all nightly.
    of_source(source, covering(tuple(v for v in variants(MAIN) if v.common and v.kernel == source))[:4])


@needs_nvrtc
@pytest.mark.nightly
@pytest.mark.parametrize("source", [source for source in SOURCES if source != "bucket_walk"])
def test_all_of_the_other_kernels_compile_quickly(source: str) -> None:
    of_source(source, tuple(v for v in variants(MAIN) if v.common and v.kernel == source))


def of_source(source: str, work: tuple[Variant, ...]) -> None:
    seen = set()
    for variant in work:
        key = tuple((name, value) for name, value in variant.defines if name not in ("LARGEST", "LARGEST_NUMBER"))
        if key not in seen:
            seen.add(key)
            compiles_quickly(variant, SLOW.get(source, 0.6 if dict(variant.defines).get("KEEP", 1) > 8 else 0.3))


def compiles_quickly(variant: Variant, limit: float) -> None:
    """Processor time, the best of several, allowing for a machine that is slow or busy at the moment."""
    best = math.inf
    for _ in range(5):
        seconds = nvrtc.compile_variant(variant, MAIN).seconds
        if seconds <= limit:
            return
        best = min(best, seconds / slowness())
    # Beside other work processor time doubles, for seconds on end; a loop unrolled by mistake takes 4 times as long.
    assert best <= 2.5 * limit, f"{variant} took {best:.2f} s, not {limit} s"
