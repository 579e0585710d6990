"""Which elements of ragged rows exist."""

from __future__ import annotations

import numpy as np

from .keys import Array

__all__ = ["extents"]


def extents(shape: tuple[int, ...], starts: Array | None, lengths: Array | None) -> tuple[Array, Array]:
    """Find the elements in [start, start + length) of every row, as far as there are such.

    Parameters
    ----------
    shape : tuple of int
        Of the array, rows along its last axis.
    starts, lengths : ndarray of any integers, shape ``shape[:-1]``, or None
        Without starts rows begin at 0, without lengths they reach to the end. A negative length is 0.

    Returns
    -------
    first, length : ndarray of int64, shape (rows,)
        The first element that exists, and how many do.
    """
    n = shape[-1]
    rows = np.zeros(shape[:-1], np.int64).reshape(-1)
    start = rows if starts is None else _signed(starts)
    first = np.clip(start, 0, n)
    if lengths is None:
        return first, n - first
    if lengths.dtype.kind == "i":
        lengths = np.maximum(lengths, 0)
    length = lengths.astype(np.uint64).reshape(-1)
    # Of a row that starts before its element 0, some of the length is spent there; both may need all 64 bits.
    before = np.where(start < 0, np.negative(start.view(np.uint64)), 0)
    length = np.where(length > before, length - before, 0)
    return first, np.minimum(length, (n - first).astype(np.uint64)).astype(np.int64)


def _signed(array: Array) -> Array:
    """Flatten integers to int64; those beyond become its greatest."""
    if array.dtype.kind == "u":
        array = np.minimum(array.astype(np.uint64), np.uint64(np.iinfo(np.int64).max))
    return array.astype(np.int64).reshape(-1)
