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
from ..common import name_buffers

__all__ = ["Selection", "selection"]

_DIFFERENTIABLE = frozenset(("float16", "bfloat16", "float32", "float64"))

_result: Any = jax.ShapeDtypeStruct
Selection = Callable[..., tuple[jax.Array, ...]]


def selection(operator: Operator, names: tuple[str, ...], plan: Plan, runtime: Runtime, kind: str) -> Selection:
    """A function of the arrays `names` that runs `plan` on `runtime`, for ``jit``, ``vmap`` and any derivatives.

    `kind` is the kind of device the plan was made for.
    """
    inner = _mapped(names, plan, runtime, kind)
    request = plan.request
    if operator.derivative != "gather" or request.dtype.name not in _DIFFERENTIABLE:
        return inner

    @jax.custom_jvp
    def differentiable(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        return inner(*arrays)

    def derivative(primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]) -> tuple[Any, Any]:
        results = differentiable(*primals)
        indices = results[1]
        slope = jnp.take_along_axis(tangents[0], indices, axis=request.axis)
        if request.ragged:
            slope = jnp.where(indices < 0, 0, slope)  # padding is constant; -1 was the last entry to JAX
        return results, (slope, *(np.zeros(result.shape, jax.dtypes.float0) for result in results[1:]))

    differentiable.defjvp(derivative)
    return differentiable


def _mapped(names: tuple[str, ...], plan: Plan, runtime: Runtime, kind: str) -> Selection:
    """Under vmap a batch is one axis more of every array, and a plan of its own."""

    @custom_vmap
    def mapped(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        return _call(names, plan, runtime, kind, arrays)

    def rule(axis_size: int, in_batched: Any, *arrays: jax.Array) -> tuple[tuple[jax.Array, ...], tuple[bool, ...]]:
        wide = [
            array if batched else jnp.broadcast_to(array, (axis_size, *array.shape))
            for array, batched in zip(arrays, in_batched, strict=True)
        ]
        r = plan.request
        (_, (dtype, shape, strides)), *bounds = zip(names, map(_describe, wide), strict=True)
        wider = replan(r.options, shape, strides, dtype, r.axis + 1, plan.device, **dict(bounds))
        return _mapped(names, wider, runtime, kind)(*wide), (True,) * len(wider.outputs)

    mapped.def_vmap(rule)
    return mapped


def _call(
    names: tuple[str, ...], plan: Plan, runtime: Runtime, kind: str, arrays: tuple[jax.Array, ...]
) -> tuple[jax.Array, ...]:
    own = arrays[0].dtype
    results = [_result(o.shape, own if o.name == "values" else np.dtype(o.dtype)) for o in plan.outputs]
    if not plan.steps:
        return tuple(jnp.ones(result.shape, result.dtype) for result in results)
    if plan.workspace_bytes:
        results.append(_result((plan.workspace_bytes,), np.dtype(np.uint8)))
    described = [_describe(array) for array in arrays]

    def callback(context: Any, out: tuple[Any, ...], *given: Any) -> None:
        where, index = given[0].__dlpack_device__()
        if where != (1 if kind == "cpu" else 2):
            raise DeviceMismatch(
                f"x was traced for a {kind} device and runs on another kind; allowed is the device JAX defaults to "
                "while tracing: set jax.default_device"
            )
        device = Device("cpu") if kind == "cpu" else Device("cuda", index)
        facts = {
            name: Buffer(_address(array, kind), shape, strides, dtype, device)
            for name, array, (dtype, shape, strides) in zip(names, given, described, strict=True)
        }
        addresses = [_address(array, kind) for array in out]
        workspace = addresses.pop() if plan.workspace_bytes else 0
        buffers = name_buffers(facts, plan, addresses, workspace)
        execute(plan, buffers, runtime, context.stream if kind == "cuda" else 0)

    outputs: tuple[jax.Array, ...] = buffer_callback(callback, tuple(results))(*arrays)
    return outputs[: len(plan.outputs)]


def _describe(array: jax.Array) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    """dtype, shape and strides, as XLA lays arrays out."""
    return str(array.dtype.name), array.shape, row_major(array.shape)


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
