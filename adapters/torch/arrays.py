"""Tensors as Buffers, and plans run on PyTorch's memory and stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.autograd.graph import increment_version

from ...buffer import Buffer
from ...errors import InvalidArgument
from ...operator import Operator
from ...plan import Output, Plan
from ...request import IndexDType
from ...runtime.protocol import Runtime
from ..common import misfit
from ..protocol import Deferred
from .derivative import differentiable, needs_derivative
from .dispatch import dispatch
from .memory import DTYPE_OF, describe, run_plan
from .registered import wrapped
from .select import gather

__all__ = ["ADAPTER"]

_is_grad_enabled = torch.is_grad_enabled


class TorchAdapter:
    """Tensors in and out, differentiable in `x` through the returned values."""

    name = "torch"
    default_index: IndexDType = "int64"

    def index_dtypes(self) -> tuple[str, ...]:
        """Both, always."""
        return ("int32", "int64")

    def deferred(self, x: torch.Tensor, *others: Any) -> Deferred | None:
        """PyTorch's dispatcher, for tensors that are not plain memory."""
        if wrapped(x):
            return dispatch
        for other in others:
            if other is not None and wrapped(other):
                return dispatch
        return None

    #: `memory.describe` itself: every microsecond counts.
    facts = staticmethod(describe)

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
        """Run, and where a derivative is to follow, let autograd know: of a selection by ``torch.gather``."""
        x = inputs["x"]
        differentiated = x.requires_grad and _is_grad_enabled()
        if out is not None and differentiated:
            raise InvalidArgument(
                "out is given and x is being differentiated; allowed is out without derivatives: "
                "leave it away, or use torch.no_grad()"
            )
        if out is None and needs_derivative(operator, inputs):
            return differentiable(operator, inputs, plan.request.arguments)
        arrays = run_plan(x, facts, plan, runtime, out, workspace)
        if out is not None:
            # What autograd has saved of them is no longer true, and it must know.
            for array in arrays:
                increment_version(array)
        elif differentiated and operator.derivative == "gather":
            values, indices, *others = arrays
            return (gather(x, values, indices, plan.request.axis, len(inputs) > 1), indices, *others)
        return arrays

    def reserve(self, nbytes: int, x: torch.Tensor) -> tuple[object, int] | None:
        """Memory of PyTorch's allocator."""
        owner = x.new_empty(nbytes, dtype=torch.uint8)
        return owner, owner.data_ptr()

    def capturing(self, x: torch.Tensor) -> bool:
        """Ask the current stream."""
        return x.is_cuda and torch.cuda.is_current_stream_capturing()

    def check_out(self, array: torch.Tensor, output: Output, x: torch.Tensor) -> None:
        """Refuse what is not one piece of memory on x's device, or has a derivative to lose."""
        dtype = x.dtype if output.name == "values" else DTYPE_OF[output.dtype]
        dense = array.layout is torch.strided and array.is_contiguous()
        if not (
            dense
            and array.dtype == dtype
            and array.shape == output.shape
            and array.device == x.device
            and not array.requires_grad
        ):
            kind = ("" if dense else "not contiguous, ") + (
                "which requires a gradient, " if array.requires_grad else ""
            )
            raise misfit(
                output, dtype, f"a tensor ({kind}{array.dtype}, shape {tuple(array.shape)}, on {array.device})"
            )

    def floats(self, x: torch.Tensor) -> torch.Tensor:
        """Integers as float32."""
        kind = x.dtype
        return x if kind.is_floating_point or kind.is_complex or kind is torch.bool else x.to(torch.float32)

    def per_row(self, array: torch.Tensor, dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
        """Converted, and broadcast without a copy."""
        kind = array.dtype
        array = array if kind.is_complex or kind is torch.bool else array.to(DTYPE_OF[dtype])
        return array if array.ndim else array.expand(shape)

    def keep(self, x: torch.Tensor, indices: torch.Tensor, axis: int) -> torch.Tensor:
        """By PyTorch's own functions."""
        where = indices.to(torch.int64)
        return torch.zeros_like(x).scatter(axis, where, torch.gather(x, axis, where))

    def ones(self, x: torch.Tensor) -> torch.Tensor:
        """By PyTorch's own function."""
        return torch.ones_like(x)


ADAPTER = TorchAdapter()
