"""Ragged rows: starts and lengths, against the oracle, on every machine."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import approxtopk as atk
from approxtopk.dtypes import DTYPES

from .backends import Backend, backend_named, numpy_dtype, tuned
from .inputs import KINDS, make
from .test_filter import ONE_BLOCK, ROW, SPLIT
from .test_mappings import MAPPINGS
from .test_select import FORMS, check, padding

I64 = np.iinfo(np.int64)
N = 203

#: Starts and lengths of one row of N entries, from ordinary to absurd.
BOUNDS = (
    (0, N),
    (5, 100),
    (N - 1, 1),
    (N, 5),
    (N + 7, 5),
    (100, 1000),
    (-5, 30),
    (-30, 30),
    (-5, N + 5),
    (0, 0),
    (3, -1),
    (I64.min, I64.max),
    (I64.max, I64.max),
    (17, I64.max),
    (I64.min, I64.min),
    (3, 1),
)


@pytest.mark.parametrize("mode", ["largest", "smallest"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64", "int32", "uint8", "float8_e4m3fn", "int64"])
def test_starts_and_lengths(backend: Backend, dtype: str, mode: str) -> None:
    starts, lengths = np.array(BOUNDS, np.int64).T
    for number, kind in enumerate(KINDS):
        bits = make(kind, dtype, (len(BOUNDS), N), seed=number)
        form = FORMS[number % len(FORMS)]
        is_sorted = bool(number % 3)
        for bounds in ({"starts": starts, "lengths": lengths}, {"starts": starts}, {"lengths": lengths}):
            check(backend, bits, dtype, 14, mode=mode, sorted=is_sorted, **form, **bounds)


def test_every_integer_type(backend: Backend) -> None:
    bits = make("random", "float32", (4, N))
    for dtype in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"):
        info = np.iinfo(dtype)
        starts = np.array([0, 7, 100, info.max], dtype)
        lengths = np.array([info.max, 9, 0, info.min], dtype)
        check(backend, bits, "float32", 9, exact=True, starts=starts, lengths=lengths)
        check(backend, bits, "float32", 9, buckets=16, k_per_bucket=2, starts=starts, lengths=lengths)


def test_numbers_that_need_all_64_bits(backend: Backend) -> None:
    bits = make("random", "float32", (4, N))
    starts = np.array([I64.min, I64.min, -1, -5], np.int64)
    lengths = np.array([2**64 - 1, 2**63 + 7, 2**64 - 1, 2**63], np.uint64)
    for form in FORMS:
        check(backend, bits, "float32", 14, starts=starts, lengths=lengths, **form)
        check(backend, bits, "float32", 14, starts=lengths, lengths=lengths, **form)


def test_every_length_of_a_row(backend: Backend) -> None:
    n = 70
    lengths = np.arange(n + 1)
    for dtype, form in itertools.product(("float32", "float16"), FORMS):
        bits = make("few", dtype, (n + 1, n))
        for k in (1, 14, 70):
            if form.get("exact") or form["buckets"] * form["k_per_bucket"] >= k:
                check(backend, bits, dtype, k, **form, lengths=lengths)
                check(backend, bits, dtype, k, **form, starts=n - lengths)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_any_axis(backend: Backend, axis: int) -> None:
    shape = [3, 4, 5]
    shape[axis] = 90
    batch = (*shape[:axis], *shape[axis + 1 :])
    rng = np.random.default_rng(axis)
    starts, lengths = rng.integers(-3, 60, batch), rng.integers(-3, 60, batch)
    bits = make("few", "float32", tuple(shape))
    for form in FORMS:
        check(backend, bits, "float32", 11, axis=axis, starts=starts, lengths=lengths, **form)


def test_strided_and_broadcast_bounds(backend: Backend) -> None:
    bits = make("few", "float32", (4, 6, N))
    lengths = np.random.default_rng(0).integers(0, N, (8, 12))
    if backend.name == "gpu":
        import cupy

        views = [cupy.asarray(lengths)[::2, ::2], cupy.broadcast_to(cupy.asarray(lengths)[:4, :1], (4, 6))]
    else:
        views = [lengths[::2, ::2], np.broadcast_to(lengths[:4, :1], (4, 6)), lengths[3::-1, 5::-1]]
    for view, form in itertools.product(views, FORMS):
        check_on(backend, bits, view, form)


def check_on(backend: Backend, bits: np.ndarray, lengths: Any, form: dict[str, Any]) -> None:
    """As `check`, with lengths that are this machine's own array already."""
    plain = np.ascontiguousarray(lengths.get() if backend.name == "gpu" else lengths)
    got = backend.select(bits, "float32", 14, lengths=lengths, **form)
    want = backend.select(bits, "float32", 14, lengths=plain, **form)
    np.testing.assert_array_equal(got.indices, want.indices)
    np.testing.assert_array_equal(got.bits, want.bits)
    check(backend, bits, "float32", 14, lengths=plain, **form)


