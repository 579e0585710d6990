"""What NumPy users pass wrongly: what is no array, dtypes that are not served."""

from __future__ import annotations

import array
from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from approxtopk import InvalidArgument, InvalidType, UnsupportedDType

from .arguments import argument_cases
from .case import Case, array_cases

__all__ = ["numpy_cases"]


def numpy_cases() -> Iterator[Case]:
    yield from argument_cases(np.zeros((3, 10), np.float32))
    packed = np.zeros(4, [("a", "f4"), ("b", "i1")])
    masked = np.ma.masked_array([1.0, 2.0], [0, 1])
    is_no_array = InvalidType
    yield from array_cases(
        {
            "list": ([1.0, 2.0], is_no_array, ("x must", "list", "numpy.asarray")),
            "nested list": ([[1, 2], [3, 4]], is_no_array, ("x must", "list", "numpy.asarray")),
            "tuple": ((1.0, 2.0), is_no_array, ("x must", "tuple", "numpy.asarray")),
            "str": ("12", is_no_array, ("x must", "'12' (str)")),
            "bytes": (b"12", is_no_array, ("x must", "bytes")),
            "None": (None, is_no_array, ("x must", "None")),
            "int": (12, is_no_array, ("x must", "12 (int)")),
            "float": (1.5, is_no_array, ("x must", "1.5 (float)")),
            "dict": ({1: 2}, is_no_array, ("x must", "dict")),
            "set": ({1, 2}, is_no_array, ("x must", "set")),
            "range": (range(4), is_no_array, ("x must", "range")),
            "array.array": (array.array("f", [1, 2]), is_no_array, ("x must", "array")),
            "memoryview": (memoryview(b"12"), is_no_array, ("x must", "memoryview")),
            "class": (np.ndarray, is_no_array, ("x must", "type")),
            "NumPy scalar": (np.float32(1), is_no_array, ("x must", "float32", "numpy.asarray")),
            "matrix": (np.ones((2, 2)).view(np.matrix), is_no_array, ("x must", "matrix", "numpy.asarray")),
            "masked array": (masked, is_no_array, ("x must", "MaskedArray", "x.filled")),
            "0-d": (np.array(1.0), InvalidArgument, ("shape ()", "at least one axis")),
            "empty axis": (np.zeros((2, 0)), InvalidArgument, ("k = 1", "0 to 0")),
            "bool": (np.zeros(4, bool), UnsupportedDType, ("x has dtype bool", "float32")),
            "complex64": (np.zeros(4, "c8"), UnsupportedDType, ("x has dtype complex64", "float32")),
            "complex128": (np.zeros(4, "c16"), UnsupportedDType, ("x has dtype complex128",)),
            "object": (np.array([1, 2], object), UnsupportedDType, ("x has dtype object",)),
            "str dtype": (np.array(["a", "b"]), UnsupportedDType, ("x has dtype <U1",)),
            "bytes dtype": (np.array([b"a", b"b"]), UnsupportedDType, ("x has dtype |S1",)),
            "variable strings": (np.array(["a"], np.dtypes.StringDType()), UnsupportedDType, ("StringDType",)),
            "datetime64": (np.zeros(4, "M8[s]"), UnsupportedDType, ("x has dtype datetime64[s]",)),
            "timedelta64": (np.zeros(4, "m8[s]"), UnsupportedDType, ("x has dtype timedelta64[s]",)),
            "void": (np.zeros(4, "V8"), UnsupportedDType, ("x has dtype |V8",)),
            "many fields": (
                np.zeros(4, [(f"field{i}", "f4") for i in range(999)]),
                UnsupportedDType,
                ("x has dtype [('field0'", "...;"),
            ),
            "structured": (packed, UnsupportedDType, ("x has dtype [('a'",)),
            "big-endian": (np.zeros(4, ">f4"), UnsupportedDType, ("x has dtype >f4", "newbyteorder")),
            "big-endian int": (np.zeros(4, ">i8"), UnsupportedDType, ("x has dtype >i8", "newbyteorder")),
            "longdouble": (np.zeros(4, np.longdouble), UnsupportedDType, ("x has dtype",)),
        }
    )
    with suppress(ImportError):
        import scipy.sparse

        sparse = scipy.sparse.csr_array(np.eye(3))
        yield from array_cases(
            {
                "sparse array": (sparse, is_no_array, ("x must", "csr_array", "toarray")),
                "sparse matrix": (scipy.sparse.coo_matrix(np.eye(3)), is_no_array, ("x must", "coo_matrix", "toarray")),
            }
        )
    with suppress(ImportError):
        import ml_dtypes

        yield from array_cases(
            {
                "int4": (np.zeros(4, ml_dtypes.int4), UnsupportedDType, ("x has dtype int4",)),
                "float8_e4m3": (np.zeros(4, ml_dtypes.float8_e4m3), UnsupportedDType, ("x has dtype float8_e4m3",)),
            }
        )
