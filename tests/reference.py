"""The oracle: every selection, row by row, in plain Python over the elements' bits. Slow and obvious.

Nothing here comes from the library but the description of the element types.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from approxtopk.dtypes import DType

__all__ = ["assert_same_set", "buckets_of", "merit", "reference_row", "reference_top_k"]

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


def reference_top_k(
    bits: Array,
    dtype: DType,
    k: int,
    *,
    axis: int = -1,
    largest: bool = True,
    buckets: int | None = None,
    k_per_bucket: int | None = None,
    interleaved: bool = True,
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

    Returns
    -------
    indices : ndarray of int64, shape (..., k, ...)
        Positions along `axis`, best first.
    values : ndarray like `bits`, shape (..., k, ...)
        The bits found there.
    """
    rows = np.moveaxis(bits, axis, -1)
    indices = np.empty((*rows.shape[:-1], k), np.int64)
    for where in np.ndindex(rows.shape[:-1]):
        indices[where] = reference_row(
            rows[where].tolist(),
            dtype,
            k,
            largest=largest,
            buckets=buckets,
            k_per_bucket=k_per_bucket,
            interleaved=interleaved,
        )
    values = np.take_along_axis(rows, indices, axis=-1)
    return np.moveaxis(indices, -1, axis), np.moveaxis(values, -1, axis)


def assert_same_set(got: tuple[Array, Array], want: tuple[Array, Array], *, axis: int = -1) -> None:
    """Check an unsorted result: both are (indices, value bits); order along `axis` does not matter, all else does."""
    for name, which in (("indices", 0), ("values", 1)):
        order = [np.argsort(pair[0], axis=axis) for pair in (got, want)]
        ours, theirs = (np.take_along_axis(p[which], o, axis=axis) for p, o in zip((got, want), order, strict=True))
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
