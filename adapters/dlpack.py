"""Any other object that speaks DLPack, read and written through ctypes.

CuPy refuses float8 and ignores the read-only flag, and NumPy refuses bfloat16: so the reader is our own.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from ..buffer import Buffer, Device, row_major
from ..dtypes import DTYPES
from ..errors import ApproxTopKError, BackendMissing, DeviceMismatch, InvalidArgument, InvalidType, UnsupportedDType
from ..operator import Operator
from ..plan import Output, Plan
from ..request import IndexDType
from ..runtime.protocol import Runtime
from .common import unsupported

__all__ = ["ADAPTER", "Borrowed", "borrow"]

_VERSION = (1, 0)

# DLDeviceType: the two served, and the names of the others for the error.
_DEVICES = {
    3: "CUDA pinned host memory",
    4: "OpenCL",
    7: "Vulkan",
    8: "Metal",
    9: "Verilog simulator",
    10: "ROCm",
    11: "ROCm pinned host memory",
    13: "CUDA managed memory",
    14: "oneAPI",
    15: "WebGPU",
    16: "Hexagon",
}
_CODES = {
    (0, 8): "int8",
    (0, 16): "int16",
    (0, 32): "int32",
    (0, 64): "int64",
    (1, 8): "uint8",
    (1, 16): "uint16",
    (1, 32): "uint32",
    (1, 64): "uint64",
    (2, 16): "float16",
    (2, 32): "float32",
    (2, 64): "float64",
    (4, 16): "bfloat16",
    (10, 8): "float8_e4m3fn",
    (12, 8): "float8_e5m2",
}
_CODE_NAMES = {0: "int", 1: "uint", 2: "float", 3: "opaque", 4: "bfloat", 5: "complex", 6: "bool"}


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    _fields_ = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


class _Versioned(ctypes.Structure):
    # The first four members never change, whatever the major version: that is what makes it deletable.
    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    ]


_api = ctypes.pythonapi
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_set_name = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_SetName", _api))

# The capsule keeps the address of its name, so the names live as long as the module.
_NAME, _NAME_VERSIONED = b"dltensor", b"dltensor_versioned"
_USED, _USED_VERSIONED = b"used_dltensor", b"used_dltensor_versioned"


class Borrowed(Buffer):
    """A Buffer that keeps the producer's memory until `release`, or until it is garbage."""

    _release: Callable[[], None] | None = None

    def release(self) -> None:
        """Give the memory back; more than once does nothing."""
        release, self._release = self._release, None
        if release is not None:
            release()

    def __del__(self) -> None:
        self.release()


def borrow(capsule: object, name: str = "x") -> Borrowed:
    """Take over a DLPack capsule of either kind, which the argument `name` exported.

    Raises
    ------
    InvalidType
        When `capsule` is no unused DLPack capsule.
    UnsupportedDType, DeviceMismatch, InvalidArgument
        When what it holds is not served; the producer's deleter has been called by then.
    """
    kind: Any
    if _is_valid(capsule, _NAME_VERSIONED):
        address, kind, used = _pointer_of(capsule, _NAME_VERSIONED), _Versioned, _USED_VERSIONED
    elif _is_valid(capsule, _NAME):
        address, kind, used = _pointer_of(capsule, _NAME), _Managed, _USED
    else:
        raise InvalidType(
            f"{name}.__dlpack__() returned {type(capsule).__name__}; allowed is an unused capsule named "
            "'dltensor' or 'dltensor_versioned'"
        )
    managed: Any = kind.from_address(address)
    _set_name(capsule, used)
    deleter = managed.deleter

    def release() -> None:
        if deleter:
            _Deleter(deleter)(address)

    try:
        if kind is _Versioned and managed.major > _VERSION[0]:
            raise InvalidArgument(
                f"{name} exports DLPack {managed.major}.{managed.minor}; allowed are versions up to {_VERSION[0]}.x"
            )
        buffer = Borrowed(*_describe(managed.tensor, name))
    except BaseException:
        release()
        raise
    buffer._release = release
    return buffer


