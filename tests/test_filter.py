"""The exact selection by filter: one reading of the row, and what becomes of rows that mislead its sample."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import approxtopk as atk
from approxtopk.plan import Launch
from approxtopk.planning.filter import _poisson_tail, threshold_rank

from .backends import Backend, backend_named, tuned
from .inputs import KINDS, make
from .test_select import check

ROW = 20_000
#: A device of one multiprocessor gives every row one block; of many, a row is split.
ONE_BLOCK, SPLIT = 1, 132
#: What forces the filter on rows that the planner may select from otherwise.
FILTER = {"chip_entries": 0}


def run(bits: np.ndarray, dtype: str, k: int, multiprocessors: int, **options: object) -> tuple[str, ...]:
    """Check a selection on the emulator and return the kernels that ran."""
    with tuned(**FILTER), backend_named("emulated", seed=k, multiprocessors=multiprocessors) as backend:
        check(backend, bits, dtype, k, exact=True, **options)
        assert backend.runtime is not None
        return tuple(kernel for kernel, _ in backend.runtime.launched)


@pytest.mark.parametrize("multiprocessors", [ONE_BLOCK, SPLIT])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64", "int32", "uint64", "float16"])
def test_every_kind_of_row(dtype: str, multiprocessors: int) -> None:
    want = ("filter_row",) if multiprocessors == ONE_BLOCK else ("fill", "filter_row")
    for number, kind in enumerate(KINDS):
        bits = make(kind, dtype, (2, ROW + number))
        mode = ("largest", "smallest")[number % 2]
        for k in (1, 40):
            assert run(bits, dtype, k, multiprocessors, mode=mode, sorted=k > 1) == want


def sampled_entries(n: int, k: int, multiprocessors: int) -> np.ndarray:
    """Where the filter of a float32 row looks for its threshold, for an aligned row."""
    with tuned(**FILTER), backend_named("emulated", multiprocessors=multiprocessors) as backend:
        assert backend.runtime is not None
        filter_launch = atk.plan(n, k, exact=True, device=backend.runtime.info).steps[-1]
    assert isinstance(filter_launch, Launch)
    vector = dict(filter_launch.defines)["VECTOR"]
    # Before the number of the sample's loads: 18 of the rows, k and the place of a copy.
    loads = filter_launch.arguments[20]
    assert isinstance(loads, int)
    first = np.arange(loads) * -(-n // vector) // loads * vector
    return (first[:, None] + np.arange(vector)).ravel()


def aligned(values: np.ndarray) -> np.ndarray:
    """The same float32 row at a multiple of 16 bytes, as bits."""
    memory = np.empty(values.size + 4, np.uint32)
    start = -(memory.ctypes.data // 4) % 4
    memory[start : start + values.size] = values.view(np.uint32)
    return memory[start : start + values.size]


@pytest.mark.parametrize("multiprocessors", [ONE_BLOCK, SPLIT])
@pytest.mark.parametrize("mode", ["largest", "smallest"])
def test_rows_made_to_mislead_the_sample(mode: str, multiprocessors: int) -> None:
    rng = np.random.default_rng(1)
    for k in (30, 500):
        seen = sampled_entries(ROW, k, multiprocessors)
        for offset in (-1e3, 1e3):
            row = rng.standard_normal(ROW).astype(np.float32)
            # The sample sees the best only, and finds too few survivors; or the worst only, and finds too many.
            row[seen] += offset
            run(aligned(row), "float32", k, multiprocessors, mode=mode)
        # Ties at the threshold beyond all room, with fewer than k above it, early or late in the row.
        row = np.zeros(ROW, np.float32)
        row[rng.choice(ROW, k // 2, replace=False)] = 1 if mode == "largest" else -1
        run(aligned(row), "float32", k, multiprocessors, mode=mode)
        row = np.where(np.arange(ROW) < ROW // 3, 0.0, 1.0).astype(np.float32)
        run(aligned(row), "float32", k, multiprocessors, mode=mode)


@pytest.mark.parametrize("multiprocessors", [ONE_BLOCK, SPLIT])
def test_masked_rows(multiprocessors: int) -> None:
    row = np.full(ROW, -np.inf, np.float32)
    for finite in (0, 5, 40, 300):
        row[np.random.default_rng(finite).choice(ROW, finite, replace=False)] = 1.5
        for mode in ("largest", "smallest"):
            run(row.view(np.uint32), "float32", 40, multiprocessors, mode=mode)


def test_strided_rows(backend: Backend) -> None:
    bits = make("few", "float32", (3, ROW, 2))
    with tuned(**FILTER):
        check(backend, bits, "float32", 25, axis=1, exact=True)
        check(backend, bits, "float32", 25, axis=1, exact=True, view=lambda a: a[:, ::-1])


def test_positions_of_64_bits() -> None:
    for multiprocessors in (ONE_BLOCK, SPLIT):
        run(make("random", "float32", (2, 3, 2, ROW))[:, ::2, ::-1], "float32", 33, multiprocessors)


@pytest.mark.parametrize("order", ["shuffled", "sorted", "reversed"])
@pytest.mark.parametrize("n", [2**17, 2**18, *(pytest.param(n, marks=pytest.mark.nightly) for n in (2**19, 2**20))])
def test_the_row_is_read_once(n: int, order: str) -> None:
    row = make({"shuffled": "random"}.get(order, order), "float32", (1, n))
    for k in (64, 2048):
        with tuned(**FILTER), backend_named("emulated", multiprocessors=ONE_BLOCK) as backend:
            assert backend.runtime is not None
            got = backend.select(row, "float32", k, exact=True)
            plan = atk.plan((1, n), k, exact=True, device=backend.runtime.info)
            ((kernel, stats),) = backend.runtime.launched
        want = np.argsort(-row.view(np.float32)[0], kind="stable")[:k]
        np.testing.assert_array_equal(got.indices[0], want)
        assert (kernel,) == plan.kernels == ("filter_row",)
        assert stats.bytes_loaded <= 1.02 * row.nbytes
        assert abs(plan.bytes_read - row.nbytes) <= 0.02 * row.nbytes


@pytest.mark.parametrize("kind", ["random", "few", "sorted", "nan"])
def test_many_survivors_are_selected_from_before_they_are_sorted(kind: str) -> None:
    for k in (600, 1000):
        row = make(kind, "float32", (1, 40_000), seed=k)
        for multiprocessors in (ONE_BLOCK, SPLIT):
            run(row, "float32", k, multiprocessors)
    assert threshold_rank(40_000, 1000, 1024)[0] * 40_000 // 1024 > 1024


def test_what_is_not_filtered() -> None:
    for shape, k in (((200, 100_000), 20_000), ((1, 2**30), 64)):
        assert atk.plan(shape, k, exact=True, device="sm_90").kernels[0].startswith("radix"), (shape, k)


def test_threshold_rank_keeps_its_promises() -> None:
    """Simulated: the rank misses hardly ever, and the room suffices, with room to spare for a thousand rows."""
    rng = np.random.default_rng(0)
    for n, k, size in ((50_000, 50, 1024), (2**17, 2048, 2048), (2**20, 64, 8192)):
        rank, capacity = threshold_rank(n, k, size)
        assert rank < size // 2 and k < capacity < n // 4
        # The sample's entry of that rank, by how many of the row's entries are as good.
        for _ in range(300):
            survivors = np.sort(rng.choice(n, size, replace=False))[rank - 1] + 1
            assert k <= survivors <= capacity
    for mean, rank in itertools.product((0.0, 0.5, 30.0), (1, 5, 60)):
        exact = 1 - sum(math.exp(-mean) * mean**i / math.factorial(i) for i in range(rank))
        assert abs(_poisson_tail(mean, rank) - exact) < 1e-12
    assert threshold_rank(10**6, 1, 1000)[0] == 1
