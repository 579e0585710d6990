"""What NumPy users pass wrongly: what is no array, dtypes that are not served."""

from __future__ import annotations

import array
from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from approxtopk import InvalidArgument, InvalidType, UnsupportedDType

from ..fakes import Foreign
from .arguments import argument_cases
from .case import Case, array_cases, bound_cases

__all__ = ["numpy_cases"]


def numpy_cases() -> Iterator[Case]:
    x = np.zeros((3, 10), np.float32)
    yield from argument_cases(x)
    wrong_kind = ("{} must be a NumPy array, as x is", "numpy.asarray({})")
    wrong_shape = "allowed is (3,), one number for every row of x of shape (3, 10)"
    yield from bound_cases(
        x,
        np.zeros(3, int),
        {
            "list": ([1, 2, 3], InvalidType, (*wrong_kind, "not list")),
            "tuple": ((1, 2, 3), InvalidType, (*wrong_kind, "not tuple")),
            "int": (3, InvalidType, (*wrong_kind, "not 3 (int)")),
            "str": ("123", InvalidType, (*wrong_kind, "not '123' (str)")),
            "NumPy scalar": (np.int64(3), InvalidType, (*wrong_kind, "not numpy.int64")),
            "masked array": (np.ma.masked_array([1, 2, 3]), InvalidType, (*wrong_kind, "MaskedArray")),
            "matrix": (np.ones((1, 3), int).view(np.matrix), InvalidType, (*wrong_kind, "matrix")),
            "DLPack object": (Foreign(np.zeros(3, int)), InvalidType, (*wrong_kind, "fakes.Foreign")),
            "object": (object(), InvalidType, (*wrong_kind, "not object")),
            "float": (np.zeros(3), UnsupportedDType, ("{} has dtype float64", "integers, int8 to int64")),
            "bool": (np.zeros(3, bool), UnsupportedDType, ("{} has dtype bool; allowed are int8", "uint64")),
            "complex": (np.zeros(3, complex), UnsupportedDType, ("{} has dtype complex128; allowed are int8",)),
            "datetime": (np.zeros(3, "M8[s]"), UnsupportedDType, ("{} has dtype datetime64[s]; allowed are int8",)),
            "object dtype": (np.array([1, 2, 3], object), UnsupportedDType, ("{} has dtype object",)),
            "big-endian": (np.zeros(3, ">i8"), UnsupportedDType, ("{} has dtype >i8", "pass {}.astype({}.dtype")),
            "too short": (np.zeros(2, int), InvalidArgument, ("{} has shape (2,)", wrong_shape)),
            "0-d": (np.array(3), InvalidArgument, ("{} has shape ()", wrong_shape)),
            "shape of x": (np.zeros((3, 10), int), InvalidArgument, ("{} has shape (3, 10)", wrong_shape)),
            "column": (np.zeros((3, 1), int), InvalidArgument, ("{} has shape (3, 1)", wrong_shape)),
            "empty": (np.zeros(0, int), InvalidArgument, ("{} has shape (0,)", wrong_shape)),
        },
    )
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
