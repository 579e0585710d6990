"""The soft top-k of magnitudes, of a group of rows."""

from __future__ import annotations

from functools import partial

import numpy as np

from .keys import Array, Mask
from .soft_find import Found, Waiting, candidates, rows_of, split
from .soft_mask import valid
from .soft_rows import BLOCK, Input, Map, Output
from .soft_solve import Piece, Segments, power, root

__all__ = ["magnitude_rows"]

TINY = 1e-300
"""Less than any threshold that matters, and no subnormal."""

ROUNDING = 2.0**-51
"""Of a sum, about."""


def magnitude_rows(x: Input, k: Array, l: Array, p: float, out: Output, tau: Array, run: Map) -> None:
    """Write the entries of `x` that are kept, whole or in part, and the threshold of each row.

    Parameters
    ----------
    x : Input, shape (rows, n)
        Values.
    k, l : ndarray of float64, shape (rows,)
        As asked for, valid or not.
    out : Output
        Full of zeros.
    tau : ndarray of float64, shape (rows,)
        Receives the thresholds.
    """
    n, a = x.shape[1], 1 / (p - 1)
    good = valid(k, l)
    wanted = good & (k > 0) & (k < n)
    whole = np.where(wanted, np.ceil(k), 1).astype(np.int64)
    tau[:] = np.where(good, np.where(k > 0, 0.0, np.inf), np.nan)
    waiting = Waiting(n)
    for these, rows in x.blocks():
        size = np.abs(rows)
        found = candidates(size, whole[these], wanted[these], partial(_least, a, l[these]), run)
        nan, kth = found.nan, found.kth
        out.rows[these][~good[these] | nan] = out.encode(np.nan)
        tau[these][nan] = np.nan
        wanted[these] &= ~nan
        whole_rows = good[these] & ~nan & (k[these] >= n) | wanted[these] & (kth == 0)
        out.rows[these][whole_rows] = out.encode(rows[whole_rows])
        infinite = wanted[these] & np.isinf(kth)
        for row in np.flatnonzero(infinite).tolist():
            kept = rows[row]
            if np.count_nonzero(kept) > k[these][row]:  # the infinite ones are enough
                kept = np.where(np.isinf(kept), kept, 0)
                tau[these.start + row] = np.inf
            out.rows[these][row] = out.encode(kept)
        wanted[these] &= ~whole_rows & ~infinite
        waiting.add(these, found)
        if waiting.entries > BLOCK or these.stop == len(k):
            part, found = waiting.take()
            if wanted[part].any():
                _solve(x, found, part, wanted[part], k[part], l[part], a, out, tau, run)


def _least(a: float, l: Array, kth: Array) -> Array:
    """Give a lower bound of tau: there the K-th largest entry c still counts in full, as r(c) >= tau.

    It does at c - l c^(1/a), where r(c) is c, and at c/2 where that is less than r(c) there, which is (c / 2 l)^a.
    """
    bound: Array = np.maximum(kth - l * kth ** (1 / a), np.minimum(kth / 2, (kth / 2 / l) ** a))
    return bound


