"""Ranking candidates: by cost, and by index among equal costs."""

from __future__ import annotations

import numpy as np

from .keys import Array

__all__ = ["best_of_list", "best_of_table"]

_INDEX = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


def _packed(cost: Array, index: Array) -> Array:
    """Cost and index in one integer that sorts by both; costs of at most 32 bits, indices below 2**32."""
    word = cost.astype(np.uint64)
    word <<= _SHIFT
    word |= index.astype(np.uint64)
    return word


def best_of_list(cost: Array, index: Array, k: int, n: int, *, sorted: bool = True) -> tuple[Array, Array]:
    """Pick the best `k` of a list of candidates.

    Parameters
    ----------
    cost, index : ndarray, shape (m,)
        Candidates; among equal costs, lower indices come first.
    k : int
        How many, m if there are fewer.
    n : int
        All indices are below this.
    sorted : bool
        Whether they must come best first.

    Returns
    -------
    cost, index : ndarray, shape (min(k, m),)
        Best first if `sorted`; if not, still with lower indices first among equal costs.
    """
    m = cost.size
    if cost.dtype.itemsize > 4 or n > int(_INDEX):
        if m > 2 * k:  # drop what is worse than the k-th before a sort that must be stable
            near = np.flatnonzero(cost <= np.partition(cost, k - 1)[k - 1])
            cost, index = cost[near], index[near]
        order = np.argsort(cost, kind="stable")[:k]
        return cost[order], index[order]
    word = _packed(cost, index)
    if m > k and (m > 2 * k or not sorted):
        word.partition(k - 1)
        word = word[:k]
    word.sort()
    word = word[:k]
    return (word >> _SHIFT).astype(cost.dtype), (word & _INDEX).astype(np.int64)


def best_of_table(cost: Array, index: Array, k: int, n: int, *, sorted: bool) -> Array:
    """Pick the best `k` of every row of a table of candidates.

    Parameters
    ----------
    cost, index : ndarray, shape (rows, m)
        Candidates; among equal costs of a row, lower indices come first.
    k : int
        How many, at most m.
    n : int
        All indices are below this.
    sorted : bool
        Whether they must come best first.

    Returns
    -------
    ndarray of int64, shape (rows, k)
        Their indices.
    """
    m = cost.shape[1]
    if cost.dtype.itemsize > 4 or n > int(_INDEX):
        order = np.argsort(cost, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(np.broadcast_to(index, cost.shape), order, axis=1)
    word = _packed(cost, index)
    if k < m and (m > 2 * k or not sorted):
        word.partition(k - 1, axis=1)
        word = word[:, :k]
    if sorted or k == m:
        word.sort(axis=1)
    return (word[:, :k] & _INDEX).astype(np.int64)
