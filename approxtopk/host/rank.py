"""Ranking candidates: by cost, and by index among equal costs.

A *pile* is an array of candidates whose first axis is what is stored of each. Where both fit, that is one 64-bit word,
the cost above the index: words sort by both. Elsewhere it is two, the cost and the index.
"""

from __future__ import annotations

import numpy as np

from .keys import Array

__all__ = ["arranged", "best", "costs_of", "fill", "indices_of", "new_pile", "pile_of", "to_indices"]

_INDEX = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


def new_pile(bits: int, n: int, shape: tuple[int, ...]) -> Array:
    """Room for a pile of candidates from rows of `n` elements of so many bits."""
    planes = 1 if bits <= 32 and n <= int(_INDEX) else 2
    return np.empty((planes, *shape), np.uint64)


def fill(pile: Array, cost: Array, index: Array) -> None:
    """Write candidates, in any memory order; `index` is unsigned and broadcast."""
    pile[0] = cost
    if len(pile) == 1:
        pile[0] <<= _SHIFT
        pile[0] |= index
    else:
        pile[1] = index


def pile_of(cost: Array, index: Array, n: int) -> Array:
    """Pile candidates up.

    Parameters
    ----------
    cost : ndarray, shape (..., m)
    index : ndarray, broadcast to the same shape
    n : int
        All indices are below this.
    """
    pile = new_pile(8 * cost.dtype.itemsize, n, cost.shape)
    fill(pile, cost, index.view(np.uint64))
    return pile


def costs_of(pile: Array) -> Array:
    """Costs of a pile, as 64-bit integers."""
    cost: Array = pile[0] >> _SHIFT if len(pile) == 1 else pile[0]
    return cost


def indices_of(pile: Array) -> Array:
    """Indices of a pile, as int64."""
    index: Array = pile[0] & _INDEX if len(pile) == 1 else pile[1]
    return index.view(np.int64)


def to_indices(pile: Array) -> Array:
    """Turn a pile into its indices, in its own memory."""
    if len(pile) == 1:
        pile &= _INDEX
    index: Array = pile[-1].view(np.int64)
    return index


def arranged(pile: Array, order: Array) -> Array:
    """Put candidates in this order, in the pile's own memory."""
    m = order.shape[-1]
    for plane in pile:
        plane[..., :m] = np.take_along_axis(plane, order, axis=-1)
    return pile[..., :m]


def best(pile: Array, k: int, *, sorted: bool = True) -> Array:
    """Pick the best `k` along the last axis.

    Parameters
    ----------
    pile : ndarray, shape (planes, m) or (planes, rows, m)
        Candidates; where a pile has two planes, lower indices come first among equal costs. Its order is lost.
    k : int
        How many, m if there are fewer.
    sorted : bool
        Whether they must come best first.

    Returns
    -------
    ndarray, shape (planes, ..., min(k, m))
        The answers, often in the memory of `pile`.
    """
    m = pile.shape[-1]
    if len(pile) == 2:
        return _best_of_pairs(pile, k)
    if k < m and (m > 2 * k or not sorted):
        pile.partition(k - 1, axis=-1)
        pile = pile[..., :k]
    if sorted:
        pile.sort(axis=-1)
    return pile[..., :k]


def _best_of_pairs(pile: Array, k: int) -> Array:
    if pile.ndim == 2 and pile.shape[-1] > 2 * k:  # drop what is worse than the k-th before a sort that must be stable
        pile = pile[:, pile[0] <= np.partition(pile[0], k - 1)[k - 1]]
    return arranged(pile, np.argsort(pile[0], axis=-1, kind="stable")[..., :k])
