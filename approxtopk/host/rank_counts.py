"""Where entries stand in their rows: counts of what ranks above them, and of what is equal to them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..dtypes import DType
from . import threads
from .extents import extents
from .keys import Array, Mask, Order
from .select import ALONE, Where, blocks

__all__ = ["count_ranks"]

BLOCK_BYTES = 1 << 22
"""Input of one block of rows, which are counted one at a time."""

CACHED_BYTES = 1 << 18
"""Input of a block of short rows, which are counted together, or of a piece of a row that is longer than a block: it
is read several times, from the cache."""

SHORT = 16384
"""Rows of fewer entries are counted many at a time, others one at a time."""

MANY = 48
"""So many targets are worth sorting a row."""

_order = lru_cache(maxsize=64)(Order)


class Call(NamedTuple):
    """What `count_ranks` is asked for, with the axis moved to the end and targets along the end of theirs.

    Attributes
    ----------
    targets : ndarray of int64, shape (..., m)
        The targets' positions; -1 for those that are no entries of their rows.
    values : ndarray like x, shape (..., m), or None
        Their bits, where they are given; all positions are 0 then.
    counts : tuple of ndarray, each of that shape
        Receive the entries above each target, those equal to it, and of these the ones before it.
    lengths : ndarray of int64, shape (...), or None
        How many entries of each row exist.
    """

    order: Order
    x: Array
    targets: Array
    values: Array | None
    counts: tuple[Array, Array, Array]
    lengths: Array | None


def count_ranks(
    x: Array,
    index: int | Array | None,
    greater: Array,
    equal: Array,
    before: Array,
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
    greater, equal, before : ndarray of int32 or int64, of index's shape (for an int: x's without the axis)
        Receive how many entries of the row rank above the target's value, how many are equal to it, itself among
        them, and how many of those have a lower index; -1 where the target is no entry of the row.
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
        Bits of the targets, in place of `index`; none of a row is before them.
    """
    several = greater.ndim == x.ndim

    def along_end(array: Array) -> Array:
        return np.moveaxis(array, axis, -1) if several else array[..., None]

    counts = (along_end(greater), along_end(equal), along_end(before))
    values = None if value is None else along_end(value)
    x = np.moveaxis(x, axis, -1)
    lead, n = x.shape[:-1], x.shape[-1]
    length = None if lengths is None else extents(x.shape, None, lengths)[1].reshape(lead)
    valid[...] = n if length is None else length
    end = n if length is None else length[..., None]
    targets = np.zeros(counts[0].shape, np.int64)
    if values is None:
        targets = _places(index if isinstance(index, int) else along_end(np.asarray(index)), counts[0].shape, n)
        targets[(targets < 0) | (targets >= end)] = -1
    for count in counts:
        count[...] = -1 if values is None else 0
    if n and targets.size:
        call = Call(_order(dtype, largest), x, targets, values, counts, length)
        _pieces(call) if n * x.itemsize > BLOCK_BYTES else _rows(call)


def _places(index: int | Array, shape: tuple[int, ...], n: int) -> Array:
    """Positions as int64, of that shape; what does not fit is beyond the end."""
    targets = np.asarray(index, np.int64 if isinstance(index, int) else None)
    if targets.dtype.kind == "u":
        targets = np.minimum(targets.astype(np.uint64), np.uint64(n))
    return np.broadcast_to(targets, shape).astype(np.int64)


