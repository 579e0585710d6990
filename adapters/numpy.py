"""NumPy arrays."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..buffer import Buffer, Device, row_major
from ..dtypes import DTYPES
from ..errors import InvalidType, UnsupportedDType
from ..execute import execute
from ..operator import Operator
from ..plan import Output, Plan
from ..request import IndexDType
from ..runtime.protocol import Runtime
from .common import misfit, name_buffers, result_types, unsupported
from .protocol import Deferred

__all__ = ["ADAPTER", "address", "dtype_name", "scratch"]

_CPU = Device("cpu")
_ALIGNMENT = 256  # what every GPU allocator gives at least; kernels may count on it in the emulator too

_names: dict[np.dtype[Any], str] = {}

# By kind of an element type that is not served: what has the same order.
_WAYS = {
    "b": ": pass x.view(numpy.uint8)",
    "M": ": pass x.view(numpy.int64), in which NaT is the least",
    "m": ": pass x.view(numpy.int64), in which NaT is the least",
}


class NumpyAdapter:
    """Arrays in, plain ``numpy.ndarray`` out.

    Read in place, writable or not: arrays of any strides, ``numpy.memmap``, ``numpy.recarray`` and other subclasses
    whose entries mean what NumPy's do. Copied first: an array whose elements are misaligned or whose strides are not
    whole elements (a field of a packed structured array), which a Buffer cannot describe. Refused: ``numpy.matrix``
    and masked arrays, and subclasses with an arithmetic of their own (``__array_ufunc__`` or ``__array_function__``),
    as those with physical units have: the results would lose it unseen.
    """

    name = "numpy"
    default_index: IndexDType = "int64"

    def index_dtypes(self) -> tuple[str, ...]:
        """Both, always."""
        return ("int32", "int64")

    def deferred(self, x: Any, *others: Any) -> Deferred | None:
        """PyTorch's compiler, where it traces the call: there NumPy's arrays are tensors."""
        # Another thread may be importing torch just now: it has no compiler yet then.
        compiler = getattr(sys.modules.get("torch"), "compiler", None)
        if compiler is None or not compiler.is_dynamo_compiling():
            return None
        from .torch.dispatch import dispatch_arrays

        return dispatch_arrays

    def facts(self, x: NDArray[Any], name: str = "x") -> Buffer:
        """Describe `x`; ``pointer`` is 0 where it has to be copied."""
        if type(x) is not np.ndarray:
            _check_subclass(type(x), name)
        dtype = dtype_name(x.dtype, name)
        shape = x.shape
        if not x.size:
            return Buffer(0, shape, row_major(shape), dtype, _CPU)
        pointer = address(x)
        itemsize = x.itemsize
        if x.flags.c_contiguous:
            return Buffer(0 if pointer % itemsize else pointer, shape, row_major(shape), dtype, _CPU)
        if pointer % itemsize or any(s % itemsize for s in x.strides):
            return Buffer(0, shape, row_major(shape), dtype, _CPU)
        return Buffer(pointer, shape, tuple([s // itemsize for s in x.strides]), dtype, _CPU)

    def run(
        self,
        operator: Operator,
        inputs: Mapping[str, NDArray[Any]],
        facts: Mapping[str, Buffer],
        plan: Plan,
        runtime: Runtime,
        out: Sequence[NDArray[Any]] | None = None,
        workspace: int | None = None,
    ) -> tuple[NDArray[Any], ...]:
        """Execute `plan` on memory of NumPy's."""
        if out is None:
            types = result_types(plan, inputs["x"].dtype, facts["x"].dtype)
            arrays = tuple([np.empty(o.shape, dtype) for o, dtype in zip(plan.outputs, types, strict=True)])
        else:
            arrays = tuple(out)
        if plan.steps:
            copies = {
                name: np.array(inputs[name], order="C", subok=False)
                for name, buffer in facts.items()
                if not buffer.pointer
            }
            if copies:
                facts = {**facts, **{name: facts[name]._replace(pointer=address(x)) for name, x in copies.items()}}
            owner = None
            if workspace is None:
                owner, workspace = scratch(plan.workspace_bytes)
            execute(plan, name_buffers(facts, plan, map(address, arrays), workspace), runtime)
            del owner  # the workspace lives until here
        else:
            for array in arrays:
                array.fill(True)
        return arrays

    def reserve(self, nbytes: int, x: NDArray[Any]) -> tuple[object, int] | None:
        """Aligned memory of NumPy's."""
        return scratch(nbytes)

    def capturing(self, x: NDArray[Any]) -> bool:
        """A CPU has no graphs."""
        return False

    def check_out(self, array: NDArray[Any], output: Output, x: NDArray[Any]) -> None:
        """Refuse what NumPy could only write to through a copy."""
        if type(array) is not np.ndarray:
            _check_subclass(type(array), f"out, for {output.name},")
        dtype = x.dtype if output.name == "values" else np.dtype(output.dtype)
        if array.dtype != dtype or array.shape != output.shape or not array.flags.carray:
            kind = "" if array.flags.writeable else "read-only, "
            kind += "" if array.flags.c_contiguous and array.flags.aligned else "not contiguous or not aligned, "
            raise misfit(output, dtype, f"an array ({kind}{array.dtype}, shape {array.shape})")

    def floats(self, x: NDArray[Any]) -> NDArray[Any]:
        """Integers as float32."""
        return x.astype(np.float32) if x.dtype.kind in "iu" else x

    def per_row(self, array: NDArray[Any], dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """Converted, and broadcast without a copy."""
        array = array.astype(dtype, copy=False) if array.dtype.kind in "iuf" else array
        return array if array.ndim else np.broadcast_to(array, shape)

    def keep(self, x: NDArray[Any], indices: NDArray[Any], axis: int) -> NDArray[Any]:
        """By NumPy's own functions."""
        kept = np.zeros_like(x, subok=False)
        np.put_along_axis(kept, indices, np.take_along_axis(x, indices, axis), axis)
        return kept

    def ones(self, x: NDArray[Any]) -> NDArray[Any]:
        """By NumPy's own function."""
        return np.ones_like(x, subok=False)


def _check_subclass(kind: type, argument: str) -> None:
    """Refuse a subclass that means more than its entries."""
    plain: Any = np.ndarray
    own: Any = kind
    for method in ("__array_ufunc__", "__array_function__"):
        if getattr(own, method) is not getattr(plain, method):
            raise InvalidType(
                f"{argument} is a {kind.__module__}.{kind.__qualname__}, a subclass of numpy.ndarray with an "
                f"arithmetic of its own ({method}), which the results would lose: pass numpy.asarray of it"
            )


def address(x: NDArray[Any]) -> int:
    """Where the first element of `x` is."""
    return int(x.__array_interface__["data"][0])


def dtype_name(dtype: np.dtype[Any], argument: str) -> str:
    """The name in `approxtopk.dtypes.DTYPES` of `dtype`, which `argument` has.

    Raises
    ------
    UnsupportedDType
        When it has none, or is not in this machine's byte order.
    """
    name = _names.get(dtype)
    if name is None:
        name = dtype.name
        if name not in DTYPES:
            way = f": pass one field of it, {argument}[name]" if dtype.names else ""
            raise unsupported(dtype, argument, _WAYS.get(dtype.kind, way) if argument == "x" else way)
        if not dtype.isnative:
            raise UnsupportedDType(
                f"{argument} has dtype {dtype}, in the other byte order; allowed is this machine's own: "
                f"pass {argument}.astype({argument}.dtype.newbyteorder('='))"
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
