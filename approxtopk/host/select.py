"""The host path's one entry: cuts the work into blocks of rows, and rows too long for one, and runs it on threads."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..dtypes import DType
from . import threads
from .block import select_rows
from .certificate import are_exact
from .extents import extents
from .keys import Array, Order
from .long import LongRow, long_rows
from .rule import Rule

__all__ = ["ALONE", "Where", "blocks", "select"]

BLOCK_BYTES = 1 << 21
"""Input of one block of rows. It should stay in the cache, yet be worth some fifty NumPy calls: measured."""

ALONE = 1 << 16
"""Elements that are not worth waking another thread for."""

Where = tuple[Any, ...]

_order = lru_cache(maxsize=64)(Order)
_rule = lru_cache(maxsize=256)(Rule.of)


class Call(NamedTuple):
    """What `select` is asked for, with the axis moved to the end of all arrays."""

    order: Order
    x: Array
    values: Array
    indices: Array
    exact: Array | None
    k: int
    sorted: bool
    buckets: int | None
    kept: int | None
    interleaved: bool


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
    starts: Array | None = None,
    lengths: Array | None = None,
    exact: Array | None = None,
    padding: int = 0,
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
    starts, lengths : ndarray of integers or None, of x's shape without the axis
        Which elements of each row exist: see `extents`.
    exact : ndarray of bool or None, of the same shape
        Receives whether each row's answers are the exact ones.
    padding : int
        Bits that stand for a value where a row has no element left; the index is -1 there.
    """
    if axis not in (-1, x.ndim - 1):
        x, values, indices = (np.moveaxis(a, axis, -1) for a in (x, values, indices))
    call = Call(_order(dtype, largest), x, values, indices, exact, k, sorted, buckets, k_per_bucket, interleaved)
    if starts is None and lengths is None:
        _whole(call)
    else:
        _ragged(call, *extents(x.shape, starts, lengths), padding)


def _whole(call: Call) -> None:
    """Select from rows of which all elements exist."""
    order, x, values, indices, exact, k, *_ = call
    lead, n = x.shape[:-1], x.shape[-1]
    rule = _rule(n, k, call.buckets, call.kept, call.interleaved)
    if n * x.itemsize > BLOCK_BYTES:
        long_rows(order, [_long_row(call, rule, where, 0) for where in np.ndindex(lead)])
        return

    def block(where: Where) -> None:
        part = x[where]
        bits = np.ascontiguousarray(part).reshape(-1, n)
        best = select_rows(order, rule, bits, sorted=call.sorted)
        shape = (*part.shape[:-1], k)
        indices[where] = best.reshape(shape)
        if exact is not None:
            exact[where] = are_exact(order, rule, bits, best).reshape(shape[:-1])
        best += (np.arange(bits.shape[0]) * n)[:, None]
        values[where] = bits.reshape(-1)[best].reshape(shape)

    rows = prod(lead)
    at_once = max(BLOCK_BYTES // (n * x.itemsize), 1)
    if rows * n > ALONE:  # a block for everybody
        at_once = min(at_once, -(-rows // threads.width()))
    parts = list(blocks(lead, at_once))
    threads.run(block, parts, len(parts))


def blocks(lead: tuple[int, ...], rows: int) -> Iterator[Where]:
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


def _ragged(call: Call, first: Array, length: Array, padding: int) -> None:
    """Select from rows of many lengths: in blocks of rows of about one length.

    A block is a table of what exists. Its shorter rows are filled up with the worst element there is: everything
    before it ranks before it, and with interleaved buckets it moves nothing to another bucket.

    Parameters
    ----------
    first, length : ndarray of int64, shape (rows,)
        The elements that exist.
    """
    order, x, values, indices, exact, k, *_ = call
    if x.ndim == 1:
        x, values, indices = x[None], values[None], indices[None]
        exact = None if exact is None else exact[None]
        call = call._replace(x=x, values=values, indices=indices, exact=exact)
    values[...] = padding
    indices[...] = -1
    if exact is not None:
        exact[...] = True
    longest_first = np.argsort(-length, kind="stable")[: np.count_nonzero(length)]
    first, length = first[longest_first], length[longest_first]
    where = np.unravel_index(longest_first, x.shape[:-1])

    def rule_of(n: int) -> Rule:  # not from the cache: many lengths would leave no other rule in it
        return Rule.of(n, min(k, n), call.buckets, call.kept, call.interleaved)

    def block(part: slice) -> None:
        at, start, size = tuple(c[part] for c in where), first[part], length[part]
        rule = rule_of(int(size[0]))
        bits = np.full((size.size, rule.n), order.worst, x.dtype)
        rows = zip(bits, start.tolist(), size.tolist(), *(c.tolist() for c in at), strict=True)
        for row, begin, count, *this in rows:
            row[:count] = x[(*this, slice(begin, begin + count))]
        best = select_rows(order, rule, bits, sorted=call.sorted)
        if exact is not None:
            exact[at] = are_exact(order, rule, bits, best) | (size <= rule.k)
        there = best < size[:, None]
        found = np.take_along_axis(bits, best, axis=1)
        places: Where = (*at, slice(rule.k))
        values[places] = np.where(there, found, values.dtype.type(padding))
        indices[places] = np.where(there, best + start[:, None], -1)

    room = BLOCK_BYTES // x.itemsize
    long = int(np.count_nonzero(length > room))
    rows = zip(first[:long].tolist(), length[:long].tolist(), *(c[:long].tolist() for c in where), strict=True)
    long_rows(order, [_long_row(call, rule_of(n), tuple(this), start) for start, n, *this in rows])
    elements = int(length[long:].sum())
    if elements > ALONE:  # a block for everybody
        room = min(room, -(-elements // threads.width()))
    alike = call.buckets is not None and not call.interleaved
    parts = list(_parts(length, long, room, alike=alike))
    threads.run(block, parts, len(parts))


def _parts(length: Array, start: int, room: int, *, alike: bool) -> Iterator[slice]:
    """Cut rows from `start` on, the longest first, into tables of `room` elements; of rows of one length if `alike`."""
    while start < length.size:
        end = min(start + max(room // int(length[start]), 1), length.size)
        if alike:
            end = start + int(np.count_nonzero(length[start:end] == length[start]))
        yield slice(start, end)
        start = end


def _long_row(call: Call, rule: Rule, where: Where, first: int) -> LongRow:
    """The row at `where`, which begins at its element `first`."""
    bits = call.x[(*where, slice(first, first + rule.n))]
    answers: Where = (*where, slice(rule.k))
    exact = None if call.exact is None else call.exact[(*where, None)]
    return LongRow(rule, bits, first, call.values[answers], call.indices[answers], exact)
