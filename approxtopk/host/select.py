"""The host path's one entry: cuts the work into blocks of rows, or a long row into chunks, and runs them on threads."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from ..dtypes import DType
from . import stream, threads
from .block import select_rows
from .bound import sampled, slices
from .buckets import crowded, reduce_buckets
from .keys import Array, Order
from .rank import best, fill, new_pile, to_indices
from .rule import Rule
from .stream import Stream, answers

__all__ = ["select"]

BLOCK_BYTES = 1 << 21
"""Input of one block of rows. It should stay in the cache, yet be worth some fifty NumPy calls: measured."""

ALONE = 1 << 16
"""Elements that are not worth waking another thread for."""

Where = tuple[Any, ...]

_order = lru_cache(maxsize=64)(Order)


def select(
    x: Array,
    values: Array,
    indices: Array,
    *,
    dtype: DType,
    k: int,
    axis: int,
    largest: bool,
    sorted: bool,
    buckets: int | None,
    k_per_bucket: int | None,
    interleaved: bool,
) -> None:
    """Write the best `k` entries along an axis, and where they are.

    Parameters
    ----------
    x : ndarray of unsigned integers, shape (..., n, ...)
        The elements' bits, in any strides.
    values : ndarray like `x`, shape (..., k, ...)
        Receives the bits of the answers.
    indices : ndarray of int32 or int64, shape (..., k, ...)
        Receives their positions along `axis`.
    dtype : DType
        What the bits mean.
    k : int
        Entries to pick, 0 < k <= n.
    axis : int
        The axis of n.
    largest, sorted : bool
        Direction, and whether answers must come best first.
    buckets, k_per_bucket : int or None
        b and k_b of the bucketed algorithm; None: exact.
    interleaved : bool
        Whether element i is in bucket i mod b, or in contiguous runs.
    """
    x, values, indices = (np.moveaxis(a, axis, -1) for a in (x, values, indices))
    n = x.shape[-1]
    order = _order(dtype, largest)
    rule = Rule.of(n, k, buckets, k_per_bucket, interleaved)
    if n * x.itemsize > BLOCK_BYTES:
        _long_rows(order, rule, x, values, indices)
        return
    lead = x.shape[:-1]

    def block(where: Where) -> None:
        part = x[where]
        bits = np.ascontiguousarray(part).reshape(-1, n)
        best = select_rows(order, rule, bits, sorted=sorted)
        shape = (*part.shape[:-1], k)
        indices[where] = best.reshape(shape)
        best += (np.arange(bits.shape[0]) * n)[:, None]
        values[where] = bits.reshape(-1)[best].reshape(shape)

    rows = prod(lead)
    at_once = max(BLOCK_BYTES // (n * x.itemsize), 1)
    if rows * n > ALONE:  # a block for everybody
        at_once = min(at_once, -(-rows // threads.width()))
    parts = list(_blocks(lead, at_once))
    threads.run(block, parts, len(parts))


def _blocks(lead: tuple[int, ...], rows: int) -> Iterator[Where]:
    """Index tuples that cut leading axes into blocks of about `rows` rows, in order.

    Trailing axes are taken whole while they fit, the one before them in pieces, those before it one by one.
    """
    whole, cut = 1, len(lead)
    while cut and whole * lead[cut - 1] <= rows:
        cut -= 1
        whole *= lead[cut]
    if not cut:
        yield ()
        return
    step = max(rows // whole, 1)
    for outer in np.ndindex(lead[: cut - 1]):
        for start in range(0, lead[cut - 1], step):
            yield (*outer, slice(start, start + step))


def _long_rows(order: Order, rule: Rule, x: Array, values: Array, indices: Array) -> None:
    """Select from rows that are too long for a block: each in chunks, and in parts where threads outnumber rows."""
    n, k = rule.n, rule.k
    rows = list(np.ndindex(x.shape[:-1]))
    chunk = stream.CHUNK_BYTES // x.itemsize
    parts = max(min(threads.width() // len(rows), -(-n // chunk)), 1)
    edges = [n * part // parts for part in range(parts + 1)]

    def chunks(part: int) -> Iterator[slice]:
        for start in range(edges[part], edges[part + 1], chunk):
            yield slice(start, min(start + chunk, edges[part + 1]))

    def search(row: Array, guess: int | None, most: float) -> Array | None:
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

    def rank(row: Array) -> Array:
        """Indices of the best k of all elements."""
        pile = new_pile(order.bits, n, (n,))

        def work(part: int) -> None:
            for where in chunks(part):
                index = np.arange(where.start, where.stop, dtype=np.uint64)
                fill(pile[:, where], order.costs(np.ascontiguousarray(row[where])), index)

        threads.run(work, range(parts), parts)
        return to_indices(best(pile, k))

    def pick(row: Array) -> Array:
        if not rule.buckets and 2 * k > n:
            return rank(row)
        # Reducing the buckets takes a table of all they keep: not where that is out of proportion.
        reducible = rule.buckets and rule.candidates <= max(4 * k, n // 16)
        guess = sampled(order, rule, row[None])
        blind = guess is None and slices(rule, chunk) is None  # nothing to find a threshold by
        found = None
        if not (reducible and (blind or crowded(order, rule))):
            found = search(row, None if guess is None else int(guess[0]), 4 * rule.passing + n / 32 if reducible else n)
        if found is None and reducible:
            found = reduce_buckets(order, rule, row[None], sorted=True, shared=parts > 1)[0]
        if found is None:
            found = search(row, None, n)
        assert found is not None
        return found

    def whole(where: tuple[int, ...]) -> None:
        row = x[where]
        found = pick(row)
        indices[where] = found
        np.take(row, found, out=values[where], mode="clip")  # no index is clipped, but others make a copy

    if parts > 1:
        for where in rows:
            whole(where)
    else:
        threads.run(whole, rows, len(rows))
