"""JAX arrays described, and the compiled call kept per plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ...buffer import Buffer, Device, row_major
from ...dtypes import DTYPES
from ...errors import DeviceMismatch, InvalidArgument, InvalidType, UnsupportedDType
from ...operator import Operator
from ...plan import Output, Plan
from ...request import IndexDType
from ...runtime.protocol import Runtime
from ..common import unsupported
from .operators import Call, as_function

__all__ = ["ADAPTER"]

_config: Any = jax.config  # its options are attributes made at run time
_names: dict[Any, str] = {}
_devices: dict[Any, Device] = {}

# A Plan is slow to hash; the core's cache hands out the same object again, so its identity is the key. The value
# holds plan and runtime, so that no other can take over their identity.
_calls: dict[tuple[int, int, Device], tuple[Call, Plan, Runtime]] = {}
_MOST_CALLS = 4096


class JaxAdapter:
    """``jax.Array`` in and out; tracers too, of ``jit``, ``vmap`` and derivatives."""

    name = "jax"
    default_index: IndexDType = "int32"

    def index_dtypes(self) -> tuple[str, ...]:
        """int64 exists with x64 only."""
        return ("int32", "int64") if _config.jax_enable_x64 else ("int32",)

    def deferred(self, x: Any, *others: Any) -> None:
        """Never: JAX's tracers know their shapes."""

    def facts(self, x: Any, name: str = "x") -> Buffer:
        """Describe `x`; XLA's arrays are row-major and have an address only while XLA runs."""
        if not isinstance(x, jax.Array):
            raise InvalidType(f"{name} must be a JAX array, not {type(x).__module__}.{type(x).__name__}")
        dtype = _names.get(x.dtype)
        if dtype is None:
            dtype = str(x.dtype.name)
            if dtype not in DTYPES:
                raise unsupported(dtype, name)
            _names[x.dtype] = dtype
        if dtype.endswith("64") and not _config.jax_enable_x64:
            raise UnsupportedDType(
                f"{name} has dtype {dtype} and JAX runs without x64; allowed are narrower types, or "
                'jax.config.update("jax_enable_x64", True)'
            )
        shape = x.shape
        if isinstance(x, jax.core.Tracer):
            if not all(type(extent) is int for extent in shape):
                raise InvalidArgument(f"{name} has shape {shape}; allowed are known extents, not symbolic ones")
            device = _default_device()
        else:
            if x.is_deleted():
                raise InvalidArgument(
                    f"{name} of shape {shape} was deleted or donated; allowed is an array with memory"
                )
            places = x.devices()
            # Of several devices, all of one kind, one stands for all: each will run its part.
            device = next(iter(places)) if len(places) == 1 else min(places, key=_rank)
        return Buffer(0, shape, row_major(shape), dtype, _devices.get(device) or _device(device, name))

    def run(
        self,
        operator: Operator,
        inputs: Mapping[str, Any],
        facts: Mapping[str, Buffer],
        plan: Plan,
        runtime: Runtime,
        out: Sequence[Any] | None = None,
        workspace: int | None = None,
    ) -> tuple[jax.Array, ...]:
        """Execute `plan` inside XLA; outputs and workspace are XLA's."""
        device = facts["x"].device
        found = _calls.get((id(plan), id(runtime), device))
        call = found[0] if found is not None else _compile(operator, tuple(inputs), device, plan, runtime)
        return call(*inputs.values())

    def reserve(self, nbytes: int, x: Any) -> None:
        """Workspace is XLA's, anew for every call."""

    def capturing(self, x: Any) -> bool:
        """XLA's graphs have XLA's memory."""
        return False

    def check_out(self, array: Any, output: Output, x: Any) -> None:
        """Refuse all."""
        raise InvalidArgument("out is given and x is a JAX array; JAX's arrays are immutable: leave it away")

    def floats(self, x: Any) -> Any:
        """Integers as float32."""
        return x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.integer) else x

    def per_row(self, array: Any, dtype: str, shape: tuple[int, ...]) -> Any:
        """Converted and broadcast."""
        number = jnp.issubdtype(array.dtype, jnp.integer) or jnp.issubdtype(array.dtype, jnp.floating)
        array = array.astype(dtype) if number else array
        return array if array.ndim else jnp.broadcast_to(array, shape)

    def keep(self, x: Any, indices: Any, axis: int) -> Any:
        """By JAX's own functions."""
        kept = jnp.take_along_axis(x, indices, axis)
        return jnp.put_along_axis(jnp.zeros_like(x), indices, kept, axis, inplace=False)

    def ones(self, x: Any) -> Any:
        """By JAX's own function."""
        return jnp.ones_like(x)


def _compile(operator: Operator, names: tuple[str, ...], device: Device, plan: Plan, runtime: Runtime) -> Call:
    """The operator as a jitted function of its inputs, with the backend fixed as jit would fix it anyway."""
    call: Call = jax.jit(as_function(operator, names, plan, runtime, device))
    if len(_calls) >= _MOST_CALLS:
        _calls.clear()
    _calls[id(plan), id(runtime), device] = (call, plan, runtime)
    return call


def _default_device() -> Any:
    """Where a function that is being traced will run, as far as one can know: JAX's default device."""
    device = _config.jax_default_device
    return device if device is not None and not isinstance(device, str) else jax.devices(device)[0]


def _rank(device: Any) -> tuple[bool, int]:
    """The devices of this process first."""
    return device.process_index != jax.process_index(), device.id


def _device(device: Any, name: str) -> Device:
    """JAX's device as ours; CUDA counts by the process' own ordinal."""
    version = str(device.client.platform_version).lower()
    if device.platform == "cpu":
        found = Device("cpu")
    elif device.platform in ("gpu", "cuda") and "rocm" not in version:
        ordinal = device.local_hardware_id
        found = Device("cuda", device.id if ordinal is None else ordinal)
    else:
        raise DeviceMismatch(f"{name} is on device {device} ({device.platform}); allowed are CPUs and NVIDIA GPUs")
    _devices[device] = found
    return found


ADAPTER = JaxAdapter()
