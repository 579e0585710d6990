"""Counts in a table of rows: elements that rank above given values, equal ones, and equal ones before a position.

A comparison of a table with a column is one call of NumPy. Floats are compared as such where NumPy can and where their
order does not depend on how subnormals are taken; others as the integers that their bits are: in either order the
elements below a value are an interval of bit patterns, counted on from its first and through zero again.
"""

from __future__ import annotations

import numpy as np

from .keys import Array, Mask, Order

__all__ = ["count"]

SORTED = 512
"""Shorter rows are not sorted, however many targets they have: it is done row by row."""

PASSES = 10
"""Comparisons of a row with a target that take as long as one of the log2(n) levels of sorting it: measured, from 2000
elements on."""

LANE = 255
"""Bytes of 0 and 1 that add up within a byte."""


class Marks:
    """Room for marks at elements of a table, and their sums by row.

    Eight marks are added at a time, as the bytes of a word, which is several times as fast as NumPy's own counts. What
    fills up the last word of a row stays 0.
    """

    def __init__(self, rows: int, n: int) -> None:
        words = -(-n // 8)
        groups = -(-words // LANE)
        self.shape = (rows, groups, -(-words // groups))
        room = np.empty((rows, 8 * groups * self.shape[2]), np.bool_)
        room[:, n:] = False
        self.words = room.view(np.uint64).reshape(self.shape)
        self.mask: Mask = room[:, :n]

    def sums(self) -> Array:
        """How many marks each row has, as int64."""
        if self.shape[2] <= 8:  # a column of words at a time
            inside = np.bitwise_count(self.words[:, 0])
            count: Array = inside[:, 0].astype(np.int64)
            for column in range(1, inside.shape[1]):
                count += inside[:, column]
            return count
        lanes = np.add.reduce(self.words, axis=2).view(np.uint8)
        count = np.add.reduce(lanes, axis=1, dtype=np.int64)
        return count


def count(order: Order, bits: Array, values: Array, targets: Array, lengths: Array | None, planes: int) -> Array:
    """Count in the rows of a table.

    Parameters
    ----------
    order : Order
    bits : ndarray of unsigned integers, shape (rows, n)
        The elements.
    values : ndarray of the same type, shape (rows, m)
        What they are compared with.
    targets : ndarray of int64, shape (rows, m)
        Where each row is divided: elements from there on are not before the target.
    lengths : ndarray of int64, shape (rows,), or None
        How many elements of each row exist.
    planes : int
        How many of the three counts are wanted.

    Returns
    -------
    ndarray of int64, shape (planes, rows, m)
        How many elements of the row rank above the value, how many are equal to it, and how many of those are before
        the target.
    """
    (rows, n), m = bits.shape, targets.shape[1]
    if n >= SORTED and m * min(planes, 2) > PASSES * n.bit_length():
        ends = [n] * rows if lengths is None else lengths.tolist()
        each = zip(bits, ends, values, targets, strict=True)
        return np.stack([_count_sorted(order, row[:end], v, t, planes) for row, end, v, t in each], axis=1)
    found = np.zeros((planes, rows, m), np.int64)
    marks = Marks(rows, n)
    there = None if lengths is None else np.arange(n) < lengths[:, None]

    def marked() -> Array:
        if there is not None:
            np.logical_and(marks.mask, there, out=marks.mask)
        return marks.sums()

    for t in range(m):
        value, target = values[:, t], targets[:, t]
        _mark_lower(order, bits, value, marks.mask)
        lower = marked()
        found[0, :, t] = (n if lengths is None else lengths) - lower if order.largest else lower
        if planes > 1:
            _mark_equal(order, bits, value, marks.mask)
            found[1, :, t] = equal = marked()
            if planes > 2 and _others(equal, target, n).any():
                at = np.arange(n, dtype=np.int32)
                np.logical_and(marks.mask, at < np.clip(target, 0, n).astype(np.int32)[:, None], out=marks.mask)
                found[2, :, t] = marks.sums()
    return found


def _mark_lower(order: Order, bits: Array, values: Array, mask: Mask) -> None:
    """Mark the elements of each row that are at most its value, where large ones rank first, or less, where small do.

    NaN is greater than all numbers and at most itself.
    """
    if order.native is None:
        _mark_lower_bits(order, bits, values, mask)
        return
    scores, limits = bits.view(order.native), values.view(order.native)
    (np.less_equal if order.largest else np.less)(scores, limits[:, None], out=mask)
    if order.floating:
        trusted = np.abs(limits) >= order.least_normal
        if not np.logical_and.reduce(trusted):
            rare = np.flatnonzero(~trusted)
            part = mask[rare]
            _mark_lower_bits(order, bits[rare], values[rare], part)
            mask[rare] = part


def _mark_lower_bits(order: Order, bits: Array, values: Array, mask: Mask) -> None:
    """As `_mark_lower`, for floats, by their bits."""
    sign, top, most = order.sign, order.largest_number, order.magnitude
    magnitude = values & most
    nan = magnitude > top
    negative = (values > sign) & ~nan
    # Integers wrap around: what is in an interval differs from its first by at most its reach.
    if order.largest:
        # Negative numbers from a magnitude on; or all of them and then the others up to one, or to the last for NaN.
        first = sign | np.where(negative, magnitude, 0)
        reach = np.where(negative, top - magnitude, sign | np.where(nan, most, magnitude))
    else:
        # The others are NaNs with a sign, all that has none, and negative numbers up to a magnitude; or what has no
        # sign from a magnitude on, and with zero the one that has.
        least = np.where(nan, top + 1, magnitude)
        first = np.where(negative, (sign | top) + 1, least)
        reach = np.where(negative, magnitude - top - 1, most - least + (least == 0))
    first, reach = (a.astype(bits.dtype)[:, None] for a in (first, reach))
    (np.less_equal if order.largest else np.greater)(bits - first, reach, out=mask)
    if bits.max(initial=0) > sign | top:
        # NaNs with a sign, which no interval is about: at most NaN, and not less than anything.
        np.copyto(mask, (nan & order.largest)[:, None], where=bits > sign | top)


def _mark_equal(order: Order, bits: Array, values: Array, mask: Mask) -> None:
    """Mark the elements of each row that are equal to its value."""
    np.equal(bits, values[:, None], out=mask)
    if order.kind == "f":
        magnitude = values & order.magnitude
        nan = magnitude > order.largest_number
        several = np.flatnonzero(nan | (magnitude == 0))  # have several forms
        if several.size:
            least = np.where(nan[several], order.largest_number + 1, 0).astype(bits.dtype)
            reach = np.where(nan[several], order.magnitude, 0).astype(bits.dtype)
            mask[several] = (bits[several] & order.magnitude) - least[:, None] <= reach[:, None]


def _others(equal: Array, targets: Array, n: int) -> Array:
    """How many elements of a table are equal to a target but not it."""
    others: Array = equal - ((targets >= 0) & (targets < n))
    return others


def _count_sorted(order: Order, bits: Array, values: Array, targets: Array, planes: int) -> Array:
    """Count in one row, by sorting it; as `count`, of shape (planes, m)."""
    costs, wanted = order.costs(bits), order.costs(values)
    ordered = np.sort(costs)
    found = np.zeros((planes, wanted.size), np.int64)
    found[0] = np.searchsorted(ordered, wanted, "left")
    if planes > 1:
        found[1] = np.searchsorted(ordered, wanted, "right") - found[0]
    if planes > 2:
        tied = np.flatnonzero(_others(found[1], targets, bits.size))
        if tied.size > PASSES * bits.size.bit_length():
            # Where a stable sort puts each element; a target that is none has all of its equals before it, or none.
            place = np.empty(bits.size, np.int64)
            place[np.argsort(costs, kind="stable")] = np.arange(bits.size)
            inside = place[np.clip(targets, 0, bits.size - 1)] - found[0]
            found[2] = np.where(targets < bits.size, np.where(targets > 0, inside, 0), found[1])
        else:
            for t in tied:
                found[2, t] = np.count_nonzero(costs[: max(targets[t], 0)] == wanted[t])
    return found
