"""The soft mask of a block of rows: sigmoid and Laplace, where every entry matters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .keys import Array
from .soft_find import best
from .soft_mask import fill_special, valid
from .soft_rows import Input, Map, Output
from .soft_solve import Piece, Segments, root

__all__ = ["smooth_rows"]

REACH = {4: (-40.0, 85.0), 8: (-340.0, 700.0)}
"""By bytes: where exp(s) is in range, and nothing beyond matters.

At the lower end, the K entries from the K-th largest on have 1 to within 1e-17, which is the sum wanted.
"""

PIECE = 1 << 18
"""Entries evaluated in one go: more than of p-norms, of which there are few; see `soft_rows.BLOCK`."""

Curve = Callable[[Array], tuple[Array, Array]]
"""From exp(-u), which it may overwrite, to y(u) and its slope."""


def _sigmoid(v: Array) -> tuple[Array, Array]:
    """The sigmoid."""
    one = v.dtype.type(1)
    v += one
    y = np.divide(one, v, out=v)
    slope = one - y
    slope *= y
    return y, slope


def _laplace(v: Array) -> tuple[Array, Array]:
    """The distribution function of Laplace's law."""
    half, one = v.dtype.type(0.5), v.dtype.type(1)
    far = np.maximum(v, one)
    np.divide(half, far, out=far)
    near = np.minimum(v, one, out=v)
    near *= half
    np.subtract(half, near, out=near)  # exactly 0 where u < 0
    y = far + near
    far -= near
    return y, far


def _inverse_sigmoid(y: Array) -> Array:
    result: Array = np.log(y) - np.log1p(-y)
    return result


def _inverse_laplace(y: Array) -> Array:
    result: Array = np.where(y < 0.5, np.log(2 * y), -np.log(2 * (1 - y)))
    return result


CURVES: dict[str, tuple[Curve, Callable[[Array], Array]]] = {
    "sigmoid": (_sigmoid, _inverse_sigmoid),
    "laplace": (_laplace, _inverse_laplace),
}


def smooth_rows(x: Input, k: Array, l: Array, kind: str, out: Output, run: Map) -> None:
    """Write ``phi((x - tau) / l)`` that sums to k: see `pnorm_rows`."""
    n = x.shape[1]
    good = valid(k, l)
    for these, rows in x.blocks():
        answers, wanted, strength, right = out.rows[these], k[these], l[these], good[these].copy()
        highest, lowest = rows.max(axis=1), rows.min(axis=1)
        right &= ~np.isnan(highest)
        fill_special(rows, wanted, answers, out.encode, np.flatnonzero(right & (wanted >= n)))
        answers[~right] = out.encode(np.nan)
        right &= (wanted > 0) & (wanted < n)
        # Rows with infinities: those are as good as decided, the others share what is left.
        entries, left = np.full(len(rows), n), wanted.copy()
        for row in np.flatnonzero(right & (np.isinf(highest) | np.isinf(lowest))).tolist():
            above = np.count_nonzero(rows[row] > -np.inf)
            top = np.count_nonzero(rows[row] == np.inf)
            entries[row], left[row] = above - top, wanted[row] - top
            if above <= wanted[row] or top >= wanted[row]:
                fill_special(rows, wanted, answers, out.encode, np.array([row]))
                right[row] = False
        solve = np.flatnonzero(right)
        if solve.size:
            # `best` counts from the top, where any +inf are.
            part = rows if solve.size == len(rows) else rows[solve]
            y = _solve(part, wanted[solve], left[solve], entries[solve], strength[solve], kind, run)
            if solve.size == len(rows):
                answers[...] = out.encode(y)
            else:
                answers[solve] = out.encode(y)


def _solve(
    x: Array,
    k: Array,
    left: Array,
    entries: Array,
    l: Array,
    kind: str,
    run: Map,
) -> Array:
    """Solve for rows that all need it.

    Parameters
    ----------
    x : ndarray, shape (rows, n)
        Without NaN.
    k : ndarray, shape (rows,)
        What each row sums to.
    left, entries : ndarray, shape (rows,)
        What its finite entries sum to, and how many they are.
    """
    curve, inverse = CURVES[kind]
    real = x.dtype.type
    n = x.shape[1]
    whole = np.ceil(k).astype(np.int64)
    following = np.where(k == whole, np.minimum(whole + 1, n), whole)
    kth, below = best(x, whole, following, run)
    centre = kth.astype(np.float64)
    # In units of l, tau = centre + s l. There are floor(k) + 1 entries from `below` on, which have k at least if
    # alike and at tau's lower bound; and all but ceil(k) - 1 are `centre` at most.
    least, most = np.floor(left) + 1, np.ceil(left)
    low = (below.astype(np.float64) - centre) / l - inverse(left / least)
    high = -inverse((left - most + 1) / (entries - most + 1))
    # A row wanted to more than half is solved from the other side, for what its entries lack of 1.
    turned = left > entries / 2
    low, high = np.where(turned, -high, low), np.where(turned, -low, high)
    sought = np.where(turned, entries - left, left)
    low, high = np.clip(low, *REACH[x.itemsize]), np.clip(high, *REACH[x.itemsize])
    # exp(-u) is exp(-w) exp(s): the first of them once and for all.
    v = x - kth[:, None]
    scale = np.maximum(np.minimum(l, np.finfo(real).max), np.finfo(real).smallest_normal)
    v /= np.where(turned, scale, -scale).astype(real)[:, None]
    np.exp(v, out=v)
    decided = None
    if (entries < n).any():
        decided = np.isinf(x)
        v[decided] = np.inf  # these add nothing to the sum
    segments = Segments(v.reshape(-1), np.full(len(x), n), PIECE)

    def evaluate(these: Segments, rows: Array, s: Array) -> tuple[Array, Array]:
        factor = np.exp(s).astype(real)

        def terms(piece: Piece) -> tuple[Array, Array]:
            return curve(these.values[piece.start : piece.stop] * these.spread(factor, piece))

        y, slope = these.totals(terms, run)
        value = np.log(y / sought[rows])
        return value, value * y / slope

    # Where entries are 0 and 1 but for one, that one lacks all that the sum does: it is to be little beside 1, not k.
    digits, little, tiny = (2.0**-51, 2.0**-51, 2.0**-50) if real is np.float64 else (2.0**-49, 2.0**-25, 2.0**-24)
    noise = np.maximum(little / np.maximum(sought, 1), digits)
    s = root(segments, evaluate, high, low, high, noise, tiny)
    v *= np.exp(s).astype(real)[:, None]
    if turned.any():
        if turned.all():
            np.reciprocal(v, out=v)
        else:
            v[turned] = np.reciprocal(v[turned])
    y, _ = curve(v)
    if decided is not None:
        y[decided] = x[decided] > 0
    return y
