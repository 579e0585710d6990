"""CuPy arrays."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cupy
import numpy as np

from ..buffer import Buffer, Device, row_major
from ..errors import DeviceMismatch, InvalidArgument
from ..execute import execute
from ..operator import Operator
from ..plan import Output, Plan
from ..request import IndexDType
from ..runtime.protocol import Runtime
from .common import misfit, name_buffers, result_types
from .numpy import dtype_name

__all__ = ["ADAPTER"]


class CupyAdapter:
    """``cupy.ndarray`` in and out, on the device of `x` and CuPy's current stream there.

    Subclasses are read as the plain arrays that they are; results are plain. Managed memory and memory of others
    (``cupy.cuda.UnownedMemory``) is read in place, on the device that CuPy says it is on.

    In a graph that is captured, results and workspace are where the graph will write them at every replay: keep the
    results (or the arrays given as out) as long as the graph is replayed. What CuPy's own functions allocate within a
    capture is not kept by anyone: to be safe from that, capture with a pool of the graph's own,
    ``with cupy.cuda.using_allocator(pool.malloc)``, and keep the pool.
    """

    name = "cupy"
    default_index: IndexDType = "int64"

    def index_dtypes(self) -> tuple[str, ...]:
        """Both, always."""
        return ("int32", "int64")

    def deferred(self, x: Any, *others: Any) -> None:
        """Never: CuPy has no compiler that traces."""

    def facts(self, x: Any, name: str = "x") -> Buffer:
        """Describe `x`; asks nothing of the driver."""
        if cupy.cuda.runtime.is_hip:
            raise DeviceMismatch(f"{name} is on an AMD GPU (CuPy for ROCm); allowed are NVIDIA GPUs and the CPU")
        dtype = dtype_name(x.dtype, name)
        device = Device("cuda", x.data.device_id)
        shape = x.shape
        if not x.size:
            return Buffer(0, shape, row_major(shape), dtype, device)
        pointer = x.data.ptr
        itemsize = x.itemsize
        if pointer % itemsize or any(s % itemsize for s in x.strides):
            raise InvalidArgument(
                f"{name} has strides {x.strides} in bytes at address {pointer:#x}; allowed are multiples of the "
                f"element's {itemsize} bytes: make an aligned copy of its bytes first"
            )
        return Buffer(pointer, shape, tuple([s // itemsize for s in x.strides]), dtype, device)

    def run(
        self,
        operator: Operator,
        inputs: Mapping[str, Any],
        facts: Mapping[str, Buffer],
        plan: Plan,
        runtime: Runtime,
        out: Sequence[Any] | None = None,
        workspace: int | None = None,
    ) -> tuple[Any, ...]:
        """Execute `plan` on memory of CuPy's pool."""
        # The pool and the current stream are the current device's: both are asked on x's.
        with cupy.cuda.Device(facts["x"].device.index):
            if out is None:
                types = result_types(plan, inputs["x"].dtype, facts["x"].dtype)
                arrays = tuple([cupy.empty(o.shape, dtype) for o, dtype in zip(plan.outputs, types, strict=True)])
            else:
                arrays = tuple(out)
            if plan.steps:
                stream = cupy.cuda.get_current_stream()
                owner = None
                if workspace is None:
                    # Freed on return: the pool hands it out again on this stream only, so in stream order.
                    owner = cupy.empty(plan.workspace_bytes, "uint8") if plan.workspace_bytes else None
                    workspace = 0 if owner is None else owner.data.ptr
                if owner is not None and stream.is_capturing():
                    _keep(owner, arrays)
                buffers = name_buffers(facts, plan, (array.data.ptr for array in arrays), workspace)
                execute(plan, buffers, runtime, stream.ptr)
                del owner
            else:
                for array in arrays:
                    if array.size:
                        array.fill(True)
        return arrays

    def reserve(self, nbytes: int, x: Any) -> tuple[object, int]:
        """Memory of the pool of x's device."""
        with cupy.cuda.Device(x.data.device_id):
            owner = cupy.empty(nbytes, "uint8") if nbytes else None
        return owner, 0 if owner is None else owner.data.ptr

    def capturing(self, x: Any) -> bool:
        """Ask the current stream of x's device."""
        with cupy.cuda.Device(x.data.device_id):
            return bool(cupy.cuda.get_current_stream().is_capturing())

    def check_out(self, array: Any, output: Output, x: Any) -> None:
        """Refuse what is not one piece of memory on x's device."""
        dtype = x.dtype if output.name == "values" else np.dtype(output.dtype)
        where, contiguous = array.data.device_id, array.flags.c_contiguous
        if array.dtype != dtype or array.shape != output.shape or where != x.data.device_id or not contiguous:
            kind = "" if contiguous else "not contiguous, "
            raise misfit(output, dtype, f"an array ({kind}{array.dtype}, shape {array.shape}, device {where})")

    def floats(self, x: Any) -> Any:
        """Integers as float32."""
        return x.astype(np.float32) if x.dtype.kind in "iu" else x

    def per_row(self, array: Any, dtype: str, shape: tuple[int, ...]) -> Any:
        """Converted, and broadcast without a copy."""
        array = array.astype(dtype, copy=False) if array.dtype.kind in "iuf" else array
        return array if array.ndim else cupy.broadcast_to(array, shape)

    def keep(self, x: Any, indices: Any, axis: int) -> Any:
        """By CuPy's own functions."""
        kept = cupy.zeros_like(x)
        cupy.put_along_axis(kept, indices, cupy.take_along_axis(x, indices, axis), axis)
        return kept

    def ones(self, x: Any) -> Any:
        """By CuPy's own function."""
        return cupy.ones_like(x)


def _keep(owner: Any, arrays: Iterable[Any]) -> None:
    """Let `owner` live as long as any of `arrays` does, or what it is a view of.

    A graph that is being captured writes to its workspace at every replay, and CuPy's pool knows nothing of graphs: it
    would give that memory to others. Who replays the graph needs its results, and so keeps them.
    """
    for array in arrays:
        weakref.finalize(array if array.base is None else array.base, _forget, owner).atexit = False


def _forget(owner: Any) -> None:
    """Drop `owner` with the caller's reference to it."""


ADAPTER = CupyAdapter()
