"""Whether answers are the exact ones: no element but the answers themselves ranks before the worst of them."""

from __future__ import annotations

import numpy as np

from .keys import Array, Order
from .rule import Rule

__all__ = ["ahead", "are_exact", "worst"]


def are_exact(order: Order, rule: Rule, bits: Array, answers: Array) -> Array:
    """Tell of every row of a block whether its answers are the best there are.

    Parameters
    ----------
    bits : ndarray, shape (rows, n)
        The elements' bits.
    answers : ndarray of int64, shape (rows, k)
        Indices of the answers, in any order.

    Returns
    -------
    ndarray of bool, shape (rows,)
    """
    if not rule.buckets:
        return np.ones(len(bits), np.bool_)
    return np.equal(ahead(order, bits, *worst(order, bits, answers)), rule.k - 1)


def worst(order: Order, bits: Array, answers: Array) -> tuple[Array, Array]:
    """Cost and index of every row's worst answer."""
    costs = order.costs(np.take_along_axis(bits, answers, axis=1))
    cost = costs.max(axis=1)
    return cost, np.where(costs == cost[:, None], answers, -1).max(axis=1)


def ahead(order: Order, bits: Array, cost: Array, index: Array) -> Array:
    """Count each row's elements that rank before one of this cost at this index."""
    rows, n = bits.shape
    limit, sound = order.limits(cost)
    mask = order.passes(order.scores(bits), limit[:, None])
    if sound is not None and not sound.all():
        mask[~sound] = order.costs(bits[~sound]) <= cost[~sound, None]
    found = np.flatnonzero(mask)
    row = found // n
    costs = order.costs(bits.reshape(-1)[found])
    first = costs < cost[row]
    first |= (costs == cost[row]) & (found - row * n < index[row])
    return np.bincount(row[first], minlength=rows)
