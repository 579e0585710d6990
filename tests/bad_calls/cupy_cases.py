"""CuPy arrays that are refused, on a machine without a GPU too."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from approxtopk import InvalidArgument, InvalidType, UnsupportedDType

from ..fakes import cupy_array
from .arguments import argument_cases
from .case import Case, array_cases

__all__ = ["cupy_cases"]


def cupy_cases() -> Iterator[Case]:
    import cupy

    wrap = partial(cupy_array, np.zeros(64, np.float64))
    yield from argument_cases(wrap((3, 10), np.float32))
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
