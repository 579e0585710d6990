"""The oracle of soft top-k: one row at a time, by bisection to the last bit of extended precision. Slow and obvious.

Everything comes from the definitions, with x and tau; nothing here comes from the library.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "each_row",
    "reference_magnitude",
    "reference_magnitude_vjp",
    "reference_mask",
    "reference_mask_vjp",
]

Array = NDArray[Any]
Wide = np.longdouble


def exponent(p: float) -> Wide:
    """Give 1 / (p - 1), and a whole number where that is meant."""
    a = 1 / (Wide(p) - 1)
    return Wide(round(a)) if abs(a - round(a)) < 1e-12 else a


def raised(u: Array, a: Wide) -> Array:
    """Give u^a of numbers >= 0."""
    if a != round(a):
        return u**a
    result = np.ones_like(u)
    for _ in range(int(a)):  # NumPy's own takes ten times as long
        result = result * u
    return result


def phi(u: Array, kind: str, p: float) -> Array:
    """Give the curve of a kind."""
    if kind == "pnorm":
        return raised(np.clip(u, 0, 1), exponent(p))
    if kind == "sigmoid":
        return 1 / (1 + np.exp(-u))
    tail = np.exp(-np.abs(u)) / 2
    return np.where(u < 0, tail, 1 - tail)


def bisect(total: Any, low: Wide, high: Wide) -> Wide:
    """Find where a function that falls goes from at least zero to below it."""
    while True:
        middle = low + (high - low) / 2
        if middle in (low, high):
            return low
        if total(middle) >= 0:
            low = middle
        else:
            high = middle


def mask_root(x: Array, k: float, l: float, kind: str, p: float) -> tuple[Wide, Wide] | Array:
    """Give the mask of a row where it is a special case, else c and tau - c."""
    n = x.size
    if np.isnan(x).any() or not 0 < l < np.inf or np.isnan(k):
        return np.full(n, np.nan)
    if k <= 0:
        return np.zeros(n)
    if np.count_nonzero(x > -np.inf) <= k:
        return np.where(x > -np.inf, 1.0, 0.0)
    infinite = np.count_nonzero(x == np.inf)
    if infinite >= k:
        return np.where(x == np.inf, k / infinite, 0.0)
    c = Wide(np.sort(x)[n - int(np.ceil(k))])
    v = x.astype(Wide) - c
    l = Wide(l)
    if kind == "pnorm":
        v = v[v > -l]  # no other has anything at tau >= c - l
        return c, bisect(lambda t: phi((v - t) / l, kind, p).sum() - Wide(k), -l, Wide(0))
    if 2 * k > n:  # by what is missing to 1, lest that is lost

        def excess(t: Wide) -> Wide:
            return (Wide(np.count_nonzero(v > -np.inf)) - Wide(k)) - phi(-(v - t) / l, kind, p)[v > -np.inf].sum()
    else:

        def excess(t: Wide) -> Wide:
            return phi((v - t) / l, kind, p).sum() - Wide(k)

    reach = l
    while excess(-reach) < 0:
        reach *= 2
    low, reach = -reach, l
    while excess(reach) >= 0:
        reach *= 2
    return c, bisect(excess, low, reach)


def reference_mask(x: Array, k: float, l: float, kind: str = "pnorm", p: float = 4 / 3) -> Array:
    """Give the mask of a row, in float64."""
    with np.errstate(all="ignore"):
        x = np.asarray(x, np.float64)
        found = mask_root(x, k, l, kind, p)
        if not isinstance(found, tuple):
            return found
        c, t = found
        return phi(((x.astype(Wide) - c) - t) / Wide(l), kind, p).astype(np.float64)


def reference_mask_vjp(
    x: Array, g: Array, k: float, l: float, kind: str = "pnorm", p: float = 4 / 3
) -> tuple[Array, float, float]:
    """Give the derivatives of the mask of a row that is no special case, from x and tau."""
    with np.errstate(all="ignore"):
        x, g = np.asarray(x, np.float64), np.asarray(g, np.float64)
        found = mask_root(x, k, l, kind, p)
        assert isinstance(found, tuple)
        c, t = found
        u = ((x.astype(Wide) - c) - t) / Wide(l)
        if kind == "pnorm":
            a = exponent(p)
            d = np.where((u > 0) & (u < 1), a * np.where(u > 0, u, 1) ** (a - 1), 0) / Wide(l)
        elif kind == "sigmoid":
            d = phi(u, kind, p) * phi(-u, kind, p) / Wide(l)
        else:
            d = np.exp(-np.abs(u)) / 2 / Wide(l)
        d = np.where(np.isfinite(x), d, 0)
        g, u = np.where(d > 0, g, 0), np.where(d > 0, u, 0)
        s = d.sum()
        if s == 0:
            return np.zeros(x.size), 0.0, 0.0
        mean_g, mean_u = (d * g).sum() / s, (d * u).sum() / s
        return (d * (g - mean_g)).astype(np.float64), float(mean_g), float(-(d * g * (u - mean_u)).sum())


def magnitude_parts(s: Array, tau: Wide, l: float, p: float) -> tuple[Array, Array, Array, Array]:
    """Give z, r, and which entries come out whole and in part, of magnitudes in extended precision."""
    z = np.maximum(s - tau, 0)
    r = raised(z / Wide(l), exponent(p))
    whole = (r >= tau) & (s > 0)
    return z, r, whole, (z > 0) & ~whole


def reference_magnitude(x: Array, k: float, l: float, p: float = 4 / 3) -> tuple[Array, float]:
    """Give what is left of a row's entries, and tau, both in float64."""
    with np.errstate(all="ignore"):
        x = np.asarray(x, np.float64)
        n = x.size
        s = np.abs(x).astype(Wide)
        if np.isnan(x).any() or not 0 < l < np.inf or np.isnan(k):
            return np.full(n, np.nan), np.nan
        if k <= 0:
            return np.zeros(n), np.inf
        if k >= n or np.count_nonzero(s) <= k:
            return x.copy(), 0.0
        if np.count_nonzero(np.isinf(s)) >= k:
            return np.where(np.isinf(s), x, 0.0), np.inf
        c = np.sort(s)[n - int(np.ceil(k))]

        def excess(log: Wide) -> Wide:
            _, r, _, _ = magnitude_parts(s, np.exp(log), l, p)
            return np.minimum(1, r / np.exp(log)).sum() - Wide(k)

        if excess(np.log(c / 2)) < 0:  # by its logarithm, that a small tau keep its digits
            tau = np.exp(bisect(excess, np.log(c) - 2000, np.log(c)))
            z = np.maximum(s - tau, 0)
        else:  # by c - tau, that it keep those

            def near(minus: Wide) -> Wide:
                z = np.maximum((top - c) - minus, 0)
                return np.minimum(1, raised(z / Wide(l), exponent(p)) / (c + minus)).sum() - Wide(k)

            top = s[s > c / 2]
            minus = bisect(near, -c / 2, Wide(0))
            tau = c + minus
            z = np.maximum((s - c) - minus, 0)
        r = raised(z / Wide(l), exponent(p))
        return np.where(r >= tau, x, np.sign(x) * (z + r)).astype(np.float64), float(tau)