@pytest.mark.parametrize("name", MAPPINGS)
def test_every_mapping(name: str) -> None:
    rng = np.random.default_rng(1)
    with tuned(**MAPPINGS[name]), backend_named("emulated", seed=3) as backend:
        for number, form in enumerate(FORMS):
            bits = make("few", "float32", (5, 303), seed=number)
            bounds = {"starts": rng.integers(-4, 250, 5), "lengths": rng.integers(-4, 310, 5)}
            check(backend, bits, "float32", 14, sorted=bool(number % 2), **form, **bounds)


@pytest.mark.parametrize("multiprocessors", [ONE_BLOCK, SPLIT])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_long_rows_by_filter(dtype: str, multiprocessors: int) -> None:
    lengths = np.array([ROW, ROW // 2, ROW // 50, 30, 3, 0])
    starts = np.array([0, 777, ROW - 500, 1, ROW - 2, 9])
    with backend_named("emulated", multiprocessors=multiprocessors) as backend:
        assert backend.runtime is not None
        for kind in ("random", "few", "sorted", "nan"):
            bits = make(kind, dtype, (6, ROW))
            check(backend, bits, dtype, 40, exact=True, starts=starts, lengths=lengths)
        assert {kernel for kernel, _ in backend.runtime.launched} <= {"fill", "filter_row"}


def test_a_short_row_is_filtered_like_a_long_one() -> None:
    """The sample of a short row is as dense: it does not fail, and the row is read once."""
    n = 2**17
    with backend_named("emulated", multiprocessors=ONE_BLOCK) as backend:
        assert backend.runtime is not None
        for length in (n, n // 2, n // 8):
            backend.runtime.launched.clear()
            bits = make("random", "float32", (1, n), seed=length)
            backend.select(bits, "float32", 256, exact=True, lengths=np.array([length]))
            ((_, stats),) = backend.runtime.launched
            assert stats.bytes_loaded <= 1.1 * 4 * length


def test_the_answer_is_that_of_the_row_alone(backend: Backend) -> None:
    bits = make("random", "float32", (6, 500))
    starts, lengths = np.array([0, 3, 100, 250, 17, 499]), np.array([500, 60, 70, 250, 200, 1])
    form = {"buckets": 8, "k_per_bucket": 2}
    together = backend.select(bits, "float32", 13, starts=starts, lengths=lengths, **form)
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        k = min(13, length)
        if length < 8:
            continue  # alone it would have fewer entries than buckets
        alone = backend.select(bits[row, start : start + length].copy(), "float32", k, **form)
        np.testing.assert_array_equal(together.indices[row, :k], alone.indices + start)


@pytest.mark.parametrize("dtype", DTYPES)
def test_padding_is_the_worst_number(backend: Backend, dtype: str) -> None:
    for mode in ("largest", "smallest"):
        got = backend.select(
            make("random", dtype, (2, 9)), dtype, 3, exact=True, mode=mode, lengths=np.zeros(2, np.int32)
        )
        assert (got.indices == -1).all() and (got.bits == padding(dtype, mode)).all()
    if DTYPES[dtype].kind == "f":
        value = np.array([padding(dtype, "largest")], f"uint{DTYPES[dtype].bits}").view(numpy_dtype(dtype))[0]
        assert float(value) == (-448 if dtype == "float8_e4m3fn" else -np.inf)


def test_plans_of_ragged_calls() -> None:
    plan = atk.plan((4, 6, 1000), 5, lengths="int32", starts="uint8", device="sm_90")
    assert "ragged by starts and lengths" in str(plan)
    assert atk.plan((4, 6, 1000), 5, device="sm_90").route == plan.route
    with pytest.raises(atk.UnsupportedDType, match="lengths has dtype float32"):
        atk.plan(1000, 5, lengths="float32")
    with pytest.raises(atk.UnsupportedDType, match="starts = 'quux'"):
        atk.plan(1000, 5, starts="quux")
