"""One row, a chunk at a time, with a threshold that rises: for rows of any length, and for any data.

Candidates are stored until there are a few times k of them, then cut to the best k that the buckets keep. Whatever
comes later and is not strictly better than the worst of those cannot be among the answers. So memory is in proportion
to k, time to n.
"""

from __future__ import annotations

import numpy as np

from .bound import bound, slices
from .keys import Array, Order
from .rank import best_of_list
from .rule import Rule, crowded_out

__all__ = ["Stream"]

CHUNK_BYTES = 1 << 19
"""Input looked at in one go; it passes through the cache a few times."""


class Stream:
    """The selection from one row, fed in the order of the indices.

    Parameters
    ----------
    order : Order
        Which elements are better.
    rule : Rule
        What to pick.
    guess : int, optional
        A cost that all answers are hoped not to exceed: if they do, `cut` returns fewer than k.
    """

    def __init__(self, order: Order, rule: Rule, guess: int | None = None) -> None:
        self.order = order
        self.rule = rule
        self.guessed = guess is not None
        self.worst = guess  # the greatest cost still of interest; None: all are
        self.costs: list[Array] = []
        self.indices: list[Array] = []
        self.stored = 0

    def feed(self, bits: Array, offset: int) -> None:
        """Take the elements of one chunk.

        Parameters
        ----------
        bits : ndarray, shape (length,), contiguous
            Elements `offset` to ``offset + length`` of the row.
        offset : int
            Not less than all that came before.
        """
        if self.worst is not None and self.worst < 0:
            return  # k of the best there can be are found
        how = None if self.guessed else slices(self.rule, bits.size, offset)
        if how is not None:
            here = int(bound(self.order, self.rule, self.order.scores(bits[None]), how)[0])
            self.worst = here if self.worst is None else min(self.worst, here)
        if self.worst is None:
            self._store(self.order.costs(bits), np.arange(offset, offset + bits.size))
        else:
            found = np.flatnonzero(self.order.passing(bits, self.worst))
            if found.size:
                self._store(self.order.costs(bits[found]), found + offset)

    def _store(self, cost: Array, index: Array) -> None:
        self.costs.append(cost)
        self.indices.append(index)
        self.stored += cost.size
        if self.stored > 2 * self.rule.k + 1024:
            self.cut(sorted=False)

    def cut(self, *, sorted: bool = True) -> tuple[Array, Array]:
        """Keep the best k of what is stored; returns their costs and indices, best first if `sorted`."""
        rule = self.rule
        if not self.costs:
            return np.empty(0, self.order.unsigned), np.empty(0, np.int64)
        cost, index = np.concatenate(self.costs), np.concatenate(self.indices)
        if rule.buckets:
            out = crowded_out(rule.bucket(index), cost, rule.kept, rule.buckets)
            if out is not None:
                cost, index = np.delete(cost, out), np.delete(index, out)
        cost, index = best_of_list(cost, index, rule.k, rule.n, sorted=sorted)
        if cost.size == rule.k:
            self.worst = int(cost.max()) - 1
        self.costs, self.indices, self.stored = [cost], [index], cost.size
        return cost, index
