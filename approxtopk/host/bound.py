"""A cost that all of the answers do not exceed, found without looking for them.

Slices, a bound that holds: the best elements of disjoint slices of a row are that many distinct elements, so the
k-th best among them is no better than the row's k-th best. With buckets the slices must be parts of buckets, at most
k_b of each: then the slices' best elements also survive the buckets' rule. It takes several slices per entry wanted,
so it is for k that are small.

A sample, a bound that nearly always holds: the cost below which a little more than the right share of a sample lies.
Whoever uses it must count the answers, and do without it where there are fewer than k.
"""

from __future__ import annotations

import math

import numpy as np

from .keys import Array, Order
from .rule import Rule

__all__ = ["bound", "bound_of_costs", "sampled", "slices"]

SAMPLE = 8192
"""Least size of a sample."""

LANES = 512
"""Fewer slices than this do not keep the vector unit busy."""

STEPS = 16
"""Up to so many elements a slice, NumPy is faster step by step (over all rows at once) than with one reduction."""


def slices(rule: Rule, length: int, offset: int = 0) -> int | Array | None:
    """How to cut elements `offset` to ``offset + length`` of a row into slices.

    Returns
    -------
    int
        Element i is in slice i mod this.
    ndarray of int
        Contiguous slices, starting here.
    None
        Slices are of no use: there are fewer than k, or hardly more.
    """
    if not rule.buckets:
        # 8 slices per entry wanted let 1.07 k candidates through. An odd number, because data has even periods.
        count = min(max(8 * rule.k, LANES), length // 4) | 1
        return count if count >= rule.k + rule.k // 4 else None
    if rule.interleaved:
        count = rule.buckets * min(rule.kept, length // rule.buckets)
        return count if count >= rule.k else None
    first, last = (int(b) for b in rule.bucket(np.array([offset, offset + length - 1])))
    if (last - first + 1) * rule.kept < rule.k:
        return None
    starts = rule.start(np.arange(first, last + 2))
    parts = starts[:-1, None] + np.diff(starts)[:, None] * np.arange(rule.kept) // rule.kept - offset
    cuts = np.append(0, parts[(parts > 0) & (parts < length)])
    return cuts if cuts.size >= rule.k else None


def slice_best(better: np.ufunc, scores: Array, how: int | Array) -> Array:
    """Best scores of slices.

    Parameters
    ----------
    better : ufunc
        Maximum or minimum.
    scores : ndarray, shape (rows, length)
        Parts of rows.
    how : int or ndarray
        From `slices`.

    Returns
    -------
    ndarray, shape (rows, count)
        The best score of each slice.
    """
    best: Array
    if not isinstance(how, int):
        best = better.reduceat(scores, how, axis=1)
        return best
    rows, length = scores.shape
    whole = length - length % how
    if whole > STEPS * how:
        best = better.reduce(scores[:, :whole].reshape(rows, -1, how), axis=1)
    else:
        best = scores[:, :how].copy()
        for start in range(how, whole, how):
            better(best, scores[:, start : start + how], out=best)
    tail = length - whole
    if tail:
        head = best[:, :tail]
        better(head, scores[:, whole:], out=head)
    return best


def bound(order: Order, rule: Rule, scores: Array, how: int | Array) -> Array:
    """Find the k-th least cost of the best of slices; shape (rows, length) to (rows,)."""
    costs = order.costs_of_scores(slice_best(order.better, scores, how))
    kth: Array = np.partition(costs, rule.k - 1, axis=1)[:, rule.k - 1]
    return kth


def bound_of_costs(rule: Rule, costs: Array, how: int | Array) -> Array:
    """Do the same with costs, which are exact where float scores may not be."""
    best = slice_best(np.minimum, costs, how)
    best.partition(rule.k - 1, axis=1)
    return best[:, rule.k - 1]


def sampled(order: Order, rule: Rule, bits: Array) -> Array | None:
    """Guess a bound from a sample.

    Parameters
    ----------
    bits : ndarray, shape (rows, n)
        Whole rows, in any strides.

    Returns
    -------
    ndarray, shape (rows,), or None
        A cost for each row; None where the sample would be too small to tell.
    """
    n = rule.n
    stride = max(n // min(max(n // 32, SAMPLE), 4 * SAMPLE), 1) | 1  # odd, because data has even periods
    size = -(-n // stride)
    share = rule.passing / n
    rank = int(size * share + 3 * math.sqrt(size * share * (1 - share))) + 1
    if size * share < 64 or rank > size * 3 // 4:
        return None
    costs = order.costs(np.ascontiguousarray(bits[:, ::stride]))
    costs.partition(rank, axis=1)
    return costs[:, rank]
