"""Soft top-k in NumPy: the entries, which cut the work into groups of rows and run it on threads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..dtypes import DType
from .keys import Array
from .soft_magnitude import magnitude_rows
from .soft_mask import pnorm_rows
from .soft_rows import Input, Map, Output, Where, over_groups, per_row
from .soft_smooth import smooth_rows
from .soft_vjp import Results, magnitude_vjp_rows, mask_vjp_rows

__all__ = ["soft_magnitude", "soft_magnitude_vjp", "soft_mask", "soft_mask_vjp"]

Number = Array | float


def soft_mask(
    x: Array,
    y: Array,
    *,
    dtype: DType,
    axis: int,
    kind: str,
    p: float,
    k: Number,
    l: Number,
) -> None:
    """Write the soft mask of the k best entries along an axis.

    Parameters
    ----------
    x : ndarray, shape (..., n, ...)
        The values, in any strides; bfloat16 as its bits in uint16.
    y : ndarray like `x`
        Receives the mask.
    dtype : DType
        What they hold.
    axis : int
        The axis of n.
    kind : {"pnorm", "sigmoid", "laplace"}
        What is taken of ``(x - tau) / l``.
    p : float
        Of the p-norm, more than 1.
    k, l : float or ndarray of x's shape without the axis
        What each row sums to, and the strength.
    """
    x, y = np.moveaxis(x, axis, -1), np.moveaxis(y, axis, -1)

    def group(where: Where, run: Map) -> None:
        part, out = Input(x[where], dtype), Output(y[where], dtype)
        sums, strength = per_row(k, where, part.shape[0]), per_row(l, where, part.shape[0])
        if kind == "pnorm":
            pnorm_rows(part, sums, strength, p, out, run)
        else:
            smooth_rows(part, sums, strength, kind, out, run)
        out.finish()

    if x.size:
        over_groups(x.shape, group)


def soft_magnitude(
    x: Array,
    y: Array,
    tau: Array,
    rest: Array,
    *,
    dtype: DType,
    axis: int,
    p: float,
    k: Number,
    l: Number,
) -> None:
    """Write the k entries of greatest magnitude along an axis, softly.

    Parameters
    ----------
    x, y, dtype, axis, p, k, l
        As for `soft_mask`.
    tau, rest : ndarray of x's shape without the axis
        Receive the threshold of each row, and what the type of `tau` cannot tell of it.
    """
    x, y = np.moveaxis(x, axis, -1), np.moveaxis(y, axis, -1)

    def group(where: Where, run: Map) -> None:
        part, out = Input(x[where], dtype), Output(y[where], dtype)
        rows = part.shape[0]
        found = np.zeros(rows)
        magnitude_rows(part, per_row(k, where, rows), per_row(l, where, rows), p, out, found, run)
        out.finish()
        threshold = found.reshape(part.lead)
        tau[where] = threshold
        finite = np.isfinite(threshold)
        rest[where] = np.subtract(threshold, tau[where], out=np.zeros(part.lead), where=finite)

    if x.size:
        over_groups(x.shape, group)
    else:
        with np.errstate(all="ignore"):
            strength, sums = np.asarray(l), np.asarray(k)
            empty = np.where(sums > 0, 0.0, np.inf)
            tau[...] = np.where((strength > 0) & (strength < np.inf) & ~np.isnan(sums), empty, np.nan)
            rest[...] = 0


def soft_mask_vjp(
    y: Array,
    g: Array,
    dx: Array,
    dk: Array,
    dl: Array,
    *,
    dtype: DType,
    axis: int,
    kind: str,
    p: float,
    l: Number,
) -> None:
    """Write the derivatives of a mask.

    Parameters
    ----------
    y : ndarray, shape (..., n, ...)
        The mask; bfloat16 as its bits in uint16.
    g : ndarray like `y`
        The derivative by each of its entries; those that are 0 or 1 do not matter.
    dx : ndarray like `y`
        Receives the derivative by the values.
    dk, dl : ndarray of y's shape without the axis
        Receive the derivatives by k and l.
    dtype, axis, kind, p, l
        As for `soft_mask`.
    """

    def derive(y: Input, g: Input, where: Where, into: Results, run: Map) -> None:
        mask_vjp_rows(y, g, per_row(l, where, y.shape[0]), kind, p, into, run)

    _derivatives(derive, y, g, dx, dk, dl, dtype, axis)


def soft_magnitude_vjp(
    x: Array,
    g: Array,
    tau: Array,
    rest: Number,
    dx: Array,
    dk: Array,
    dl: Array,
    *,
    dtype: DType,
    axis: int,
    p: float,
    l: Number,
) -> None:
    """Write the derivatives of the magnitude operator.

    Parameters
    ----------
    x : ndarray, shape (..., n, ...)
        The values; bfloat16 as its bits in uint16.
    g : ndarray like `x`
        The derivative by each entry of the result; those that are 0 do not matter.
    tau, rest : ndarray of x's shape without the axis
        The thresholds found, in two parts, the second of which may be 0. Where tau is infinite nothing moves.
    dx, dk, dl, dtype, axis, p, l
        As for `soft_mask_vjp`.
    """

    def derive(x: Input, g: Input, where: Where, into: Results, run: Map) -> None:
        rows = x.shape[0]
        threshold = per_row(tau, where, rows) + per_row(rest, where, rows)
        magnitude_vjp_rows(x, g, threshold, per_row(l, where, rows), p, into, run)

    _derivatives(derive, x, g, dx, dk, dl, dtype, axis)


def _derivatives(
    derive: Callable[[Input, Input, Where, Results, Map], None],
    x: Array,
    g: Array,
    dx: Array,
    dk: Array,
    dl: Array,
    dtype: DType,
    axis: int,
) -> None:
    """Derive group by group."""
    x, g, dx = (np.moveaxis(array, axis, -1) for array in (x, g, dx))

    def group(where: Where, run: Map) -> None:
        part, gradient, out = Input(x[where], dtype), Input(g[where], dtype), Output(dx[where], dtype)
        into = Results(out, np.zeros(part.shape[0]), np.zeros(part.shape[0]))
        derive(part, gradient, where, into, run)
        out.finish()
        for result, found in ((dk, into.dk), (dl, into.dl)):
            result[where] = found.reshape(part.lead)

    if x.size:
        over_groups(x.shape, group)
    else:
        dk[...] = dl[...] = 0
