"""Both selections against the oracle, bit for bit, on every machine."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

import approxtopk as atk
from approxtopk.dtypes import DTYPES

from .backends import Backend, backend_named
from .inputs import KINDS, make
from .reference import assert_same_set, reference_exact, reference_top_k

FORMS: tuple[dict[str, Any], ...] = (
    {"exact": True},
    {"buckets": 16, "k_per_bucket": 1},
    {"buckets": 16, "k_per_bucket": 3},
    {"buckets": 7, "k_per_bucket": 2, "interleaved": False},
    {"buckets": 5, "k_per_bucket": 40},
)


def check(
    backend: Backend,
    bits: np.ndarray,
    dtype: str,
    k: int,
    *,
    axis: int = -1,
    mode: str = "largest",
    sorted: bool = True,
    view: Any = None,
    **form: Any,
) -> None:
    """Select and compare with the oracle; without named buckets the oracle is told what the plan chose."""
    seen = bits if view is None else view(bits)
    if view is not None:
        form = {**form, "view": view}
    got = backend.select(bits, dtype, k, axis=axis, mode=mode, sorted=sorted, **form)
    b, kept = form.get("buckets"), form.get("k_per_bucket")
    if not form.get("exact") and (b is None or kept is None):
        keywords = {name: form[name] for name in ("recall_target", "buckets", "k_per_bucket") if name in form}
        plan = atk.plan(seen.shape[axis], k, dtype=dtype, device="cpu", **keywords)
        b, kept = plan.buckets, plan.k_per_bucket
    rule: dict[str, Any] = {
        "axis": axis,
        "largest": mode == "largest",
        "buckets": b,
        "k_per_bucket": kept,
        "interleaved": form.get("interleaved", True),
        "starts": form.get("starts"),
        "lengths": form.get("lengths"),
    }
    want = reference_top_k(seen, DTYPES[dtype], k, padding=padding(dtype, mode), **rule)
    if sorted:
        np.testing.assert_array_equal(got.indices, want[0])
        np.testing.assert_array_equal(got.bits, want[1])
    else:
        assert_same_set(got, want, axis=axis)
    if form.get("certify"):
        assert got.exact is not None and got.exact.dtype == np.bool_
        np.testing.assert_array_equal(got.exact, reference_exact(seen, DTYPES[dtype], k, **rule))


def padding(dtype: str, mode: str) -> int:
    """Bits of what stands behind the entries of a short row."""
    element = DTYPES[dtype]
    if element.kind == "f":
        return element.largest_number + (2 ** (element.bits - 1) if mode == "largest" else 0)
    info = np.iinfo(dtype)
    return int(info.min if mode == "largest" else info.max) % 2**element.bits


@pytest.mark.parametrize("mode", ["largest", "smallest"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_on_every_kind_of_input(backend: Backend, dtype: str, mode: str) -> None:
    for kind, form in itertools.product(KINDS, FORMS):
        bits = make(kind, dtype, (3, 203))
        check(backend, bits, dtype, 14, mode=mode, **form)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int16", "uint16"])
@pytest.mark.parametrize("mode", ["largest", "smallest"])
def test_every_16_bit_pattern(backend: Backend, dtype: str, mode: str) -> None:
    bits = np.random.default_rng(7).permutation(2**16).astype(np.uint16)
    check(backend, bits, dtype, 2**16, mode=mode, exact=True)
    # Eight buckets of 4096 elements a lane: every pattern passes through the queues.
    check(backend, bits, dtype, 40, mode=mode, buckets=16, k_per_bucket=4)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "int8", "uint8"])
@pytest.mark.parametrize("mode", ["largest", "smallest"])
def test_every_8_bit_pattern(backend: Backend, dtype: str, mode: str) -> None:
    bits = np.random.default_rng(7).permutation(np.repeat(np.arange(256, dtype=np.uint8), 3))
    for form in FORMS:
        check(backend, bits, dtype, 14, mode=mode, **form)
    check(backend, bits, dtype, bits.size, mode=mode, exact=True)


@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("b", [1, 2, 3, 8, 13, 32])
def test_every_remainder(backend: Backend, b: int, interleaved: bool) -> None:
    for n in (*range(b, 3 * b + 2), *range(1000, 1000 + b)):
        bits = make("few" if n % 2 else "any bits", "float32", (2, n), seed=n)
        for kept in (1, 2, 5):
            check(backend, bits, "float32", min(n, b * kept), buckets=b, k_per_bucket=kept, interleaved=interleaved)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "float64"])
def test_rows_of_every_alignment(backend: Backend, dtype: str) -> None:
    for n in range(256, 256 + 17):
        bits = make("random", dtype, (5, n), seed=n)
        check(backend, bits, dtype, 9, buckets=32, k_per_bucket=1)
        check(backend, bits, dtype, 9, exact=True)
        check(backend, bits, dtype, 9, view=lambda a: a[:, 3:], buckets=32, k_per_bucket=2)


@pytest.mark.parametrize("kept", [1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 16, 17, 60])
def test_every_number_kept(backend: Backend, kept: int) -> None:
    for dtype in ("float32", "float16", "int64"):
        for interleaved in (True, False):
            bits = make("any bits", dtype, (2, 650), seed=kept)
            check(backend, bits, dtype, 8 * kept, buckets=8, k_per_bucket=kept, interleaved=interleaved)
            check(backend, bits, dtype, 8 * kept // 2, buckets=8, k_per_bucket=kept, interleaved=interleaved)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("axis", [0, 1, 2, 3, -2])
def test_any_axis(backend: Backend, axis: int, form: dict[str, Any]) -> None:
    shape = [3, 2, 5, 4]
    shape[axis] = 90
    for dtype in ("float32", "float16"):
        bits = make("few", dtype, tuple(shape))
        check(backend, bits, dtype, 11, axis=axis, **form)


VIEWS = {
    "reversed": lambda a: a[..., ::-1],
    "reversed rows": lambda a: a[::-1],
    "every second": lambda a: a[:, ::2],
    "every second entry": lambda a: a[..., ::2],
    "shifted": lambda a: a[:, 1:, 3:],
    "swapped": lambda a: a.swapaxes(0, 2),
    "swapped inner": lambda a: a.swapaxes(1, 2)[:, ::-1],
}


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("view", VIEWS)
def test_any_strides(backend: Backend, view: str, form: dict[str, Any]) -> None:
    bits = make("few", "float32", (30, 32, 84))
    for axis in (0, 1, 2):
        n = VIEWS[view](bits).shape[axis]
        check(backend, bits, "float32", min(12, n // 2), axis=axis, view=VIEWS[view], **form)


def test_broadcast_rows(backend: Backend) -> None:
    bits = make("few", "float32", (1, 90))
    for form in FORMS:
        for view in (lambda a: np.broadcast_to(a, (7, 90)), lambda a: np.broadcast_to(a[:, :1], (7, 90))):
            if backend.name != "gpu":
                check(backend, bits, "float32", 14, view=view, **form)


def test_many_dimensions_that_do_not_merge(backend: Backend) -> None:
    bits = make("any bits", "int32", (2,) * 9)
    view = lambda a: a.transpose(8, 1, 6, 3, 0, 5, 2, 7, 4)  # noqa: E731
    for axis in (0, 4, 8):
        check(backend, bits, "int32", 1, axis=axis, view=view, exact=True)
        check(backend, bits, "int32", 2, axis=axis, view=view, buckets=2, k_per_bucket=1)


def test_no_rows_no_entries_no_k(backend: Backend) -> None:
    for shape, k in (((0, 5), 2), ((0, 5), 0), ((4, 0), 0), ((4, 5), 0), ((0,), 0), ((3, 0, 2), 0)):
        axis = 1 if len(shape) > 1 else 0
        for exact in (True, False):
            got = backend.select(np.zeros(shape, np.uint32), "float32", k, axis=axis, exact=exact)
            want = (*shape[:axis], k, *shape[axis + 1 :])
            assert got.indices.shape == got.bits.shape == want
    if backend.runtime is not None:
        assert backend.runtime.launched == []


def test_smallest_arrays(backend: Backend) -> None:
    for n, rows in itertools.product(range(1, 9), (1, 2, 33)):
        for k in range(1, n + 1):
            bits = make("few", "float32", (rows, n), seed=n)
            check(backend, bits, "float32", k, exact=True)
            for b in range(1, n + 1):
                check(backend, bits, "float32", k, buckets=b, k_per_bucket=-(-k // b))


@pytest.mark.parametrize("rows", [1, 65_537, 70_001])
def test_many_rows(backend: Backend, rows: int) -> None:
    # The emulator runs a block a row: fewer rows would not cross 65,535, more entries would take minutes.
    bits = np.arange(rows * 4, dtype=np.uint32).reshape(rows, 4) * np.uint32(2654435761)
    want = np.argsort(~bits, axis=1, kind="stable")[:, :2]
    got = backend.select(bits, "uint32", 2, buckets=2, k_per_bucket=2)
    np.testing.assert_array_equal(got.indices, want)


@pytest.mark.parametrize("k", [1, 31, 2048, 2049, 5000, 9000])
def test_any_k(backend: Backend, k: int) -> None:
    bits = make("few", "float32", (2, 9000), seed=k)
    check(backend, bits, "float32", k, exact=True)
    check(backend, bits, "float32", k, exact=True, sorted=False)
    check(backend, bits, "float32", k, recall_target=0.9)
    check(backend, bits, "float32", k, recall_target=0.9, mode="smallest")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64", "int8", "uint16", "float8_e5m2"])
def test_many_of_rows_that_fit_on_chip(backend: Backend, dtype: str) -> None:
    for number, kind in enumerate(KINDS):
        bits = make(kind, dtype, (2, 6000 + number))
        lengths = np.array([6000, 2500]) if number % 2 else None
        check(backend, bits, dtype, 3000, exact=True, mode=("largest", "smallest")[number // 2 % 2], lengths=lengths)


def test_k_of_65536_in_order(backend: Backend) -> None:
    bits = make("random", "float32", (1, 70_000))
    check(backend, bits, "float32", 65_536, exact=True)


def test_unsorted_is_the_same_set_in_a_fixed_order() -> None:
    bits = make("few", "float32", (3, 2000))
    for form in (*FORMS, {"buckets": 32, "k_per_bucket": 1}):
        k = 32 if form.get("buckets") == 32 else 14
        orders = []
        for seed in range(3):
            with backend_named("emulated", seed) as backend:
                check(backend, bits, "float32", k, sorted=False, **form)
                orders.append(backend.select(bits, "float32", k, sorted=False, **form).indices)
        for order in orders[1:]:
            np.testing.assert_array_equal(order, orders[0])


def test_one_launch_when_the_candidates_are_the_answer(backend: Backend) -> None:
    bits = make("random", "float32", (300, 4096))
    check(backend, bits, "float32", 128, buckets=128, k_per_bucket=1, sorted=False)
    check(backend, bits, "float32", 256, buckets=128, k_per_bucket=2, sorted=False, interleaved=False)
    if backend.runtime is not None:
        assert [kernel for kernel, _ in backend.runtime.launched] == ["bucket_walk"] * 2
        assert [stats.bytes_loaded for _, stats in backend.runtime.launched] == [bits.nbytes] * 2


def test_index_types(backend: Backend) -> None:
    bits = make("random", "float32", (2, 700))
    for index_dtype, form in itertools.product(("int32", "int64", None), FORMS):
        got = backend.select(bits, "float32", 5, index_dtype=index_dtype, **form)
        assert got.indices.dtype == (index_dtype or "int64")
        check(backend, bits, "float32", 5, index_dtype=index_dtype, **form)


def test_float_values_come_back_bit_equal(backend: Backend) -> None:
    # NaN payloads and zeros of both signs are what a key cannot give back.
    bits = np.array([0x7FC00001, 0xFFC12345, 0x80000000, 0, 0x7F800001, 0x80000000], np.uint32)
    got = backend.select(bits, "float32", 6, exact=True)
    np.testing.assert_array_equal(got.indices, [0, 1, 4, 2, 3, 5])
    np.testing.assert_array_equal(got.bits, bits[[0, 1, 4, 2, 3, 5]])
    got = backend.select(bits, "float32", 6, mode="smallest", buckets=2, k_per_bucket=3)
    np.testing.assert_array_equal(got.indices, [2, 3, 5, 0, 1, 4])
    np.testing.assert_array_equal(got.bits, bits[[2, 3, 5, 0, 1, 4]])


def test_a_row_gets_the_same_answer_alone_and_in_a_batch(backend: Backend) -> None:
    bits = make("few", "bfloat16", (5, 4, 6000))
    together = backend.select(bits, "bfloat16", 40, recall_target=0.8)
    for i, j in itertools.product(range(5), range(4)):
        alone = backend.select(bits[i, j], "bfloat16", 40, recall_target=0.8)
        np.testing.assert_array_equal(alone.indices, together.indices[i, j])
    along_first = backend.select(bits.transpose(2, 0, 1).copy(), "bfloat16", 40, recall_target=0.8, axis=0)
    np.testing.assert_array_equal(along_first.indices, together.indices.transpose(2, 0, 1))


@pytest.mark.parametrize("seed", range(40))
def test_random_cases(backend: Backend, seed: int) -> None:
    random_cases(backend, seed, 60)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(1000, 2000))
def test_many_random_cases(backend: Backend, seed: int) -> None:
    random_cases(backend, seed, 200)


def ragged(rng: np.random.Generator, batch: tuple[int, ...], n: int) -> dict[str, np.ndarray]:
    """Starts, lengths or both, within rows and beyond, of any integer type that holds them."""
    arrays = {}
    for name in str(rng.choice(["starts", "lengths", "starts lengths"])).split():
        dtype = str(rng.choice(["int16", "int32", "int64", "uint16", "uint32", "uint64"]))
        low = 0 if dtype[0] == "u" else -3
        arrays[name] = rng.integers(low, n + 4, batch).astype(dtype)
        if rng.random() < 0.1:
            info = np.iinfo(dtype)
            arrays[name] = np.full(batch, info.min if rng.random() < 0.5 else info.max, dtype)
    return arrays


def random_cases(backend: Backend, seed: int, count: int) -> None:
    """Draw shapes, dtypes, inputs and options of all kinds."""
    rng = np.random.default_rng(seed)
    for case in range(count):
        rank = int(rng.integers(1, 4))
        axis = int(rng.integers(rank))
        shape = [int(s) for s in rng.integers(1, 6, rank)]
        n = shape[axis] = int(2 ** rng.uniform(0, 12 if rank == 1 else 9))
        k = int(rng.integers(1, n + 1)) if rng.random() < 0.3 else min(n, int(2 ** rng.uniform(0, 7)))
        dtype = str(rng.choice(list(DTYPES)))
        form: dict[str, Any] = {"mode": str(rng.choice(["largest", "smallest"])), "sorted": bool(rng.random() < 0.7)}
        if rng.random() < 0.3:
            form["exact"] = True
        elif rng.random() < 0.2:
            form["recall_target"] = float(rng.uniform(0.3, 1))
        else:
            b = int(rng.integers(1, n + 1)) if rng.random() < 0.5 else min(n, 2 ** int(rng.integers(0, 8)))
            form["buckets"] = b
            form["k_per_bucket"] = math.ceil(k / b) + int(rng.integers(0, 3))
            form["interleaved"] = bool(rng.random() < 0.7)
        if "exact" not in form:
            form["certify"] = bool(rng.random() < 0.3)
        if rng.random() < 0.4:
            form |= ragged(rng, (*shape[:axis], *shape[axis + 1 :]), n)
        bits = make(str(rng.choice(KINDS)), dtype, tuple(shape), seed=seed * 1000 + case)
        check(backend, bits, dtype, k, axis=axis, **form)
