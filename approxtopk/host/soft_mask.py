"""The soft mask of a block of rows: p-norms, where few entries matter."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from .keys import Array, Mask
from .soft_find import Found, Waiting, candidates, rows_of, split
from .soft_rows import BLOCK, Input, Map, Output
from .soft_solve import Piece, Segments, power, root

__all__ = ["fill_special", "pnorm_rows", "valid"]


def valid(k: Array, l: Array) -> Mask:
    """Tell which rows have an answer."""
    return (l > 0) & (l < np.inf) & ~np.isnan(k)


def fill_special(x: Array, k: Array, out: Array, encode: Callable[[Array], Array], rows: Array) -> None:
    """Answer rows that infinities decide: no more than k entries above -inf, or no fewer than k of +inf."""
    for row in rows.tolist():
        line, wanted = x[row], float(k[row])
        inside = line > -np.inf
        if np.count_nonzero(inside) <= wanted:
            out[row] = encode(inside.astype(np.float64))
        else:
            top = line == np.inf
            out[row] = encode(np.where(top, wanted / np.count_nonzero(top), 0.0))


def pnorm_rows(x: Input, k: Array, l: Array, p: float, out: Output, run: Map) -> None:
    """Write ``clip((x - tau) / l, 0, 1) ** (1 / (p - 1))`` that sums to k.

    Parameters
    ----------
    x : Input, shape (rows, n)
        Values.
    k, l : ndarray of float64, shape (rows,)
        As asked for, valid or not.
    out : Output
        Full of zeros.
    """
    n = x.shape[1]
    good = valid(k, l)
    wanted = good & (k > 0) & (k < n)
    whole = np.where(wanted, np.ceil(k), 1).astype(np.int64)
    double = x.type == np.float64
    waiting = Waiting(n)
    for these, rows in x.blocks():
        found = candidates(rows, whole[these], wanted[these], partial(_least, l[these]), run)
        nan, finite = found.nan, np.isfinite(found.kth)
        full = np.flatnonzero(good[these] & ~nan & (k[these] >= n))
        fill_special(rows, k[these], out.rows[these], out.encode, full)
        out.rows[these][~good[these] | nan] = out.encode(np.nan)
        wanted[these] &= ~nan
        if not finite[wanted[these]].all():
            decided = np.flatnonzero(wanted[these] & ~finite)
            fill_special(rows, k[these], out.rows[these], out.encode, decided)
            wanted[these] &= finite
        waiting.add(these, found)
        if waiting.entries > BLOCK or these.stop == len(k):
            part, found = waiting.take()
            if wanted[part].any():
                _solve(found, part, wanted[part], k[part], l[part], 1 / (p - 1), double, out, run)


def _least(l: Array, kth: Array) -> Array:
    """Give a lower bound of tau."""
    bound: Array = kth - l
    return bound


def _solve(
    found: Found,
    part: slice,
    wanted: Mask,
    k: Array,
    l: Array,
    a: float,
    double: bool,
    out: Output,
    run: Map,
) -> None:
    """Solve for rows `part` of the group, of which some are wanted."""
    places, counts = found.places, found.counts
    n = out.rows.shape[1]
    # Counted from the K-th largest entry c, in units of l: w = (x - c) / l, tau = c + s l with s in [-1, 0).
    w = found.values
    w -= rows_of(found.kth, counts)
    w /= rows_of(l, counts)
    inside = np.abs(w) < 1
    ones = w >= 1
    if not wanted.all():
        here = np.repeat(wanted, counts)
        inside &= here
        ones &= here
    ones = places[ones]
    if not inside.all():
        places, w = places[inside], w[inside]
    left = (k - split(ones, part, n))[wanted]
    segments = Segments(w, split(places, part, n)[wanted])
    raised = power(a)

    def clipped(these: Segments, piece: Piece, s: Array) -> Array:
        u: Array = these.values[piece.start : piece.stop] - these.spread(s, piece)
        return np.clip(u, 0, 1, out=u)

    def evaluate(these: Segments, rows: Array, s: Array) -> tuple[Array, Array]:
        def terms(piece: Piece) -> tuple[Array, Array]:
            u = clipped(these, piece, s)
            y, below = raised(u)
            return y, below - np.floor(u)  # entries at 1 stay there

        y, below = these.totals(terms, run)
        sought = left[rows]
        # Newton on the norm, the sum to the power 1 / a: straight where no entry is at a bound.
        return y - sought, y * (1 - (sought / y) ** (1 / a)) / below

    low = np.full(left.size, -1.0)
    noise = np.maximum(np.minimum(left, 1) * (2.0**-51 if double else 2.0**-31), left * 2.0**-51)
    # Roots of u are steep where it is 0: a short step means little there.
    tiny = 2.0**-70 if a < 1 else 2.0**-60 if double else 2.0**-36
    s = root(segments, evaluate, low, low, np.zeros(left.size), noise, tiny)

    def write(piece: Piece) -> None:
        y, _ = raised(clipped(segments, piece, s))
        out.put(places[piece.start : piece.stop], y)

    out.put(ones, 1.0)
    run(write, segments.pieces)