def reference_magnitude_vjp(x: Array, g: Array, tau: float, l: float, p: float = 4 / 3) -> tuple[Array, float, float]:
    """Give the derivatives of the magnitude operator of a row, at a given tau."""
    with np.errstate(all="ignore"):
        x, g = np.asarray(x, np.float64), np.asarray(g, np.float64)
        if np.isnan(tau):
            return np.full(x.size, np.nan), np.nan, np.nan
        if np.isinf(tau):
            return np.zeros(x.size), 0.0, 0.0
        a = exponent(p)
        z, r, whole, part = magnitude_parts(np.abs(x).astype(Wide), Wide(tau), l, p)
        dx = np.where(whole, g, 0.0)
        if not part.any():
            return dx, 0.0, 0.0
        z, r, sign = z[part], r[part], np.sign(x[part])
        d = a * z ** (a - 1) / Wide(l) ** a
        turned = sign * g[part].astype(Wide)
        m = r.sum() / Wide(tau)
        c = ((1 + d) * turned).sum() / (m + d.sum())
        dx[part] = sign * ((1 + d) * turned - d * c)
        return dx, float(tau * c), float(-(a / Wide(l)) * (turned * r).sum() + (a / Wide(l)) * m * tau * c)


def each_row(function: Any, x: Array, *others: Any) -> list[Any]:
    """Call a function of a row for every row of an array, with the row's own of whatever else is per row.

    Parameters
    ----------
    x : ndarray, shape (..., n)
        Rows.
    others : ndarray or number
        Of shape (..., n) or (...), or one for all.
    """
    lead = x.shape[:-1]
    rows = [np.broadcast_to(o, (*lead, *np.shape(o)[len(lead) :])) for o in map(np.asarray, others)]
    return [function(x[i], *(o[i] if o[i].ndim else float(o[i]) for o in rows)) for i in np.ndindex(lead)]
