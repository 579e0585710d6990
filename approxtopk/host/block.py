"""Many rows at once: a block of whole rows that fits the cache, looked at by NumPy calls that span all its rows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from .bound import bound, bound_of_costs, sampled, slices
from .keys import Array, Order
from .rank import best_of_list, best_of_table
from .rule import Rule, crowded_out
from .stream import Stream

__all__ = ["select_rows"]

SHORT = 128
"""Rows up to this length are ranked whole."""

SMALL = 2048
"""So are blocks of up to so many elements: that takes a few calls only."""


def select_rows(order: Order, rule: Rule, bits: Array, *, sorted: bool) -> Array:
    """Select from every row of a block.

    Parameters
    ----------
    bits : ndarray, shape (rows, n), contiguous
        The elements' bits.
    sorted : bool
        Whether the answers must come best first.

    Returns
    -------
    ndarray of int64, shape (rows, k)
        Indices of the answers.
    """
    rows, n = bits.shape
    if not rule.buckets and (n <= SHORT or bits.size <= SMALL):
        return best_of_table(order.costs(bits), np.arange(n), rule.k, n, sorted=sorted)
    scores = order.scores(bits)
    worst = sampled(order, rule, bits)
    how = None
    if worst is None:
        how = slices(rule, n)
        if how is None:
            return best_of_table(order.costs(bits), np.arange(n), rule.k, n, sorted=sorted)
        worst = bound(order, rule, scores, how)
    limit, sound = order.limits(worst)
    found = np.flatnonzero(order.passes(scores, limit[:, None]))
    row = found // n if rows > 1 else np.zeros(found.size, np.int64)
    counts = np.bincount(row, minlength=rows)
    most = 2 * rule.k + min(n // 16, 1024)
    hard = counts > most
    if sound is not None:
        hard |= ~sound
    if hard.any():
        which = np.flatnonzero(hard)
        costs = order.costs(bits[which])
        exact = worst[which] if how is None else bound_of_costs(rule, costs, how)
        few = _with_few_ties(costs, exact, 2 * most if rule.buckets else rule.k)
        found = np.concatenate((found[~hard[row]], which[few // n] * n + few % n))
        found.sort()
        row = found // n
        counts = np.bincount(row, minlength=rows)
        hard = counts > 4 * most
        if hard.any():
            keep = ~hard[row]
            found, row = found[keep], row[keep]
            counts[hard] = 0
    cost = order.costs(bits.reshape(-1)[found])
    index = found - row * n if rows > 1 else found
    if rule.buckets:
        out = crowded_out(rule.bucket(index) + row * rule.buckets, cost, rule.kept, rule.buckets * rows)
        if out is not None:
            keep = np.ones(index.size, np.bool_)
            keep[out] = False
            cost, index, row = cost[keep], index[keep], row[keep]
            counts = np.bincount(row, minlength=rows)
    hard |= counts < rule.k  # a guess that was wrong; and the hard rows, which are none of them here
    if rows == 1 and not hard[0]:
        return best_of_list(cost, index, rule.k, n)[1][None]
    # A table with a row's candidates in each row. What fills it up is the worst there is, and comes last.
    width = max(int(counts.max()), rule.k)
    place = np.arange(index.size) - np.repeat(np.cumsum(counts) - counts, counts)
    costs = np.full((rows, width), np.iinfo(cost.dtype).max, cost.dtype)
    indices = np.full((rows, width), n)
    costs[row, place] = cost
    indices[row, place] = index
    best = best_of_table(costs, indices, rule.k, n + 1, sorted=sorted)
    for r in np.flatnonzero(hard):
        best[r] = _select_row(order, rule, bits[r])
    return best


def _with_few_ties(costs: Array, worst: Array, most: int) -> Array:
    """Find what costs less than `worst`, and the first `most` in each row that cost as much.

    Rows whose k-th best has many equals (zeros, few distinct values, NaN) are only this hard.

    Parameters
    ----------
    costs : ndarray, shape (rows, n)
    worst : ndarray, shape (rows,)

    Returns
    -------
    ndarray of int
        Positions in the flattened `costs`, in no order.
    """
    rows, n = costs.shape
    ties = np.flatnonzero(costs == worst[:, None])
    starts = np.searchsorted(ties, np.arange(rows + 1) * n).tolist()
    first = [ties[start : min(start + most, end)] for start, end in pairwise(starts)]
    return np.concatenate((np.flatnonzero(costs < worst[:, None]), *first))


def _select_row(order: Order, rule: Rule, row: Array) -> Array:
    """Select from one row, whatever is in it; indices, best first."""
    stream = Stream(order, rule)
    start, length = 0, max(2 * rule.k, 1024)
    while start < row.size:
        # Chunks grow: the first one finds a threshold that is about right.
        stream.feed(row[start : start + length], start)
        start += length
        length = min(2 * length, 1 << 16)
    return stream.cut()[1]
