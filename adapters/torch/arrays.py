"""Tensors as Buffers, and plans run on PyTorch's memory and stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch.autograd.graph import increment_version

from ...buffer import Buffer, Device, row_major
from ...dtypes import DTYPES
from ...errors import DeviceMismatch, InvalidArgument, InvalidType
from ...execute import execute
from ...operator import Operator
from ...plan import Output, Plan
from ...request import IndexDType
from ...runtime.protocol import Runtime
from ..common import misfit, name_buffers, unsupported
from . import ops

__all__ = ["ADAPTER", "describe", "select"]

_NAMES = {getattr(torch, name): name for name in DTYPES if hasattr(torch, name)}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()} | {"bool": torch.bool}
_DIFFERENTIABLE = frozenset(("float16", "bfloat16", "float32", "float64"))  # float8 has no gather, so no derivative
_STRIDED = torch.strided
_CPU = Device("cpu")
_HIP = getattr(torch.version, "hip", None) is not None
_is_grad_enabled = torch.is_grad_enabled
_is_compiling = torch.compiler.is_compiling
_pointer = attrgetter("pointer")
_address = torch.Tensor.data_ptr


class TorchAdapter:
    """Tensors in and out, differentiable in `x` through the returned values."""

    name = "torch"
    default_index: IndexDType = "int64"

    def index_dtypes(self) -> tuple[str, ...]:
        """Both, always."""
        return ("int32", "int64")

    def facts(self, x: torch.Tensor, name: str = "x") -> Buffer:
        """Describe `x`; ``pointer`` is 0 where `x` has an address only below PyTorch's dispatcher."""
        return describe(x, name, ops.wrapped(x))

    def run(
        self,
        operator: Operator,
        inputs: Mapping[str, torch.Tensor],
        facts: Mapping[str, Buffer],
        plan: Plan,
        runtime: Runtime,
        out: Sequence[torch.Tensor] | None = None,
        workspace: int | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Select, and where a derivative is to follow, take the values by ``torch.gather``."""
        x = inputs["x"]
        if out is not None and (
            any(map(ops.wrapped, inputs.values())) or (x.requires_grad and _is_grad_enabled()) or _is_compiling()
        ):
            raise InvalidArgument(
                "out is given and x is being differentiated, compiled, traced or mapped; allowed is out for plain "
                "tensors: leave it away, or use torch.no_grad()"
            )
        # One without an address, wrapped or empty, takes all to the dispatcher.
        if out is not None or all(map(_pointer, facts.values())):
            arrays = select(x, facts, plan, runtime, out, workspace)
            if out is not None:
                # What autograd has saved of them is no longer true, and it must know.
                for array in arrays:
                    increment_version(array)
            if not (x.requires_grad and _is_grad_enabled()):
                return arrays
        else:
            arrays = ops.dispatch(inputs, plan)
        if operator.derivative == "gather" and facts["x"].dtype in _DIFFERENTIABLE:
            values, indices, *others = arrays
            return (_gather(x, values, indices, plan), indices, *others)
        return arrays

    def reserve(self, nbytes: int, x: torch.Tensor) -> tuple[object, int] | None:
        """Memory of PyTorch's allocator."""
        if ops.wrapped(x):
            return None
        owner = x.new_empty(nbytes, dtype=torch.uint8)
        return owner, owner.data_ptr()

    def capturing(self, x: torch.Tensor) -> bool:
        """Ask the current stream."""
        return x.is_cuda and torch.cuda.is_current_stream_capturing()

    def check_out(self, array: torch.Tensor, output: Output, x: torch.Tensor) -> None:
        """Refuse what is not one piece of memory on x's device, or has a derivative to lose."""
        dtype = x.dtype if output.name == "values" else _DTYPES[output.dtype]
        kind = "" if array.layout is _STRIDED and array.is_contiguous() else "not contiguous, "
        kind += "which requires a gradient, " if array.requires_grad else ""
        if array.dtype != dtype or tuple(array.shape) != output.shape or array.device != x.device or kind:
            raise misfit(
                output, dtype, f"a tensor ({kind}{array.dtype}, shape {tuple(array.shape)}, on {array.device})"
            )


def _gather(x: torch.Tensor, values: torch.Tensor, indices: torch.Tensor, plan: Plan) -> torch.Tensor:
    """`values` once more, with their derivative: that of `x` at `indices`, and 0 where a ragged row is padded."""
    axis = plan.request.axis
    where = indices.to(torch.int64)
    if not plan.request.ragged:
        return torch.gather(x, axis, where)
    # Out of range, -1 would stop the device.
    return torch.where(where < 0, values, torch.gather(x, axis, where.clamp_min(0)))


def describe(x: torch.Tensor, name: str, wrapped: bool) -> Buffer:
    """The Buffer of `x`, the argument `name`.

    Raises
    ------
    InvalidType, UnsupportedDType, DeviceMismatch, InvalidArgument
        When `x` is sparse, of a type without an order, on a device not served, or has no memory.
    """
    if x.layout is not _STRIDED or x.is_nested:
        layout = "nested" if x.is_nested else str(x.layout).removeprefix("torch.")
        raise InvalidType(
            f"{name} is a {layout} tensor; allowed are dense (strided) tensors: pass {name}.to_dense() or its parts"
        )
    if x.is_cpu:
        device = _CPU
    elif x.is_cuda and not _HIP:
        device = Device("cuda", x.device.index)
    else:
        where = f"{x.device} (ROCm)" if x.is_cuda else str(x.device)
        raise DeviceMismatch(f"{name} is on device {where}; allowed are cpu and cuda (NVIDIA): pass {name}.to('cpu')")
    dtype = _NAMES.get(x.dtype)
    if dtype is None:
        raise unsupported(x.dtype, name)
    shape = tuple(x.shape)
    if wrapped:
        shape = tuple(map(int, shape))  # symbolic under torch.compile, and a plan is for known ones
        return Buffer(0, shape, row_major(shape), dtype, device)
    pointer = x.data_ptr()
    if not pointer and x.numel():
        raise InvalidArgument(
            f"{name} of shape {shape} has no memory: its storage was freed; allowed are tensors with memory"
        )
    if pointer % x.itemsize:
        raise InvalidArgument(
            f"{name} starts at address {pointer:#x}; allowed are multiples of the element's {x.itemsize} bytes: "
            f"pass {name}.clone()"
        )
    return Buffer(pointer, shape, x.stride(), dtype, device)


def select(
    x: torch.Tensor,
    facts: Mapping[str, Buffer],
    plan: Plan,
    runtime: Runtime,
    out: Sequence[torch.Tensor] | None = None,
    workspace: int | None = None,
) -> tuple[torch.Tensor, ...]:
    """Execute `plan` on memory of PyTorch's allocator, where `x` is, and its current stream; keeps no tensor alive."""
    if out is None:
        arrays = [x.new_empty(plan.outputs[0].shape)]
        for output in plan.outputs[1:]:
            arrays.append(x.new_empty(output.shape, dtype=_DTYPES[output.dtype]))
    else:
        arrays = list(out)
    if plan.steps:
        owner = None
        nbytes = plan.workspace_bytes
        if workspace is None:
            owner = x.new_empty(nbytes, dtype=torch.uint8) if nbytes else None
            workspace = 0 if owner is None else owner.data_ptr()
        device = facts["x"].device
        buffers = name_buffers(facts, plan, map(_address, arrays), workspace)
        execute(plan, buffers, runtime, _stream(device.index) if device.kind == "cuda" else 0)
    else:
        for array in arrays:
            if array.numel():
                array.fill_(True)
    return tuple(arrays)


def _public_stream(index: int) -> Any:
    return torch.cuda.current_stream(index).cuda_stream


# The raw accessor that Inductor's generated code calls is several times cheaper; CPU builds lack it.
_stream = getattr(torch._C, "_cuda_getCurrentRawStream", _public_stream)

ADAPTER = TorchAdapter()
