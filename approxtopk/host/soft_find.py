"""The entries of a block of rows that may matter to a soft operator: where they are, and the K-th largest of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .bound import slice_best
from .keys import Array, Mask
from .soft_rows import BLOCK, Map

__all__ = ["Found", "Waiting", "best", "candidates", "pick", "positions", "rows_of", "split", "through"]

SHORT = 2048
"""Shorter rows are partitioned whole."""


def positions(mask: Mask) -> Array:
    """`np.flatnonzero` of a contiguous mask, faster where few are set."""
    flat = mask.reshape(-1)
    whole = flat.size - flat.size % 8
    words = np.flatnonzero(flat[:whole].view(np.uint64))
    if words.size > whole // 64:
        return np.flatnonzero(flat)
    inside = np.flatnonzero(flat[:whole].reshape(-1, 8)[words])
    found = words[inside >> 3] * 8 + (inside & 7)
    return found if whole == flat.size else np.append(found, np.flatnonzero(flat[whole:]) + whole)


def through(test: Callable[[slice], Mask], rows: int, n: int, run: Map) -> Array:
    """Where a test is passed in a block: positions in it, in order.

    Parameters
    ----------
    test : callable
        Tells it for a slice of every row's entries: bool of shape (rows, entries of the slice).
    """
    if n <= BLOCK:
        return positions(test(slice(0, n)))
    assert rows == 1, "longer rows come one by one"
    pieces = [slice(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK)]
    return np.concatenate(run(lambda piece: positions(np.ascontiguousarray(test(piece))) + piece.start, pieces))


def split(found: Array, rows: slice, n: int) -> Array:
    """How many positions are in each of some rows."""
    edges = np.searchsorted(found, np.arange(rows.start, rows.stop + 1) * n)
    return edges[1:] - edges[:-1]


def rows_of(values: Array, counts: Array) -> Array:
    """Give each entry the value of its row: `np.repeat`, or a plain number where there is but one."""
    if values.size == 1 or (values[0] == values).all():
        return values[:1]
    return np.repeat(values, counts)


def pick(x: Array, *ks: Array) -> list[Array]:
    """Find the k-th largest of each row, for every k given; NaN counts as largest.

    Parameters
    ----------
    x : ndarray, shape (rows, n)
        Values.
    ks : ndarray of int, shape (rows,)
        1 <= k <= n.
    """
    n = x.shape[1]
    if all((k == k[0]).all() for k in ks):
        places = [n - int(k[0]) for k in ks]
        ordered = np.partition(x, places, axis=1)
        return [ordered[:, place] for place in places]
    if n <= SHORT // 4:
        ordered = np.sort(x, axis=1)
        return [np.take_along_axis(ordered, (n - k)[:, None], axis=1)[:, 0] for k in ks]
    places = n - np.stack(ks, axis=1)
    found = np.array([np.partition(row, at)[at] for row, at in zip(x, places, strict=True)], x.dtype)
    return list(found.T)


def best(x: Array, k: Array, j: Array, run: Map) -> list[Array]:
    """Find the k-th and the j-th largest of each row without NaN, where j is k or one more."""
    rows, n = x.shape
    if not _sliced(n, int(j.max())):
        return pick(x, k, j)
    found = _from(x, j, np.ones(rows, np.bool_), lambda low: low, run)
    return [best.astype(x.dtype) for best in pick(_table(found.values, found.counts), k, j)]


def _sliced(n: int, most: int) -> int:
    """Into how many slices rows of `n` are cut to find their K-th largest entries, K up to `most`; 0: into none."""
    count = max(8 * most, SHORT // 4) | 1
    return count if n >= SHORT and 4 * count <= n else 0


def _table(values: Array, counts: Array) -> Array:
    """Rows of as many values as their counts say, filled up with -inf."""
    table = np.full((counts.size, int(counts.max())), -np.inf)
    table[np.arange(table.shape[1]) < counts[:, None]] = values
    return table


class Found(NamedTuple):
    """The entries of a block that may matter.

    Attributes
    ----------
    places : ndarray of int64, shape (entries,)
        Where they are in the block, in order.
    values : ndarray of float64, shape (entries,)
        What they are.
    counts : ndarray of int64, shape (rows,)
        How many are in each row.
    kth : ndarray of float64, shape (rows,)
        The K-th largest of each row that is to be solved; rubbish for others.
    nan : ndarray of bool, shape (rows,)
        Rows with a NaN.
    """

    places: Array
    values: Array
    counts: Array
    kth: Array
    nan: Mask


def candidates(x: Array, k: Array, wanted: Mask, least: Callable[[Array], Array], run: Map) -> Found:
    """Find the K-th largest entries, and all from a little below them on: see `_from`."""
    found = _from(x, k, wanted, least, run)
    if _sliced(x.shape[1], int(k[wanted].max(initial=1))) and found.places.size:
        there = found.counts > 0
        (found.kth[there],) = pick(_table(found.values, found.counts)[there], k[there])
    return found


def _from(x: Array, k: Array, wanted: Mask, least: Callable[[Array], Array], run: Map) -> Found:
    """Find a lower bound of the K-th largest entries, exact where rows are not sliced, and all from a little below.

    Parameters
    ----------
    x : ndarray, shape (rows, n)
        Values.
    k : ndarray of int, shape (rows,)
        K, from 1 to n where the row is wanted.
    wanted : ndarray of bool, shape (rows,)
        Rows to look at; others have no candidates.
    least : callable
        From a lower bound of the K-th largest entries to one of the entries that matter: float64, shape (rows,).
    """
    rows, n = x.shape
    most = int(k[wanted].max(initial=1))
    k = np.where(wanted, k, most)
    # The best of disjoint slices are distinct entries: the K-th best of them is no better than the K-th of all.
    sliced = _sliced(n, most)
    of = slice_best(np.maximum, x, sliced) if sliced else x  # takes NaN along
    nan = np.isnan(of.max(axis=1))
    (low,) = pick(of, k)
    # Rounded down: more candidates do no harm.
    limit = np.nextafter(least(low.astype(np.float64)).astype(x.dtype), x.dtype.type(-np.inf))
    limit[nan | ~wanted] = np.nan  # which nothing passes
    places = through(lambda part: np.greater_equal(x[:, part], limit[:, None]), rows, n, run)
    values = (x.reshape(-1) if places.size == x.size else x.reshape(-1)[places]).astype(np.float64)
    counts = split(places, slice(0, rows), n)
    return Found(places, values, counts, low.astype(np.float64), nan)


class Waiting:
    """Candidates of blocks that follow each other, to be solved together.

    Parameters
    ----------
    n : int
        Length of the rows.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self.found: list[Found] = []
        self.entries = 0
        self.rows = slice(0, 0)

    def add(self, rows: slice, found: Found) -> None:
        """Put what was found in some rows behind the rest."""
        if rows.start:
            np.add(found.places, rows.start * self.n, out=found.places)
        self.found.append(found)
        self.entries += found.places.size
        self.rows = slice(self.rows.start, rows.stop)

    def take(self) -> tuple[slice, Found]:
        """Give the rows that waited and what was found in them, and wait for the next."""
        rows, found = self.rows, self.found
        self.found, self.entries, self.rows = [], 0, slice(rows.stop, rows.stop)
        return rows, found[0] if len(found) == 1 else Found(*map(np.concatenate, zip(*found, strict=True)))
