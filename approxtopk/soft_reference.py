"""Soft top-k by the algorithms in print, for comparison: pool-adjacent-violators, and Dykstra's projections.

Sander et al., Fast, Differentiable and Sparse Top-k: a Convex Analysis Perspective, 2023 (arXiv 2302.01425), take the
mask for the maximiser of ``<x, y> - l/p ||y||_p^p`` over the convex hull of all masks of k ones, and find it by
isotonic regression of the sorted row. With w = (1, ..., 1, 0, ..., 0) and the row sorted downwards there is a
sequence v, which must not rise, and y_i = phi(x_i - v_i), where phi(z) = sign(z) |z / l|^(1 / (p - 1)) is the inverse
of the derivative of l/p |y|^p. Where v does not fall, entries share: the sum of their y is that of their w.

The library itself needs neither (see `approxtopk.soft_top_k_mask`): all that share have one v, which is the root of a
single equation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InvalidArgument

__all__ = ["dykstra", "pav", "soft_top_k_mask_by"]

Array = NDArray[np.float64]

TOLERANCE = 1e-3
"""How near to the solution `dykstra` goes unless it is told for how long."""

MOST = 1_000_000
"""Iterations after which it gives up even so."""


def pav(x: ArrayLike, k: ArrayLike, l: ArrayLike, p: float = 4 / 3) -> Array:
    """Soft top-k mask by pooling adjacent violators.

    Parameters
    ----------
    x : array_like of float, shape (..., n)
        Finite values.
    k : array_like of float, shape (...)
        What each mask sums to; not necessarily whole.
    l : array_like of float, shape (...)
        Strength of the regularisation, > 0.
    p : float
        Of the norm, > 1.

    Returns
    -------
    ndarray of float64, shape (..., n)
        Exact to rounding. It takes time in proportion to n and the square of the number of entries that share.
    """

    def solve(x: Array, w: Array, l: float) -> Array:
        return _pooled(x, w, l, p)

    return _rows(solve, x, k, l, p)


def dykstra(x: ArrayLike, k: ArrayLike, l: ArrayLike, p: float = 4 / 3, iterations: int | None = None) -> Array:
    """Soft top-k mask by Dykstra's alternating projections.

    Every other pair of neighbours of the sorted row is put in order, then the pairs between them, and so forth, each
    after what it did the last time is taken back. What the w of one entry is to share with m others has to pass all
    of them, so it takes some m^2 iterations.

    Parameters
    ----------
    x, k, l, p
        As for `pav`.
    iterations : int, optional
        How many times to go over all pairs. Default: until no entry is further than about 1e-3 from the solution,
        told by how far it still moves, which `tests/test_soft_host.py` checks; at most a million. For fewer the
        error is whatever it is: at 500, a usual number, up to 0.2.

    Returns
    -------
    ndarray of float64, shape (..., n)
        Sums to k whatever the error is.
    """

    def solve(x: Array, w: Array, l: float) -> Array:
        return _projected(x, w, l, p, iterations)

    return _rows(solve, x, k, l, p)


METHODS: dict[str, Callable[..., Array]] = {"pav": pav, "dykstra": dykstra}


def soft_top_k_mask_by(
    method: str,
    x: ArrayLike,
    k: ArrayLike,
    l: ArrayLike = 0.1,
    p: float = 4 / 3,
    axis: int = -1,
) -> Array:
    """Soft top-k mask by a method of this module.

    Parameters
    ----------
    method : {"pav", "dykstra"}
        Its name.
    x : array_like of float, shape (..., n, ...)
        Finite values.
    k, l : array_like of float
        Numbers, or arrays of x's shape without the axis.
    p : float
        Of the norm, > 1.
    axis : int
        The axis of n.

    Returns
    -------
    ndarray of float64, of x's shape

    Raises
    ------
    InvalidArgument
        There is no such method; p, l or x is out of its range.
    """
    if method not in METHODS:
        raise InvalidArgument(f"method must be one of {', '.join(map(repr, METHODS))}, got {method!r}")
    return np.moveaxis(METHODS[method](np.moveaxis(np.asarray(x, np.float64), axis, -1), k, l, p), -1, axis)


def _rows(solve: Callable[[Array, Array, float], Array], x: ArrayLike, k: ArrayLike, l: ArrayLike, p: float) -> Array:
    """Solve row by row, each sorted downwards."""
    values = np.asarray(x, np.float64)
    lead, n = values.shape[:-1], values.shape[-1]
    sums = np.broadcast_to(np.asarray(k, np.float64), lead)
    strengths = np.broadcast_to(np.asarray(l, np.float64), lead)
    if not p > 1:
        raise InvalidArgument(f"p must be greater than 1, got {p}")
    if not np.isfinite(values).all():
        raise InvalidArgument("x must be finite for this method")
    if not (np.isfinite(strengths).all() and (strengths > 0).all()):
        raise InvalidArgument("l must be positive and finite")
    if np.isnan(sums).any():
        raise InvalidArgument("k must not be NaN")
    result = np.empty(values.shape)
    for row in np.ndindex(lead):
        w = np.clip(sums[row] - np.arange(n), 0.0, 1.0)  # of a k between two whole numbers, the last one in part
        order = np.argsort(-values[row], kind="stable")
        result[row][order] = solve(values[row][order], w, float(strengths[row]))
    return result


def _phi(z: Any, l: float, p: float) -> Any:
    """Give the inverse of the derivative of l/p |y|^p."""
    return np.sign(z) * np.abs(z / l) ** (1 / (p - 1))


def _common(x: Array, total: Any, l: float, p: float) -> Any:
    """Find the v at which ``phi(x - v)`` sums to `total` over the last axis."""
    if p == 2:
        return x.mean(axis=-1) - l * total / x.shape[-1]
    # At the bounds all of phi have the mean at least, and at most.
    margin = l * (total / x.shape[-1]) ** (p - 1)
    low, high = x.min(axis=-1) - margin, x.max(axis=-1) - margin
    while True:
        middle = low + (high - low) / 2
        if ((middle == low) | (middle == high)).all():
            return middle
        enough = _phi(x - middle[..., None], l, p).sum(axis=-1) >= total
        low, high = np.where(enough, middle, low), np.where(enough, high, middle)


def _pooled(x: Array, w: Array, l: float, p: float) -> Array:
    """Pool adjacent violators of a sorted row."""
    pools: list[tuple[int, int, float]] = []  # start, stop, v; v does not rise
    alone = x - l * w ** (p - 1)
    for i, v in enumerate(alone.tolist()):
        start = i
        while pools and pools[-1][2] < v:
            start = pools.pop()[0]
            v = float(_common(x[start : i + 1], w[start : i + 1].sum(), l, p))
        pools.append((start, i + 1, v))
    y = w.copy()
    for start, stop, v in pools:
        if stop - start > 1:
            y[start:stop] = _phi(x[start:stop] - v, l, p)
    return np.clip(y, 0.0, 1.0)


def _projected(x: Array, w: Array, l: float, p: float, iterations: int | None) -> Array:
    """Project a sorted row on the orders of its pairs in turn, until it stays."""
    n = x.size
    y = w.copy()
    moved = np.zeros(n - 1 if n else 0)  # from each entry to the next: Dykstra's corrections
    pairs = np.stack([x[:-1], x[1:]], axis=-1)
    for _ in range(MOST if iterations is None else iterations):
        before = y.copy()
        for first in (0, 1):
            here = slice(first, n - 1, 2)
            if moved[here].size:
                left, right = y[:-1][here], y[1:][here]  # views
                left += moved[here]
                right -= moved[here]
                total = left + right
                v = _pair(pairs[here], total, l, p)
                # An entry alone has v = x - l y^(p - 1): that must not rise. What it may give is never less than 0.
                share = np.minimum(left, _phi(pairs[here][:, 0] - v, l, p))
                moved[here] = left - share
                left -= moved[here]
                right += moved[here]
        if iterations is None:
            # Errors fall by a factor of about 1 - (3 / m)^2 a time where m share.
            sharing = np.count_nonzero(moved) + 1
            if np.abs(y - before).max(initial=0.0) * sharing**2 <= TOLERANCE:
                break
    return np.clip(y, 0.0, 1.0)


def _pair(x: Array, total: Array, l: float, p: float) -> Array:
    """Do what `_common` does for pairs: in closed form for a sum of two cubes."""
    if abs(p - 4 / 3) > 1e-12:
        return np.asarray(_common(x, total, l, p))
    # With h half their difference and q their mean less v, (q + h)^3 + (q - h)^3 = 2 q^3 + 6 h^2 q.
    half, third = (x[:, 0] - x[:, 1]) / (2 * l), np.empty(len(x))
    apart = half > 1e-12
    h = np.where(apart, half, 1.0)
    third = np.where(apart, 2 * h * np.sinh(np.arcsinh(total / (4 * h * h * h)) / 3), np.cbrt(total / 2))
    return np.asarray(x.mean(axis=-1) - l * third)
