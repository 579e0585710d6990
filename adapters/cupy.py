"""CuPy arrays."""

from __future__ import annotations

from typing import Any

import cupy

from ..buffer import Buffer, Device, row_major
from ..errors import DeviceMismatch, InvalidArgument
from ..execute import execute
from ..operator import Operator
from ..plan import Plan
from ..request import IndexDType
from ..runtime.protocol import Runtime
from .common import outputs
from .numpy import dtype_name

__all__ = ["ADAPTER"]


class CupyAdapter:
    """``cupy.ndarray`` in and out, on the device of `x` and CuPy's current stream there."""

    name = "cupy"
    default_index: IndexDType = "int64"

    def index_dtypes(self) -> tuple[str, ...]:
        """Both, always."""
        return ("int32", "int64")

    def facts(self, x: Any) -> Buffer:
        """Describe `x`; asks nothing of the driver."""
        if cupy.cuda.runtime.is_hip:
            raise DeviceMismatch("x is on an AMD GPU (CuPy for ROCm); allowed are NVIDIA GPUs and the CPU")
        name = dtype_name(x.dtype)
        device = Device("cuda", x.data.device_id)
        shape = x.shape
        if not x.size:
            return Buffer(0, shape, row_major(shape), name, device)
        pointer = x.data.ptr
        itemsize = x.itemsize
        if pointer % itemsize or any(s % itemsize for s in x.strides):
            raise InvalidArgument(
                f"x has strides {x.strides} in bytes at address {pointer:#x}; allowed are multiples of the element's "
                f"{itemsize} bytes: make an aligned copy of its bytes first"
            )
        return Buffer(pointer, shape, tuple([s // itemsize for s in x.strides]), name, device)

    def run(self, operator: Operator, x: Any, facts: Buffer, plan: Plan, runtime: Runtime) -> tuple[Any, Any]:
        """Execute `plan` on memory of CuPy's pool."""
        r = plan.request
        # The pool and the current stream are the current device's: both are asked on x's.
        with cupy.cuda.Device(facts.device.index):
            values = cupy.empty(r.output_shape, x.dtype)
            indices = cupy.empty(r.output_shape, r.index_dtype)
            if plan.steps:
                # Freed on return: the pool hands it out again on this stream only, so in stream order.
                workspace = cupy.empty(plan.workspace_bytes, "uint8") if plan.workspace_bytes else None
                buffers = outputs(
                    operator,
                    plan,
                    facts,
                    values.data.ptr,
                    indices.data.ptr,
                    0 if workspace is None else workspace.data.ptr,
                )
                execute(plan, buffers, runtime, cupy.cuda.get_current_stream().ptr)
        return values, indices


ADAPTER = CupyAdapter()