def _describe(t: _Tensor, name: str) -> Buffer:
    dtype = _CODES.get((t.code, t.bits)) if t.lanes == 1 else None
    if dtype is None:
        lanes = f" x {t.lanes} lanes" if t.lanes != 1 else ""
        raise unsupported(f"{_CODE_NAMES.get(t.code, f'DLPack type code {t.code}, ')}{t.bits}{lanes}", name)
    device = _device(t.device_type, t.device_id, name)
    shape = tuple(t.shape[: t.ndim]) if t.ndim else ()
    strides = tuple(t.strides[: t.ndim]) if t.ndim and t.strides else row_major(shape)
    if 0 in shape:
        return Buffer(0, shape, row_major(shape), dtype, device)
    pointer = (t.data or 0) + t.byte_offset
    itemsize = DTYPES[dtype].itemsize
    if not pointer or pointer % itemsize:
        raise InvalidArgument(
            f"{name} of shape {shape} starts at address {pointer:#x}; allowed is memory aligned to its "
            f"{itemsize}-byte elements"
        )
    return Buffer(pointer, shape, strides, dtype, device)


def _device(kind: int, index: int, argument: str) -> Device:
    if kind == 1:
        return Device("cpu")
    if kind == 2:
        return Device("cuda", index)
    name = _DEVICES.get(kind, "a device")
    raise DeviceMismatch(
        f"{argument} is on {name} (DLPack device type {kind}); allowed are CPU (1) and CUDA (2) memory: copy it"
    )


class DLPackAdapter:
    """Objects of unknown frameworks; the result comes back by their own ``from_dlpack``, else as NumPy or CuPy."""

    name = "dlpack"
    default_index: IndexDType = "int64"

    def index_dtypes(self) -> tuple[str, ...]:
        """Both, always."""
        return ("int32", "int64")

    def deferred(self, x: Any, *others: Any) -> None:
        """Never: what speaks DLPack has memory."""

    def facts(self, x: Any, name: str = "x") -> Buffer:
        """Borrow the memory of `x`; the result holds it until `run` is over or validation has failed."""
        try:
            kind, index = x.__dlpack_device__()
            device = _device(int(kind), int(index), name)
            stream = _stream(device, name)
            try:
                capsule = x.__dlpack__(stream=stream, max_version=_VERSION)
            except TypeError:
                # Written before DLPack 1.0, which brought max_version.
                capsule = x.__dlpack__(stream=stream)
        except ApproxTopKError:
            raise
        except Exception as error:
            raise InvalidArgument(
                f"{name} ({type(x).__name__}) refused to export its memory: {error}; allowed is an object whose "
                "__dlpack__ succeeds"
            ) from error
        return borrow(capsule, name)

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
        """Run as NumPy or CuPy would and hand the results to the framework of x, if it takes them."""
        own = facts["x"]
        try:
            take = _importer(inputs["x"])
            dtype = _own_dtype(own) if take is None else np.dtype(f"uint{plan.request.dtype.bits}")
            # Both allocate by x's dtype and read nothing else of the inputs.
            owner = import_module(".numpy" if own.device.kind == "cpu" else ".cupy", __package__)
            arrays = owner.ADAPTER.run(operator, {"x": np.empty(0, dtype)}, facts, plan, runtime)
        finally:
            for borrowed in facts.values():
                if isinstance(borrowed, Borrowed):
                    borrowed.release()
        if take is None:
            return tuple(arrays)
        first, *others = arrays
        alike = plan.outputs[0].dtype == own.dtype
        try:
            return (take(_Relabelled(first, own.dtype) if alike else first), *map(take, others))
        except Exception:
            # It exports what it does not import. All results go the other way, so that they are of one kind.
            return (first.view(_own_dtype(own)) if alike else first, *others)

    def reserve(self, nbytes: int, x: Any) -> None:
        """Workspace is new for every call."""

    def capturing(self, x: Any) -> bool:
        """Nothing is kept here, in graphs or not."""
        return False

    def check_out(self, array: Any, output: Output, x: Any) -> None:
        """Refuse all."""
        raise InvalidArgument(
            f"out is given and x is of a framework that is known by DLPack only ({type(x).__module__}."
            f"{type(x).__name__}); allowed is out for NumPy and CuPy arrays and PyTorch tensors"
        )

    def floats(self, x: Any) -> Any:
        """As it is: nothing is known of such objects but their memory."""
        return x

    def per_row(self, array: Any, dtype: str, shape: tuple[int, ...]) -> Any:
        """As it is."""
        return array

    def keep(self, x: Any, indices: Any, axis: int) -> Any:
        """Refuse all."""
        raise _no_operations(x)

    def ones(self, x: Any) -> Any:
        """Refuse all."""
        raise _no_operations(x)


