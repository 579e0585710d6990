"""Tensors as Buffers, and plans run on PyTorch's memory and stream."""

from __future__ import annotations

from typing import Any

import torch

from ...buffer import Buffer, Device, row_major
from ...dtypes import DTYPES
from ...errors import DeviceMismatch, InvalidArgument, InvalidType
from ...execute import execute
from ...operator import Operator
from ...plan import Plan
from ...request import IndexDType
from ...runtime.protocol import Runtime
from ..common import outputs, unsupported
from . import ops

__all__ = ["ADAPTER", "describe", "select"]

_NAMES = {getattr(torch, name): name for name in DTYPES if hasattr(torch, name)}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}
_DIFFERENTIABLE = frozenset(("float16", "bfloat16", "float32", "float64"))  # float8 has no gather, so no derivative
_STRIDED = torch.strided
_CPU = Device("cpu")
_HIP = getattr(torch.version, "hip", None) is not None
_is_grad_enabled = torch.is_grad_enabled


class TorchAdapter:
    """Tensors in and out, differentiable in `x` through the returned values."""

    name = "torch"
    default_index: IndexDType = "int64"

    def index_dtypes(self) -> tuple[str, ...]:
        """Both, always."""
        return ("int32", "int64")

    def facts(self, x: torch.Tensor) -> Buffer:
        """Describe `x`; ``pointer`` is 0 where `x` has an address only below PyTorch's dispatcher."""
        return describe(x, ops.wrapped(x))

    def run(
        self, operator: Operator, x: torch.Tensor, facts: Buffer, plan: Plan, runtime: Runtime
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Select, and where a derivative is to follow, take the values by ``torch.gather``."""
        if ops.wrapped(x):
            # Detached: the derivative is gather's, and the operator itself has none.
            values, indices = ops.dispatch(x.detach(), plan)
        else:
            values, indices = select(operator, x, facts, plan, runtime)
            if not (x.requires_grad and _is_grad_enabled()):
                return values, indices
        if operator.derivative == "gather" and facts.dtype in _DIFFERENTIABLE:
            values = torch.gather(x, plan.request.axis, indices.to(torch.int64))
        return values, indices


def describe(x: torch.Tensor, wrapped: bool = False) -> Buffer:
    """The Buffer of `x`.

    Raises
    ------
    InvalidType, UnsupportedDType, DeviceMismatch, InvalidArgument
        When `x` is sparse, of a type without an order, on a device not served, or has no memory.
    """
    if x.layout is not _STRIDED or x.is_nested:
        layout = "nested" if x.is_nested else str(x.layout).removeprefix("torch.")
        raise InvalidType(
            f"x is a {layout} tensor; allowed are dense (strided) tensors: pass x.to_dense() or its parts"
        )
    if x.is_cpu:
        device = _CPU
    elif x.is_cuda and not _HIP:
        device = Device("cuda", x.device.index)
    else:
        where = f"{x.device} (ROCm)" if x.is_cuda else str(x.device)
        raise DeviceMismatch(f"x is on device {where}; allowed are cpu and cuda (NVIDIA): pass x.to('cpu')")
    name = _NAMES.get(x.dtype)
    if name is None:
        raise unsupported(x.dtype)
    shape = tuple(x.shape)
    if wrapped:
        return Buffer(0, shape, row_major(shape), name, device)
    pointer = x.data_ptr()
    if not pointer and x.numel():
        raise InvalidArgument(
            f"x of shape {shape} has no memory: its storage was freed; allowed are tensors with memory"
        )
    if pointer % x.itemsize:
        raise InvalidArgument(
            f"x starts at address {pointer:#x}; allowed are multiples of the element's {x.itemsize} bytes: "
            "pass x.clone()"
        )
    return Buffer(pointer, shape, x.stride(), name, device)


def select(
    operator: Operator, x: torch.Tensor, facts: Buffer, plan: Plan, runtime: Runtime
) -> tuple[torch.Tensor, torch.Tensor]:
    """Execute `plan` on memory of PyTorch's allocator and its current stream; keeps no tensor alive."""
    r = plan.request
    shape = r.output_shape
    values = x.new_empty(shape)
    indices = x.new_empty(shape, dtype=_DTYPES[r.index_dtype])
    if plan.steps:
        nbytes = plan.workspace_bytes
        workspace = x.new_empty(nbytes, dtype=torch.uint8) if nbytes else None
        buffers = outputs(
            operator,
            plan,
            facts,
            values.data_ptr(),
            indices.data_ptr(),
            0 if workspace is None else workspace.data_ptr(),
        )
        execute(plan, buffers, runtime, _stream(facts.device.index) if facts.device.kind == "cuda" else 0)
    return values, indices


def _public_stream(index: int) -> Any:
    return torch.cuda.current_stream(index).cuda_stream


# The raw accessor that Inductor's generated code calls is several times cheaper; CPU builds lack it.
_stream = getattr(torch._C, "_cuda_getCurrentRawStream", _public_stream)

ADAPTER = TorchAdapter()
