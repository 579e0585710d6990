"""What every adapter does the same way."""

from __future__ import annotations

from functools import lru_cache

from ..buffer import Buffer
from ..dtypes import DTYPES
from ..errors import UnsupportedDType
from ..operator import Operator
from ..plan import Plan

__all__ = ["outputs", "row_major", "unsupported"]


@lru_cache(maxsize=4096)
def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides, in elements, of a C-contiguous array of `shape`."""
    strides = [1] * len(shape)
    for i in range(len(shape) - 2, -1, -1):
        strides[i] = strides[i + 1] * max(shape[i + 1], 1)
    return tuple(strides)


def outputs(operator: Operator, plan: Plan, x: Buffer, values: int, indices: int, workspace: int) -> dict[str, Buffer]:
    """Name the buffers of a call: `x`, and C-contiguous outputs and workspace at the given addresses."""
    r = plan.request
    shape = r.output_shape
    strides = row_major(shape)
    first, last = operator.outputs
    buffers = {
        "x": x,
        first: Buffer(values, shape, strides, x.dtype, x.device),
        last: Buffer(indices, shape, strides, r.index_dtype, x.device),
    }
    if plan.workspace_bytes:
        buffers["workspace"] = Buffer(workspace, (plan.workspace_bytes,), (1,), "uint8", x.device)
    return buffers


def unsupported(dtype: object, way_out: str = "") -> UnsupportedDType:
    """The error for an element type without an order here."""
    hint = f"; {way_out}" if way_out else ""
    return UnsupportedDType(f"x has dtype {dtype}; allowed are {', '.join(DTYPES)}{hint}")