def _rows(call: Call) -> None:
    """Count in blocks of rows."""
    order, x, targets, given, counts, lengths = call
    lead, n = x.shape[:-1], x.shape[-1]

    def block(where: Where) -> None:
        bits = np.ascontiguousarray(x[where]).reshape(-1, n)
        wanted = targets[where].reshape(bits.shape[0], -1)
        length = None if lengths is None else lengths[where].reshape(-1)
        if given is None:
            values = np.take_along_axis(bits, np.maximum(wanted, 0), axis=1)
        else:
            values = given[where].reshape(wanted.shape)
        if n < SHORT:
            found = _count_together(order, bits, values, wanted, length)
        else:
            ends = [n] * len(bits) if length is None else length.tolist()
            each = zip(bits, ends, values, wanted.tolist(), strict=True)
            rows = [_count(order, row[:end], value, target) for row, end, value, target in each]
            found = np.array(rows, np.int64).transpose(1, 0, 2)
        found[:, wanted < 0] = -1
        for count, part in zip(counts, found, strict=True):
            count[where] = part.reshape(count[where].shape)

    rows = prod(lead)
    at_once = max((BLOCK_BYTES if n >= SHORT else CACHED_BYTES) // (n * x.itemsize), 1)
    if rows * n > ALONE:  # a block for everybody
        at_once = min(at_once, -(-rows // threads.width()))
    parts = list(blocks(lead, at_once))
    threads.run(block, parts, len(parts))


def _pieces(call: Call) -> None:
    """Count in pieces of rows that are too long for a block."""
    order, x, targets, given, counts, lengths = call
    room = CACHED_BYTES // x.itemsize

    def pieces() -> Iterator[tuple[Where, int, int]]:
        for where in np.ndindex(x.shape[:-1]):
            end = x.shape[-1] if lengths is None else int(lengths[where])
            if (targets[where] >= 0).any():
                yield from ((where, start, min(start + room, end)) for start in range(0, end, room))

    def piece(what: tuple[Where, int, int]) -> Any:
        where, start, end = what
        bits, wanted = np.ascontiguousarray(x[(*where, slice(start, end))]), targets[where]
        values = x[where][np.maximum(wanted, 0)] if given is None else np.ascontiguousarray(given[where])
        return _count(order, bits, values, wanted.tolist(), start)

    work = list(pieces())
    found = np.zeros((3, *targets.shape), np.int64)
    for (where, *_), part in zip(work, threads.run(piece, work, len(work)), strict=True):
        found[(slice(None), *where)] += part
    found[:, targets < 0] = -1
    for count, part in zip(counts, found, strict=True):
        count[...] = part


def _count(order: Order, bits: Array, values: Array, targets: list[int], start: int = 0) -> Any:
    """Count in a row, or in a piece of one that begins at `start`; integers of shape (3, m).

    `targets` are positions in the row, and `values` the bits there. Those of -1 have no meaning.
    """
    size = bits.size
    ends = [min(max(target - start, 0), size) for target in targets]
    mask = np.empty(size, np.bool_)
    if len(targets) == 1:
        above, equal = _count_one(order, bits, values[0], mask)
        return [[above], [equal], [_up_to(ends[0], equal, mask)]]
    found = np.zeros((3, len(targets)), np.int64)
    costs, wanted = order.costs(bits), order.costs(values)
    if len(targets) >= MANY:
        ordered = np.sort(costs)
        found[0] = np.searchsorted(ordered, wanted, "left")
        found[1] = np.searchsorted(ordered, wanted, "right") - found[0]
    for t, (cost, end) in enumerate(zip(wanted, ends, strict=True)):
        if len(targets) < MANY:
            found[0, t] = np.count_nonzero(np.less(costs, cost, mask))
            found[1, t] = np.count_nonzero(np.equal(costs, cost, mask))
        elif found[1, t] > 1:
            np.equal(costs, cost, mask)
        found[2, t] = _up_to(end, int(found[1, t]), mask)
    return found


def _up_to(end: int, equal: int, equals: Mask) -> int:
    """How many of the `equal` elements are among the first `end`, before the target where that is one of these."""
    if not 0 < end < equals.size:
        return equal if end else 0
    return int(np.count_nonzero(equals[:end])) if equal > 1 else 0


def _count_one(order: Order, bits: Array, target: Any, equals: Mask) -> tuple[int, int]:
    """How many elements rank above the value with the bits `target`, and how many are equal to it.

    Which are goes to `equals`. Floats are compared as such where NumPy can, and their order does not depend on how
    subnormals are taken; else as the integers that their bits are, which are in order, or, of negative numbers, in the
    opposite one, with the NaNs of either sign at the end.
    """
    magnitude, top = target & order.magnitude, order.largest_number
    if order.kind == "f" and magnitude > top:
        np.greater(bits & order.magnitude, top, equals)
        equal = int(np.count_nonzero(equals))
        return 0 if order.largest else bits.size - equal, equal
    if order.native is not None and not (order.floating and magnitude <= order.subnormal):
        scores, value = bits.view(order.native), target.view(order.native)
        # NaNs are not at most the value: they count where they rank first.
        above = int(np.count_nonzero((np.less_equal if order.largest else np.less)(scores, value, equals)))
        if order.largest:
            above = bits.size - above
    elif (target & order.sign and magnitude) or not (order.largest or magnitude):
        # Negative numbers from some magnitude on are integers side by side, and none of the others is among them.
        last = int(order.sign | top)
        first = int(order.sign | magnitude) + (not order.largest)
        above = 0
        if first <= last:
            least = order.unsigned.type(first)
            above = int(np.count_nonzero(np.less_equal(bits - least, order.unsigned.type(last - first), equals)))
        if order.largest:
            above = bits.size - above
    else:
        # Numbers above zero, and NaNs: positive ones follow them, negative ones are the greatest of all.
        nans = int(np.count_nonzero(np.greater(bits, order.sign | top, equals)))
        signed, value = bits.view(order.signed), magnitude.view(order.signed)
        above = nans + int(np.count_nonzero((np.greater if order.largest else np.greater_equal)(signed, value, equals)))
        if not order.largest:
            above = bits.size - above
    if order.kind == "f" and not magnitude:
        np.equal(bits & order.magnitude, magnitude, equals)
    else:
        np.equal(bits, target, equals)
    return above, int(np.count_nonzero(equals))


def _count_together(order: Order, bits: Array, values: Array, targets: Array, lengths: Array | None) -> Array:
    """Count in short rows; int64 of shape (3, rows, m), of no meaning for targets of -1."""
    found = np.zeros((3, *targets.shape), np.int64)
    at = np.arange(bits.shape[1])
    ones = np.ones(at.size, np.float32)  # a product is NumPy's fastest sum of rows, and exact
    there = None if lengths is None else at < lengths[:, None]
    for t in range(targets.shape[1]):
        above, equals = _compare_rows(order, bits, values[:, t, None])
        if there is not None:
            above &= there
            equals &= there
        found[0, :, t] = above.astype(np.float32) @ ones
        found[1, :, t] = equals.astype(np.float32) @ ones
        tied = np.flatnonzero(found[1, :, t] > 1)
        found[2, tied, t] = (equals[tied] & (at < targets[tied, t, None])).astype(np.float32) @ ones
    return found


def _compare_rows(order: Order, bits: Array, targets: Array) -> tuple[Mask, Mask]:
    """Which elements rank above the target of their row, and which are equal to it; as `_count_one`."""
    if order.native is None:
        costs, wanted = order.costs(bits), order.costs(targets)
        return np.less(costs, wanted), np.equal(costs, wanted)
    scores, values = bits.view(order.native), targets.view(order.native)
    above = np.less_equal(scores, values) if order.largest else np.less(scores, values)
    if order.largest:
        np.logical_not(above, above)
    equals = np.equal(bits, targets)
    if order.floating:
        magnitudes = targets[:, 0] & order.magnitude
        odd = np.flatnonzero((magnitudes <= order.subnormal) | (magnitudes > order.largest_number))
        if odd.size:
            costs, wanted = order.costs(bits[odd]), order.costs(targets[odd])
            above[odd], equals[odd] = np.less(costs, wanted), np.equal(costs, wanted)
    return above, equals