def _no_operations(x: Any) -> InvalidType:
    return InvalidType(
        f"x is of a framework that is known by DLPack only ({type(x).__module__}.{type(x).__name__}); allowed here are "
        "NumPy, CuPy and JAX arrays and PyTorch tensors"
    )


class _Relabelled:
    """An array of bits that exports itself under another element type of the same width."""

    def __init__(self, bits: Any, name: str) -> None:
        self.bits = bits
        self.name = name

    def __dlpack_device__(self) -> tuple[int, int]:
        device: tuple[int, int] = self.bits.__dlpack_device__()
        return device

    def __dlpack__(self, **keywords: Any) -> object:
        capsule = self.bits.__dlpack__(**keywords)
        versioned = bool(_is_valid(capsule, _NAME_VERSIONED))
        kind: Any = _Versioned if versioned else _Managed
        managed = kind.from_address(_pointer_of(capsule, _NAME_VERSIONED if versioned else _NAME))
        managed.tensor.code = next(code for (code, _), name in _CODES.items() if name == self.name)
        return capsule


def _importer(x: Any) -> Callable[[Any], Any] | None:
    """The ``from_dlpack`` of the namespace of `x`; None where there is none, or where it is NumPy's or CuPy's own."""
    try:
        take = x.__array_namespace__().from_dlpack
    except Exception:  # its author's business: the result has another way back
        return None
    # Arrays of these need no import, and theirs refuses bfloat16.
    own = getattr(take, "__module__", None) or ""
    return None if not callable(take) or own.partition(".")[0] in ("numpy", "cupy") else take


def _own_dtype(facts: Buffer) -> np.dtype[Any]:
    """The type of the values as a NumPy or CuPy array."""
    if facts.device.kind == "cuda" and facts.dtype.startswith("float8"):
        raise UnsupportedDType(
            f"x has dtype {facts.dtype} and its framework takes no results by __array_namespace__().from_dlpack, so "
            "they would be CuPy arrays, which have no float8; allowed are its other types"
        )
    return _numpy_dtype(facts.dtype)


def _stream(device: Device, name: str) -> int | None:
    """The stream the producer is to be ordered before, in DLPack's numbering: CuPy's current one."""
    if device.kind == "cpu":
        return None
    try:
        import cupy
    except ImportError as error:
        raise BackendMissing(
            f"{name} is on {device}, which must be served through CuPy, and CuPy is not installed: "
            "install approxtopk[cuda12] or approxtopk[cuda13]"
        ) from error
    try:
        with cupy.cuda.Device(device.index):
            # 0 is ambiguous and forbidden: 1 is the legacy default stream.
            return cupy.cuda.get_current_stream().ptr or 1
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise BackendMissing(
            f"{name} is on {device}; allowed are CPU memory and GPUs that CuPy can use: {error}"
        ) from error


def _numpy_dtype(name: str) -> np.dtype[Any]:
    try:
        return np.dtype(name)
    except TypeError:
        pass
    try:
        import ml_dtypes
    except ImportError as error:
        raise BackendMissing(
            f"x has dtype {name}, which NumPy has through ml_dtypes only: pip install ml_dtypes"
        ) from error
    dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
    return dtype


ADAPTER = DLPackAdapter()
