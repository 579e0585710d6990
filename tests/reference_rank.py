"""The oracle of ranks: every entry of a row compared with every target, in plain Python. Slow and obvious."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from approxtopk.dtypes import DType

from .reference import existing, merit

__all__ = ["reference_ranks"]

Array = NDArray[Any]


def reference_ranks(
    bits: Array,
    dtype: DType,
    index: int | Array | None,
    *,
    axis: int = -1,
    largest: bool = True,
    lengths: Array | None = None,
    value: Array | None = None,
) -> tuple[Array, Array, Array, Array]:
    """Tell where targets stand in their rows.

    Parameters
    ----------
    bits : ndarray of unsigned integers, shape (..., n, ...)
        The elements' bits.
    dtype : DType
        How to read them.
    index : int, ndarray of integers or None
        The target of all rows, or of each: of the shape of `bits` without the axis, or with m in place of n.
    largest : bool
        Whether large values rank first.
    lengths : ndarray of integers, optional
        How many elements of each row exist.
    value : ndarray of unsigned integers, optional
        The targets' bits in place of `index`, of a shape that it may have; no element is before them.

    Returns
    -------
    greater, equal, before : ndarray of int64, of the targets' shape
        Elements that rank above the target's value, those equal to it, and of these the ones of lower index; -1 where
        the target does not exist.
    valid : ndarray of int64, shape of `bits` without the axis
        Elements that exist.
    """
    rows = np.moveaxis(bits, axis, -1)
    batch = rows.shape[:-1]
    given: Any = index if value is None else value
    several = not isinstance(given, int) and given.ndim == bits.ndim
    targets = np.moveaxis(given, axis, -1) if several else np.broadcast_to(given, batch)[..., None]
    counts = np.full((3, *targets.shape), -1, np.int64)
    valid = np.empty(batch, np.int64)
    for where in np.ndindex(batch):
        there = existing(rows.shape[-1], None, None if lengths is None else int(lengths[where]))
        valid[where] = len(there)
        merits = [merit(int(rows[where][i]), dtype, largest=largest) for i in there]
        for t, target in enumerate(map(int, targets[where])):
            if value is None and not 0 <= target < len(there):
                continue
            worth = merits[target] if value is None else merit(target, dtype, largest=largest)
            equal = [i for i in there if merits[i] == worth]
            before = sum(i < target for i in equal) if value is None else 0
            counts[(slice(None), *where, t)] = sum(other > worth for other in merits), len(equal), before
    if not several:
        return (*(c[..., 0] for c in counts), valid)
    return (*(np.moveaxis(c, -1, axis) for c in counts), valid)
