"""A cost that all of the answers do not exceed, found without looking for them.

Slices, a bound that holds: the best elements of disjoint slices of a row are that many distinct elements, so the k-th best among them is no
better than the row's k-th best. With buckets the slices must be parts of buckets, at most k_b of each: then the
slices' best elements also survive the buckets' rule. It takes several slices per entry wanted, so it is for k that are small.

A sample, a bound that nearly always holds: the cost below which a little more than the right share of a sample lies.
Whoever uses it must count the answers, and do without it where there are fewer than k.
"""

from __future__ import annotations

import math

import numpy as np

from .keys import Array, Order
from .rule import Rule

__all__ = ["bound", "sampled", "slice_best", "slices"]

SAMPLE = 8192
"""Least size of a sample."""

LANES = 512
"""Fewer slices than this do not keep the vector unit busy."""

STEPS = 16
"""Up to so many elements a slice, NumPy is faster step by step (over all rows at once) than with one reduction."""


def slices(rule: Rule, length: int) -> int:
    """How many interleaved slices to cut `length` elements of a row into; 0 if this is of no use."""
    if not rule.buckets:
        # 8 slices per entry wanted let 1.07 k candidates through. An odd number, because data has even periods.
        count = min(max(8 * rule.k, LANES), length // 4) | 1
        return count if count >= rule.k + rule.k // 4 else 0
    if not rule.interleaved:
        return 0
    count = rule.buckets * min(rule.kept, max(length // (2 * rule.buckets), 1))
    return count if rule.k <= count <= length else 0


def slice_best(order: Order, scores: Array, count: int) -> Array:
    """Best scores of interleaved slices.

    Parameters
    ----------
    scores : ndarray, shape (rows, length)
        With ``length >= count``.
    count : int
        Element i is in slice ``i % count``.

    Returns
    -------
    ndarray, shape (rows, count)
        The best score of each slice.
    """
    rows, length = scores.shape
    whole = length - length % count
    if whole > STEPS * count:
        best: Array = order.better.reduce(scores[:, :whole].reshape(rows, -1, count), axis=1)
    else:
        best = scores[:, :count].copy()
        for start in range(count, whole, count):
            order.better(best, scores[:, start : start + count], out=best)
    tail = length - whole
    if tail:
        head = best[:, :tail]
        order.better(head, scores[:, whole:], out=head)
    return best


def bound(order: Order, rule: Rule, scores: Array, count: int) -> Array:
    """The k-th least cost of the best of `count` slices; shape (rows, length) to (rows,)."""
    costs = order.costs_of_scores(slice_best(order, scores, count))
    kth: Array = np.partition(costs, rule.k - 1, axis=1)[:, rule.k - 1]
    return kth


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
