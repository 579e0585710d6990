"""One row, a chunk at a time, with a threshold that rises: for rows of any length, and for any data.

Candidates are stored until there are a few times k of them, then cut to the best k that the buckets keep. Whatever
comes later and is not strictly better than the worst of those cannot be among the answers. So memory is in proportion
to k, time to n.
"""

from __future__ import annotations

import numpy as np

from .bound import bound, slices
from .keys import Array, Order
from .rank import best, costs_of, indices_of, new_pile, pile_of
from .rule import Rule, crowded_out

__all__ = ["Stream", "answers"]

CHUNK = 1 << 19
"""Elements looked at in one go. With a quarter of this, which stays in the cache, a row takes three times as long: a
chunk is a hundred calls of NumPy, between which threads wait for each other. With twice as many it takes a sixth less
time, and twice the memory."""


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
        self.piles: list[Array] = []
        self.stored = 0
        self.seen = 0  # candidates so far

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
            self._store(bits, np.arange(offset, offset + bits.size))
        else:
            found = np.flatnonzero(self.order.passing(bits, self.worst))
            if found.size:
                self._store(bits[found], found + offset)

    def _store(self, bits: Array, index: Array) -> None:
        self.piles.append(pile_of(self.order.costs(bits), index, self.rule.n))
        self.stored += bits.size
        self.seen += bits.size
        if self.stored > 2 * self.rule.k + 1024:
            self.cut()

    def cut(self) -> Array:
        """Keep the best k of what is stored; returns them as a pile, best first."""
        if not self.piles:
            return new_pile(self.order.bits, self.rule.n, (0,))
        pile = np.concatenate(self.piles, axis=1)
        self.piles.clear()
        pile = answers(self.rule, pile)
        if pile.shape[1] == self.rule.k:
            self.worst = int(costs_of(pile)[-1]) - 1
        self.piles, self.stored = [pile], pile.shape[1]
        return pile


def answers(rule: Rule, pile: Array) -> Array:
    """Pick the best k that the buckets keep from a row's candidates, in the order of the indices where costs are equal.

    The memory of the candidates may be used again.
    """
    if rule.buckets:
        out = crowded_out(rule.bucket(indices_of(pile)), pile, rule.kept, rule.buckets)
        if out is not None:
            pile = np.delete(pile, out, axis=1)
    return best(pile, rule.k)
