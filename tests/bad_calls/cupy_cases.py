"""CuPy arrays that are refused, on a machine without a GPU too."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from approxtopk import DeviceMismatch, InvalidArgument, InvalidType, UnsupportedDType

from ..fakes import cupy_array
from .arguments import argument_cases
from .case import Case, array_cases, bound_cases

__all__ = ["cupy_cases"]


def cupy_cases() -> Iterator[Case]:
    import cupy

    wrap = partial(cupy_array, np.zeros(64, np.float64))
    x = wrap((3, 10), np.float32)
    yield from argument_cases(x)
    elsewhere = cupy_array(np.zeros(3, int), (3,), int, device=1)
    yield from bound_cases(
        x,
        wrap((3,), np.int32),
        {
            "list": ([1, 2, 3], InvalidType, ("{} must be a CuPy array, as x is, not list", "cupy.asarray({})")),
            "NumPy array": (np.zeros(3, int), InvalidType, ("{} must be a CuPy array, as x is, not numpy.ndarray",)),
            "other device": (elsewhere, DeviceMismatch, ("{} is on device cuda:1 and x on cuda:0", "x's device")),
            "float": (wrap((3,), np.float32), UnsupportedDType, ("{} has dtype float32", "integers, int8 to int64")),
            "bool": (wrap((3,), bool), UnsupportedDType, ("{} has dtype bool; allowed are int8",)),
            "too short": (wrap((2,), np.int32), InvalidArgument, ("{} has shape (2,)", "allowed is (3,)")),
            "split elements": (wrap((3,), np.int32, (5,)), InvalidArgument, ("{} has strides (5,)", "4 bytes")),
        },
    )
    yield from array_cases(
        {
            "bool": (wrap((4,), bool), UnsupportedDType, ("x has dtype bool", "float32")),
            "complex64": (wrap((4,), np.complex64), UnsupportedDType, ("x has dtype complex64",)),
            "complex128": (wrap((4,), np.complex128), UnsupportedDType, ("x has dtype complex128",)),
            "0-d": (wrap((), np.float32), InvalidArgument, ("shape ()", "at least one axis")),
            "empty axis": (wrap((2, 0), np.float32), InvalidArgument, ("k = 1", "0 to 0")),
            "split elements": (wrap((4,), np.float32, (5,)), InvalidArgument, ("x has strides (5,)", "4 bytes")),
            "misaligned": (wrap((4,), np.float32, None, 2), InvalidArgument, ("at address", "4 bytes")),
            "class": (cupy.ndarray, InvalidType, ("x must",)),
            "list of arrays": ([wrap((4,), np.float32)], InvalidType, ("x must", "list")),
        }
    )
