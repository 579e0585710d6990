"""Stand-ins: runtimes that launch nothing, an exporter of DLPack written by hand, CuPy arrays of host memory."""

from __future__ import annotations

import ctypes
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from approxtopk import DeviceInfo
from approxtopk.buffer import Device
from approxtopk.dtypes import DTYPES
from approxtopk.runtime import serving

__all__ = ["CPU", "GPU", "Foreign", "Idle", "Machine", "cupy_array"]

CPU = DeviceInfo("cpu", "cpu", 1, 0)
GPU = DeviceInfo("reference H200", "sm_90", 132, 227 * 1024)


class Idle:
    """Takes every plan, runs nothing, and counts how often it was asked to."""

    def __init__(self, info: DeviceInfo = GPU) -> None:
        self.info = info
        self.prepared = 0
        self.runs = 0

    def device_info(self, device: Any) -> DeviceInfo:
        return self.info

    def current(self) -> Device:
        return Device("cuda")

    def guard(self, device: Any) -> AbstractContextManager[object]:
        return nullcontext()

    def prepare(self, plan: Any, device: Any) -> None:
        self.prepared += 1

    def run(self, step: Any, plan: Any, buffers: Any, stream: int) -> None:
        self.runs += 1


class Machine(Idle):
    """Answers as a GPU, so that plans take workspace, checks every buffer, and computes with NumPy."""

    def __init__(self, device: Device = Device("cpu")) -> None:  # noqa: B008 (a frozen value)
        super().__init__()
        self.host = serving(Device("cpu"))
        self.device = device

    def run(self, step: Any, plan: Any, buffers: Any, stream: int) -> None:
        super().run(step, plan, buffers, stream)
        if step is not plan.steps[-1]:
            return
        if plan.workspace_bytes:
            workspace = buffers["workspace"]
            assert workspace.shape == (plan.workspace_bytes,) and workspace.pointer % 16 == 0
            ctypes.memset(workspace.pointer, 0xA5, plan.workspace_bytes)
        assert all(buffer.device == self.device for buffer in buffers.values())
        assert buffers["values"].shape == buffers["indices"].shape == plan.request.output_shape
        self.host.run(step, plan, buffers, stream)


# What dlpack.h lays out, as NumPy records: nothing here is taken from the library that reads it.
_TENSOR = "data:u8 device_type:i4 device_id:i4 ndim:i4 code:u1 bits:u1 lanes:u2 shape:u8 strides:u8 byte_offset:u8"
_OLD = f"{_TENSOR} context:u8 deleter:u8"
_NEW = f"major:u4 minor:u4 context:u8 deleter:u8 flags:u8 {_TENSOR}"
_RECORDS = {
    name: np.dtype([tuple(field.split(":")) for field in fields.split()], align=True)
    for name, fields in ((b"dltensor", _OLD), (b"dltensor_versioned", _NEW))
}
_CODES = {"i": 0, "u": 1, "f": 2}
_SPECIAL_CODES = {"bfloat16": 4, "float8_e4m3fn": 10, "float8_e5m2": 12}
_KEPT: list[Any] = []  # exported memory has to outlive its exporter

_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)


class Foreign:
    """An exporter of NumPy memory, of no known framework; any field of what it exports can be set to any value."""

    def __init__(self, x: np.ndarray, versioned: bool = True, **fields: int) -> None:
        self.x, self.fields = x, fields
        self.name = b"dltensor_versioned" if versioned else b"dltensor"
        self.dtype = DTYPES[x.dtype.name]
        self.exported = 0
        self.deleted = 0

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.fields.get("device_type", 1), self.fields.get("device_id", 0)

    def __dlpack__(self, *, stream: Any = None, **new: Any) -> object:
        record = np.zeros((), _RECORDS[self.name])
        if new and "major" not in record.dtype.names:
            raise TypeError("unexpected keyword argument 'max_version'")

        def delete(_: Any) -> None:
            self.deleted += 1

        x, deleter = self.x, _Deleter(delete)
        extents, steps = np.array(x.shape, np.int64), np.array(x.strides, np.int64) // x.itemsize
        fields = {
            "major": 1,
            "minor": 1,
            "deleter": ctypes.cast(deleter, ctypes.c_void_p).value,
            "data": x.ctypes.data,
            "device_type": 1,
            "ndim": x.ndim,
            "code": _SPECIAL_CODES.get(self.dtype.name, _CODES[self.dtype.kind]),
            "bits": self.dtype.bits,
            "lanes": 1,
            "shape": extents.ctypes.data,
            "strides": steps.ctypes.data,
            **self.fields,
        }
        for name in record.dtype.names:
            record[name] = fields.get(name, 0)
        _KEPT.append((x, extents, steps, deleter, record))
        self.exported += 1
        return _new_capsule(record.ctypes.data, self.name, None)


def cupy_array(host: np.ndarray, shape: Any, dtype: Any, strides: Any = None, offset: int = 0, device: int = 0) -> Any:
    """A CuPy array that takes the memory of `host` for a GPU's: wrapping it needs no driver, only touching it does."""
    import cupy

    memory = cupy.cuda.UnownedMemory(host.ctypes.data, host.nbytes, host, device)
    return cupy.ndarray(shape, dtype, cupy.cuda.MemoryPointer(memory, offset), strides)
