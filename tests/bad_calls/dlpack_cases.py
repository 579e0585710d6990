"""Exports of DLPack that are refused, and exporters that do not keep its rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from approxtopk import BackendMissing, DeviceMismatch, InvalidArgument, InvalidType, UnsupportedDType

from ..fakes import Foreign
from .arguments import argument_cases
from .case import Case, array_cases, bound_cases

__all__ = ["dlpack_cases"]


class Refuses(Foreign):
    def __dlpack__(self, **_: Any) -> object:
        raise BufferError("needs a gradient")


class Lies(Foreign):
    def __init__(self, x: np.ndarray, returns: Any) -> None:
        super().__init__(x)
        self.returns = returns

    def __dlpack__(self, **_: Any) -> object:
        return self.returns


class NoDevice:
    def __dlpack__(self, **_: Any) -> object:
        raise AssertionError("not to be called")


class BadDevice(Foreign):
    def __dlpack_device__(self) -> tuple[int, int]:
        raise RuntimeError("lost my device")


def dlpack_cases() -> Iterator[Case]:
    x = np.zeros((3, 10), np.float32)
    yield from argument_cases(Foreign(x))
    count = np.zeros(3, np.int32)
    wrong_kind = ("{} must be an object of x's framework, with __dlpack__", "as x is")
    yield from bound_cases(
        Foreign(x),
        Foreign(count),
        {
            "list": ([1, 2, 3], InvalidType, (*wrong_kind, "not list")),
            "NumPy array": (count, InvalidType, (*wrong_kind, "not numpy.ndarray")),
            "no device": (NoDevice(), InvalidType, (*wrong_kind, "NoDevice")),
            "float": (Foreign(count.astype("f4")), UnsupportedDType, ("{} has dtype float32", "integers, int8")),
            "bool": (Foreign(count, code=6, bits=8), UnsupportedDType, ("{} has dtype bool8; allowed are int8",)),
            "lanes": (Foreign(count, lanes=4), UnsupportedDType, ("{} has dtype int32 x 4 lanes; allowed are int8",)),
            "pinned": (Foreign(count, device_type=3), DeviceMismatch, ("{} is on CUDA pinned", "CPU (1)")),
            "other GPU": (Foreign(count, device_type=2, device_id=99), BackendMissing, ("{} is on cuda:99",)),
            "version 2": (Foreign(count, major=2, minor=0), InvalidArgument, ("{} exports DLPack 2.0", "1.x")),
            "misaligned": (Foreign(count, byte_offset=2), InvalidArgument, ("{} of shape (3,) starts at", "4-byte")),
            "refuses": (Refuses(count), InvalidArgument, ("{} (Refuses)", "needs a gradient")),
            "returns None": (Lies(count, None), InvalidType, ("{}.__dlpack__() returned NoneType", "dltensor")),
            "too short": (Foreign(count[:2]), InvalidArgument, ("{} has shape (2,)", "allowed is (3,)")),
        },
    )
    yield from array_cases(
        {
            "bool": (Foreign(x, code=6, bits=8), UnsupportedDType, ("x has dtype bool8", "float32")),
            "complex": (Foreign(x, code=5, bits=64), UnsupportedDType, ("x has dtype complex64",)),
            "opaque": (Foreign(x, code=3, bits=64), UnsupportedDType, ("x has dtype opaque64",)),
            "int4": (Foreign(x, code=0, bits=4), UnsupportedDType, ("x has dtype int4",)),
            "float128": (Foreign(x, code=2, bits=128), UnsupportedDType, ("x has dtype float128",)),
            "float8_e4m3": (Foreign(x, code=8, bits=8), UnsupportedDType, ("x has dtype DLPack type code 8",)),
            "lanes": (Foreign(x, lanes=4), UnsupportedDType, ("x has dtype float32 x 4 lanes",)),
            "pinned": (Foreign(x, device_type=3), DeviceMismatch, ("x is on CUDA pinned", "CPU (1)")),
            "Vulkan": (Foreign(x, device_type=7), DeviceMismatch, ("x is on Vulkan", "CUDA (2)")),
            "Metal": (Foreign(x, device_type=8), DeviceMismatch, ("x is on Metal",)),
            "ROCm": (Foreign(x, device_type=10), DeviceMismatch, ("x is on ROCm",)),
            "managed": (Foreign(x, device_type=13), DeviceMismatch, ("x is on CUDA managed",)),
            "unknown device": (Foreign(x, device_type=77), DeviceMismatch, ("DLPack device type 77",)),
            "version 2": (Foreign(x, major=2, minor=0), InvalidArgument, ("x exports DLPack 2.0", "1.x")),
            "CUDA without CuPy or GPU": (Foreign(x, device_type=2, device_id=99), BackendMissing, ("x is on",)),
            "no memory": (Foreign(x, data=0), InvalidArgument, ("address 0x0",)),
            "misaligned": (Foreign(x, byte_offset=2), InvalidArgument, ("address", "4-byte")),
            "refuses": (Refuses(x), InvalidArgument, ("x (Refuses)", "needs a gradient")),
            "bad device": (BadDevice(x), InvalidArgument, ("x (BadDevice)", "lost my device")),
            "no device": (NoDevice(), InvalidType, ("x must", "NoDevice", "__dlpack_device__")),
            "returns None": (Lies(x, None), InvalidType, ("returned NoneType", "dltensor")),
            "returns an array": (Lies(x, np.zeros(3)), InvalidType, ("returned ndarray",)),
            "0-d": (Foreign(np.zeros(())), InvalidArgument, ("shape ()", "at least one axis")),
            "empty axis": (Foreign(np.zeros((2, 0))), InvalidArgument, ("k = 1", "0 to 0")),
        }
    )