class _Rows:
    """Rows to solve for: ``z = (s - tau)_+, r = (z / l)^a, sum min(1, r / tau) = k`` with s = |x|.

    Parameters
    ----------
    values : ndarray of float64, shape (entries,)
        Their candidates s, row by row.
    counts : ndarray of int64, shape (rows,)
        How many each row has.
    kth, k, l : ndarray of float64, shape (rows,)
        The K-th largest s, called c; what to sum to; the strength.
    far : bool
        How tau is sought. Near c, from c/2 on: as c + v E with v in [-1, 0), and s as w = (s - c) / E. Far from it:
        as its logarithm v. So neither c - tau nor tau is ever lost beside the other.
    """

    def __init__(self, values: Array, counts: Array, kth: Array, k: Array, l: Array, a: float, far: bool) -> None:
        self.kth, self.k, self.l, self.a, self.far = kth, k, l, a, far
        # At v = -1 all from the K-th largest on count in full: see `_least`.
        self.unit = np.ones(k.size) if far else np.maximum(np.minimum(l * kth ** (1 / a), kth / 2), TINY)
        self.segments = Segments(
            values if far else (values - rows_of(kth, counts)) / rows_of(self.unit, counts), counts
        )
        self.raised = power(a)

    def tau(self, v: Array, rows: Array | slice = slice(None)) -> Array:
        """Give the threshold."""
        result: Array = np.exp(v) if self.far else self.kth[rows] + v * self.unit[rows]
        return result

    def factor(self, tau: Array, rows: Array | slice = slice(None)) -> Array:
        """Give F, by which r / tau is ((w - v) F)^a, with w - tau instead of w - v where that is far."""
        root = np.cbrt(tau) if abs(self.a - 3) < 1e-12 else tau ** (1 / self.a)
        result: Array = self.unit[rows] / self.l[rows] / root
        return result

    def sums(self, segments: Segments, start: Array, factor: Array, run: Map) -> Array:
        """Sum r / tau and (r / tau)^((a - 1) / a) where they are less than 1, and count where they are not."""

        def terms(piece: Piece) -> tuple[Array, Array, Array]:
            u: Array = segments.values[piece.start : piece.stop] - segments.spread(start, piece)
            u *= segments.spread(factor, piece)
            np.clip(u, 0, 1, out=u)
            full = np.floor(u)
            y, below = self.raised(u)
            return y - full, below - full, full

        return segments.totals(terms, run)

    def solve(self, low: Array, high: Array, tiny: float, run: Map) -> Array:
        """Find v between two bounds."""
        a = self.a

        def evaluate(these: Segments, rows: Array, v: Array) -> tuple[Array, Array]:
            tau, k = self.tau(v, rows), self.k[rows]
            factor = self.factor(tau, rows)
            y, below, full = self.sums(these, tau if self.far else v, factor, run)
            value = y - (k - full)
            value[np.abs(value) <= ROUNDING * (k - full)] = 0
            total = y + full
            # Newton on the logarithm or the norm of the total: see the mask's. Of k / total only the rest to 1 counts.
            logarithm = -np.log1p(-value / total)
            if self.far:
                return value, total * logarithm / (y + a * tau * factor * below)
            slope = a * factor * below + self.unit[rows] / tau * y
            return value, a * total * -np.expm1(-logarithm / a) / slope

        start = high if self.far else low
        return root(self.segments, evaluate, start, low, high, np.zeros(low.size), tiny)

    def write(self, v: Array, places: Array, x: Input, out: Output, run: Map) -> None:
        """Write what is kept of the candidates, which are at `places`."""
        segments, tau = self.segments, self.tau(v)
        factor = self.factor(tau)
        start = tau if self.far else v

        def write(piece: Piece) -> None:
            here = places[piece.start : piece.stop]
            u: Array = segments.values[piece.start : piece.stop] - segments.spread(start, piece)
            np.maximum(u, 0, out=u)
            share = u * segments.spread(factor, piece)
            y, _ = self.raised(np.minimum(share, 1))
            kept = u * segments.spread(self.unit, piece) + y * segments.spread(tau, piece)
            entries = x.at(here)
            out.put(here, np.where(share >= 1, entries, np.copysign(kept, entries)))

        run(write, segments.pieces)


def _solve(
    x: Input,
    found: Found,
    part: slice,
    wanted: Mask,
    k: Array,
    l: Array,
    a: float,
    out: Output,
    tau: Array,
    run: Map,
) -> None:
    """Solve for rows `part` of the group, of which some are wanted."""
    n = x.shape[1]
    # Roots of u are steep where it is 0: a short step means little there.
    tiny = 2.0**-70 if a < 1 else 2.0**-46 if x.type == np.float64 else 2.0**-30
    kth = found.kth
    least = np.maximum(_least(a, l, kth), TINY)
    # Again, now that c is known: what a row's candidates are must not depend on the rows beside it.
    inside = found.values >= rows_of(least, found.counts)
    inside &= rows_of(wanted, found.counts)
    places, values = found.places[inside], found.values[inside]
    counts = split(places, part, n)

    def choose(rows: Mask) -> tuple[Array, Array]:
        here = np.repeat(rows, counts)
        return places[here], values[here]

    hard = wanted & (counts <= k)
    if hard.any():  # those come out whole: any tau from `least` down to the next entry will do
        here, _ = choose(hard)
        out.put(here, x.at(here))
        tau[part][hard] = least[hard]
        numbers = np.flatnonzero(hard) + part.start
        step = max(BLOCK // n, 1)
        for some in (numbers[first : first + step] for first in range(0, len(numbers), step)):
            entries = np.count_nonzero(x.decode(x.bits[some]), axis=1)
            tau[some[entries <= k[some - part.start]]] = 0
    soft = wanted & ~hard
    near = soft & (least >= kth / 2)
    unsure = soft & ~near
    if unsure.any():
        rows = _Rows(choose(unsure)[1], counts[unsure], kth[unsure], k[unsure], l[unsure], a, far=True)
        half = kth[unsure] / 2
        y, _, full = rows.sums(rows.segments, half, rows.factor(half), run)
        near[unsure] = y + full >= k[unsure]
    for far, these in ((False, near), (True, soft & ~near)):
        if these.any():
            here, sizes = choose(these)
            rows = _Rows(sizes, counts[these], kth[these], k[these], l[these], a, far)
            low = np.log(least[these]) if far else np.full(len(rows.k), -1.0)
            high = np.log(kth[these] / 2) if far else np.zeros(len(rows.k))
            v = rows.solve(low, high, tiny, run)
            tau[part][these] = rows.tau(v)
            rows.write(v, here, x, out, run)
