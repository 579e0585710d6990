"""Rows that are too long for a block: each in chunks, and in parts where threads outnumber rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from . import stream, threads
from .bound import sampled, slices
from .buckets import crowded, reduce_buckets
from .certificate import ahead, worst
from .keys import Array, Order
from .rank import best, fill, new_pile, to_indices
from .rule import Rule
from .stream import Stream, answers

__all__ = ["LongRow", "long_rows"]


class LongRow(NamedTuple):
    """A row to select from, and where its answers go.

    Attributes
    ----------
    rule : Rule
        What to pick.
    bits : ndarray, shape (rule.n,)
        Bits of the elements, in any stride.
    first : int
        Index of the first of them.
    values, indices : ndarray, shape (rule.k,)
        Receive the answers.
    exact : ndarray of bool, shape (1,), or None
        Receives whether they are the exact ones.
    """

    rule: Rule
    bits: Array
    first: int
    values: Array
    indices: Array
    exact: Array | None


def long_rows(order: Order, rows: list[LongRow]) -> None:
    """Select from every row, best first."""
    if not rows:
        return
    parts = max(threads.width() // len(rows), 1)

    def whole(row: LongRow) -> None:
        _select(order, row, parts)

    if parts > 1:
        for row in rows:
            whole(row)
    else:
        threads.run(whole, rows, len(rows))


def _select(order: Order, long: LongRow, parts: int) -> None:
    """Select from one row on up to `parts` threads."""
    rule, row = long.rule, long.bits
    n, k = rule.n, rule.k
    chunk = stream.CHUNK
    parts = min(parts, -(-n // chunk))
    edges = [n * part // parts for part in range(parts + 1)]

    def chunks(part: int) -> Iterator[slice]:
        for start in range(edges[part], edges[part + 1], chunk):
            yield slice(start, min(start + chunk, edges[part + 1]))

    def search(guess: int | None, most: float) -> Array | None:
        """Indices of the answers; None where the guess was wrong, or more than `most` elements had to be looked at."""

        def work(part: int) -> Array | None:
            found = Stream(order, rule, guess)
            for where in chunks(part):
                found.feed(np.ascontiguousarray(row[where]), where.start)
                if found.seen > most:
                    return None
            return found.cut()

        piles = [pile for pile in threads.run(work, range(parts), parts) if pile is not None]
        if len(piles) < parts:
            return None
        pile = piles[0]
        if parts > 1:
            pile = np.concatenate(piles, axis=1)
            piles.clear()  # before more memory is taken
            pile = answers(rule, pile)
        return to_indices(pile) if pile.shape[1] == k else None

    def rank() -> Array:
        """Indices of the best k of all elements."""
        pile = new_pile(order.bits, n, (n,))

        def work(part: int) -> None:
            for where in chunks(part):
                index = np.arange(where.start, where.stop, dtype=np.uint64)
                fill(pile[:, where], order.costs(np.ascontiguousarray(row[where])), index)

        threads.run(work, range(parts), parts)
        return to_indices(best(pile, k))

    def pick() -> Array:
        if not rule.buckets and 2 * k > n:
            return rank()
        # Reducing the buckets takes a table of all they keep: not where that is out of proportion.
        reducible = rule.buckets and rule.candidates <= max(4 * k, n // 16)
        guess = sampled(order, rule, row[None])
        blind = guess is None and slices(rule, chunk) is None  # nothing to find a threshold by
        found = None
        if not (reducible and (blind or crowded(order, rule))):
            found = search(None if guess is None else int(guess[0]), 4 * rule.passing + n / 32 if reducible else n)
        if found is None and reducible:
            found = reduce_buckets(order, rule, row[None], sorted=True, shared=parts > 1)[0]
        if found is None:
            found = search(None, n)
        assert found is not None
        return found

    def is_exact(found: Array) -> bool:
        cost, index = worst(order, row[None], found[None])

        def work(part: int) -> int:
            counts = (ahead(order, row[None, where], cost, index - where.start) for where in chunks(part))
            return sum(int(count[0]) for count in counts)

        return sum(threads.run(work, range(parts), parts)) == k - 1

    found = pick()
    if long.exact is not None:
        long.exact[...] = not rule.buckets or is_exact(found)
    np.take(row, found, out=long.values, mode="clip")  # no index is clipped, but others make a copy
    found += long.first
    long.indices[...] = found
