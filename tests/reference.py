"""The oracle: every selection, row by row, in plain Python over the elements' bits. Slow and obvious.

Nothing here comes from the library but the description of the element types.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from approxtopk.dtypes import DType

__all__ = ["assert_same_set", "buckets_of", "existing", "merit", "reference_exact", "reference_row", "reference_top_k"]

Array = NDArray[Any]


def merit(bits: int, dtype: DType, *, largest: bool) -> tuple[int, int]:
    """Tell what an element is worth: a pair that is greater the better the element; equal elements are worth the same.

    Parameters
    ----------
    bits : int
        The element's bits as an unsigned integer.
    dtype : DType
        How to read them.
    largest : bool
        Whether large values are the good ones.
    """
    sign = 1 << (dtype.bits - 1)
    if dtype.kind == "f":
        magnitude = bits & (sign - 1)
        if magnitude > dtype.largest_number:  # NaN: all alike, above everything
            return (1, 0) if largest else (-1, 0)
        value = -magnitude if bits & sign else magnitude  # -0 and +0 are both 0
    elif dtype.kind == "i":
        value = bits - 2 * sign if bits & sign else bits
    else:
        value = bits
    return (0, value if largest else -value)


def buckets_of(n: int, buckets: int, *, interleaved: bool) -> list[int]:
    """Tell the bucket of each of `n` elements."""
    if interleaved:
        return [i % buckets for i in range(n)]
    length, longer = divmod(n, buckets)
    sizes = [length + 1 if bucket < longer else length for bucket in range(buckets)]
    return [bucket for bucket, size in enumerate(sizes) for _ in range(size)]


def reference_row(
    row: Sequence[int],
    dtype: DType,
    k: int,
    *,
    largest: bool = True,
    buckets: int | None = None,
    k_per_bucket: int | None = None,
    interleaved: bool = True,
) -> list[int]:
    """Rank one row: indices of the best `k`, best first; ``buckets=None`` is the exact selection."""
    merits = [merit(bits, dtype, largest=largest) for bits in row]
    # Python's sort is stable, in reverse too: elements of equal merit keep the order of their indices.
    ranking = sorted(range(len(row)), key=merits.__getitem__, reverse=True)
    if buckets is None:
        return ranking[:k]
    assert k_per_bucket is not None
    bucket = buckets_of(len(row), buckets, interleaved=interleaved)
    taken = [0] * buckets
    candidates = []
    for i in ranking:
        if taken[bucket[i]] < k_per_bucket:
            taken[bucket[i]] += 1
            candidates.append(i)
    return candidates[:k]


def existing(n: int, start: int | None, length: int | None) -> list[int]:
    """Tell which of the indices 0 to n exist in a row that is as long as `length` says, from `start` on."""
    first = 0 if start is None else start
    end = n if length is None else first + max(length, 0)
    return list(range(max(first, 0), min(end, n)))


def rows_of(
    bits: Array, axis: int, starts: Array | None, lengths: Array | None
) -> Iterator[tuple[tuple[int, ...], list[int], list[int]]]:
    """Go through the rows along `axis`: where each is in the batch, the indices that exist in it, and their bits."""
    rows = np.moveaxis(bits, axis, -1)
    for where in np.ndindex(rows.shape[:-1]):
        start, length = (None if array is None else int(array[where]) for array in (starts, lengths))
        there = existing(rows.shape[-1], start, length)
        row = rows[where].tolist()
        yield where, there, [row[i] for i in there]


def reference_top_k(
    bits: Array,
    dtype: DType,
    k: int,
    *,
    axis: int = -1,
    starts: Array | None = None,
    lengths: Array | None = None,
    padding: int = 0,
    **how: Any,
) -> tuple[Array, Array]:
    """Select along an axis.

    Parameters
    ----------
    bits : ndarray of unsigned integers, shape (..., n, ...)
        The elements' bits.
    dtype : DType
        How to read them.
    k : int
        Entries to pick per row.
    starts, lengths : ndarray of integers, optional
        Which elements of each row exist; of the shape of `bits` without the axis.
    padding : int
        Bits of the values where a row has no entry left.
    **how
        As `reference_row` takes it.

    Returns
    -------
    indices : ndarray of int64, shape (..., k, ...)
        Positions along `axis`, best first; then -1.
    values : ndarray like `bits`, shape (..., k, ...)
        The bits found there.
    """
    batch = np.moveaxis(bits, axis, -1).shape[:-1]
    indices = np.full((*batch, k), -1, np.int64)
    values = np.full((*batch, k), padding, bits.dtype)
    for where, there, row in rows_of(bits, axis, starts, lengths):
        for place, i in enumerate(reference_row(row, dtype, k, **how)):
            indices[(*where, place)] = there[i]
            values[(*where, place)] = row[i]
    return np.moveaxis(indices, -1, axis), np.moveaxis(values, -1, axis)


def reference_exact(
    bits: Array,
    dtype: DType,
    k: int,
    *,
    axis: int = -1,
    largest: bool = True,
    starts: Array | None = None,
    lengths: Array | None = None,
    padding: int = 0,
    **how: Any,
) -> Array:
    """Tell of every row whether what `reference_top_k` selects is what it would select with no buckets."""
    exact = np.empty(np.moveaxis(bits, axis, -1).shape[:-1], np.bool_)
    for where, _, row in rows_of(bits, axis, starts, lengths):
        got = reference_row(row, dtype, k, largest=largest, **how)
        exact[where] = set(got) == set(reference_row(row, dtype, k, largest=largest))
    return exact


def assert_same_set(got: tuple[Array, Array], want: tuple[Array, Array], *, axis: int = -1) -> None:
    """Check an unsorted result: both are (indices, value bits); order along `axis` does not matter, all else does.

    Of several -1 in a row none comes first, and none must: the value beside them is the same.
    """
    for name, which in (("indices", 0), ("values", 1)):
        order = [np.argsort(pair[0], axis=axis) for pair in (got, want)]
        ours, theirs = (np.take_along_axis(p[which], o, axis=axis) for p, o in zip((got, want), order, strict=True))
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
