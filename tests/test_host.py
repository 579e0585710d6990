"""The NumPy path against the oracle, to the bit."""

from __future__ import annotations

import ctypes
import mmap
import platform
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from approxtopk.dtypes import DTYPES, DType
from approxtopk.host import select, threads
from approxtopk.host.keys import Order
from approxtopk.host.rule import Rule

from .reference import assert_same_set, existing, merit, reference_exact, reference_row, reference_top_k

block, buckets, host, long, rank, stream = (
    sys.modules[f"approxtopk.host.{name}"] for name in ("block", "buckets", "select", "long", "rank", "stream")
)
Array = np.ndarray[Any, Any]

ALL = pytest.mark.parametrize("dtype", DTYPES.values(), ids=list(DTYPES))
DIRECTION = pytest.mark.parametrize("largest", [True, False], ids=["largest", "smallest"])
F32 = DTYPES["float32"]


def run(
    x: Array,
    dtype: DType,
    k: int,
    *,
    axis: int = -1,
    largest: bool = True,
    sorted: bool = True,
    buckets: int | None = None,
    k_per_bucket: int | None = None,
    interleaved: bool = True,
    index: str = "int64",
    exact: Array | None = None,
    **ragged: Any,
) -> tuple[Array, Array]:
    """Call the host path on outputs full of rubbish; returns indices and value bits."""
    shape = list(x.shape)
    shape[axis] = k
    values, indices = np.full(shape, 77, x.dtype), np.full(shape, -7, index)
    before = x.copy()
    select(
        x, values, indices, dtype=dtype, k=k, axis=axis, largest=largest, sorted=sorted,
        buckets=buckets, k_per_bucket=k_per_bucket, interleaved=interleaved, exact=exact, **ragged,
    )  # fmt: skip
    np.testing.assert_array_equal(x, before)
    return indices, values


def check(x: Array, dtype: DType, k: int, **how: Any) -> None:
    """Compare one call with the oracle, sorted and unsorted, with a certificate and without."""
    axis = how.get("axis", -1)
    want = reference_top_k(x, dtype, k, **how)
    got = run(x, dtype, k, **how)
    np.testing.assert_array_equal(got[0], want[0], err_msg=f"indices {how}")
    np.testing.assert_array_equal(got[1], want[1], err_msg=f"values {how}")
    certificate = reference_exact(x, dtype, k, **how)
    for sorted in (True, False):
        exact = np.array(~certificate)
        loose = run(x, dtype, k, sorted=sorted, index="int32", exact=exact, **how)
        assert_same_set(loose, want, axis=axis)
        np.testing.assert_array_equal(exact, certificate, err_msg=f"exact {how}")


def bits_of(dtype: DType, values: Any) -> Array:
    """Whole numbers as bits of `dtype`."""
    return np.asarray(values, dtype=np.uint64).astype(f"u{dtype.itemsize}")


