"""NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..buffer import Buffer, Device, row_major
from ..dtypes import DTYPES
from ..errors import UnsupportedDType
from ..execute import execute
from ..operator import Operator
from ..plan import Plan
from ..request import IndexDType
from ..runtime.protocol import Runtime
from .common import outputs, unsupported

__all__ = ["ADAPTER", "address", "dtype_name", "scratch"]

_CPU = Device("cpu")
_ALIGNMENT = 256  # what every GPU allocator gives at least; kernels may count on it in the emulator too

_names: dict[np.dtype[Any], str] = {}


class NumpyAdapter:
    """Arrays and memory maps in, plain ``numpy.ndarray`` out (subclasses are read, not returned).

    An array whose elements are misaligned or whose strides are not whole elements (a field of a packed
    structured array) cannot be described by a Buffer: it alone is copied first.
    """

    name = "numpy"
    default_index: IndexDType = "int64"

    def index_dtypes(self) -> tuple[str, ...]:
        """Both, always."""
        return ("int32", "int64")

    def facts(self, x: NDArray[Any]) -> Buffer:
        """Describe `x`; ``pointer`` is 0 where it has to be copied."""
        name = dtype_name(x.dtype)
        shape = x.shape
        if not x.size:
            return Buffer(0, shape, row_major(shape), name, _CPU)
        pointer = address(x)
        itemsize = x.itemsize
        if pointer % itemsize or any(s % itemsize for s in x.strides):
            return Buffer(0, shape, row_major(shape), name, _CPU)
        return Buffer(pointer, shape, tuple([s // itemsize for s in x.strides]), name, _CPU)

    def run(
        self, operator: Operator, x: NDArray[Any], facts: Buffer, plan: Plan, runtime: Runtime
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Execute `plan` on memory of NumPy's."""
        r = plan.request
        values: NDArray[Any] = np.empty(r.output_shape, x.dtype)
        indices: NDArray[Any] = np.empty(r.output_shape, r.index_dtype)
        if plan.steps:
            if not facts.pointer:
                x = np.array(x, order="C", subok=False)
                facts = facts._replace(pointer=address(x))
            owner, workspace = scratch(plan.workspace_bytes)
            buffers = outputs(operator, plan, facts, address(values), address(indices), workspace)
            execute(plan, buffers, runtime)
            del owner  # the workspace lives until here
        return values, indices


def address(x: NDArray[Any]) -> int:
    """Where the first element of `x` is."""
    return int(x.__array_interface__["data"][0])


def dtype_name(dtype: np.dtype[Any]) -> str:
    """The name of `dtype` in `approxtopk.dtypes.DTYPES`.

    Raises
    ------
    UnsupportedDType
        When it has none, or is not in this machine's byte order.
    """
    name = _names.get(dtype)
    if name is None:
        name = dtype.name
        if name not in DTYPES:
            raise unsupported(dtype)
        if not dtype.isnative:
            raise UnsupportedDType(
                f"x has dtype {dtype}, in the other byte order; allowed is this machine's own: "
                "pass x.astype(x.dtype.newbyteorder('='))"
            )
        _names[dtype] = name
    return name


def scratch(nbytes: int) -> tuple[object, int]:
    """`nbytes` of CPU memory, aligned as a GPU's would be: its owner and its address."""
    if not nbytes:
        return None, 0
    memory = np.empty(nbytes + _ALIGNMENT, np.uint8)
    return memory, -(-address(memory) // _ALIGNMENT) * _ALIGNMENT


ADAPTER = NumpyAdapter()
