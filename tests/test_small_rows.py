"""The exact selection of few entries from short rows, a row in the registers of a few lanes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from approxtopk.dtypes import DTYPES
from approxtopk.plan import Launch
from approxtopk.planning.devices import REFERENCES
from approxtopk.planning.select import plan_select
from approxtopk.planning.variants import Variant
from approxtopk.request import Request
from bench import nvrtc, sass

from .backends import backend_named, tuned
from .inputs import KINDS, make
from .test_select import VIEWS, check

#: A device of one multiprocessor is full with a few rows, so that each gets as few lanes as it fits; in a large device
#: few rows get as many lanes as there are.
FEW_LANES, MANY_LANES = 1, 132


@pytest.fixture(autouse=True)
def mapped_so() -> Iterator[None]:
    """Any record of other numbers is taken as it is: the planner asks not whether another mapping were faster."""
    with tuned(chip_entries=0):
        yield


def run(bits: np.ndarray, dtype: str, k: int, multiprocessors: int = FEW_LANES, seed: int = 0, **form: object) -> None:
    """Check a selection on the emulator."""
    with backend_named("emulated", seed=seed, multiprocessors=multiprocessors) as backend:
        check(backend, bits, dtype, k, exact=True, **form)
        assert backend.runtime is not None
        assert [kernel for kernel, _ in backend.runtime.launched] == ["warp_row"]


def planned(
    shape: tuple[int, ...],
    k: int,
    dtype: str = "float32",
    mode: str = "largest",
    stride: int = 1,
    device: str = "sm_90",
) -> Launch | None:
    """The launch for rows of that shape, if they are short rows."""
    strides = [stride]
    for extent in shape[:0:-1]:
        strides.insert(0, strides[0] * extent)
    request = Request.build("top_k", shape, tuple(strides), dtype, k, mode=mode)
    launch = plan_select(request, REFERENCES[device]).steps[0]
    return launch if isinstance(launch, Launch) and launch.kernel == "warp_row" else None


# ---- Answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["largest", "smallest"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_on_every_kind_of_input(dtype: str, mode: str) -> None:
    for number, kind in enumerate(KINDS):
        for n, k in ((64, 8), (203, 3), (256, 8), (500, 14), (510, 32)):
            bits = make(kind, dtype, (5, n), seed=number)
            run(bits, dtype, k, (FEW_LANES, MANY_LANES)[number % 2], seed=number, mode=mode, sorted=k > 3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8", "int64"])
def test_every_length(dtype: str) -> None:
    most = 512 if dtype == "int64" else 1024
    around = (n + d for n in (128, 256, 512, 1024) for d in (-1, 0, 1))
    for n in (*range(1, 71), 100, 200, 384, *around):
        if n > most:
            continue
        few, many = make("few", dtype, (3, n), seed=n), make("any bits", dtype, (3, n), seed=n)
        for k in {1, min(n, 2), min(n, 8), min(n, 9), min(n, 17), min(n, 32)}:
            run(few, dtype, k, (FEW_LANES, MANY_LANES)[n % 2], mode=("largest", "smallest")[k % 2])
            run(many, dtype, k, (MANY_LANES, FEW_LANES)[n % 2])


def test_every_k() -> None:
    for k, n, dtype in itertools.product(range(1, 33), (32, 96, 260), ("float32", "float16")):
        run(make("random", dtype, (2, n), seed=k), dtype, k, (FEW_LANES, MANY_LANES)[k % 2])


def test_every_number_of_rows() -> None:
    for rows in (*range(1, 19), 33, 250):
        run(make("any bits", "float32", (rows, 60)), "float32", 5, (FEW_LANES, MANY_LANES)[rows % 2])


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "float64"])
def test_rows_of_every_alignment(dtype: str) -> None:
    for n in range(48, 48 + 17):
        bits = make("random", dtype, (5, n), seed=n)
        run(bits, dtype, 7)
        run(bits, dtype, 7, view=lambda a: a[:, 3:])


@pytest.mark.parametrize("view", VIEWS)
def test_any_strides(view: str) -> None:
    for dtype in ("float32", "bfloat16"):
        bits = make("few", dtype, (30, 32, 84))
        for axis in (0, 1, 2):
            k = min(9, VIEWS[view](bits).shape[axis])
            run(bits, dtype, k, axis=axis, view=VIEWS[view])


def test_positions_of_64_bits_and_many_dimensions() -> None:
    with tuned(narrow_entries=0):
        for dtype, n in itertools.product(("float32", "uint16", "float64"), (7, 64, 300, 512)):
            bits = make("few", dtype, (3, n, 2), seed=n)
            run(bits, dtype, min(n, 10), axis=1)
            run(bits[:, :, 0].copy(), dtype, min(n, 10), lengths=np.array([n, n // 2, 3]))
    view = lambda a: a.transpose(8, 1, 6, 3, 0, 5, 2, 7, 4)  # noqa: E731
    run(make("any bits", "int32", (2,) * 9), "int32", 2, axis=4, view=view)


@pytest.mark.parametrize("multiprocessors", [FEW_LANES, MANY_LANES])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8", "int64"])
def test_ragged_rows(dtype: str, multiprocessors: int) -> None:
    n = 256
    lengths = np.array([256, 200, 64, 40, 9, 8, 7, 3, 1, 0, -5, 300])
    starts = np.array([0, 30, 64, 3, 250, -1, 255, -2, 256, 7, 100, -10])
    for number, kind in enumerate(KINDS):
        bits, mode = make(kind, dtype, (12, n)), ("largest", "smallest")[number % 2]
        for k in (1, 8, 20):
            run(bits, dtype, k, multiprocessors, mode=mode, lengths=lengths)
            run(bits, dtype, k, multiprocessors, mode=mode, starts=starts)
            run(bits, dtype, k, multiprocessors, mode=mode, starts=starts, lengths=lengths[::-1].copy())


def test_every_ragged_length() -> None:
    for dtype, k in itertools.product(("float32", "float16"), (1, 6, 30)):
        lengths = np.arange(91)
        bits = make("few", dtype, (91, 90))
        run(bits, dtype, k, lengths=lengths)
        run(bits, dtype, k, starts=90 - lengths)


@pytest.mark.parametrize("multiprocessors", [FEW_LANES, MANY_LANES])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_with_more_survivors_than_there_is_room_for(dtype: str, multiprocessors: int) -> None:
    """All the best in one lane, or all equal; alone, and beside ordinary rows of the same warp."""
    rng = np.random.default_rng(3)
    for n in (256, 1000):
        launch = planned((8, n), 8, dtype, device="sm_90")
        assert launch is not None
        vector = dict(launch.defines)["VECTOR"]
        rows = rng.standard_normal((8, n)).astype(np.float32)
        rows[1] = 0
        rows[3] = np.arange(n) < 200
        for row, lanes in ((4, 8), (5, 16), (6, 32)):
            rows[row, np.arange(n) // vector % lanes < 2] += 100
        bits = rows.view(np.uint32)
        if dtype == "bfloat16":
            bits = (bits >> 16).astype(np.uint16)
        for k, mode in itertools.product((1, 8, 32), ("largest", "smallest")):
            run(bits, dtype, k, multiprocessors, mode=mode)
            for row in (1, 4):
                run(bits[row : row + 1].copy(), dtype, k, multiprocessors, mode=mode)


@pytest.mark.parametrize("seed", range(20))
def test_any_schedule(seed: int) -> None:
    for kind in ("random", "few"):
        run(make(kind, "float32", (9, 120), seed), "float32", 8, seed=seed)


# ---- Mapping -------------------------------------------------------------------------------------------------


def shape_of(launch: Launch | None) -> tuple[int, int, int]:
    """Lanes, entries and neighbours a load."""
    assert launch is not None
    defines = dict(launch.defines)
    return defines["LANES"], defines["ENTRIES"], defines["VECTOR"]


def test_which_rows_are_short() -> None:
    many = 2**16
    assert shape_of(planned((many, 64), 8)) == (8, 8, 4)
    assert shape_of(planned((many, 256), 8)) == (8, 32, 4)
    assert shape_of(planned((many, 256), 8, "bfloat16")) == (8, 32, 8)
    assert shape_of(planned((many, 256), 9, "int8")) == (16, 16, 16)
    assert shape_of(planned((many, 257), 8)) == (16, 32, 4)
    assert shape_of(planned((many, 1024), 32)) == (32, 32, 4)
    assert shape_of(planned((many, 512), 1, "float64")) == (32, 16, 2)
    assert shape_of(planned((many, 64), 8, stride=2)) == (8, 8, 1)
    # Few rows: more lanes, as far as each has something to hold.
    assert shape_of(planned((100, 64), 8)) == (8, 8, 4)
    assert shape_of(planned((100, 256), 8)) == (32, 8, 4)
    assert planned((many, 1025), 8) is None
    assert planned((many, 513), 8, "int64") is None
    assert planned((many, 256), 33) is None


def test_the_row_is_read_once() -> None:
    bits = make("random", "float32", (64, 256))
    with backend_named("emulated", multiprocessors=FEW_LANES) as backend:
        assert backend.runtime is not None
        backend.select(bits, "float32", 8, exact=True)
        ((_, stats),) = backend.runtime.launched
    # Once more the survivors, hardly more than k. (Where they were too many, nothing would be read again.)
    assert 1 + 8 / 256 <= stats.bytes_loaded / bits.nbytes <= 1 + 12 / 256


# ---- What the compiler makes of it ---------------------------------------------------------------------------

needs_nvrtc = pytest.mark.skipif(not nvrtc.available(), reason="NVRTC is not installed")
needs_nvdisasm = pytest.mark.skipif(not sass.available(), reason="nvidia-cuda-nvdisasm is not installed")


def variant_of(launch: Launch | None) -> Variant:
    assert launch is not None
    return Variant(launch.kernel, launch.defines)


#: Most registers of a thread, by the words of keys it holds.
REGISTERS = {8: 44, 16: 64, 32: 96}


@needs_nvrtc
@pytest.mark.parametrize("architecture", REFERENCES)
def test_compiles_well(architecture: str) -> None:
    if architecture == "sm_70" and nvrtc.version() >= (13, 0):
        pytest.skip("NVRTC 13 no longer compiles for sm_70")
    shapes = ((64, 5, 1), (256, 8, 1), (256, 16, 2), (512, 32, 2), (512, 32, 1), (1024, 32, 1))
    for number, dtype in enumerate(("float32", "bfloat16", "uint8", "float64")):
        for n, k, stride in shapes:
            mode = ("largest", "smallest")[number % 2]
            launch = planned((2**18, n), k, dtype, mode, stride, architecture)
            if launch is None:
                continue
            variant = variant_of(launch)
            compiled = nvrtc.compile_variant(variant, architecture)
            use = compiled.usage["warp_row"]
            words = shape_of(launch)[1] * (2 if dtype == "float64" else 1)
            most = REGISTERS[words] if architecture == "sm_90" else REGISTERS[words] * 13 // 10
            assert use.spilled == use.stack == 0, (variant, use)
            assert use.registers <= most, (variant, use)
            assert compiled.seconds < 0.6, variant  # 0.25 on an idle machine


@needs_nvrtc
@needs_nvdisasm
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "int8"])
def test_loads_16_bytes_at_once(dtype: str) -> None:
    variant = variant_of(planned((2**16, 256), 8, dtype))
    blocks = sass.disassemble(nvrtc.compile_variant(variant, "sm_90").cubin, "warp_row")
    loads = sum(sass.count(block.instructions, r"\bLDG\.E\.128\b") for block in blocks)
    defines = dict(variant.defines)
    assert defines["VECTOR"] * defines["BITS"] == 128
    assert loads == defines["ENTRIES"] // defines["VECTOR"]
    assert not any(sass.count(block.instructions, r"\b(LDL|STL)\b") for block in blocks)
    assert not any(sass.count(block.instructions, r"\bF(ADD|MNMX|SETP)\S*\.FTZ") for block in blocks)
