"""Soft top-k: a mask, or the entries themselves, that are differentiable in x, in k and in the strength."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from .adapters import registry
from .call import apply
from .dtypes import DTYPES
from .errors import InvalidArgument, InvalidType, UnsupportedDType
from .operator import Operator, Pullback
from .request import choice, dtype_name, integer
from .rows import axis_of
from .soft_derivative import magnitude_jvp, magnitude_vjp, mask_jvp, mask_vjp
from .soft_request import KINDS, REALS, real_of

__all__ = ["SoftGradients", "soft_top_k", "soft_top_k_mask", "soft_top_k_mask_vjp", "soft_top_k_vjp"]

Kind = Literal["pnorm", "sigmoid", "laplace"]
Method = Literal["exact", "pav", "dykstra"]

_MASK_VJP = Operator("soft_top_k_mask_vjp", ("x", "g", "l"), ("dx", "dk", "dl"), None)
_MASK = Operator(
    "soft_top_k_mask",
    ("x", "k", "l"),
    ("y",),
    Pullback(_MASK_VJP, {"x": "y", "l": "l"}, mask_vjp, mask_jvp, real_of),
)
_MAGNITUDE_VJP = Operator("soft_top_k_magnitude_vjp", ("x", "g", "tau", "rest", "l"), ("dx", "dk", "dl"), None)
_MAGNITUDE = Operator(
    "soft_top_k_magnitude",
    ("x", "k", "l"),
    ("y", "tau", "rest"),
    Pullback(_MAGNITUDE_VJP, {name: name for name in ("x", "tau", "rest", "l")}, magnitude_vjp, magnitude_jvp, real_of),
)


class SoftGradients(NamedTuple):
    """Cotangents of the inputs of a soft top-k.

    Attributes
    ----------
    dx : array
        Of x's shape, in the type of the result.
    dk, dl : array
        One number a row (x's shape without the axis): of k and of l there. Where one number served all rows, its own
        is their sum.
    """

    dx: Any
    dk: Any
    dl: Any


def soft_top_k_mask(
    x: Any,
    k: Any,
    /,
    *,
    l: Any = 0.1,
    p: float = 4 / 3,
    kind: Kind = "pnorm",
    axis: int = -1,
    method: Method = "exact",
) -> Any:
    """Give every entry of a row a share from 0 to 1, the largest the most, which sum to k.

    Of ``kind="pnorm"`` it is the mask that scores highest under a penalty: argmax of <x, y> - (l / p) ||y||_p^p over
    0 <= y <= 1, sum y = k. Entries far below the threshold get 0 and far above 1, exactly: the mask is sparse, and
    continuous in x.

    Parameters
    ----------
    x : array
        A NumPy, CuPy or JAX array or a PyTorch tensor of at least one axis, any strides: float16, bfloat16 (computed
        in float32 or better), float32 or float64. Integers are computed, and returned, as float32.
    k : float, or array of one number a row
        The sum of each row's mask; need not be whole. 0 gives zeros, the length of the row or more gives ones. An array
        has x's shape without the axis, or shape (), is of x's framework and on its device, of any real type. In an
        array 0 stands for all that is less.
    l : float, or array of one number a row, default 0.1
        Strength of the regularisation, above 0, in units of x: the larger, the softer. Entries that differ by `l` or
        more from one another are never both split: where no two near the k-th are closer, the mask is hard and its
        derivative 0. In an array, a row whose `l` is not above 0 is NaN.
    p : float, default 4/3
        The norm of kind "pnorm", above 1: 2 gives straight pieces and kinks; below 2 the mask is smooth at 0, and
        near 1 as good as hard; above 2 its slope at 0 has no bound.
    kind : {"pnorm", "sigmoid", "laplace"}, default "pnorm"
        "sigmoid" and "laplace" give every entry a share between 0 and 1 by the distance from the threshold,
        1 / (1 + exp(-u)) or Laplace's distribution function of u = (x - tau) / l.
    axis : int, default -1
        The axis along which rows lie.
    method : {"exact", "pav", "dykstra"}, default "exact"
        "exact" finds the threshold, the root of one equation. The others are the published algorithms of kind "pnorm",
        for comparison, in NumPy and float64, not differentiable and slow: pool adjacent violators on the sorted row,
        and Dykstra's alternating projections, which come close only.

    Returns
    -------
    array
        The mask, of x's framework, device and shape, in x's type (float32 for integers). It is differentiable in x, k
        and l in PyTorch (autograd to any order, ``torch.func``, ``torch.compile``) and JAX (``grad``, ``jvp``,
        ``vmap``, to any order); for NumPy and CuPy see `soft_top_k_mask_vjp`. Backward needs the mask alone, so that x
        need not be kept.

    Raises
    ------
    InvalidArgument
        k, l, p, kind, axis or method has a value that is not allowed, or an array another shape.
    InvalidType
        x is no array, k or l neither a number nor an array of x's framework, or an argument has the wrong type.
    UnsupportedDType
        x holds neither floats of these types nor integers, or k or l no real numbers.
    DeviceMismatch
        x is on a device that approxtopk does not serve, or k or l on another than x.
    BackendMissing
        x is on a GPU and CuPy is not installed.

    Notes
    -----
    Equal entries get equal shares. -inf is no entry: it gets 0, whatever k, and a row with no more than k others gets 1
    for those. +inf gets 1, or an equal part of k where there are more than k. A row with a NaN is NaN, and touches no
    other.

    float32 results are within 1e-6 of the exact mask, and so is their sum, relative to k; float64 within 1e-12. For
    other p than 2 and 4/3 the same holds of x: the result is that of a row whose entries differ by less than
    ``2**-40 * l``, which near 0 is much where p is above 2.

    The mask follows Sander, Puigcerver, Djolonga, Peyre and Blondel 2023, "Fast, Differentiable and Sparse Top-k: a
    Convex Analysis Perspective" (https://arxiv.org/abs/2302.01425); "laplace" Struski et al. 2025, "LapSum"
    (https://arxiv.org/abs/2503.06242).

    Examples
    --------
    >>> import numpy as np
    >>> import approxtopk as atk
    >>> x = np.array([-5.0, -2.0, 3.0, 1.0])
    >>> atk.soft_top_k_mask(x, 2, l=1e-2)
    array([0., 0., 1., 1.])
    >>> atk.soft_top_k_mask(x, 2, l=4.0, p=2).round(3)
    array([0.   , 0.125, 1.   , 0.875])
    """
    if choice("method", method, ("exact", "pav", "dykstra")) != "exact":
        from .soft_reference import soft_top_k_mask_by  # slow to import, and rarely wanted

        if choice("kind", kind, KINDS) != "pnorm":
            raise InvalidArgument(f"method = {method!r} and kind = {kind!r}; allowed with it is kind 'pnorm'")
        if registry.find(x).name != "numpy":
            raise InvalidType(f"method = {method!r} and x is no NumPy array; allowed with it are NumPy arrays")
        return soft_top_k_mask_by(method, x, k, l, p, axis)
    (mask,), *_ = _forward(_MASK, x, k, l, p, kind, axis)
    return mask


def soft_top_k(
    x: Any,
    k: Any,
    /,
    *,
    l: Any = 0.1,
    p: float = 4 / 3,
    kind: Kind = "pnorm",
    axis: int = -1,
) -> Any:
    """Keep the k entries of largest magnitude of every row, softly: the rest is 0, and what is between is shrunk.

    Parameters
    ----------
    x, k, l, p, kind, axis
        As in `soft_top_k_mask`, of the magnitudes. Of kinds "sigmoid" and "laplace" the result is x times the mask of
        its magnitudes.

    Returns
    -------
    array
        Of x's framework, device and shape, in x's type (float32 for integers); differentiable as the mask is.

    Raises
    ------
    InvalidArgument, InvalidType, UnsupportedDType, DeviceMismatch, BackendMissing
        As `soft_top_k_mask`.

    Notes
    -----
    With s = |x|, z = max(s - tau, 0) and r = (z / l)^(1 / (p - 1)), tau is such that min(1, r / tau) sum to k. Entries
    with r >= tau come out as they are, others as sign(x) (z + r). A row with no more than k entries that are not 0
    comes out as it is. A row with a NaN is NaN. The magnitude operator of https://arxiv.org/abs/2302.01425.

    Examples
    --------
    >>> import numpy as np
    >>> import approxtopk as atk
    >>> atk.soft_top_k(np.array([-5.0, -2.0, 3.0, 1.0]), 2, l=1e-2)
    array([-5.,  0.,  3.,  0.])
    """
    if choice("kind", kind, KINDS) == "pnorm":
        (result, *_), *_ = _forward(_MAGNITUDE, x, k, l, p, kind, axis)
        return result
    x = registry.find(x).floats(x)
    return x * soft_top_k_mask(abs(x), k, l=l, p=p, kind=kind, axis=axis)


def soft_top_k_mask_vjp(
    x: Any,
    k: Any,
    /,
    *,
    l: Any = 0.1,
    p: float = 4 / 3,
    kind: Kind = "pnorm",
    axis: int = -1,
) -> tuple[Any, Callable[[Any], SoftGradients]]:
    """Give the mask, and the function that takes its cotangent back: for frameworks without derivatives of their own.

    Parameters
    ----------
    x, k, l, p, kind, axis
        As in `soft_top_k_mask`.

    Returns
    -------
    mask : array
        As `soft_top_k_mask` returns it.
    pullback : callable
        Takes an array of the mask's shape and type, the derivative of a scalar by the mask, and returns
        `SoftGradients`, those by x, k and l. It keeps the mask alive and nothing else.

    Raises
    ------
    InvalidArgument, InvalidType, UnsupportedDType, DeviceMismatch, BackendMissing
        As `soft_top_k_mask`.

    Examples
    --------
    >>> import numpy as np
    >>> import approxtopk as atk
    >>> mask, pullback = atk.soft_top_k_mask_vjp(np.array([-5.0, -2.0, 3.0, 1.0]), 2, l=4.0, p=2)
    >>> pullback(np.array([0.0, 1.0, 0.0, 0.0])).dx
    array([ 0.   ,  0.125,  0.   , -0.125])
    """
    (y,), arguments, others = _forward(_MASK, x, k, l, p, kind, axis)
    return y, _pullback(_MASK_VJP, y, {}, arguments, others)


def soft_top_k_vjp(
    x: Any,
    k: Any,
    /,
    *,
    l: Any = 0.1,
    p: float = 4 / 3,
    kind: Kind = "pnorm",
    axis: int = -1,
) -> tuple[Any, Callable[[Any], SoftGradients]]:
    """Give what `soft_top_k` does, and the function that takes its cotangent back.

    Parameters
    ----------
    x, k, l, p, kind, axis
        As in `soft_top_k`.

    Returns
    -------
    result : array
        As `soft_top_k` returns it.
    pullback : callable
        Takes an array of the result's shape and type, the derivative of a scalar by the result, and returns
        `SoftGradients`, those by x, k and l. It keeps x alive.

    Raises
    ------
    InvalidArgument, InvalidType, UnsupportedDType, DeviceMismatch, BackendMissing
        As `soft_top_k`.

    Examples
    --------
    >>> import numpy as np
    >>> import approxtopk as atk
    >>> result, pullback = atk.soft_top_k_vjp(np.array([-5.0, -2.0, 3.0, 1.0]), 2, l=1e-2)
    >>> pullback(np.array([1.0, 2.0, 3.0, 4.0])).dx
    array([1., 0., 3., 0.])
    """
    if choice("kind", kind, KINDS) == "pnorm":
        x = registry.find(x).floats(x)
        (y, tau, rest), arguments, others = _forward(_MAGNITUDE, x, k, l, p, kind, axis)
        return y, _pullback(_MAGNITUDE_VJP, x, {"tau": tau, "rest": rest}, arguments, others)
    x = registry.find(x).floats(x)
    mask, masks = soft_top_k_mask_vjp(abs(x), k, l=l, p=p, kind=kind, axis=axis)

    def product(g: Any, /) -> SoftGradients:
        dx, dk, dl = masks(x * g)
        # 1 or -1; an entry that is 0 moves by its own share only.
        one = registry.find(x).ones(x)
        sign = (x > 0) * one - (x < 0) * one
        return SoftGradients(g * mask + sign * dx, dk, dl)

    return x * mask, product


def _forward(
    operator: Operator,
    x: Any,
    k: Any,
    l: Any,
    p: Any,
    kind: Any,
    axis: Any,
) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:
    """The operator's outputs, its arguments that are numbers, and its inputs beside x."""
    adapter = registry.find(x)
    x = adapter.floats(x)
    arguments, others = {"p": _float(p), "kind": kind, "axis": axis}, {}
    for name, value in (("k", k), ("l", l)):
        if not registry.is_array(value):
            arguments[name] = _float(value)
            continue
        registry.check(name, value, adapter)
        if adapter.name == "dlpack":  # whose objects tell nothing of themselves
            others[name] = value
            continue
        _check_real(name, value)
        shape = tuple(x.shape)
        where = axis_of(shape, integer("axis", axis))
        dtype = dtype_name("x", x.dtype, f"allowed are {', '.join(REALS)} and integers", UnsupportedDType)
        others[name] = adapter.per_row(value, real_of(dtype), (*shape[:where], *shape[where + 1 :]))
    return apply(operator, x, others, dict(arguments)), arguments, others


def _pullback(
    operator: Operator, x: Any, saved: dict[str, Any], arguments: dict[str, Any], others: dict[str, Any]
) -> Callable[[Any], SoftGradients]:
    """The function that runs the derivative: of `x`, of what else the call returned, and of l as it was."""
    kept = saved | {name: array for name, array in others.items() if name == "l"}
    options = {name: value for name, value in arguments.items() if name != "k"}

    def pullback(g: Any, /) -> SoftGradients:
        return SoftGradients(*apply(operator, x, {"g": g, **kept}, dict(options)))

    return pullback


def _float(value: Any) -> Any:
    """An int as a float, so that compilers meet one type; all else as it is."""
    return float(value) if type(value) is int and -(2**63) <= value < 2**63 else value


def _check_real(name: str, array: Any) -> None:
    """Make sure that the argument `name` holds real numbers, of which any type will do."""
    allowed = f"allowed are {', '.join(REALS)} and integers"
    dtype = dtype_name(name, array.dtype, allowed, UnsupportedDType)
    if dtype not in REALS and (dtype not in DTYPES or DTYPES[dtype].kind == "f"):
        raise UnsupportedDType(f"{name} has dtype {dtype}; {allowed}")
