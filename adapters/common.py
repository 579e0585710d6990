"""What every adapter does the same way."""

from __future__ import annotations

from ..buffer import Buffer, row_major
from ..dtypes import DTYPES
from ..errors import UnsupportedDType
from ..operator import Operator
from ..plan import Plan
from ..request import short

__all__ = ["outputs", "unsupported"]


def outputs(operator: Operator, plan: Plan, x: Buffer, values: int, indices: int, workspace: int) -> dict[str, Buffer]:
    """Name the buffers of a call: the input, and C-contiguous outputs and workspace at the given addresses."""
    r = plan.request
    shape = r.output_shape
    strides = row_major(shape)
    (given,) = operator.inputs
    first, last = operator.outputs
    buffers = {
        given: x,
        first: Buffer(values, shape, strides, x.dtype, x.device),
        last: Buffer(indices, shape, strides, r.index_dtype, x.device),
    }
    if plan.workspace_bytes:
        buffers["workspace"] = Buffer(workspace, (plan.workspace_bytes,), (1,), "uint8", x.device)
    return buffers


def unsupported(dtype: object, way_out: str = "") -> UnsupportedDType:
    """The error for an element type without an order here."""
    hint = f"; {way_out}" if way_out else ""
    return UnsupportedDType(f"x has dtype {short(str(dtype), 200)}; allowed are {', '.join(DTYPES)}{hint}")
