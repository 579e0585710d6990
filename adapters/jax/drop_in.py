"""``jax.lax.top_k``, ``approx_max_k`` and ``approx_min_k`` by name and signature."""

from __future__ import annotations

import operator
from functools import lru_cache
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...approx_top_k import OPERATOR as APPROXIMATE
from ...call import call
from ...dtypes import DTYPES
from ...planning.choose import choose
from ...top_k import OPERATOR as EXACT

__all__ = ["approx_max_k", "approx_min_k", "top_k"]


def top_k(operand: Any, k: int, *, axis: int = -1) -> list[jax.Array]:
    """Exact top-k in place of ``jax.lax.top_k``: its arguments and its errors.

    Parameters
    ----------
    operand, k, axis
        As ``jax.lax.top_k``; bools and JAX's other 8-bit floats too. NaNs of either sign rank above +inf and -0 equals
        +0, which JAX ranks otherwise on a CPU; see `approxtopk.top_k` for the whole order.

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
    wider = _wider(x.dtype)
    if wider is not None:
        _, indices = call(EXACT, jax.lax.stop_gradient(x.astype(wider)), k, axis=axis, index_dtype="int32")
        return [jnp.take_along_axis(x, indices, axis=axis), indices]
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
    operand, k, reduction_dimension
        As ``jax.lax.approx_max_k``.
    recall_target : float, default 0.95
        Expected recall to reach, on every platform (JAX's own sorts on CPUs and GPUs, and ignores it).
    reduction_input_size_override : int, default -1
        N, at least the axis' length: `operand` is one of the shards of a row of N entries, and recall_target is that of
        the k best of all shards' results together. (b, k_b) are those of a row of N, and a shard has as many buckets
        of that size as it takes, at least enough for k. Negative: the axis is the whole row.
    aggregate_to_topk : bool, default True
        False returns candidates, not the k best of them: of as many buckets as JAX returns candidates, the best entry
        of each, in no particular order. That takes one pass. Their number is JAX's for the same arguments, which is
        at least k, but for overrides far beyond the axis' length; the k best of the candidates (of all shards) have the
        recall asked for.

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
    n = x.shape[axis]
    row = _integer(name, "reduction_input_size_override", override)
    if 0 <= row < n:
        raise ValueError(f"reduction_input_size_override: {row} should be greater equals to operand[{axis}]: {n}")
    given = {"axis": axis, "mode": mode, "recall_target": recall_target, "index_dtype": "int32"}
    if isinstance(recall_target, Real) and 0 < float(recall_target) <= 1:  # otherwise the call has the words for it
        if not aggregate:
            k = min(_candidates(x.ndim, n, k, float(recall_target), row), n)  # JAX itself fails beyond n
            given |= {"buckets": k, "k_per_bucket": 1, "sorted": False}
        elif row > n:
            given |= _part(n, row, k, float(recall_target))
    return list(call(APPROXIMATE, x, k, **given))


@lru_cache(maxsize=1024)
def _candidates(ndim: int, n: int, k: int, recall_target: float, row: int) -> int:
    """How many candidates JAX returns of an axis of n in an array of `ndim` axes."""

    def candidates(x: jax.Array) -> list[jax.Array]:
        return list(jax.lax.approx_max_k(x, k, -1, recall_target, row, False))

    array: Any = jax.ShapeDtypeStruct
    return int(jax.eval_shape(candidates, array((1,) * (ndim - 1) + (n,), np.float32))[0].shape[-1])


def _part(n: int, row: int, k: int, recall_target: float) -> dict[str, Any]:
    """Options for n entries of a row of `row`: buckets as large as the row's would be, or exact as the row would be.

    The best k of a part's candidates are all that the best k of all candidates can need of it, and with as many or
    more buckets than the row's, the recall of these is as high or higher.
    """
    chosen = choose(row, k, recall_target)
    if chosen.buckets is None or chosen.k_per_bucket is None:
        return {"recall_target": 1.0}
    needed = -(-k // chosen.k_per_bucket)
    return {"buckets": max(-(-n * chosen.buckets // row), needed), "k_per_bucket": chosen.k_per_bucket}


def _wider(dtype: Any) -> Any:
    """A type with the same order, for types that jax.lax.top_k takes and the core does not."""
    if dtype == jnp.bool_:
        return jnp.uint8
    other = dtype.name.startswith("float8_") and dtype.name not in DTYPES and dtype.name != "float8_e8m0fnu"
    return jnp.bfloat16 if other else None


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
