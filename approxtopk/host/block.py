"""Many rows at once: a block of whole rows that fits the cache, looked at by NumPy calls that span all its rows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from .bound import bound, bound_of_costs, sampled, slices
from .buckets import crowded, reduce_buckets
from .keys import Array, Order
from .rank import best, new_pile, pile_of, to_indices
from .rule import Rule, crowded_out

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
    if rule.buckets:
        simple = crowded(order, rule)
    else:
        simple = n <= SHORT or bits.size <= SMALL
    worst = None if simple else sampled(order, rule, bits)
    how = None if simple or worst is not None else slices(rule, n)
    if worst is None and how is None:
        return _all_of(order, rule, bits, sorted=sorted)
    scores = order.scores(bits)
    if how is not None:
        worst = bound(order, rule, scores, how)
    assert worst is not None
    limit, sound = order.limits(worst)
    found = np.flatnonzero(order.passes(scores, limit[:, None]))
    row = found // n if rows > 1 else np.zeros(found.size, np.int64)
    counts = np.bincount(row, minlength=rows)
    most = 2 * int(rule.passing) + min(n // 16, 1024)
    hard = counts > most
    if sound is not None:
        hard |= ~sound
    if hard.any():
        keep = np.flatnonzero(~hard[row])
        found = found[keep]
        if not rule.buckets:
            which = np.flatnonzero(hard)
            costs = order.costs(bits[which])
            exact = worst[which] if how is None else bound_of_costs(rule, costs, how)
            few = _with_few_ties(costs, exact, rule.k)
            found = np.concatenate((found, which[few // n] * n + few % n))
            found.sort()
        row = found // n
        counts = np.bincount(row, minlength=rows)
        hard = counts > 4 * most
        if hard.any():
            keep = np.flatnonzero(~hard[row])
            found, row = found[keep], row[keep]
            counts[hard] = 0
    index = found - row * n if rows > 1 else found
    pile = pile_of(order.costs(bits.reshape(-1)[found]), index, n)
    if rule.buckets:
        out = crowded_out(rule.bucket(index) + row * rule.buckets, pile, rule.kept, rule.buckets * rows)
        if out is not None:
            keep = np.delete(np.arange(row.size), out)
            pile, row = pile[:, keep], row[keep]
            counts = np.bincount(row, minlength=rows)
    hard = counts < rule.k  # a guess that was wrong; and the rows left out above
    if rows == 1 and not hard[0]:
        return to_indices(best(pile, rule.k, sorted=sorted))[None]
    # A table with a row's candidates in each row. What fills it up is the worst there is, and comes last.
    width = max(int(counts.max()), rule.k)
    place = np.arange(row.size) - np.repeat(np.cumsum(counts) - counts, counts)
    table = new_pile(order.bits, n, (rows, width))
    table.fill(np.iinfo(np.uint64).max)
    table[:, row, place] = pile
    result = to_indices(best(table, rule.k, sorted=sorted))
    if hard.any():
        result[hard] = _all_of(order, rule, bits[hard], sorted=sorted)
    return result


def _all_of(order: Order, rule: Rule, bits: Array, *, sorted: bool) -> Array:
    """Do the same by looking at every element's cost: for any data."""
    if rule.buckets:
        return reduce_buckets(order, rule, bits, sorted=sorted)
    pile = pile_of(order.costs(bits), np.arange(rule.n), rule.n)
    return to_indices(best(pile, rule.k, sorted=sorted))


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
