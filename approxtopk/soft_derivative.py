"""Derivatives of soft top-k as formulas, in the operations of any array namespace: NumPy's, PyTorch's or JAX's.

A threshold tau is such that the entries' shares sum to k, and moves with x, k and l so that they go on to do so: what
follows is the implicit function theorem (Sander et al. 2023, https://arxiv.org/abs/2302.01425). Entries that the
threshold does not split have no derivative, and what stands in their place in a cotangent or a tangent is not looked
at. Nothing is NaN for finite input: of two branches the one not taken is given a harmless argument, because derivatives
of these formulas pass through both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["magnitude_jvp", "magnitude_vjp", "mask_jvp", "mask_vjp"]

Arrays = Mapping[str, Any]


def mask_vjp(xp: Any, arguments: Arrays, arrays: Arrays, given: Arrays) -> dict[str, Any]:
    """Cotangents of x, k and l for one of the mask, from the mask alone."""
    axis, y, g = arguments["axis"], arrays["y"], given["y"]
    inside, d, u = _slopes(xp, arguments, arrays)
    g = xp.where(inside, g, 0.0)
    total = _total(xp, d, axis)
    level, middle = _sum(xp, d * g, axis) / total, _sum(xp, d * u, axis) / total
    return {
        "dx": d * (g - level) + _nan(xp, y),
        "dk": _row(level + _sum(xp, _nan(xp, y), axis), axis),
        "dl": _row(-_sum(xp, d * g * (u - middle) + _nan(xp, y), axis), axis),
    }


def mask_jvp(xp: Any, arguments: Arrays, arrays: Arrays, given: Arrays) -> dict[str, Any]:
    """The tangent of the mask for those of x, k and l."""
    axis, y = arguments["axis"], arrays["y"]
    inside, d, u = _slopes(xp, arguments, arrays)
    moved = -u * _column(given["l"], axis) if "l" in given else 0.0 * u
    if "x" in given:
        moved = moved + xp.where(inside, given["x"], 0.0)
    sum_moved = _sum(xp, d * moved, axis)
    if "k" in given:
        sum_moved = sum_moved - _column(given["k"], axis)
    return {"y": d * (moved - sum_moved / _total(xp, d, axis)) + _nan(xp, y)}


def magnitude_vjp(xp: Any, arguments: Arrays, arrays: Arrays, given: Arrays) -> dict[str, Any]:
    """Cotangents of x, k and l for those of the result and of tau."""
    axis = arguments["axis"]
    split, whole, sign, d, r, l, tau = _magnitudes(xp, arguments, arrays)
    g = xp.where(split | whole, given["y"], 0.0) * sign if "y" in given else 0.0 * r
    # What a growing threshold would do.
    weight = -_sum(xp, xp.where(split, (1.0 + d) * g, 0.0), axis)
    if "tau" in given:
        weight = weight + _column(given["tau"], axis)
    weight = weight / _total(xp, r / xp.where(tau > 0, tau, 1.0) + d, axis)
    a = 1.0 / (arguments["p"] - 1.0)
    cotangent = xp.where(split, (1.0 + d) * g + d * weight, g)
    spread = a * _sum(xp, r * (g + weight), axis) / l
    return {
        "dx": sign * cotangent + _nan(xp, tau),
        "dk": _row(_nan(xp, tau) - xp.where(_sum(xp, r, axis) > 0, tau, 0.0) * weight, axis),
        "dl": _row(_nan(xp, tau) - spread, axis),
    }


def magnitude_jvp(xp: Any, arguments: Arrays, arrays: Arrays, given: Arrays) -> dict[str, Any]:
    """Tangents of the result and of tau for those of x, k and l."""
    axis = arguments["axis"]
    split, whole, sign, d, r, l, tau = _magnitudes(xp, arguments, arrays)
    a = 1.0 / (arguments["p"] - 1.0)
    ds = sign * xp.where(split | whole, given["x"], 0.0) if "x" in given else 0.0 * r
    narrowed = -a * r / l * _column(given["l"], axis) if "l" in given else 0.0 * r
    moved = _sum(xp, d * ds + narrowed, axis)
    if "k" in given:
        there = _sum(xp, r, axis) > 0
        moved = moved - xp.where(there, tau, 0.0) * _column(given["k"], axis)
    moved = moved / _total(xp, r / xp.where(tau > 0, tau, 1.0) + d, axis)
    change = xp.where(split, (1.0 + d) * (ds - moved) + narrowed, ds)
    moved = moved + _nan(xp, tau)
    return {"y": sign * change + _nan(xp, tau), "tau": _row(moved, axis), "rest": _row(0.0 * moved, axis)}


def _slopes(xp: Any, arguments: Arrays, arrays: Arrays) -> tuple[Any, Any, Any]:
    """Which entries of a mask are split, the slope there by x, and the distance from the threshold in units of l."""
    y, kind, p = arrays["y"], arguments["kind"], arguments["p"]
    inside = (y > 0) & (y < 1)
    safe = xp.where(inside, y, 0.5)
    if kind == "pnorm":
        slope, u = safe ** (2.0 - p) / (p - 1.0), safe ** (p - 1.0)
    elif kind == "sigmoid":
        slope, u = safe * (1.0 - safe), xp.log(safe) - xp.log1p(-safe)
    else:
        low = safe < 0.5
        tail = xp.where(low, safe, 1.0 - safe)
        slope, u = tail, xp.where(low, 1.0, -1.0) * xp.log(2.0 * tail)
    # The root of p > 2 is as steep as can be at 0.
    slope = xp.clip(xp.where(inside, slope, 0.0), 0.0, 1e150 if _wide(y) else 1e30)
    return inside, slope / _strength(arguments, arrays), u


def _magnitudes(xp: Any, arguments: Arrays, arrays: Arrays) -> tuple[Any, ...]:
    """Which entries are split by the threshold, which come out whole, signs, and of those split dr/dz and r; l, tau."""
    axis, x, p = arguments["axis"], arrays["x"], arguments["p"]
    tau, l = _column(arrays["tau"], axis), _strength(arguments, arrays)
    a = 1.0 / (p - 1.0)
    # What is left of the threshold beside tau moves with tau.
    z = (xp.abs(x) - tau) - _column(arrays["rest"], axis)
    above = z > 0
    u = xp.where(above, z, 1.0) / l
    # What is far above the threshold would overflow as a power.
    whole = above & ((tau <= 0) | (a * xp.log(u) >= xp.log(xp.where(tau > 0, tau, 1.0))))
    split = above & ~whole
    safe = xp.where(split, u, 1.0)
    r = safe**a
    d = xp.where(split, a * r / (safe * l), 0.0)
    return split, whole, xp.sign(x), d, xp.where(split, r, 0.0), l, tau


def _wide(x: Any) -> bool:
    return "64" in str(x.dtype)


def _strength(arguments: Arrays, arrays: Arrays) -> Any:
    """l, in a form that rows can be divided by."""
    return _column(arrays["l"], arguments["axis"]) if "l" in arrays else arguments["l"]


def _column(rows: Any, axis: int) -> Any:
    """An array of one number a row, with an axis of one entry in the place of the rows'."""
    return rows[(slice(None),) * axis + (None,)]


def _row(column: Any, axis: int) -> Any:
    """The same back."""
    return column[(slice(None),) * axis + (0,)]


def _sum(xp: Any, entries: Any, axis: int) -> Any:
    return xp.sum(entries, axis=axis, keepdims=True)


def _total(xp: Any, weights: Any, axis: int) -> Any:
    """The weights' sum, to divide by: 1 where there are none."""
    total = _sum(xp, weights, axis)
    return xp.where(total > 0, total, 1.0)


def _nan(xp: Any, entries: Any) -> Any:
    """NaN where `entries` are, 0 where they are numbers."""
    return xp.where(entries == entries, 0.0, entries)
