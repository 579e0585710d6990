"""Dask: rows in chunks of any sizes, selected from by tree reduction, larger than memory."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import approxtopk as atk

from .backends import gpu_present
from .emulated import emulated
from .examples import run_example
from .interpreter import python

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")

BUCKETS = {"buckets": 5, "k_per_bucket": 2}


def row_of_all_kinds(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """float32 with ties, infinities, NaNs of either sign and payload, and both zeros."""
    x = rng.integers(-3, 4, shape).astype(np.float32)
    for bits in (0xFF800000, 0xFF800000, 0x7F800000, 0x7FC00001, 0xFF800123, 0x80000000, 0x80000001, 0x00000001):
        x.view(np.uint32)[rng.random(shape) < 0.05] = bits
    return x


def calls(options: dict[str, Any]) -> tuple[Any, Any]:
    """Ours, and the one for the array in one piece."""
    from approxtopk.adapters import dask as adapter

    approximate = "buckets" in options or "recall_target" in options
    return (adapter.approx_top_k, atk.approx_top_k) if approximate else (adapter.top_k, atk.top_k)


def check(x: np.ndarray, chunks: Any, k: int, split_every: int | None = None, **options: Any) -> None:
    ours, theirs = calls(options)
    want = theirs(x, k, **options)
    lazy = ours(da.from_array(x, chunks=chunks), k, split_every=split_every, **options)
    got = dask.compute(*lazy, scheduler="synchronous")
    for a, b, promised in zip(got, want, lazy, strict=True):
        assert type(a) is np.ndarray and a.flags.c_contiguous
        assert a.dtype == b.dtype == promised.dtype and a.shape == b.shape == promised.shape
        np.testing.assert_array_equal(a.view(f"u{a.itemsize}"), b.view(f"u{b.itemsize}"))


@pytest.mark.parametrize("trial", range(24))
def test_dask_equals_the_array_in_one_piece(trial: int) -> None:
    rng = np.random.default_rng(trial)
    axis, n = trial % 3, int(rng.integers(1, 90))
    shape = [3, 2, 4]
    shape[axis] = n
    edges = np.sort(rng.integers(0, n + 1, rng.integers(0, 9)))  # empty chunks, too
    chunks: list[Any] = [-1, 1, 2]
    chunks[axis] = tuple(np.diff([0, *edges, n]).tolist())
    options: dict[str, Any] = {"axis": axis - 3 * (trial % 2), "mode": ("largest", "smallest")[trial // 2 % 2]}
    if trial % 4:
        b = int(rng.integers(1, n + 1))
        options |= {"buckets": b, "k_per_bucket": int(rng.integers(1, 4)), "index_dtype": "int32"}
        n = min(n, b * options["k_per_bucket"])
    check(
        row_of_all_kinds(tuple(shape), rng),
        tuple(chunks),
        int(rng.integers(0, n + 1)),
        (None, 2, 3)[trial % 3],
        **options,
    )


def test_dask_of_a_planned_call() -> None:
    x = np.random.default_rng(1).permuted(np.tile(np.arange(40_000, dtype=np.float32), (2, 1)), axis=1)
    assert atk.plan(40_000, 20, recall_target=0.9).route == "bucketed"
    for options in ({"recall_target": 0.9}, {"recall_target": 1}, {"recall_target": 0.9, "buckets": 300}):
        check(x, (1, 7001), 20, 2, **options)


@pytest.mark.parametrize("dtype", ["float16", "int8", "uint64", "bfloat16", "float8_e5m2"])
def test_dask_dtypes(dtype: str) -> None:
    kind = np.dtype(dtype) if hasattr(np, dtype) else np.dtype(getattr(pytest.importorskip("ml_dtypes"), dtype))
    x = np.random.default_rng(2).integers(0, 256, (2, 60 * kind.itemsize), dtype=np.uint8).view(kind)
    for options in ({}, BUCKETS):
        check(x, (2, (7, 30, 23)), 8, 2, **options)


def test_dask_unsorted() -> None:
    x = row_of_all_kinds((2, 60), np.random.default_rng(3))
    for options in ({}, BUCKETS):
        ours, theirs = calls(options)
        indices = ours(da.from_array(x, chunks=(2, 13)), 8, sorted=False, **options).indices.compute()
        np.testing.assert_array_equal(np.sort(indices), np.sort(theirs(x, 8, **options).indices))


def test_dask_on_the_emulated_gpu() -> None:
    with emulated() as runtime:
        for options in ({}, BUCKETS):
            check(row_of_all_kinds((2, 70), np.random.default_rng(4)), (2, (30, 4, 36)), 6, **options)
        assert runtime.launched


@pytest.mark.gpu
@pytest.mark.skipif(not gpu_present(), reason="needs a GPU")
def test_dask_of_cupy_blocks() -> None:
    import cupy

    x = row_of_all_kinds((3, 70), np.random.default_rng(4))
    for options in ({}, BUCKETS):
        ours, theirs = calls(options)
        lazy = ours(da.from_array(cupy.asarray(x), chunks=(3, (30, 4, 36)), asarray=False), 6, split_every=2, **options)
        for got, want in zip(dask.compute(*lazy, scheduler="synchronous"), theirs(x, 6, **options), strict=True):
            assert isinstance(got, cupy.ndarray)
            np.testing.assert_array_equal(got.get(), want)


def test_dask_rows_of_unknown_number() -> None:
    from approxtopk.adapters.dask import top_k

    x = np.arange(60.0).reshape(6, 10)
    lazy = da.from_array(x, chunks=(2, 4))
    some = lazy[lazy[:, 0] > 15]
    np.testing.assert_array_equal(top_k(some, 3).indices.compute(), atk.top_k(x[2:], 3).indices)
    with pytest.raises(atk.InvalidArgument, match=r"unknown sizes along axis 0; .* x\.compute_chunk_sizes\(\)"):
        top_k(some, 3, axis=0)


def test_dask_functions_travel() -> None:
    """To workers in other processes."""
    from approxtopk.adapters import dask as adapter

    x = row_of_all_kinds((2, 60), np.random.default_rng(5))
    for options in ({}, BUCKETS):
        ours, theirs = calls(options)
        lazy = ours(da.from_array(x, chunks=(2, 13)), 8, **options)
        graph = {key: pickle.loads(pickle.dumps(task)) for key, task in dict(lazy.indices.__dask_graph__()).items()}
        got = dask.get(graph, lazy.indices.__dask_keys__())
        np.testing.assert_array_equal(got[0][0], theirs(x, 8, **options).indices)
    # Lazy values of the same call are the same, and how many chunks are joined at a time is the caller's choice.
    again = adapter.top_k(da.from_array(x, chunks=(2, 13)), 8).indices.name
    assert again == adapter.top_k(da.from_array(x, chunks=(2, 13)), 8).indices.name
    few, many = (
        adapter.top_k(da.from_array(x, chunks=(2, 5)), 8, split_every=count).indices.__dask_graph__()
        for count in (9, 2)
    )
    assert len(dict(few)) < len(dict(many))


def test_dask_example() -> None:
    from approxtopk.adapters.dask import top_k

    run_example(top_k)


def test_dask_refuses() -> None:
    from approxtopk.adapters.dask import approx_top_k, top_k

    x = da.zeros((2, 10), chunks=(2, 4))
    for call, error, words in (
        (lambda: top_k(np.zeros(3), 1), atk.InvalidType, "x must be a Dask array, not ndarray: .* approxtopk.top_k"),
        (lambda: top_k(x, 11), atk.InvalidArgument, "k = 11 is out of range; allowed are 0 to 10"),
        (lambda: top_k(x, 1, axis=2), atk.InvalidArgument, "axis = 2 is out of range"),
        (lambda: top_k(x > 0, 1), atk.UnsupportedDType, "x has dtype bool"),
        (lambda: top_k(da.ma.masked_array(x), 1), atk.InvalidType, "not numpy.ma.*MaskedArray"),
        (lambda: approx_top_k(x, 1, interleaved=False), atk.InvalidArgument, "interleaved = False is not for rows in"),
        (lambda: atk.top_k(x, 1), atk.InvalidType, "for Dask arrays use approxtopk.adapters.dask.top_k"),
    ):
        with pytest.raises(error, match=words):
            call()


def test_dask_array_larger_than_memory() -> None:
    """With its progress bar; and the memory does not hold the array, as computing it shows."""
    code = """
        import resource, sys
        import numpy as np, dask, dask.array as da
        from dask.diagnostics import ProgressBar
        from approxtopk.adapters.dask import approx_top_k, top_k

        def block(block_info=None):
            (_, (start, stop)) = block_info[None]["array-location"]
            return ((np.arange(start, stop, dtype=np.int32) * np.int32(-1640531535)) >> 4)[None]

        n, size = 1 << 27, 1 << 22
        x = da.map_blocks(block, chunks=((1,), (size,) * (n // size)), dtype=np.int32, meta=np.empty((0, 0), np.int32))
        approx_top_k(x[:, :size], 10).indices.compute()  # all imported and compiled
        resource.setrlimit(resource.RLIMIT_DATA, (320 << 20, resource.RLIM_INFINITY))
        dask.config.set(scheduler="synchronous")
        try:
            x.compute()
        except MemoryError:
            print("too large:", x.nbytes >> 20, "MiB")
        with ProgressBar(out=sys.stdout):
            values, indices = dask.compute(*top_k(x, 10))
            near = approx_top_k(x, 10, recall_target=0.9).indices.compute()
        best = [int(block(block_info={None: {"array-location": [(0, 1), (i, i + 1)]}})[0, 0]) for i in indices[0]]
        print(values[0].tolist() == best, np.isin(near, indices).sum() >= 5, values[0, 0] > (1 << 27) - 64)
    """
    told = python(code, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    assert "too large: 512 MiB" in told and "100% Completed" in told
    assert told.splitlines()[-1] == "True True True"
