"""Where entries stand in their rows: counts, cut into blocks of rows and run on threads, and the ranks they make."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import prod
from threading import Lock
from typing import NamedTuple

import numpy as np

from ..dtypes import DType
from . import threads
from .counting import count
from .extents import extents
from .keys import Array, Mask, Order
from .select import Where, blocks

__all__ = ["count_ranks", "write_ranks"]

BLOCK = 1 << 21
"""Elements of one block of rows, at most. One thread compares so many while another wakes: measured."""

PIECE = 1 << 19
"""Elements of one piece of a row that is longer than a block. They are read several times, from the cache."""

_order = lru_cache(maxsize=64)(Order)


class Call(NamedTuple):
    """What is counted, with the axis moved to the end and targets along the end of theirs.

    Attributes
    ----------
    targets : ndarray of int64, shape (..., m)
        The targets' positions; 0 for those that are no entries of their rows, or given by value.
    exists : ndarray of bool, shape (..., m)
        Which are entries of their rows, or given by value.
    values : ndarray like x, shape (..., m)
        Their bits.
    lengths : ndarray of int64, shape (...), or None
        How many entries of each row exist.
    planes : int
        How many counts are wanted, of those of `counting.count`.
    """

    order: Order
    x: Array
    targets: Array
    exists: Mask
    values: Array
    lengths: Array | None
    planes: int


def count_ranks(
    x: Array,
    index: int | Array | None,
    greater: Array,
    equal: Array,
    valid: Array,
    *,
    dtype: DType,
    axis: int,
    largest: bool,
    lengths: Array | None = None,
    value: Array | None = None,
) -> None:
    """Count, for entries of each row, what ranks above them and what is equal to them.

    Parameters
    ----------
    x : ndarray of unsigned integers, shape (..., n, ...)
        The elements' bits, in any strides.
    index : int, or ndarray of integers of shape (..., m, ...) or of x's shape without the axis
        The entries asked for, by their positions along `axis`: one for all rows, m of each, or one of each.
    greater, equal : ndarray of int32 or int64, of index's shape (for an int: x's without the axis)
        Receive how many entries of the row rank above the target's value, and how many are equal to it, itself among
        them; -1 where the target is no entry of the row.
    valid : ndarray of int32 or int64, of x's shape without the axis
        Receives how many entries the row has.
    dtype : DType
        What the bits mean.
    axis : int
        The axis of n.
    largest : bool
        Whether large values rank first.
    lengths : ndarray of integers or None, of x's shape without the axis
        How many elements of each row exist: see `extents`.
    value : ndarray like `x` or None, of the shapes that `index` may have
        Bits of the targets, in place of `index`.
    """
    several = greater.ndim == x.ndim
    call = _call(x, index, several, 2, dtype, axis, largest, lengths, value)
    found = _found(call)
    for result, counts in zip((greater, equal), found, strict=True):
        _along_end(result, several, axis)[...] = np.where(call.exists, counts, -1)
    valid[...] = x.shape[axis] if call.lengths is None else call.lengths


def write_ranks(
    x: Array,
    index: int | Array,
    rank: Array,
    *,
    ties: str,
    base: int,
    dtype: DType,
    axis: int,
    largest: bool,
    lengths: Array | None = None,
) -> None:
    """Write the ranks of entries of each row.

    Parameters
    ----------
    rank : ndarray of int32, int64, float32 or float64, of index's shape (for an int: x's without the axis)
        Receives them; -1 where the target is no entry of the row.
    ties : {"optimistic", "pessimistic", "average", "first"}
        The best rank of equal entries, the worst, their mean, or ranks by lower index.
    base : int
        The rank of the first entry.
    x, index, dtype, axis, largest, lengths
        As for `count_ranks`.
    """
    several = rank.ndim == x.ndim
    planes = {"optimistic": 1, "first": 3}.get(ties, 2)
    call = _call(x, index, several, planes, dtype, axis, largest, lengths, None)
    found = _found(call)
    place = found[0] + base
    if ties == "first":
        place += found[2]
    elif ties != "optimistic":
        others = found[1] - 1
        place = place + others / 2 if ties == "average" else place + others
    _along_end(rank, several, axis)[...] = np.where(call.exists, place, -1)


def _along_end(array: Array, several: bool, axis: int) -> Array:
    """An array of targets with those of a row along its last axis."""
    return _at_end(array, axis) if several else array[..., None]


def _at_end(array: Array, axis: int) -> Array:
    """The array with that axis last."""
    return array if axis == array.ndim - 1 else np.moveaxis(array, axis, -1)


def _call(
    x: Array,
    index: int | Array | None,
    several: bool,
    planes: int,
    dtype: DType,
    axis: int,
    largest: bool,
    lengths: Array | None,
    value: Array | None,
) -> Call:
    x = _at_end(x, axis)
    lead, n = x.shape[:-1], x.shape[-1]
    length = None if lengths is None else extents(x.shape, None, lengths)[1].reshape(lead)
    if value is not None:
        values = _along_end(value, several, axis)
        targets = np.zeros(values.shape, np.int64)
        exists = np.ones(values.shape, np.bool_)
        return Call(_order(dtype, largest), x, targets, exists, values, length, planes)
    given = np.full((*lead, 1), index) if isinstance(index, int) else _along_end(np.asarray(index), several, axis)
    targets = given.astype(np.int64)
    # What is negative, or beyond int64, is too large.
    exists = targets.view(np.uint64) < (n if length is None else length.astype(np.uint64)[..., None])
    targets *= exists
    values = np.take_along_axis(x, targets, axis=-1) if n else np.zeros(targets.shape, x.dtype)
    return Call(_order(dtype, largest), x, targets, exists, values, length, planes)


def _found(call: Call) -> Array:
    """What is counted for every target, int64 of shape (planes, ..., m)."""
    found = np.zeros((call.planes, *call.targets.shape), np.int64)
    n = call.x.shape[-1]
    if n and found.size:
        (_pieces if n > BLOCK else _rows)(call, found)
    return found


def _rows(call: Call, found: Array) -> None:
    """Count in blocks of rows."""
    order, x, targets, _, values, lengths, planes = call
    lead, n, m = x.shape[:-1], x.shape[-1], targets.shape[-1]

    def block(where: Where) -> None:
        length = None if lengths is None else lengths[where].reshape(-1)
        end = n if length is None else int(length.max())
        if end:
            bits = np.ascontiguousarray(x[(*where, ..., slice(end))]).reshape(-1, end)
            value, target = values[where].reshape(-1, m), targets[where].reshape(-1, m)
            part = found[(slice(None), *where)]
            part[...] = count(order, bits, value, target, length, planes).reshape(part.shape)

    rows = prod(lead)
    at_once = BLOCK // n
    if rows * n * m > BLOCK:  # a block for everybody
        at_once = min(at_once, -(-rows // threads.width()))
    parts = list(blocks(lead, at_once))
    threads.run(block, parts, len(parts))


def _pieces(call: Call, found: Array) -> None:
    """Count in pieces of rows that are too long for a block."""
    order, x, targets, exists, values, lengths, planes = call

    def pieces() -> Iterator[tuple[Where, int, int]]:
        for where in np.ndindex(x.shape[:-1]):
            end = x.shape[-1] if lengths is None else int(lengths[where])
            if exists[where].any():
                yield from ((where, start, min(start + PIECE, end)) for start in range(0, end, PIECE))

    adding = Lock()

    def piece(what: tuple[Where, int, int]) -> None:
        where, start, end = what
        bits = np.ascontiguousarray(x[(*where, slice(start, end))])
        part = count(order, bits[None], values[where][None], targets[where][None] - start, None, planes)[:, 0]
        with adding:
            found[(slice(None), *where)] += part

    work = list(pieces())
    threads.run(piece, work, len(work))
