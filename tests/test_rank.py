"""Ranks through the public calls, on every machine: equal to a stable sort and to counting."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

import approxtopk as atk

from .backends import Backend
from .inputs import KINDS, make
from .test_soft_top_k import back, on


def by_sorting(x: np.ndarray, mode: str = "largest") -> np.ndarray:
    """The rank of every entry in its row, as a stable sort has it."""
    order = np.argsort(-x if mode == "largest" else x, axis=-1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.broadcast_to(np.arange(x.shape[-1]), x.shape), -1)
    return ranks


def tied(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Like bfloat16 logits: by the dozen equal."""
    return (np.round(np.random.default_rng(seed).standard_normal(shape) * 8) / 8).astype(np.float32)


@pytest.mark.parametrize("mode", ["largest", "smallest"])
def test_ranks_of_one_and_of_several(backend: Backend, mode: Any) -> None:
    x = tied((5, 900))
    ranks = by_sorting(x, mode)
    index = np.random.default_rng(1).integers(0, 900, (5, 12))
    targets = np.take_along_axis(x, index, 1)[:, :, None]
    above = ((x[:, None] > targets) if mode == "largest" else (x[:, None] < targets)).sum(2)
    equal = (x[:, None] == targets).sum(2)
    want = {
        "first": np.take_along_axis(ranks, index, 1),
        "optimistic": above,
        "pessimistic": above + equal - 1,
        "average": above + (equal - 1) / 2,
    }
    for ties, expected in want.items():
        for base in (0, 1, -3):
            got = back(atk.rank(*on(backend, x, index), ties=ties, base=base, mode=mode))
            assert got.dtype == (np.float64 if ties == "average" else np.int64)
            np.testing.assert_array_equal(got, expected + base)
        one = atk.rank(*on(backend, x, index[:, 3]), ties=ties, mode=mode)
        np.testing.assert_array_equal(back(one), expected[:, 3])
    np.testing.assert_array_equal(back(atk.rank(on(backend, x)[0], 17, ties="first", mode=mode)), ranks[:, 17])


def test_what_was_selected_has_the_ranks_it_was_selected_for(backend: Backend) -> None:
    for number, kind in enumerate(KINDS):
        for mode in ("largest", "smallest"):
            bits = make(kind, "float32", (3, 300 + number))
            x = on(backend, bits.view(np.float32))[0]
            indices = atk.top_k(x, 40, mode=mode).indices
            got = back(atk.rank(x, indices, ties="first", mode=mode))  # type: ignore[arg-type]
            np.testing.assert_array_equal(got, np.broadcast_to(np.arange(40), (3, 40)))


def test_counts_add_over_shards(backend: Backend) -> None:
    x = tied((4, 600))
    index = np.array([5, 599, 300, 0])
    want = [back(a) for a in atk.rank_counts(*on(backend, x, index))]
    values = np.take_along_axis(x, index[:, None], 1)
    got = [0, 0, 0]
    for shard in np.split(x, [100, 350], axis=1):
        counts = atk.rank_counts(*on(backend, shard), value=on(backend, values[:, 0])[0])
        got = [total + back(count) for total, count in zip(got, counts, strict=True)]
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


def test_values_that_are_no_entries(backend: Backend) -> None:
    x = tied((3, 3000))
    value = np.array([[0.3, 0.25, np.nan, -np.inf], [5.5, 0.0, -0.0, 9.0], [-9.0, 1.0, 0.1, np.inf]], np.float32)
    x[1, 5] = np.nan
    greater, equal, valid = (back(a) for a in atk.rank_counts(on(backend, x)[0], value=on(backend, value)[0]))
    nan, both = np.isnan(x)[:, None], np.isnan(value)[:, :, None]
    np.testing.assert_array_equal(greater, ((x[:, None] > value[:, :, None]) | (nan & ~both)).sum(2))
    np.testing.assert_array_equal(equal, ((x[:, None] == value[:, :, None]) | (nan & both)).sum(2))
    assert (valid == 3000).all()
    lengths = on(backend, np.array([0, 10, 3000]))[0]
    greater, equal, _ = atk.rank_counts(on(backend, x)[0], value=on(backend, value[:, 0])[0], lengths=lengths)
    assert back(greater)[0] == back(equal)[0] == 0
    np.testing.assert_array_equal(back(greater)[1], np.isnan(x[1, :10]).sum() + (x[1, :10] > 5.5).sum())


def test_any_axis(backend: Backend) -> None:
    x = tied((7, 40, 6))
    for axis in (0, 1, 2):
        rows = np.moveaxis(x, axis, -1)
        ranks = np.moveaxis(by_sorting(rows), -1, axis)
        every = np.broadcast_to(np.arange(x.shape[axis]), rows.shape)
        index = np.moveaxis(every, -1, axis)[tuple(slice(0, 3) if i == axis else slice(None) for i in range(3))]
        got = atk.rank(*on(backend, x, np.ascontiguousarray(index)), axis=axis, ties="first")
        want = np.take_along_axis(ranks, index, axis)
        np.testing.assert_array_equal(back(got), want)


def test_ragged_rows_and_targets_that_are_not_there(backend: Backend) -> None:
    x, lengths = tied((4, 50)), np.array([50, 20, 0, 70])
    index = np.array([[3, 49, 50, -1]] * 4)
    greater, equal, valid = (back(a) for a in atk.rank_counts(*on(backend, x, index), lengths=on(backend, lengths)[0]))
    np.testing.assert_array_equal(valid, [50, 20, 0, 50])
    there = (index >= 0) & (index < valid[:, None])
    assert (greater[~there] == -1).all() and (equal[~there] == -1).all() and (equal[there] >= 1).all()
    for ties in ("optimistic", "pessimistic", "average", "first"):
        got = back(atk.rank(*on(backend, x, index), ties=ties, base=1, lengths=on(backend, lengths)[0]))
        assert (got[~there] == -1).all() and (got[there] >= 1).all()
    want = by_sorting(x[1:2, :20])[0, 3]
    got = atk.rank(*on(backend, x, index[:, 0]), ties="first", lengths=on(backend, lengths)[0])
    assert back(got)[1] == want


def test_memory_is_flat() -> None:
    x = np.random.default_rng(0).standard_normal((64, 50_000)).astype(np.float32)
    index = np.arange(64)
    atk.rank(x, index)
    tracemalloc.start()
    atk.rank(x, index)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < x.nbytes / 2, peak / x.nbytes


def test_no_entries(backend: Backend) -> None:
    for shape, index in (((0, 5), np.zeros(0, int)), ((3, 0), np.zeros(3, int)), ((3, 5), np.zeros((3, 0), int))):
        x = on(backend, np.zeros(shape, np.float32))[0]
        greater, equal, valid = (back(a) for a in atk.rank_counts(x, *on(backend, index)))
        assert greater.shape == equal.shape == index.shape
        np.testing.assert_array_equal(valid, np.full(shape[0], shape[1]))
        if shape[1] == 0:
            assert (greater == -1).all()
