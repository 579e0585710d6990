"""What a tensor is, and a plan run on plain memory: of PyTorch's allocator, on its current stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ...buffer import Buffer, Device
from ...dtypes import DTYPES
from ...errors import DeviceMismatch, InvalidArgument, InvalidType
from ...execute import execute
from ...plan import Plan
from ...runtime.protocol import Runtime
from ..common import unsupported

__all__ = ["DTYPE_OF", "check", "describe", "run_plan"]

_NAMES = {getattr(torch, name): name for name in DTYPES if hasattr(torch, name)}
#: PyTorch's element type, by name.
DTYPE_OF = {name: dtype for dtype, name in _NAMES.items()} | {"bool": torch.bool}
_BYTE = torch.uint8
_UNIT = (1,)
_STRIDED = torch.strided
_CPU = Device("cpu")
_HIP = getattr(torch.version, "hip", None) is not None
_empty = torch.empty_strided  # the cheapest of those that take a type and a device
_new: Any = tuple.__new__


def check(x: torch.Tensor, name: str) -> str:
    """The element type of `x`, the argument `name`, by name; `x` may have no memory.

    Raises
    ------
    InvalidType, UnsupportedDType, DeviceMismatch
        When `x` is sparse, of a type without an order, or on a device not served.
    """
    if x.layout is not _STRIDED or x.is_nested:
        layout = "nested" if x.is_nested else str(x.layout).removeprefix("torch.")
        raise InvalidType(
            f"{name} is a {layout} tensor; allowed are dense (strided) tensors: pass {name}.to_dense() or its parts"
        )
    if not (x.is_cpu or (x.is_cuda and not _HIP)):
        where = f"{x.device} (ROCm)" if x.is_cuda else str(x.device)
        raise DeviceMismatch(f"{name} is on device {where}; allowed are cpu and cuda (NVIDIA): pass {name}.to('cpu')")
    dtype = _NAMES.get(x.dtype)
    if dtype is None:
        raise unsupported(x.dtype, name)
    return dtype


def describe(x: torch.Tensor, name: str = "x") -> Buffer:
    """The Buffer of `x`, the argument `name`, which is plain memory.

    Raises
    ------
    InvalidType, UnsupportedDType, DeviceMismatch, InvalidArgument
        As `check`; and when its memory was freed, or is not aligned.
    """
    dtype = check(x, name)
    shape = tuple(x.shape)
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
    # What Buffer(...) does, at a third of the price: this is on the way of every call.
    where = _CPU if x.is_cpu else Device("cuda", x.device.index)
    buffer: Buffer = _new(Buffer, (pointer, shape, x.stride(), dtype, where))
    return buffer


def run_plan(
    x: torch.Tensor,
    facts: Mapping[str, Buffer],
    plan: Plan,
    runtime: Runtime,
    out: Sequence[torch.Tensor] | None = None,
    workspace: int | None = None,
) -> tuple[torch.Tensor, ...]:
    """Execute `plan` where `x` is, and keep no tensor alive."""
    own, where = facts["x"].device, x.device
    buffers, arrays = dict(facts), []
    # What `common.name_buffers` does, in one walk with the allocation: this is half of what a call costs.
    for number, (name, shape, strides, dtype) in enumerate(plan.outputs):
        array = _empty(shape, strides, dtype=DTYPE_OF[dtype], device=where) if out is None else out[number]
        arrays.append(array)
        buffers[name] = _new(Buffer, (array.data_ptr(), shape, strides, dtype, own))
    if plan.steps:
        nbytes, owner = plan.workspace_bytes, None
        if nbytes:
            if workspace is None:
                owner = _empty((nbytes,), _UNIT, dtype=_BYTE, device=where)
                workspace = owner.data_ptr()
            buffers["workspace"] = _new(Buffer, (workspace, (nbytes,), _UNIT, "uint8", own))
        execute(plan, buffers, runtime, _stream(own.index) if own.kind == "cuda" else 0)
    else:
        for array in arrays:
            if array.numel():
                array.fill_(True)
    return tuple(arrays)


def _public_stream(index: int) -> Any:
    return torch.cuda.current_stream(index).cuda_stream


# The raw accessor that Inductor's generated code calls is several times cheaper; CPU builds lack it.
_stream = getattr(torch._C, "_cuda_getCurrentRawStream", _public_stream)
