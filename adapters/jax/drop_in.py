"""``jax.lax.top_k``, ``approx_max_k`` and ``approx_min_k`` by name and signature."""

from __future__ import annotations

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...approx_top_k import OPERATOR as APPROXIMATE
from ...call import call
from ...errors import InvalidArgument
from ...top_k import OPERATOR as EXACT

__all__ = ["approx_max_k", "approx_min_k", "top_k"]


def top_k(operand: Any, k: int, *, axis: int = -1) -> list[jax.Array]:
    """Exact top-k in place of ``jax.lax.top_k``: its arguments and its errors.

    Parameters
    ----------
    operand, k, axis
        As ``jax.lax.top_k``. NaNs of either sign rank above +inf and -0 equals +0, which JAX ranks otherwise on
        a CPU; see `approxtopk.top_k` for the whole order.

    Returns
    -------
    list of jax.Array
        ``[values, indices]``, a list as JAX's own is; indices are int32. Differentiable.
    """
    x = _array("top_k", operand)
    k = _integer("top_k", "k", k)
    axis = _axis(axis, x)
    if k < 0:
        raise ValueError(f"k argument to top_k must be nonnegative, got {k}")
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise ValueError("top_k is not compatible with complex inputs.")
    if k > x.shape[axis]:
        raise ValueError(
            "k argument to top_k must be no larger than size along axis; "
            f"got k={k} with shape={list(x.shape)} and axis={axis}"
        )
    if x.dtype == jnp.bool_:
        # jax.lax.top_k takes them; as 0 and 1 they have the same order.
        values, indices = call(EXACT, x.astype(jnp.uint8), k, axis=axis, index_dtype="int32")
        return [values.astype(jnp.bool_), indices]
    return list(call(EXACT, x, k, axis=axis, index_dtype="int32"))


def approx_max_k(
    operand: Any,
    k: int,
    reduction_dimension: int = -1,
    recall_target: float = 0.95,
    reduction_input_size_override: int = -1,
    aggregate_to_topk: bool = True,
) -> list[jax.Array]:
    """Approximate top-k in place of ``jax.lax.approx_max_k``, bucketed on every platform.

    Parameters
    ----------
    operand, k, reduction_dimension, recall_target
        As ``jax.lax.approx_max_k``.
    reduction_input_size_override : int, default -1
        Only -1 as yet.
    aggregate_to_topk : bool, default True
        Only True as yet.

    Returns
    -------
    list of jax.Array
        ``[values, indices]``, largest first, a list as JAX's own is; indices are int32. Differentiable.
    """
    return _approx(
        "approx_max_k",
        "largest",
        operand,
        k,
        reduction_dimension,
        recall_target,
        reduction_input_size_override,
        aggregate_to_topk,
    )


def approx_min_k(
    operand: Any,
    k: int,
    reduction_dimension: int = -1,
    recall_target: float = 0.95,
    reduction_input_size_override: int = -1,
    aggregate_to_topk: bool = True,
) -> list[jax.Array]:
    """Approximate smallest k in place of ``jax.lax.approx_min_k``; see `approx_max_k`. Smallest first, NaN last."""
    return _approx(
        "approx_min_k",
        "smallest",
        operand,
        k,
        reduction_dimension,
        recall_target,
        reduction_input_size_override,
        aggregate_to_topk,
    )


def _approx(
    name: str, mode: str, operand: Any, k: Any, axis: Any, recall_target: Any, override: Any, aggregate: Any
) -> list[jax.Array]:
    x = _array(name, operand)
    if x.ndim == 0:
        raise TypeError(f"{name} operand must have >= 1 dimension, got ()")
    k = _integer(name, "k", k)
    axis = _axis(_integer(name, "reduction_dimension", axis), x)
    if k <= 0:
        raise ValueError(f"k must be positive, got {k}")
    if k > x.shape[axis]:
        raise ValueError(f"k must be smaller than the size of reduction_dim {x.shape[axis]}, got {k}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError("operand must be a floating type")
    if _integer(name, "reduction_input_size_override", override) != -1:
        raise InvalidArgument(f"reduction_input_size_override = {override} is not supported yet; allowed is -1")
    if aggregate is not True:
        raise InvalidArgument(f"aggregate_to_topk = {aggregate!r} is not supported yet; allowed is True")
    return list(call(APPROXIMATE, x, k, axis=axis, mode=mode, recall_target=recall_target, index_dtype="int32"))


def _array(name: str, operand: Any) -> jax.Array:
    """What JAX's functions take: its own arrays and tracers, NumPy's arrays and scalars, Python's numbers."""
    if isinstance(operand, jax.Array):
        return operand
    if isinstance(operand, (np.ndarray, np.generic, int, float, complex)):
        return jnp.asarray(operand)
    raise TypeError(
        f"Error interpreting argument to {name} as a JAX value. The problematic value is of type {type(operand)} "
        f"and was passed to {name} at position 0."
    )


def _integer(name: str, argument: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: {argument} must be an integer, got {value!r}") from None


def _axis(axis: Any, x: jax.Array) -> int:
    where = _integer("top_k", "axis", axis)
    if not -x.ndim <= where < x.ndim:
        raise ValueError(f"axis {where} is out of bounds for array of dimension {x.ndim}")
    return where % x.ndim
