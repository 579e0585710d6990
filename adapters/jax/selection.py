"""One selection as a JAX function: derivative outside, vmap inside it, the call of the core innermost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.experimental.buffer_callback import buffer_callback

from ...buffer import Buffer, Device, row_major
from ...errors import DeviceMismatch
from ...execute import execute
from ...operator import Operator
from ...plan import Plan
from ...planning.cached import replan
from ...runtime.protocol import Runtime
from ..common import outputs

__all__ = ["selection"]

_DIFFERENTIABLE = frozenset(("float16", "bfloat16", "float32", "float64"))

_result: Any = jax.ShapeDtypeStruct
_Pair = tuple[jax.Array, jax.Array]


def selection(operator: Operator, plan: Plan, runtime: Runtime, kind: str) -> Callable[[jax.Array], _Pair]:
    """A function of one array that runs `plan` on `runtime`, for ``jit``, ``vmap`` and derivatives of any order.

    `kind` is the kind of device the plan was made for.
    """
    inner = _mapped(operator, plan, runtime, kind)
    request = plan.request
    if operator.derivative != "gather" or request.dtype.name not in _DIFFERENTIABLE:
        return inner

    @jax.custom_jvp
    def differentiable(x: jax.Array) -> _Pair:
        return inner(x)

    def derivative(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[_Pair, tuple[Any, Any]]:
        values, indices = differentiable(*primals)
        slope = jnp.take_along_axis(tangents[0], indices, axis=request.axis)
        return (values, indices), (slope, np.zeros(indices.shape, jax.dtypes.float0))

    differentiable.defjvp(derivative)
    return differentiable


def _mapped(operator: Operator, plan: Plan, runtime: Runtime, kind: str) -> Callable[[jax.Array], _Pair]:
    """Under vmap a batch is one axis more, and a plan of its own."""

    @custom_vmap
    def mapped(x: jax.Array) -> _Pair:
        return _call(operator, plan, runtime, kind, x)

    def rule(axis_size: int, in_batched: Any, x: jax.Array) -> tuple[_Pair, tuple[bool, bool]]:
        r = plan.request
        shape = (axis_size, *r.shape)
        wider = replan(r.options, shape, row_major(shape), r.dtype.name, r.axis + 1, plan.device)
        return _mapped(operator, wider, runtime, kind)(x), (True, True)

    mapped.def_vmap(rule)
    return mapped


def _call(operator: Operator, plan: Plan, runtime: Runtime, kind: str, x: jax.Array) -> _Pair:
    r = plan.request
    if not plan.steps:
        return jnp.zeros(r.output_shape, x.dtype), jnp.zeros(r.output_shape, np.dtype(r.index_dtype))
    strides = row_major(r.shape)

    def callback(context: Any, out: tuple[Any, ...], given: Any) -> None:
        where, index = given.__dlpack_device__()
        if where != (1 if kind == "cpu" else 2):
            raise DeviceMismatch(
                f"x was traced for a {kind} device and runs on another kind; allowed is the device JAX defaults to "
                "while tracing: set jax.default_device"
            )
        device = Device("cpu") if kind == "cpu" else Device("cuda", index)
        workspace = _address(out[2], kind) if len(out) == 3 else 0
        buffers = outputs(
            operator,
            plan,
            Buffer(_address(given, kind), r.shape, strides, r.dtype.name, device),
            _address(out[0], kind),
            _address(out[1], kind),
            workspace,
        )
        execute(plan, buffers, runtime, context.stream if kind == "cuda" else 0)

    results = [
        _result(r.output_shape, x.dtype),
        _result(r.output_shape, np.dtype(r.index_dtype)),
    ]
    if plan.workspace_bytes:
        results.append(_result((plan.workspace_bytes,), np.dtype(np.uint8)))
    values, indices = buffer_callback(callback, tuple(results))(x)[:2]
    return values, indices


def _address(buffer: Any, kind: str) -> int:
    """Where one of XLA's buffers is."""
    if kind == "cpu":
        return int(buffer.__array__().__array_interface__["data"][0])
    try:
        return int(buffer.__cuda_array_interface__["data"][0])
    except Exception:  # jaxlib's own error: element types that interface has no letter for
        from ..dlpack import borrow

        borrowed = borrow(buffer.__dlpack__())
        try:
            return borrowed.pointer
        finally:
            borrowed.release()
