"""Derivatives of the soft operators, of a group of rows: sums over the entries that move, then a second look."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .keys import Array, Mask
from .soft_find import Found, Waiting, split, through
from .soft_rows import BLOCK, Input, Map, Output
from .soft_solve import Piece, Segments, power

__all__ = ["Results", "magnitude_vjp_rows", "mask_vjp_rows"]

CAP = {4: 1e30, 8: 1e150}
"""By bytes, the most a slope may be."""

REMEMBERED = 1 << 18
"""Entries of which all terms are kept, at most."""

THIRD = 2.0**-120
"""Cube roots of less are left to `np.cbrt`."""

Terms = Callable[[Piece], tuple[Array, ...]]


class Results(NamedTuple):
    """Where the derivatives of a group go: `dx` is full of zeros, `dk` and `dl` are float64 zeros, one a row."""

    dx: Output
    dk: Array
    dl: Array


def mask_vjp_rows(y: Input, g: Input, l: Array, kind: str, p: float, into: Results, run: Map) -> None:
    """Write the derivatives of a mask from the mask: only entries strictly between 0 and 1 move.

    Parameters
    ----------
    y, g : Input, shape (rows, n)
        The mask, and the derivative by it.
    l : ndarray of float64, shape (rows,)
        Strength.
    """
    cap = CAP[y.type.itemsize]

    def spoilt(these: slice, rows: Array) -> Mask:
        result: Mask = _invalid(l[these]) | np.isnan(rows.max(axis=1))
        return result

    def moving(these: slice, rows: Array) -> Mask:
        mask: Mask = rows > 0
        mask &= rows < 1
        return mask

    def derive(rows: Array, places: Array, segments: Segments) -> None:
        strength = l[rows]

        def terms(piece: Piece) -> tuple[Array, ...]:
            d, u = _slope(segments.values[piece.start : piece.stop], kind, p)
            d = np.minimum(d / segments.spread(strength, piece), cap)
            return d, g.at(places[piece.start : piece.stop]).astype(np.float64, copy=False), u

        def products(piece: Piece) -> tuple[Array, ...]:
            d, gradient, u = found(piece)
            return d, d * gradient, d * u

        def write(piece: Piece) -> tuple[Array]:
            d, gradient, u = found(piece)
            change = d * (gradient - segments.spread(mean_g, piece))
            into.dx.put(places[piece.start : piece.stop], change)
            return (change * (u - segments.spread(mean_u, piece)),)  # it sums to what d g (u - ubar) does

        found = _once(segments, terms)
        total, by_g, by_u = segments.totals(products, run)
        mean_g, mean_u = by_g / total, by_u / total
        into.dl[rows] = -segments.totals(write, run)[0]
        into.dk[rows] = mean_g

    _derive(y, spoilt, moving, derive, into, run)


def magnitude_vjp_rows(x: Input, g: Input, tau: Array, l: Array, p: float, into: Results, run: Map) -> None:
    """Write the derivatives of the magnitude operator.

    Parameters
    ----------
    x, g : Input, shape (rows, n)
        The values, and the derivative by what came of them.
    tau, l : ndarray of float64, shape (rows,)
        The thresholds found, and the strength.
    """
    a = 1 / (p - 1)
    raised = power(a)
    threshold = tau.astype(x.type)
    threshold = np.where(threshold > tau, np.nextafter(threshold, np.zeros_like(threshold)), threshold)

    def spoilt(these: slice, rows: Array) -> Mask:
        return _invalid(l[these]) | np.isnan(tau[these])

    def moving(these: slice, rows: Array) -> Mask:
        mask: Mask = np.abs(rows) > threshold[these, None]
        return mask

    def derive(rows: Array, places: Array, segments: Segments) -> None:
        level, strength = tau[rows], l[rows]

        def terms(piece: Piece) -> tuple[Array, ...]:
            values = segments.values[piece.start : piece.stop].astype(np.float64)
            gradient = g.at(places[piece.start : piece.stop]).astype(np.float64, copy=False)
            limit = segments.spread(level, piece)
            z = np.abs(values) - limit
            r, _ = raised(z / segments.spread(strength, piece))
            partly = r < limit
            r = np.where(partly, r, 0)
            return r, np.where(partly, a * r / z, 0), gradient, np.where(values < 0, -1.0, 1.0), partly

        def products(piece: Piece) -> tuple[Array, ...]:
            r, d, gradient, sign, partly = found(piece)
            return r, d, np.where(partly, (1 + d) * (sign * gradient), 0)

        def write(piece: Piece) -> tuple[Array]:
            r, d, gradient, sign, partly = found(piece)
            mean = segments.spread(common, piece)
            change = np.where(partly, gradient + d * (gradient - sign * mean), gradient)
            into.dx.put(places[piece.start : piece.stop], change)
            return (np.where(partly, r * (sign * gradient - mean), 0),)

        found = _once(segments, terms)
        by_r, by_d, by_g = segments.totals(products, run)
        common = by_g / (by_r / level + by_d)
        common[(by_r == 0) & (by_d == 0)] = 0  # nothing is kept in part
        into.dl[rows] = -a / strength * segments.totals(write, run)[0]
        into.dk[rows] = level * common

    _derive(x, spoilt, moving, derive, into, run)


def _invalid(l: Array) -> Mask:
    mask: Mask = ~((l > 0) & (l < np.inf))
    return mask


def _derive(
    x: Input,
    spoilt: Callable[[slice, Array], Mask],
    moving: Callable[[slice, Array], Mask],
    derive: Callable[[Array, Array, Segments], None],
    into: Results,
    run: Map,
) -> None:
    """Find the entries that move, and derive for many rows at once.

    Parameters
    ----------
    x : Input
        Tells which entries move.
    spoilt : callable
        From a slice of the rows and their values to which of them are to be NaN.
    moving : callable
        From a slice of the rows and some of each one's values to which of those move.
    derive : callable
        Gets numbers of rows in which entries move, these entries' places in the group, and themselves.
    """
    rows, n = x.shape
    waiting = Waiting(n)
    for these, block in x.blocks():
        bad = spoilt(these, block)
        into.dx.rows[these][bad] = into.dx.encode(np.nan)
        into.dk[these][bad] = into.dl[these][bad] = np.nan

        def test(part: slice, these: slice = these, block: Array = block, bad: Mask = bad) -> Mask:
            mask = moving(these, block[:, part])
            mask[bad] = False
            return mask

        places = through(test, len(block), n, run)
        values = block.reshape(-1) if places.size == block.size else block.reshape(-1)[places]
        counts = split(places, slice(0, len(block)), n)
        waiting.add(these, Found(places, values, counts, counts, bad))
        if waiting.entries > BLOCK or these.stop == rows:
            part, found = waiting.take()
            there = found.counts > 0
            if there.any():
                derive(np.flatnonzero(there) + part.start, found.places, Segments(found.values, found.counts[there]))


def _slope(y: Array, kind: str, p: float) -> tuple[Array, Array]:
    """Give the slope times l, and u, of entries of a mask that are neither 0 nor 1."""
    if kind == "pnorm":
        wide = y.astype(np.float64)
        u = _root(wide, p - 1)
        return wide / u / (p - 1), u
    rest = 1 - y
    if kind == "sigmoid":
        return y * rest, np.log(y / rest)
    less = np.minimum(y, rest)
    logarithm = np.log(2 * less)
    return less, np.where(y < rest, logarithm, -logarithm)


def _root(y: Array, exponent: float) -> Array:
    """Raise numbers in (0, 1) to a power."""
    root: Array
    if exponent == 1:
        root = y
    elif exponent == 0.5:
        root = np.sqrt(y)
    elif abs(3 * exponent - 1) > 1e-12:
        root = np.power(y, exponent)
    elif not y.size or y.min() < THIRD:
        root = np.cbrt(y)
    else:  # a guess in float32, and one step of Halley's, which triples its digits: it takes a quarter of the time
        root = np.exp(np.log(y.astype(np.float32)) * np.float32(1 / 3)).astype(np.float64)
        cube = root * root * root
        root *= (cube + 2 * y) / (2 * cube + y)
    return root


def _once(segments: Segments, terms: Terms) -> Terms:
    """Remember the terms of a few pieces, which are wanted twice."""
    if segments.values.size > REMEMBERED:
        return terms
    known: dict[Piece, tuple[Array, ...]] = {}

    def remembered(piece: Piece) -> tuple[Array, ...]:
        if piece not in known:
            known[piece] = terms(piece)
        return known[piece]

    return remembered