def specials(dtype: DType) -> Array:
    """List elements that orders get wrong: zeros, subnormals, infinities, NaNs of both signs, least and greatest."""
    sign = 1 << (dtype.bits - 1)
    if dtype.kind != "f":
        return bits_of(dtype, [0, 1, 2, sign - 1, sign, sign + 1, 2 * sign - 1, 2 * sign - 2])
    top = dtype.largest_number
    one = [0, 1, 2, top, top - 1, *range(top + 1, sign, max((sign - top) // 3, 1)), sign - 1]
    return bits_of(dtype, one + [sign | bits for bits in one])


def random(dtype: DType, shape: Any, seed: int = 0) -> Array:
    """Any bits at all."""
    return (
        np.random.default_rng(seed)
        .integers(0, 256, (*np.atleast_1d(shape), dtype.itemsize), np.uint8)
        .view(f"u{dtype.itemsize}")[..., 0]
    )


def inputs(dtype: DType, shape: tuple[int, ...]) -> Iterator[tuple[str, Array]]:
    """Name and bits of inputs that go wrong in different ways."""
    rng = np.random.default_rng(sum(shape))
    anything = random(dtype, shape)
    yield "random", anything
    yield "equal", np.full(shape, anything.flat[0])
    yield "few", rng.choice(random(dtype, 3, 1), shape)
    yield "special", rng.choice(specials(dtype), shape)
    order = np.argsort([merit(int(b), dtype, largest=True) for b in anything.flat], axis=0)[:, 1]
    ranked = anything.reshape(-1)[order].reshape(shape)
    yield "sorted", ranked
    yield "reversed", ranked[..., ::-1]
    mostly = anything.copy()
    mostly[rng.random(shape) < 0.9] = specials(dtype)[-1]
    yield "mostly one", mostly
    small = anything & bits_of(dtype, (1 << (dtype.bits - 1)) | 3)  # both zeros and, of floats, the subnormals
    yield "small", small


@contextmanager
def tiny_limits(monkeypatch: pytest.MonkeyPatch, block_bytes: int, chunk: int, workers: int) -> Iterator[None]:
    """Small inputs, cut up like great ones."""
    with monkeypatch.context() as patch:
        patch.setattr(host, "BLOCK_BYTES", block_bytes)
        patch.setattr(stream, "CHUNK", chunk)
        patch.setattr(buckets, "CELLS", chunk)
        patch.setattr(buckets, "LANES", 3)
        patch.setattr(host, "ALONE", 1)
        patch.setattr(block, "SHORT", 4)
        patch.setattr(block, "SMALL", 4)
        patch.setattr(threads, "width", lambda: workers)
        yield


def test_the_oracle_on_an_example_worked_by_hand() -> None:
    row = np.array([3.0, np.nan, 7.0, -0.0, 7.0, 0.0, -np.nan, -1.0], np.float32).view(np.uint32).tolist()
    assert reference_row(row, F32, 8) == [1, 6, 2, 4, 0, 3, 5, 7]
    assert reference_row(row, F32, 8, largest=False) == [7, 3, 5, 0, 2, 4, 1, 6]
    # Interleaved buckets {0, 3, 6}, {1, 4, 7}, {2, 5}; contiguous ones {0, 1, 2}, {3, 4, 5}, {6, 7}.
    assert reference_row(row, F32, 3, buckets=3, k_per_bucket=1) == [1, 6, 2]
    assert reference_row(row, F32, 3, buckets=3, k_per_bucket=1, interleaved=False) == [1, 6, 4]
    assert reference_row(row, F32, 4, buckets=3, k_per_bucket=2, largest=False) == [7, 3, 5, 0]
    assert reference_row(row, F32, 4, buckets=2, k_per_bucket=2, interleaved=False) == [1, 6, 2, 4]


@ALL
@DIRECTION
def test_costs_order_elements_like_the_oracle(dtype: DType, largest: bool) -> None:
    bits = np.arange(1 << dtype.bits, dtype=np.uint64) if dtype.bits <= 16 else random(dtype, 3000)
    bits = np.concatenate([bits_of(dtype, bits), specials(dtype)])
    order = Order(dtype, largest)
    costs = order.costs(bits)
    merits = [merit(b, dtype, largest=largest) for b in bits.tolist()]
    ranks = {m: r for r, m in enumerate(sorted(set(merits), reverse=True))}
    _, dense = np.unique(costs, return_inverse=True)
    np.testing.assert_array_equal(dense, [ranks[m] for m in merits])
    numbers = np.array([m[0] == 0 for m in merits])
    np.testing.assert_array_equal(order.costs(order.elements(costs))[numbers], costs[numbers])


@ALL
@DIRECTION
@pytest.mark.parametrize("n", [1, 2, 37, 700, 3000])
def test_every_dtype(dtype: DType, largest: bool, n: int) -> None:
    for _, x in inputs(dtype, (2, n)):
        for k in {1, min(3, n), -(-n // 50), n // 3 or 1} | ({n} if n < 1000 else set()):
            check(x, dtype, k, largest=largest)
            b = min(n, 2 * k)
            check(x, dtype, k, largest=largest, buckets=b, k_per_bucket=1 + k // b, interleaved=n % 2 == 0)


@DIRECTION
@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("n", [1, 5, 12, 17])
def test_every_bucket_count(largest: bool, interleaved: bool, n: int) -> None:
    dtype = DTYPES["int8"]
    x = np.random.default_rng(n).integers(0, 4, (2, n), np.uint8)
    for b in range(1, n + 1):
        for k in range(1, n + 1):
            least = -(-k // b)
            for kept in {least, least + 1, n, 3 * n}:
                check(x, dtype, k, largest=largest, buckets=b, k_per_bucket=kept, interleaved=interleaved)


@pytest.mark.parametrize("name", ["float32", "float16", "int64"])
@pytest.mark.parametrize("interleaved", [True, False])
def test_every_remainder_of_longer_rows(name: str, interleaved: bool) -> None:
    dtype = DTYPES[name]
    for n in range(640, 660):
        x = np.random.default_rng(n).choice(random(dtype, 40, n), (1, n))
        for b, kept, k in ((10, 3, 20), (100, 1, 12), (1, 7, 7), (n, 1, 9), (150, 4, 60), (60, 1, 60)):
            check(x, dtype, k, buckets=b, k_per_bucket=kept, interleaved=interleaved)


@pytest.mark.parametrize("name", ["float32", "float8_e5m2", "uint64"])
def test_axes_and_strides(name: str) -> None:
    dtype = DTYPES[name]
    base = random(dtype, (6, 10, 14))
    views = {
        "plain": base,
        "Fortran": np.asfortranarray(base),
        "turned": base.transpose(2, 0, 1),
        "negative": base[::-1, ::-2, ::-1],
        "stepped": base[::2, :, ::3],
        "broadcast rows": np.broadcast_to(base[:1, :, :], base.shape),
        "broadcast axis": np.broadcast_to(base[:, :, :1], base.shape),
        "all one": np.broadcast_to(base[:1, :1, :1], base.shape),
        "one row": base[2, 3],
        "ones": base[None, :, None, :, :1],
    }
    for view in views.values():
        for axis in range(-view.ndim, view.ndim):
            n = view.shape[axis]
            check(view, dtype, -(-n // 3), axis=axis)
            check(view, dtype, -(-n // 3), axis=axis, buckets=-(-n // 2), k_per_bucket=1, interleaved=False)


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize(("block_bytes", "chunk"), [(1, 16), (1, 250), (3000, 250), (20000, 250)])
def test_cut_into_blocks_chunks_and_threads(
    monkeypatch: pytest.MonkeyPatch, block_bytes: int, chunk: int, workers: int
) -> None:
    with tiny_limits(monkeypatch, block_bytes, chunk, workers):
        for name in ("float32", "bfloat16", "float64", "int16"):
            dtype = DTYPES[name]
            for kind, x in inputs(dtype, (3, 2, 400)):
                for how in (
                    {},
                    {"largest": False, "buckets": 40, "k_per_bucket": 2},
                    {"buckets": 33, "k_per_bucket": 1, "interleaved": False},
                ):
                    check(x, dtype, 1 if kind == "few" else 21, **how)
                check(x.transpose(2, 0, 1), dtype, 130, axis=0, buckets=130, k_per_bucket=1)


def some_rows(n: int, shape: tuple[int, ...], seed: int) -> tuple[Array, Array]:
    """Draw starts and lengths: some within the row, some beyond its ends."""
    rng = np.random.default_rng(seed)
    return rng.integers(-n // 4, n + 2, shape), rng.integers(-2, n + n // 4 + 2, shape)


def padding_of(dtype: DType, largest: bool) -> int:
    """Bits unlike all others in a row, if there can be such: what the host path gets it only hands on."""
    return int(specials(dtype)[3 if largest else 5])


def test_the_oracle_on_rows_worked_by_hand() -> None:
    assert existing(5, None, None) == [0, 1, 2, 3, 4]
    assert existing(5, 2, None) == existing(5, 2, 9) == [2, 3, 4]
    assert existing(5, None, 2) == existing(5, -3, 5) == [0, 1]
    assert existing(5, 5, 1) == existing(5, 1, -1) == existing(5, -3, 3) == existing(5, 9, None) == []
    row = np.array([[9, 3, 8, 7, 6, 5]], np.uint8)
    how: dict[str, Any] = {"starts": np.array([1]), "lengths": np.array([4]), "buckets": 2, "k_per_bucket": 1}
    # Of 3, 8, 7, 6 the buckets are {3, 7} and {8, 6}, or {3, 8} and {7, 6}.
    for interleaved in (True, False):
        indices, values = reference_top_k(row, DTYPES["uint8"], 2, interleaved=interleaved, **how)
        assert (indices.tolist(), values.tolist()) == ([[2, 3]], [[8, 7]])
        assert reference_exact(row, DTYPES["uint8"], 2, interleaved=interleaved, **how)
    how["starts"] = np.array([2])  # 8, 7, 6, 5: {8, 6} and {7, 5}, or {8, 7} and {6, 5}
    assert reference_exact(row, DTYPES["uint8"], 2, **how)
    assert not reference_exact(row, DTYPES["uint8"], 2, interleaved=False, **how)
    how["lengths"] = np.array([1])
    indices, values = reference_top_k(row, DTYPES["uint8"], 2, padding=77, **how)
    assert (indices.tolist(), values.tolist()) == ([[2, -1]], [[8, 77]])


@ALL
@DIRECTION
@pytest.mark.parametrize("n", [1, 2, 37, 700])
def test_ragged_rows_of_every_dtype(dtype: DType, largest: bool, n: int) -> None:
    starts, lengths = some_rows(n, (8,), n)
    padding = padding_of(dtype, largest)
    for _, x in inputs(dtype, (8, n)):
        for k in {1, n // 3 or 1, n if n < 100 else 1}:
            how: dict[str, Any] = {"largest": largest, "starts": starts, "lengths": lengths, "padding": padding}
            check(x, dtype, k, **how)
            b = min(n, k + k // 2)
            for interleaved in (True, False):
                check(x, dtype, k, buckets=b, k_per_bucket=1 + k // b, interleaved=interleaved, **how)


@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("n", [1, 5, 9])
def test_every_ragged_row(interleaved: bool, n: int) -> None:
    """Every start and length in one batch, for every number of buckets."""
    starts, lengths = (a.reshape(-1) for a in np.meshgrid(np.arange(-2, n + 2), np.arange(-1, n + 3)))
    x = np.random.default_rng(n).integers(0, 4, (starts.size, n), np.uint8)
    for b in range(1, n + 1):
        for k in range(1, n + 1):
            for kept in {-(-k // b), -(-k // b) + 1}:
                check(
                    x, DTYPES["int8"], k, buckets=b, k_per_bucket=kept, interleaved=interleaved,
                    starts=starts, lengths=lengths,
                )  # fmt: skip


@pytest.mark.parametrize("name", [name for name, dtype in DTYPES.items() if dtype.kind != "f"])
def test_starts_and_lengths_of_every_integer_type(name: str) -> None:
    least, most = np.iinfo(name).min, np.iinfo(name).max
    numbers = np.array([least, max(least, -3), 0, 1, 6, 10, 11, most - 5, most], name)
    starts, lengths = np.meshgrid(numbers, numbers)
    for shape in ((81, 10), (81, 200)):
        x = random(F32, shape)
        for given in ({"starts": starts}, {"lengths": lengths}, {"starts": starts, "lengths": lengths}):
            per_row = {key: array.reshape(-1) for key, array in given.items()}
            check(x, F32, 7, padding=5, **per_row)
            check(x, F32, 7, padding=5, buckets=4, k_per_bucket=2, **per_row)


def test_ragged_axes_and_strides() -> None:
    base = random(F32, (5, 6, 70))
    for view in (
        base,
        base.transpose(2, 0, 1),
        base[::-1, ::2, ::-1],
        base[2, 3],
        np.broadcast_to(base[:1], (3, 6, 70)),
    ):
        for axis in range(-view.ndim, view.ndim):
            n = view.shape[axis]
            batch = tuple(np.delete(view.shape, axis))
            wide = some_rows(n, tuple(3 * extent for extent in batch), n)
            stepped = tuple(a[(slice(None, None, -3),) * len(batch)] for a in wide)
            turned = tuple(a.T.copy().T for a in stepped)
            repeated = tuple(np.broadcast_to(a[(0,) * len(batch)], batch) for a in wide)
            for starts, lengths in (stepped, turned, repeated):
                how: dict[str, Any] = {"axis": axis, "starts": starts, "lengths": lengths, "padding": 9}
                check(view, F32, -(-n // 3), **how)
                check(view, F32, -(-n // 3), buckets=-(-n // 2), k_per_bucket=1, interleaved=False, **how)


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize(("block_bytes", "chunk"), [(1, 16), (400, 25), (3000, 250), (20000, 250)])
def test_ragged_rows_cut_into_blocks_chunks_and_threads(
    monkeypatch: pytest.MonkeyPatch, block_bytes: int, chunk: int, workers: int
) -> None:
    with tiny_limits(monkeypatch, block_bytes, chunk, workers):
        for name in ("float32", "bfloat16", "float64", "int16"):
            dtype = DTYPES[name]
            starts, lengths = some_rows(400, (3, 2), 11)
            for _, x in inputs(dtype, (3, 2, 400)):
                for how in (
                    {},
                    {"largest": False, "buckets": 40, "k_per_bucket": 2},
                    {"buckets": 33, "k_per_bucket": 1, "interleaved": False},
                ):
                    check(x, dtype, 21, starts=starts, lengths=lengths, padding=3, **how)
                turned: dict[str, Any] = {"axis": 0, "starts": starts}
                check(x.transpose(2, 0, 1), dtype, 130, buckets=130, k_per_bucket=1, **turned)
                check(x.transpose(2, 0, 1), dtype, 400, buckets=100, k_per_bucket=4, **turned)


def test_large_ragged_inputs() -> None:
    """Cut up with the limits as they are."""
    dtype = DTYPES["float64"]
    for shape, k, b in (((2, 270000), 40, 200), ((5, 20000), 700, 1400), ((2000, 150), 5, 16)):
        starts, lengths = some_rows(shape[1], shape[:1], k)
        starts[0], lengths[0] = 1, shape[1]
        x = random(dtype, shape)
        check(x, dtype, k, starts=starts, lengths=lengths)
        for interleaved in (True, False):
            how: dict[str, Any] = {"buckets": b, "k_per_bucket": 1, "interleaved": interleaved}
            check(x, dtype, k, starts=starts, lengths=lengths, **how)


def test_many_lengths_leave_the_cached_rules_alone() -> None:
    run(random(F32, (2, 3000)), F32, 10, buckets=100, k_per_bucket=1)
    before = host._rule.cache_info()
    run(random(F32, (900, 900)), F32, 10, buckets=100, k_per_bucket=1, interleaved=False, starts=np.arange(900))
    assert host._rule.cache_info() == before


@pytest.mark.parametrize("n", [1 << 14, 1 << 22], ids=["blocks", "long rows"])
def test_memory_of_ragged_rows_and_certificates(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    monkeypatch.setattr(threads, "width", lambda: 2)
    monkeypatch.setattr(stream, "CHUNK", 1 << 17)  # a chunk takes up to 44 bytes an element
    x = random(F32, ((1 << 24) // n, n))
    x[1] = 0  # all of them equal the worst answer
    values, indices = np.empty((len(x), 10), x.dtype), np.empty((len(x), 10), np.int64)
    starts, exact = np.arange(len(x)) % 4, np.empty(len(x), np.bool_)
    tracemalloc.start()
    try:
        select(
            x, values, indices, dtype=F32, k=10, axis=-1, largest=True, sorted=True,
            buckets=20, k_per_bucket=1, interleaved=True, starts=starts, exact=exact,
        )  # fmt: skip
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 << 20 < x.nbytes / 2


@DIRECTION
@pytest.mark.parametrize("name", ["float32", "float64", "uint8", "float16"])
def test_large_inputs(name: str, largest: bool) -> None:
    """Large enough to be cut up with the limits as they are; the oracle gets rows by a stable argsort of costs."""
    dtype = DTYPES[name]
    order = Order(dtype, largest)  # itself checked against the oracle above
    rng = np.random.default_rng(5)
    for shape, k in (((300000,), 64), ((3, 40000), 2600), ((9, 40000), 5), ((300000,), 20000), ((5000, 40), 3)):
        for x in (random(dtype, shape), rng.choice(specials(dtype), shape), np.full(shape, random(dtype, 1)[0])):
            want = np.argsort(order.costs(x), axis=-1, kind="stable")[..., :k]
            got, values = run(x, dtype, k, largest=largest)
            np.testing.assert_array_equal(got, want)
            np.testing.assert_array_equal(values, np.take_along_axis(x, want, axis=-1))
    x = random(dtype, 200000)
    for b, kept, k, interleaved in ((640, 1, 64, True), (640, 2, 64, False), (40000, 1, 12500, True)):
        check(x, dtype, k, largest=largest, buckets=b, k_per_bucket=kept, interleaved=interleaved)


@pytest.mark.parametrize("period", [2, 512, 513, 1024])
def test_data_with_a_period(period: int) -> None:
    """All the good entries in one slice of those that the threshold is found by."""
    x = np.random.default_rng(period).standard_normal((2, 30000)).astype(np.float32)
    x[:, ::period] += 100
    for k in (20, 900):
        check(x.view(np.uint32), F32, k)
        check(x.view(np.uint32), F32, k, buckets=1024, k_per_bucket=1)


@pytest.mark.parametrize("block_bytes", [1, 1 << 21])
def test_a_guess_that_fails(monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    """A row whose sample shows nothing of the rest."""
    monkeypatch.setattr(host, "BLOCK_BYTES", block_bytes)
    x = np.full((2, 100000), -1.0, np.float32)
    x[:, :: 100000 // 8192 | 1] = np.arange(x[0, :: 100000 // 8192 | 1].size)
    for k in (2000, 9500, 12500):
        check(x.view(np.uint32), F32, k)
        check(x.view(np.uint32), F32, k, buckets=50000, k_per_bucket=1)
        check(x.view(np.uint32), F32, k, buckets=5000, k_per_bucket=3, interleaved=False)


@pytest.mark.parametrize("chunk", [12, 250, 1250])
def test_later_entries_better_by_one(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    """Steps up, so that every chunk has entries just good enough, and equals of those found before."""
    with tiny_limits(monkeypatch, 1, chunk, 1):
        for step in (1, 30, 700):
            x = (np.arange(5000) // step % 250).astype(np.uint8)[None]
            for k in (1, 40, 1500):
                check(x, DTYPES["uint8"], k)
                check(x, DTYPES["uint8"], k, largest=False, buckets=2500, k_per_bucket=1)
                check(x, DTYPES["uint8"], k, buckets=600, k_per_bucket=3, interleaved=False)


@DIRECTION
@pytest.mark.parametrize("words", [True, False], ids=["words", "pairs"])
@pytest.mark.parametrize(("block_bytes", "cells", "few"), [(1, 7, 1), (1, 300, 4), (1 << 21, 7, 4), (1 << 21, 5000, 1)])
def test_buckets_reduced_whatever_the_data(
    monkeypatch: pytest.MonkeyPatch, block_bytes: int, cells: int, few: int, words: bool, largest: bool
) -> None:
    """The fallback of the bucketed route, forced; `words` False stands for rows too long for a 32-bit index."""
    with tiny_limits(monkeypatch, block_bytes, 1000, 2):
        monkeypatch.setattr(buckets, "CELLS", cells)
        monkeypatch.setattr(buckets, "FEW", few)
        for module in (block, long):
            monkeypatch.setattr(module, "crowded", lambda order, rule: True)
        if not words:
            monkeypatch.setattr(rank, "_INDEX", np.uint64(0))
        for name in ("float32", "float8_e4m3fn", "int16", "float64"):
            for _, x in inputs(DTYPES[name], (2, 211)):
                for b, kept, k in ((2, 30, 60), (7, 5, 33), (50, 1, 50), (50, 2, 70), (105, 1, 105), (3, 1, 2)):
                    for interleaved in (True, False):
                        how = {"largest": largest, "buckets": b, "k_per_bucket": kept, "interleaved": interleaved}
                        check(x, DTYPES[name], k, **how)


def test_buckets_far_down_a_row_are_reduced() -> None:
    order = Order(F32, True)
    for b, kept in ((4096, 1), (1024, 4), (64, 1)):
        assert buckets.crowded(order, Rule.of(65536, b * kept, b, kept, True))
        assert not buckets.crowded(order, Rule.of(65536, b * kept // 4, b, kept, True))


@pytest.mark.parametrize("rows", [1, 32])
@pytest.mark.parametrize("name", ["float32", "float64"])
def test_no_data_makes_buckets_slow(monkeypatch: pytest.MonkeyPatch, name: str, rows: int) -> None:
    """Work counted: each element's cost is computed once or twice, and few are ranked as a list."""
    counted = {"costs": 0, "ranked": 0}

    def counting(original: Any, what: str, size: Any) -> Any:
        def count(*arguments: Any) -> Any:
            counted[what] += size(*arguments)
            return original(*arguments)

        return count

    monkeypatch.setattr(Order, "costs", counting(Order.costs, "costs", lambda order, bits: bits.size))
    for module in (block, stream):
        ranked = counting(module.crowded_out, "ranked", lambda bucket, *others: bucket.size)
        monkeypatch.setattr(module, "crowded_out", ranked)
    n = (1 << 21) // rows
    noise = np.random.default_rng(rows).standard_normal((rows, n)).astype(name)
    ascending = np.sort(noise, axis=1)
    periodic = np.tile(np.arange(n) % 256.0, (rows, 1)).astype(name)
    for x, k, b, kept, interleaved in (
        (noise, n // 16, n // 16, 1, True),
        (noise, n // 16, n // 32, 2, False),
        (noise, n // 16, n // 15, 1, True),
        (noise, 64, 64, 1, True),
        (ascending, 64, 256, 1, False),
        (ascending, n // 16, n // 8, 1, False),
        (periodic, 64, 256, 1, True),
        (periodic, 64, 128, 2, True),
        (np.ones_like(noise), n // 16, n // 8, 1, True),
    ):
        counted.update(costs=0, ranked=0)
        run(x.view(f"u{x.itemsize}"), DTYPES[name], k, buckets=b, k_per_bucket=kept, interleaved=interleaved)
        assert counted["costs"] <= 2.2 * x.size
        assert counted["ranked"] <= x.size


@pytest.mark.parametrize(("name", "most"), [("float32", 3.0), ("float16", 3.3), ("float64", 4.0)])
def test_memory_in_proportion_to_the_output(monkeypatch: pytest.MonkeyPatch, name: str, most: float) -> None:
    monkeypatch.setattr(threads, "width", lambda: 2)
    monkeypatch.setattr(stream, "CHUNK", 1 << 17)
    n = 1 << 21
    x = random(DTYPES[name], (1, n))
    for k in (n // 8, n // 4, n // 2, n):
        for b, kept in ((None, None), (k, 1)):
            values, indices = np.empty((1, k), x.dtype), np.empty((1, k), np.int64)
            tracemalloc.start()
            try:
                select(
                    x, values, indices, dtype=DTYPES[name], k=k, axis=-1, largest=True, sorted=True,
                    buckets=b, k_per_bucket=kept, interleaved=True,
                )  # fmt: skip
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            output = values.nbytes + indices.nbytes
            # Beside the output, which is not counted here; a chunk passes through several forms of 8 bytes.
            assert peak <= (most - 1) * output + (4 << 20), (k, b)


LATE = """
import atexit, functools, os, threading
import numpy as np
import approxtopk
from approxtopk.host import threads

threads.width = functools.partial(int, 4)  # a function of ours would keep this module, and `last`, alive
x = np.zeros((64, 20000), np.float32)
x[:, 7] = 1

def call(name):
    assert (approxtopk.top_k(x, 3).indices == [7, 0, 1]).all()
    print(name, flush=True)

class Last:
    def __del__(self, call=call):
        call("del")

def worker(main=threading.main_thread()):
    main.join()
    call("worker")

if FIRST:
    call("main")
if FORK:
    child = os.fork()
    if not child:
        call("child")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
atexit.register(call, "atexit")
threading.Thread(target=worker).start()
last = Last()
"""


@pytest.mark.parametrize("first", [True, False], ids=["threads there", "no threads yet"])
def test_calls_while_python_ends(first: bool) -> None:
    """From a thread that outlives the main one, from atexit, from the last destructors, and in a fork's child."""
    fork = sys.platform == "linux"
    code = f"FIRST, FORK = {first}, {fork}\n{LATE}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = ["main"] * first + ["child"] * fork + ["worker", "atexit", "del"]
    assert done.stdout.split() == said, done.stderr


def test_a_task_that_fails() -> None:
    def task(item: int) -> int:
        if item == 5:
            raise KeyError(item)
        return item

    for _ in range(20):
        with pytest.raises(KeyError):
            threads.run(task, range(40), 40)
    assert threads.run(lambda item: -item, range(40), 40) == [-item for item in range(40)]


def test_an_interrupt_waits_for_the_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """They write to memory that the interrupted call frees. Ctrl-C comes while the caller waits, and again."""
    monkeypatch.setattr(threads, "width", lambda: 2)
    caller, started = threading.current_thread(), threading.Event()
    ended: list[int] = []

    def task(item: int) -> None:
        if threading.current_thread() is caller:
            started.wait()
            return
        started.set()
        for _ in range(2):
            time.sleep(0.05)
            signal.pthread_kill(caller.ident or 0, signal.SIGINT)
        time.sleep(0.05)
        ended.append(item)

    with pytest.raises(KeyboardInterrupt):
        threads.run(task, range(2), 2)
    assert len(ended) == 1


def test_many_callers_at_once() -> None:
    x = random(F32, (20, 20000))
    want = run(x, F32, 30)[0]
    results: list[Array] = []
    callers = [threading.Thread(target=lambda: results.append(run(x, F32, 30)[0])) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(results) == 8
    assert all((result == want).all() for result in results)


@contextmanager
def subnormals_flushed() -> Iterator[None]:
    """Set FTZ and DAZ in this thread, as XLA does where callbacks run."""
    if platform.machine() not in ("x86_64", "AMD64") or sys.platform == "win32":
        pytest.skip("needs the MXCSR register and the System V calling convention")
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as code:
        code.write(b"\x0f\xae\x17\xc3\x0f\xae\x1f\xc3")  # ldmxcsr [rdi]; ret; stmxcsr [rdi]; ret
        anchor = ctypes.c_char.from_buffer(code)
        start = ctypes.addressof(anchor)
        load, store = (ctypes.CFUNCTYPE(None, ctypes.c_void_p)(start + at) for at in (0, 4))
        old = ctypes.c_uint32()
        store(ctypes.byref(old))
        load(ctypes.byref(ctypes.c_uint32(old.value | 0x8040)))
        try:
            yield
        finally:
            load(ctypes.byref(old))
            del anchor


@DIRECTION
@pytest.mark.parametrize("name", ["float32", "float64", "float16"])
@pytest.mark.parametrize("block_bytes", [1, 1 << 21], ids=["stream", "block"])
def test_with_subnormals_flushed_to_zero(
    monkeypatch: pytest.MonkeyPatch, block_bytes: int, name: str, largest: bool
) -> None:
    dtype = DTYPES[name]
    monkeypatch.setattr(threads, "width", lambda: 1)
    monkeypatch.setattr(host, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(stream, "CHUNK", 2000)
    rng = np.random.default_rng(3)
    top = np.finfo(name).smallest_normal.reshape(1).view(f"u{dtype.itemsize}")[0]
    sign = 1 << (dtype.bits - 1)
    both = specials(dtype)
    cases = []
    for share in (0.0, 0.005, 0.5):
        x = rng.integers(0, 2 * int(top), (2, 2500)).astype(f"u{dtype.itemsize}")  # about half of them subnormal
        x |= bits_of(dtype, rng.integers(0, 2, x.shape)) * bits_of(dtype, sign)
        x[rng.random(x.shape) < share] = rng.choice(both)
        cases += [x, x & bits_of(dtype, sign | (int(top) - 1)), x | bits_of(dtype, sign), x & bits_of(dtype, sign - 1)]
    forms: tuple[dict[str, Any], ...] = ({}, {"buckets": 1500, "k_per_bucket": 1})
    hows = [(k, how) for k in (3, 60, 300, 1300) for how in forms]
    wants = [reference_top_k(x, dtype, k, largest=largest, **how) for x in cases for k, how in hows]
    with subnormals_flushed():
        if name != "float16":
            assert (bits_of(dtype, [1, 2, 3]).view(name) == 0).all(), "the flags are not set"
        gots = [run(x, dtype, k, largest=largest, **how) for x in cases for k, how in hows]
    for got, want in zip(gots, wants, strict=True):
        np.testing.assert_array_equal(got[0], want[0])
        np.testing.assert_array_equal(got[1], want[1])
