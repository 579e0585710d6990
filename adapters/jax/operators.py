"""One call as a JAX function: derivative outside, vmap inside it, then the devices, the custom call innermost."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

from ...buffer import Device, row_major
from ...operator import Operator, Pullback
from ...plan import Plan
from ...planning.cached import replan
from ...rows import Given
from ...runtime.protocol import Runtime
from .handler import TARGET
from .programs import name
from .sharding import Call, explicit, partitioned, vary_alike

__all__ = ["Call", "as_function"]

_result: Any = jax.ShapeDtypeStruct


def as_function(operator: Operator, names: tuple[str, ...], plan: Plan, runtime: Runtime, device: Device) -> Call:
    """A function of the arrays `names` that runs `plan` on `runtime`, for ``jit``, ``vmap`` and any derivatives.

    `device` is the one that the plan was made for, or stands for several alike.
    """

    def local(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        return as_function(operator, names, _plan_for(plan, names, arrays), runtime, device)(*arrays)

    inner = _mapped(names, plan, runtime, device)
    request: Any = plan.request
    if isinstance(operator.derivative, Pullback):
        return explicit(partial(_derived, _Derivative(operator, names, plan, inner)), local, plan)
    if operator.derivative != "gather" or request.dtype.kind != "f":
        return explicit(inner, local, plan)

    def differentiable(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        x, *bounds = arrays
        values, indices, *others = inner(jax.lax.stop_gradient(x), *bounds)
        return (_gathered(request.axis, request.ragged, x, values, indices), indices, *others)

    return explicit(differentiable, local, plan)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _gathered(axis: int, ragged: bool, x: jax.Array, values: jax.Array, indices: jax.Array) -> jax.Array:
    """`values`, which were gathered from `x` at `indices` and so have its derivative there."""
    return values


@_gathered.defjvp
def _derivative(axis: int, ragged: bool, primals: tuple[jax.Array, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    slope, indices = tangents[0], primals[2]
    batch = tuple(i for i in range(indices.ndim) if i != axis)
    # Not jnp.take_along_axis: it fails under vmap of explicitly sharded arrays outside of jax.set_mesh.
    slope = jax.lax.gather(
        slope,
        jnp.maximum(indices, 0)[..., None],
        jax.lax.GatherDimensionNumbers(
            offset_dims=(),
            collapsed_slice_dims=(axis,),
            start_index_map=(axis,),
            operand_batching_dims=batch,
            start_indices_batching_dims=batch,
        ),
        slice_sizes=(1,) * indices.ndim,
        unique_indices=not ragged,
        mode="promise_in_bounds",
    )
    if ragged:
        slope = jnp.where(indices < 0, 0, slope)  # padding is constant
    return _gathered(axis, ragged, *primals), slope


class _Derivative:
    """A call and the formula of its derivative, which JAX turns around for reverse mode, and differentiates again."""

    def __init__(self, operator: Operator, names: tuple[str, ...], plan: Plan, call: Call) -> None:
        assert isinstance(operator.derivative, Pullback)
        self.formula = operator.derivative.jvp
        self.names = names
        self.arguments = plan.request.arguments
        self.real = operator.derivative.real(plan.request.dtype.name)
        self.outputs = tuple(output.name for output in plan.outputs)
        self.call = call

    def tangents(self, inputs: Any, outputs: Any, tangents: Any) -> tuple[jax.Array, ...]:
        """Of the outputs, in their types."""
        real = self.real
        given = {name: array.astype(real) for name, array in zip(self.names, tangents, strict=True)}
        arrays = dict(zip((*self.names, *self.outputs), (*inputs, *outputs), strict=True))
        arrays = {name: array.astype(real) for name, array in arrays.items()}
        found = self.formula(jnp, self.arguments, arrays, given)
        return tuple(found[name].astype(array.dtype) for name, array in zip(self.outputs, outputs, strict=True))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _derived(how: _Derivative, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    return how.call(*arrays)


@_derived.defjvp
def _derived_jvp(how: _Derivative, primals: Any, tangents: Any) -> tuple[Any, Any]:
    outputs = _derived(how, *primals)
    return outputs, how.tangents(primals, outputs, tangents)


def _plan_for(plan: Plan, names: tuple[str, ...], arrays: tuple[Any, ...], axis: int | None = None) -> Plan:
    """What `plan` asks for, planned for these arrays: a batch of them, or one device's part."""
    r = plan.request
    if axis is None and arrays[0].shape == r.shape:
        return plan
    described: list[Given] = [(str(array.dtype.name), array.shape, row_major(array.shape)) for array in arrays]
    (_, x), *others = zip(names, described, strict=True)
    arguments = r.arguments if axis is None else r.arguments | {"axis": axis}
    return replan(r.operator, x, dict(others), arguments, plan.device)


def _mapped(names: tuple[str, ...], plan: Plan, runtime: Runtime, device: Device) -> Call:
    """Under vmap a batch is one axis more of every array, and a plan of its own."""
    axis = plan.request.axis

    def local(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        return _call(_plan_for(plan, names, arrays), runtime, device, arrays)

    divided = explicit(partitioned(local, plan), local, plan) if plan.steps else local

    @custom_vmap
    def mapped(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        return divided(*arrays)

    def rule(axis_size: int, in_batched: Any, *arrays: jax.Array) -> tuple[tuple[jax.Array, ...], tuple[bool, ...]]:
        wide = tuple(
            array if batched else jnp.broadcast_to(array, (axis_size, *array.shape))
            for array, batched in zip(arrays, in_batched, strict=True)
        )
        wider = _plan_for(plan, names, wide, axis + 1)
        return _mapped(names, wider, runtime, device)(*wide), (True,) * len(wider.outputs)

    mapped.def_vmap(rule)
    return mapped


def _call(plan: Plan, runtime: Runtime, device: Device, arrays: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """The custom call; workspace is one result more, so that XLA allocates it."""
    own, kind = arrays[0].dtype, plan.request.dtype.name
    results = [_result(o.shape, own if o.dtype == kind else np.dtype(o.dtype)) for o in plan.outputs]
    arrays = vary_alike(arrays)
    if not plan.steps:
        return vary_alike(tuple(jnp.ones(result.shape, result.dtype) for result in results), arrays)
    # Compiling inside XLA's callback would stall its stream.
    runtime.prepare(plan, device)
    if plan.workspace_bytes:
        results.append(_result((plan.workspace_bytes,), np.dtype(np.uint8)))
    outputs = jax.ffi.ffi_call(TARGET, tuple(results))(*arrays, plan=name(plan, runtime, device.kind))
    return vary_alike(tuple(outputs[: len(plan.outputs)]), arrays)
