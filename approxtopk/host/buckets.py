"""The bucketed algorithm as it is described: the best k_b of every bucket, then the best k of those.

It looks at every element's cost, whatever the data: for rules that keep hardly more than k, where no threshold turns
much away, and for rows whose best elements crowd in few buckets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import as_strided

from . import threads
from .keys import Array, Order
from .rank import arranged, best, fill, new_pile, to_indices
from .rule import Rule

__all__ = ["crowded", "reduce_buckets"]

CELLS = 1 << 16
"""Elements looked at in one go: with their words of 8 bytes, they stay in the cache."""

LANES = 64
"""Narrower pieces of interleaved buckets would read the same cache lines again."""

FEW = 4
"""Up to so many of a bucket are kept by taking the least one after the other: measured."""


@dataclass(frozen=True)
class Piece:
    """Some buckets of one size, of some rows.

    Attributes
    ----------
    rows, places : slice
        Of the table of candidates: a row per row, `kept` places per bucket.
    cells : ndarray, shape (rows, bucket size, buckets)
        Bits of the elements.
    first, step, lane : int
        Index of the first element, and how it grows along a bucket and from bucket to bucket.
    kept : int
        How many each bucket keeps.
    """

    rows: slice
    places: slice
    cells: Array
    first: int
    step: int
    lane: int
    kept: int


def crowded(order: Order, rule: Rule) -> bool:
    """Whether the best k that the buckets keep lie so far down a row that reducing the buckets is faster: measured."""
    return rule.passing - rule.k > rule.n / (64 if order.bits <= 32 else 24)


def reduce_buckets(order: Order, rule: Rule, bits: Array, *, sorted: bool, shared: bool = False) -> Array:
    """Select from every row.

    Parameters
    ----------
    bits : ndarray, shape (rows, n)
        The elements' bits, in any strides.
    sorted : bool
        Whether the answers must come best first.
    shared : bool
        Whether to use several threads.

    Returns
    -------
    ndarray of int64, shape (rows, k)
        Indices of the answers.
    """
    pile = new_pile(order.bits, rule.n, (bits.shape[0], rule.candidates))
    pieces = list(_cut(rule, bits))

    def reduce(piece: Piece) -> None:
        pile[:, piece.rows, piece.places] = _reduce(order, piece, rule.n)

    if shared:
        threads.run(reduce, pieces, len(pieces))
    else:
        for piece in pieces:
            reduce(piece)
    if len(pile) == 2:  # equal costs in the order of the indices
        pile = arranged(pile, np.argsort(pile[1], axis=-1))
    return to_indices(best(pile, rule.k, sorted=sorted))


def _cut(rule: Rule, bits: Array) -> Iterator[Piece]:
    """Cut rows into pieces of about `CELLS` elements."""
    at_once = max(CELLS // rule.n, 1)
    for row in range(0, bits.shape[0], at_once):
        rows = slice(row, row + at_once)
        place = 0
        for whole in _rectangles(rule, bits[rows], rows):
            count, size, lanes = whole.cells.shape
            width = max(CELLS // (count * size), LANES if rule.interleaved else 1)
            for lane in range(0, lanes, width):
                cells = whole.cells[:, :, lane : lane + width]
                places = slice(place, place + cells.shape[2] * whole.kept)
                yield replace(whole, places=places, cells=cells, first=whole.first + lane * whole.lane)
                place = places.stop


def _rectangles(rule: Rule, bits: Array, rows: slice) -> Iterator[Piece]:
    """See the buckets as tables: the first n mod b of them are one longer than the others, in both layouts."""
    across, along = bits.strides
    size, longer = divmod(rule.n, rule.buckets)
    for bucket, end, steps in ((0, longer, size + 1), (longer, rule.buckets, size)):
        if bucket == end:
            continue
        first, step, lane = (bucket, rule.buckets, 1) if rule.interleaved else (bucket * (size + 1), 1, steps)
        shape, strides = (bits.shape[0], steps, end - bucket), (across, step * along, lane * along)
        cells = as_strided(bits[:, first:], shape, strides, writeable=False)
        yield Piece(rows, slice(0), cells, first, step, lane, min(rule.kept, steps))


def _reduce(order: Order, piece: Piece, n: int) -> Array:
    """Best of each bucket of a piece; pile of shape (planes, rows, buckets * kept)."""
    rows, size, lanes = piece.cells.shape
    at_once = max(CELLS // (rows * lanes), 2 * piece.kept)
    found = None
    for start in range(0, size, at_once):
        cells = piece.cells[:, start : start + at_once]
        steps = np.arange(start, start + cells.shape[1], dtype=np.uint64)[:, None]
        pile = _room(order, n, cells.shape, piece.kept)
        fill(pile, order.costs(cells), steps * np.uint64(piece.step) + np.uint64(piece.first))
        # What was found before comes first, as its indices do.
        found = _least(pile if found is None else np.concatenate((found, pile), axis=2), piece.kept)
    assert found is not None
    found[-1] += np.arange(lanes, dtype=np.uint64) * np.uint64(piece.lane)
    return found.reshape(-1, rows, lanes * piece.kept)


def _room(order: Order, n: int, shape: tuple[int, ...], kept: int) -> Array:
    """Room for a pile, in the memory order in which `_least` is fast: bucket by bucket where it ranks them."""
    rows, steps, lanes = shape
    pile = new_pile(order.bits, n, (rows, steps, lanes))
    if len(pile) == 1 and kept <= FEW:
        return pile
    return pile.reshape(-1, rows, lanes, steps).swapaxes(2, 3)


def _least(pile: Array, kept: int) -> Array:
    """Best `kept` along the steps of a pile of shape (planes, rows, steps, lanes), which is spoilt."""
    if pile.shape[2] <= kept:
        return pile
    if len(pile) == 2:
        cost = pile[0]
        steps = cost.argmin(axis=1)[:, None] if kept == 1 else np.argsort(cost, axis=1, kind="stable")[:, :kept]
        return np.take_along_axis(pile, steps[None], axis=2)
    if kept > FEW:
        pile.partition(kept - 1, axis=2)
        return pile[:, :, :kept]
    found = np.minimum.reduce(pile, axis=2, keepdims=True)
    parts = [found]
    for _ in range(kept - 1):
        pile[pile == found] = np.iinfo(np.uint64).max  # no candidate's word: no index is that great
        found = np.minimum.reduce(pile, axis=2, keepdims=True)
        parts.append(found)
    return np.concatenate(parts, axis=2)
