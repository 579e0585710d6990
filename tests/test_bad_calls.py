"""Bad calls: the right error class, a message that says what is wrong, and nothing launched.

Run as a script it goes through the same tables without pytest; the last test does so under ``python -O``, where
asserts are gone.
"""

from __future__ import annotations

import array
import ctypes
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

import approxtopk as atk
from approxtopk import BackendMissing, DeviceInfo, DeviceMismatch, InvalidArgument, InvalidType, UnsupportedDType
from approxtopk.runtime import substitute

NAN, INF = float("nan"), float("inf")


class Case(NamedTuple):
    """One bad call: what raises, and what the message must hold."""

    name: str
    call: Callable[[], Any]
    error: type[BaseException]
    words: tuple[str, ...]
    says_allowed: bool = True


class Counter:
    """A machine that runs nothing and counts how often it was asked to."""

    def __init__(self, info: DeviceInfo) -> None:
        self.info = info
        self.runs = 0

    def device_info(self, device: Any) -> DeviceInfo:
        return self.info

    def guard(self, device: Any) -> AbstractContextManager[object]:
        return nullcontext()

    def prepare(self, plan: Any, device: Any) -> None:
        self.runs += 1

    def run(self, step: Any, plan: Any, buffers: Any, stream: int) -> None:
        self.runs += 1


CPU = DeviceInfo("cpu", "cpu", 1, 0)
GPU = DeviceInfo("reference H200", "sm_90", 132, 227 * 1024)


@contextmanager
def counting() -> Iterator[Callable[[], int]]:
    """Claim both kinds of device; the yielded function says how much was run."""
    cpu, gpu = Counter(CPU), Counter(GPU)
    with substitute("cpu", cpu), substitute("cuda", gpu):
        yield lambda: cpu.runs + gpu.runs


class Unhashable:
    """Neither an integer nor a key of a cache."""

    __hash__ = None  # type: ignore[assignment]


# --- the arguments, for any good array of shape (3, 10) -------------------------------------------------------------

ARGUMENTS: list[tuple[str, dict[str, Any], type[BaseException], tuple[str, ...]]] = [
    ("k negative", {"k": -1}, InvalidArgument, ("k = -1", "0 to 10")),
    ("k beyond n", {"k": 11}, InvalidArgument, ("k = 11", "0 to 10")),
    ("k far beyond", {"k": 2**40}, InvalidArgument, ("k = 1099511627776", "0 to 10")),
    ("k beyond 64 bits", {"k": 10**5000}, InvalidArgument, ("k = 0x",)),
    ("k far below zero", {"k": -(10**30)}, InvalidArgument, ("k = -0x",)),
    ("k NumPy integer", {"k": np.int64(11)}, InvalidArgument, ("k = 11",)),
    ("k True", {"k": True}, InvalidType, ("k must", "True (bool)")),
    ("k False", {"k": False}, InvalidType, ("k must", "False (bool)")),
    ("k NumPy bool", {"k": np.bool_(True)}, InvalidType, ("k must", "bool")),
    ("k float", {"k": 2.0}, InvalidType, ("k must", "2.0 (float)")),
    ("k NaN", {"k": NAN}, InvalidType, ("k must", "nan (float)")),
    ("k NumPy float", {"k": np.float32(2)}, InvalidType, ("k must", "float32")),
    ("k complex", {"k": 2j}, InvalidType, ("k must", "2j (complex)")),
    ("k str", {"k": "2"}, InvalidType, ("k must", "'2' (str)")),
    ("k long str", {"k": "2" * 10**6}, InvalidType, ("k must", "... (str)")),
    ("k bytes", {"k": b"2"}, InvalidType, ("k must", "bytes")),
    ("k None", {"k": None}, InvalidType, ("k must", "None")),
    ("k list", {"k": [2]}, InvalidType, ("k must", "list")),
    ("k tuple", {"k": (2,)}, InvalidType, ("k must", "tuple")),
    ("k Fraction", {"k": Fraction(2)}, InvalidType, ("k must", "Fraction")),
    ("k 0-d array", {"k": np.array(2)}, InvalidType, ("k must", "ndarray")),
    ("k array", {"k": np.array([2])}, InvalidType, ("k must", "ndarray")),
    ("k object", {"k": object()}, InvalidType, ("k must", "object")),
    ("k unhashable", {"k": Unhashable()}, InvalidType, ("k must", "Unhashable")),
    ("axis above", {"axis": 2}, InvalidArgument, ("axis = 2", "-2 to 1", "(3, 10)")),
    ("axis below", {"axis": -3}, InvalidArgument, ("axis = -3", "-2 to 1")),
    ("axis beyond 64 bits", {"axis": 10**30}, InvalidArgument, ("axis = 0x",)),
    ("axis float", {"axis": 1.0}, InvalidType, ("axis must", "1.0 (float)")),
    ("axis str", {"axis": "0"}, InvalidType, ("axis must", "'0' (str)")),
    ("axis None", {"axis": None}, InvalidType, ("axis must", "None")),
    ("axis True", {"axis": True}, InvalidType, ("axis must", "True (bool)")),
    ("axis tuple", {"axis": (0,)}, InvalidType, ("axis must", "tuple")),
    ("axis list", {"axis": [0]}, InvalidType, ("axis must", "list")),
    ("axis array", {"axis": np.array(0)}, InvalidType, ("axis must", "ndarray")),
    ("k beyond another axis", {"k": 4, "axis": 0}, InvalidArgument, ("k = 4", "0 to 3", "axis 0")),
    ("mode unknown", {"mode": "max"}, InvalidArgument, ("mode = 'max'", "'largest'", "'smallest'")),
    ("mode upper case", {"mode": "LARGEST"}, InvalidArgument, ("mode = 'LARGEST'",)),
    ("mode empty", {"mode": ""}, InvalidArgument, ("mode = ''",)),
    ("mode long", {"mode": "m" * 3000}, InvalidArgument, ("mode = 'mmm", "...")),
    ("mode None", {"mode": None}, InvalidType, ("mode must", "None")),
    ("mode bool", {"mode": True}, InvalidType, ("mode must", "True (bool)")),
    ("mode bytes", {"mode": b"largest"}, InvalidType, ("mode must", "bytes")),
    ("mode list", {"mode": ["largest"]}, InvalidType, ("mode must", "list")),
    ("sorted 1", {"sorted": 1}, InvalidType, ("sorted must", "1 (int)")),
    ("sorted None", {"sorted": None}, InvalidType, ("sorted must", "None")),
    ("sorted str", {"sorted": "yes"}, InvalidType, ("sorted must", "'yes' (str)")),
    ("sorted array", {"sorted": np.array(True)}, InvalidType, ("sorted must", "ndarray")),
    ("recall 0", {"recall_target": 0}, InvalidArgument, ("recall_target = 0.0", "<= 1")),
    ("recall 0.0", {"recall_target": 0.0}, InvalidArgument, ("recall_target = 0.0", "<= 1")),
    ("recall -0.0", {"recall_target": -0.0}, InvalidArgument, ("recall_target = -0.0",)),
    ("recall negative", {"recall_target": -0.5}, InvalidArgument, ("recall_target = -0.5",)),
    ("recall above 1", {"recall_target": 1.0000001}, InvalidArgument, ("recall_target = 1.0000001",)),
    ("recall percent", {"recall_target": 95}, InvalidArgument, ("recall_target = 95.0",)),
    ("recall NaN", {"recall_target": NAN}, InvalidArgument, ("recall_target = nan",)),
    ("recall NumPy NaN", {"recall_target": np.float32(NAN)}, InvalidArgument, ("recall_target = nan",)),
    ("recall inf", {"recall_target": INF}, InvalidArgument, ("recall_target = inf",)),
    ("recall huge", {"recall_target": 10**400}, InvalidArgument, ("recall_target = inf",)),
    ("recall str", {"recall_target": "0.9"}, InvalidType, ("recall_target must", "'0.9' (str)")),
    ("recall None", {"recall_target": None}, InvalidType, ("recall_target must", "None")),
    ("recall True", {"recall_target": True}, InvalidType, ("recall_target must", "True (bool)")),
    ("recall complex", {"recall_target": 0.9 + 0j}, InvalidType, ("recall_target must", "complex")),
    ("recall list", {"recall_target": [0.9]}, InvalidType, ("recall_target must", "list")),
    ("recall array", {"recall_target": np.array(0.9)}, InvalidType, ("recall_target must", "ndarray")),
    ("recall with b and k_b", {"recall_target": 2.0, "buckets": 5, "k_per_bucket": 1}, InvalidArgument, ("2.0",)),
    ("buckets 0", {"buckets": 0}, InvalidArgument, ("buckets = 0", "1 to 10")),
    ("buckets negative", {"buckets": -4}, InvalidArgument, ("buckets = -4", "1 to 10")),
    ("buckets beyond n", {"buckets": 11}, InvalidArgument, ("buckets = 11", "1 to 10")),
    ("buckets float", {"buckets": 4.0}, InvalidType, ("buckets must", "4.0 (float)")),
    ("buckets str", {"buckets": "4"}, InvalidType, ("buckets must", "'4' (str)")),
    ("buckets True", {"buckets": True}, InvalidType, ("buckets must", "True (bool)")),
    ("buckets list", {"buckets": [4]}, InvalidType, ("buckets must", "list")),
    ("k_per_bucket 0", {"k_per_bucket": 0}, InvalidArgument, ("k_per_bucket = 0", "at least 1")),
    ("k_per_bucket negative", {"k_per_bucket": -1}, InvalidArgument, ("k_per_bucket = -1", "at least 1")),
    ("k_per_bucket float", {"k_per_bucket": 1.5}, InvalidType, ("k_per_bucket must", "1.5 (float)")),
    ("k_per_bucket str", {"k_per_bucket": "1"}, InvalidType, ("k_per_bucket must", "'1' (str)")),
    ("k_per_bucket True", {"k_per_bucket": True}, InvalidType, ("k_per_bucket must", "True (bool)")),
    ("b * k_b < k", {"k": 3, "buckets": 2, "k_per_bucket": 1}, InvalidArgument, ("2 * 1 = 2", "k = 3")),
    ("interleaved 1", {"interleaved": 1}, InvalidType, ("interleaved must", "1 (int)")),
    ("interleaved None", {"interleaved": None}, InvalidType, ("interleaved must", "None")),
    ("interleaved str", {"interleaved": "no"}, InvalidType, ("interleaved must", "'no' (str)")),
    ("index_dtype int16", {"index_dtype": "int16"}, InvalidArgument, ("index_dtype = int16", "int32")),
    ("index_dtype uint32", {"index_dtype": np.uint32}, InvalidArgument, ("index_dtype = uint32", "int64")),
    ("index_dtype float", {"index_dtype": float}, InvalidArgument, ("index_dtype = float64",)),
    ("index_dtype unknown", {"index_dtype": "nope"}, InvalidArgument, ("index_dtype = 'nope'", "int32")),
    ("index_dtype long", {"index_dtype": "i" * 3000}, InvalidArgument, ("index_dtype = 'iii", "...")),
    ("index_dtype other order", {"index_dtype": ">i8"}, InvalidArgument, ("index_dtype = >i8", "byte order")),
    ("index_dtype other dtype", {"index_dtype": np.dtype(">i4")}, InvalidArgument, ("index_dtype = >i4", "int32")),
    ("index_dtype void", {"index_dtype": "i4,i4"}, InvalidArgument, ("index_dtype = void64", "int32")),
    ("index_dtype abstract", {"index_dtype": np.integer}, InvalidArgument, ("index_dtype = <class", "int32")),
    ("index_dtype class", {"index_dtype": Unhashable}, InvalidArgument, ("index_dtype = object", "int32")),
    ("index_dtype dict", {"index_dtype": {"names": ["a"]}}, InvalidType, ("index_dtype must", "dict")),
    ("index_dtype tuple", {"index_dtype": ("i4", -1)}, InvalidType, ("index_dtype must", "tuple")),
    ("index_dtype list", {"index_dtype": ["i4"]}, InvalidType, ("index_dtype must", "list")),
    ("index_dtype bytes", {"index_dtype": b"int32"}, InvalidType, ("index_dtype must", "bytes")),
    ("index_dtype instance", {"index_dtype": np.int32(7)}, InvalidType, ("index_dtype must", "int32")),
    ("index_dtype array", {"index_dtype": np.zeros(1, np.int32)}, InvalidType, ("index_dtype must", "ndarray")),
    ("index_dtype number", {"index_dtype": 32}, InvalidType, ("index_dtype must", "32 (int)")),
    ("index_dtype object", {"index_dtype": object()}, InvalidType, ("index_dtype must", "object")),
    ("index_dtype True", {"index_dtype": True}, InvalidType, ("index_dtype must", "True (bool)")),
]


def argument_cases(x: Any) -> Iterator[Case]:
    """The table of arguments, on the array `x`; those of top_k too where it has them."""
    exact_only = {"k", "axis", "mode", "sorted", "index_dtype"}
    for name, given, error, words in ARGUMENTS:
        options = {"k": 2, **given}
        k = options.pop("k")
        yield Case(name, lambda k=k, o=options: atk.approx_top_k(x, k, **o), error, words)
        if set(given) <= exact_only:
            yield Case(f"{name}, exact", lambda k=k, o=options: atk.top_k(x, k, **o), error, words)


def array_cases(arrays: dict[str, tuple[Any, type[BaseException], tuple[str, ...]]], k: int = 1) -> Iterator[Case]:
    """Both functions on arrays (or what is none) that they refuse."""
    for name, (x, error, words) in arrays.items():
        yield Case(name, lambda x=x: atk.approx_top_k(x, k), error, words)
        yield Case(f"{name}, exact", lambda x=x: atk.top_k(x, k), error, words)


# --- each adapter ---------------------------------------------------------------------------------------------------


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


def torch_cases() -> Iterator[Case]:
    import torch
    from approxtopk.adapters.torch import approx_topk, topk

    x = torch.zeros(3, 10)
    yield from argument_cases(x)
    yield Case("k tensor", lambda: atk.top_k(x, torch.tensor(2)), InvalidType, ("k must", "Tensor"))
    yield Case("axis tensor", lambda: atk.top_k(x, 2, axis=torch.tensor(0)), InvalidType, ("axis must", "Tensor"))
    yield Case(
        "index_dtype torch", lambda: atk.top_k(x, 2, index_dtype=torch.int16), InvalidArgument, ("index_dtype = int16",)
    )
    freed = torch.zeros(4)
    freed.untyped_storage().resize_(0)
    misaligned = torch.frombuffer(bytearray(17), dtype=torch.float32, offset=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # prototype and deprecation notices of sparse, nested and quantized tensors
        arrays: dict[str, tuple[Any, type[BaseException], tuple[str, ...]]] = {
            "sparse COO": (x.to_sparse(), InvalidType, ("x is a sparse_coo tensor", "to_dense")),
            "sparse CSR": (x.to_sparse_csr(), InvalidType, ("x is a sparse_csr tensor", "to_dense")),
            "jagged": (torch.nested.nested_tensor([x, x], layout=torch.jagged), InvalidType, ("x is a nested tensor",)),
            "nested": (torch.nested.nested_tensor([x, x]), InvalidType, ("x is a nested tensor",)),
            "bool": (x.bool(), UnsupportedDType, ("x has dtype torch.bool", "float32")),
            "complex": (x.to(torch.complex64), UnsupportedDType, ("x has dtype torch.complex64",)),
            "complex conj": (x.to(torch.complex64).conj(), UnsupportedDType, ("x has dtype torch.complex64",)),
            "quantized": (torch.quantize_per_tensor(x, 0.1, 0, torch.qint8), UnsupportedDType, ("torch.qint8",)),
            "float8_e5m2fnuz": (x.to(torch.float8_e5m2fnuz), UnsupportedDType, ("torch.float8_e5m2fnuz",)),
            "meta": (x.to("meta"), DeviceMismatch, ("x is on device meta", "cuda")),
            "0-d": (torch.tensor(1.0), InvalidArgument, ("shape ()", "at least one axis")),
            "empty axis": (torch.zeros(2, 0), InvalidArgument, ("k = 1", "0 to 0")),
            "freed": (freed, InvalidArgument, ("x of shape (4,) has no memory",)),
            "misaligned": (misaligned, InvalidArgument, ("x starts at address", "x.clone()")),
            "Size": (torch.Size([1, 2]), InvalidType, ("x must", "Size")),
            "module": (torch.nn.Linear(1, 1), InvalidType, ("x must", "Linear")),
            "class": (torch.Tensor, InvalidType, ("x must",)),
            "list of tensors": ([x], InvalidType, ("x must", "list")),
        }
        if torch.backends.mkldnn.is_available():
            arrays["mkldnn"] = (x.to_mkldnn(), InvalidType, ("x is a _mkldnn tensor", "to_dense"))
    yield from array_cases(arrays)

    def drop_in(name: str, error: type[BaseException], *words: str, **given: Any) -> Iterator[Case]:
        for function in (topk, approx_topk):
            arguments = {"input": x, "k": 2, **given}
            yield Case(f"{function.__name__} {name}", lambda f=function, a=arguments: f(**a), error, words, False)

    def out(*tensors: Any) -> Any:
        return tuple(tensors)

    long = torch.empty(0, dtype=torch.int64)
    yield from drop_in("k beyond n", RuntimeError, "selected index k out of range", k=11)
    yield from drop_in("k negative", RuntimeError, "selected index k out of range", k=-1)
    yield from drop_in("k float", TypeError, "argument 'k' (position 2) must be int, not float", k=2.0)
    yield from drop_in("k bool", TypeError, "argument 'k' (position 2) must be int, not bool", k=True)
    yield from drop_in("k None", TypeError, "argument 'k' (position 2) must be int, not NoneType", k=None)
    yield from drop_in("k str", TypeError, "argument 'k' (position 2) must be int, not str", k="2")
    for far in (2**70, -(2**70), 2**63, 10**5000):
        name = f"beyond 64 bits, {far.bit_length()} {far > 0}"
        yield from drop_in(f"k {name}", ValueError, "Overflow when unpacking long long", k=far)
        yield from drop_in(f"dim {name}", ValueError, "Overflow when unpacking long long", dim=far)
    yield from drop_in("dim before k", TypeError, "argument 'dim' (position 3) must be int, not str", k=2**70, dim="a")
    yield from drop_in("dim", IndexError, "expected to be in range of [-2, 1], but got 2", dim=2)
    yield from drop_in("dim None", TypeError, "argument 'dim' (position 3) must be int, not NoneType", dim=None)
    yield from drop_in("dim float", TypeError, "argument 'dim' (position 3) must be int, not float", dim=1.0)
    yield from drop_in("largest", TypeError, "argument 'largest' (position 4) must be bool, not int", largest=1)
    yield from drop_in("sorted", TypeError, "argument 'sorted' (position 5) must be bool, not str", sorted="a")
    yield from drop_in("list", TypeError, "argument 'input' (position 1) must be Tensor, not list", input=[1.0])
    yield from drop_in("ndarray", TypeError, "must be Tensor, not ndarray", input=np.zeros(3))
    yield from drop_in("bool", RuntimeError, "torch.bool", input=x.bool())
    yield from drop_in("complex", RuntimeError, "torch.complex64", input=x.to(torch.complex64))
    yield from drop_in("sparse", RuntimeError, "sparse_coo", input=x.to_sparse())
    yield from drop_in("meta", RuntimeError, "meta", input=x.to("meta"))
    yield from drop_in("0-d k", RuntimeError, "selected index k out of range", input=torch.tensor(1.0))
    yield from drop_in("out tensor", TypeError, "'out' must be tuple of Tensors, not Tensor", out=torch.empty(0))
    yield from drop_in("out of one", TypeError, "must be a tuple of 2 Tensors, not of 1", out=(torch.empty(0),))
    yield from drop_in("out dtype", RuntimeError, "Expected out tensor to have dtype", out=out(torch.empty(0), x))
    yield from drop_in("out values", RuntimeError, "but got torch.float64", out=out(torch.empty(0).double(), long))
    mixed = out(torch.empty(0, device="meta"), long)
    yield from drop_in("mixed devices", RuntimeError, "to have device cpu, but got meta", out=mixed)
    wanting = x.clone().requires_grad_()
    yield from drop_in("out and grad", RuntimeError, "requires grad", input=wanting, out=out(torch.empty(0), long))

    def older(name: str, error: type[BaseException], *words: str, **given: Any) -> Case:
        return Case(f"approx_topk {name}", lambda: approx_topk(x, 3, **given), error, words, False)

    yield older("fractional b", InvalidArgument, "3 * 3 / 2 = 4.5", "whole number", j=2, k_mult=3)
    yield older("fractional k_mult", InvalidArgument, "whole number", j=1, k_mult=1.5)
    yield older("k_mult alone", InvalidArgument, "k_mult = 2", "without j", k_mult=2)
    yield older("k_mult 0", InvalidArgument, "k_mult = 0", "positive", j=1, k_mult=0)
    yield older("k_mult NaN", InvalidArgument, "k_mult = nan", "positive", j=1, k_mult=NAN)
    yield older("k_mult str", InvalidType, "k_mult must", "str", j=1, k_mult="2")
    yield older("j 0", InvalidArgument, "j = 0", "at least 1", j=0)
    yield older("j float", InvalidType, "j must", "2.0", j=2.0)
    yield older("j and k_per_bucket", InvalidArgument, "j = 1", "k_per_bucket = 2", j=1, k_per_bucket=2)
    yield older("k_mult and buckets", InvalidArgument, "buckets = 5", "= 6", j=1, k_mult=2, buckets=5)
    yield older("too many buckets", InvalidArgument, "buckets = 12", "1 to 10", j=1, k_mult=4)
    yield Case("approx_topk k, j", lambda: approx_topk(x, 10**5000, j=1), ValueError, ("Overflow",), False)
    yield older("recall", InvalidArgument, "recall_target = 2.0", recall_target=2.0)


def jax_cases() -> Iterator[Case]:
    import jax
    import jax.numpy as jnp
    import ml_dtypes
    from approxtopk.adapters.jax import approx_max_k, approx_min_k, top_k

    x = jnp.zeros((3, 10), jnp.float32)
    yield from argument_cases(x)
    deleted = x + 1
    deleted.delete()
    yield from array_cases(
        {
            "bool": (x.astype(bool), UnsupportedDType, ("x has dtype bool", "float32")),
            "complex": (x.astype(jnp.complex64), UnsupportedDType, ("x has dtype complex64",)),
            "int4": (x.astype(jnp.int4), UnsupportedDType, ("x has dtype int4",)),
            "float8_e4m3": (x.astype(ml_dtypes.float8_e4m3), UnsupportedDType, ("x has dtype float8_e4m3;",)),
            "PRNG keys": (jax.random.split(jax.random.key(0), 4), UnsupportedDType, ("x has dtype key<fry>",)),
            "0-d": (jnp.float32(1), InvalidArgument, ("shape ()", "at least one axis")),
            "empty axis": (jnp.zeros((2, 0)), InvalidArgument, ("k = 1", "0 to 0")),
            "deleted": (deleted, InvalidArgument, ("was deleted",)),
            "class": (jax.Array, InvalidType, ("x must",)),
            "shape": (jax.ShapeDtypeStruct((4,), np.float32), InvalidType, ("x must", "ShapeDtypeStruct")),
            "list of arrays": ([x], InvalidType, ("x must", "list")),
        }
    )
    yield Case("k JAX array", lambda: atk.top_k(x, jnp.int32(2)), InvalidType, ("k must", "ArrayImpl"))
    yield Case("k traced", lambda: jax.jit(lambda x, k: atk.top_k(x, k))(x, 2), InvalidType, ("k must", "Tracer"))
    if not jax.config.jax_enable_x64:
        words = ("index_dtype = int64", "x64", "int32")
        yield Case("int64 indices", lambda: atk.top_k(x, 2, index_dtype="int64"), InvalidArgument, words)
        yield Case("int64 by type", lambda: atk.top_k(x, 2, index_dtype=np.int64), InvalidArgument, words)
        with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
            wide = jnp.zeros(4, jnp.float64)
        yield Case("float64", lambda: atk.top_k(wide, 2), UnsupportedDType, ("x has dtype float64", "x64"))

    def drop_in(
        name: str, error: type[BaseException], *words: str, functions: Any = None, **given: Any
    ) -> Iterator[Case]:
        for function in functions or (top_k, approx_max_k, approx_min_k):
            arguments = {"operand": x, "k": 2, **given}
            yield Case(f"{function.__name__} {name}", lambda f=function, a=arguments: f(**a), error, words, False)

    approximate = (approx_max_k, approx_min_k)
    yield from drop_in("k beyond n", ValueError, "11", k=11)
    yield from drop_in("k negative", ValueError, "-1", k=-1)
    yield from drop_in("k float", TypeError, "k must be an integer", k=2.0)
    yield from drop_in("k None", TypeError, "k must be an integer", k=None)
    yield from drop_in("list", TypeError, "list", operand=[1.0, 2.0])
    yield from drop_in("str", TypeError, "str", operand="12")
    yield from drop_in("0-d", (ValueError, TypeError), "dimension", operand=jnp.float32(1), k=1)  # type: ignore[arg-type]
    yield from drop_in("axis", ValueError, "axis 3 is out of bounds", functions=(top_k,), axis=3)
    waves = x.astype(jnp.complex64)
    yield from drop_in("complex", ValueError, "not compatible with complex", functions=(top_k,), operand=waves)
    yield from drop_in("complex, k", ValueError, "complex inputs", functions=(top_k,), operand=waves, k=11)
    yield from drop_in("complex, k < 0", ValueError, "nonnegative", functions=(top_k,), operand=waves, k=-1)
    yield from drop_in("complex number", ValueError, "complex inputs", functions=(top_k,), operand=np.array([2j]))
    yield from drop_in("complex", ValueError, "floating type", functions=approximate, operand=waves)
    yield from drop_in("axis", ValueError, "axis 3", functions=approximate, reduction_dimension=3)
    yield from drop_in("k 0", ValueError, "k must be positive", functions=approximate, k=0)
    yield from drop_in("integers", ValueError, "floating", functions=approximate, operand=x.astype(jnp.int32))
    yield from drop_in("recall", ValueError, "recall_target = 2.0", functions=approximate, recall_target=2.0)
    yield from drop_in("recall NaN", ValueError, "recall_target = nan", functions=approximate, recall_target=NAN)
    override = {"reduction_input_size_override": 99}
    yield from drop_in("override", ValueError, "reduction_input_size_override = 99", functions=approximate, **override)
    yield from drop_in(
        "aggregate", ValueError, "aggregate_to_topk = False", functions=approximate, aggregate_to_topk=False
    )


def cupy_cases() -> Iterator[Case]:
    import cupy

    host = np.zeros(64, np.float64)

    def wrap(shape: tuple[int, ...], dtype: Any, strides: Any = None, offset: int = 0) -> Any:
        # CuPy can wrap any memory without a driver; nothing here touches it.
        memory = cupy.cuda.UnownedMemory(host.ctypes.data, host.nbytes, host, 0)
        return cupy.ndarray(shape, dtype, cupy.cuda.MemoryPointer(memory, offset), strides)

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


class Capsule(ctypes.Structure):
    """A DLManagedTensorVersioned, written down independently of the library."""

    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
    ]


_MEMORY = (ctypes.c_double * 32)()
_KEPT: list[Any] = []
_new = ctypes.pythonapi.PyCapsule_New
_new.restype, _new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class Foreign:
    """An object of no known framework, with any field of its export set to any value."""

    def __init__(self, shape: tuple[int, ...] = (3, 10), **fields: Any) -> None:
        self.shape, self.fields = shape, fields
        self.deleted = 0
        self.exported = 0

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.fields.get("device_type", 1), self.fields.get("device_id", 0)

    def __dlpack__(self, *, stream: Any = None, max_version: Any = None) -> object:
        def delete(_: Any) -> None:
            self.deleted += 1

        deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(delete)
        extents = (ctypes.c_int64 * max(len(self.shape), 1))(*self.shape)
        data = ctypes.addressof(_MEMORY)
        defaults = {"major": 1, "data": data, "device_type": 1, "code": 2, "bits": 32, "lanes": 1}
        capsule = Capsule(**{**defaults, **self.fields})
        capsule.ndim, capsule.shape = len(self.shape), ctypes.addressof(extents)
        capsule.deleter = ctypes.cast(deleter, ctypes.c_void_p)
        _KEPT.append((capsule, deleter, extents))
        self.exported += 1
        return _new(ctypes.addressof(capsule), b"dltensor_versioned", None)


class Refuses(Foreign):
    def __dlpack__(self, **_: Any) -> object:
        raise BufferError("needs a gradient")


class Lies(Foreign):
    def __dlpack__(self, **_: Any) -> object:
        return self.fields["returns"]


class NoDevice:
    def __dlpack__(self, **_: Any) -> object:
        raise AssertionError("not to be called")


class BadDevice(Foreign):
    def __dlpack_device__(self) -> tuple[int, int]:
        raise RuntimeError("lost my device")


def dlpack_cases() -> Iterator[Case]:
    yield from argument_cases(Foreign())
    yield from array_cases(
        {
            "bool": (Foreign(code=6, bits=8), UnsupportedDType, ("x has dtype bool8", "float32")),
            "complex": (Foreign(code=5, bits=64), UnsupportedDType, ("x has dtype complex64",)),
            "opaque": (Foreign(code=3, bits=64), UnsupportedDType, ("x has dtype opaque64",)),
            "int4": (Foreign(code=0, bits=4), UnsupportedDType, ("x has dtype int4",)),
            "float128": (Foreign(code=2, bits=128), UnsupportedDType, ("x has dtype float128",)),
            "float8_e4m3": (Foreign(code=8, bits=8), UnsupportedDType, ("x has dtype DLPack type code 8",)),
            "lanes": (Foreign(lanes=4), UnsupportedDType, ("x has dtype float32 x 4 lanes",)),
            "pinned": (Foreign(device_type=3), DeviceMismatch, ("x is on CUDA pinned", "CPU (1)")),
            "Vulkan": (Foreign(device_type=7), DeviceMismatch, ("x is on Vulkan", "CUDA (2)")),
            "Metal": (Foreign(device_type=8), DeviceMismatch, ("x is on Metal",)),
            "ROCm": (Foreign(device_type=10), DeviceMismatch, ("x is on ROCm",)),
            "managed": (Foreign(device_type=13), DeviceMismatch, ("x is on CUDA managed",)),
            "unknown device": (Foreign(device_type=77), DeviceMismatch, ("DLPack device type 77",)),
            "version 2": (Foreign(major=2), InvalidArgument, ("x exports DLPack 2.0", "1.x")),
            "CUDA without CuPy or GPU": (Foreign(device_type=2, device_id=99), BackendMissing, ("x is on",)),
            "no memory": (Foreign(data=None), InvalidArgument, ("address 0x0",)),
            "misaligned": (Foreign(byte_offset=2), InvalidArgument, ("address", "4-byte")),
            "refuses": (Refuses(), InvalidArgument, ("x (Refuses)", "needs a gradient")),
            "bad device": (BadDevice(), InvalidArgument, ("x (BadDevice)", "lost my device")),
            "no device": (NoDevice(), InvalidType, ("x must", "NoDevice", "__dlpack_device__")),
            "returns None": (Lies(returns=None), InvalidType, ("returned NoneType", "dltensor")),
            "returns an array": (Lies(returns=np.zeros(3)), InvalidType, ("returned ndarray",)),
            "0-d": (Foreign(()), InvalidArgument, ("shape ()", "at least one axis")),
            "empty axis": (Foreign((2, 0)), InvalidArgument, ("k = 1", "0 to 0")),
        }
    )


# --- plan -----------------------------------------------------------------------------------------------------------


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no name")


def plan_cases() -> Iterator[Case]:
    def case(name: str, error: type[BaseException], *words: str, **given: Any) -> Case:
        return Case(name, lambda: atk.plan((3, 10), 2, **given), error, words)

    dtypes: dict[str, Any] = {
        "other order": np.dtype(">f4"),
        "other order by name": ">f4",
        "bool": bool,
        "complex": "complex64",
        "object": object,
        "class": Unhashable,
        "unknown": "float31",
        "void": "f4,f4",
        "abstract": np.floating,
        "datetime": "M8[s]",
        "long": "f" * 3000,
    }
    for name, dtype in dtypes.items():
        yield case(f"dtype {name}", UnsupportedDType, "dtype = ", "float8_e5m2", dtype=dtype)
    for wrong in (None, 7, b"f4", np.float32(1), np.zeros(2, np.float32), ("f4", 2), {"names": ["a"]}, ["f4"]):
        kind = type(wrong).__name__
        yield case(f"dtype {kind}", InvalidType, "dtype must", kind, "float8_e5m2", dtype=wrong)
    for text in ("gpu", "cuda:-1", "cuda:x", "cuda:" + "9" * 5000, "cpu:1", "sm_1", "", "CUDA", "cuda:\u0661"):
        yield case(f"device {text[:9]}", InvalidArgument, "device = '", "'sm_90'", device=text)
    for wrong in (0, 1.5, b"cuda", ["cuda"], np.zeros(2), Unprintable(), Unhashable):
        kind = type(wrong).__name__
        yield case(f"device {kind}", InvalidType, "device must", kind, "'sm_90'", device=wrong)
    yield case("unknown argument", InvalidType, "unexpected keyword argument 'bucket'", bucket=3)
    yield case("long unknown argument", InvalidType, "'aaa", "...", **{"a" * 3000: 3})
    yield case("bucket keyword, exact", InvalidType, "'buckets'", exact=True, buckets=3)


TABLES: dict[str, Callable[[], Iterator[Case]]] = {
    "numpy": numpy_cases,
    "torch": torch_cases,
    "jax": jax_cases,
    "cupy": cupy_cases,
    "dlpack": dlpack_cases,
    "plan": plan_cases,
}


def table(framework: str) -> list[Case]:
    """The cases of one adapter; none where its framework is not installed."""
    try:
        return list(TABLES[framework]())
    except ModuleNotFoundError as error:
        if error.name in ("torch", "jax", "cupy", "ml_dtypes"):
            return []
        raise


def complaint(case: Case) -> str:
    """What is wrong with how `case` fails; empty where all is right."""
    with counting() as runs:
        try:
            case.call()
        except case.error as error:
            message = str(error)
        except Exception as error:
            return f"raised {type(error).__name__} ({error}), not {case.error}"
        else:
            return f"raised nothing, not {case.error}"
        if runs():
            return f"{runs()} steps were run"
    missing = [word for word in case.words if word not in message]
    if missing:
        return f"the message lacks {missing}: {message}"
    if len(message) > 1000:
        return f"the message has {len(message)} characters"
    if case.says_allowed and not any(word in message for word in ("allowed", "must")):
        return f"the message does not say what is allowed: {message}"
    return ""


if __name__ != "__main__":
    import pytest

    CASES = [pytest.param(case, id=f"{f}-{case.name}") for f in TABLES for case in table(f)]

    @pytest.mark.parametrize("case", CASES)
    def test_bad_call(case: Case) -> None:
        problem = complaint(case)
        assert not problem, problem

    @pytest.mark.parametrize("text", ["9" * 5000, "x" * 5000, "3x" + "9" * 5000], ids=["digits", "text", "product"])
    @pytest.mark.parametrize("place", [0, 1])
    def test_command_line_echoes_little(capsys: pytest.CaptureFixture[str], text: str, place: int) -> None:
        from approxtopk.cli import main

        arguments = ["10", "3"]
        arguments[place] = text
        with pytest.raises(SystemExit) as stop:
            main(["plan", *arguments])
        complaint = capsys.readouterr().err.splitlines()[-1]
        assert stop.value.code == 2
        assert len(complaint) < 250 and "..." in complaint and "_shape" not in complaint

    @pytest.mark.parametrize("framework", [name for name in TABLES if name != "plan"])
    def test_each_adapter_has_at_least_sixty(framework: str) -> None:
        cases = table(framework)
        if not cases:
            pytest.skip(f"{framework} is not installed")
        assert len(cases) >= 60
        assert len({case.name for case in cases}) == len(cases)

    def test_refused_exports_are_given_back() -> None:
        x = Foreign(lanes=4)
        for _ in range(3):
            with pytest.raises(UnsupportedDType):
                atk.top_k(x, 1)
        assert (x.exported, x.deleted) == (3, 3)

    def test_under_optimisation() -> None:
        """``python -O`` drops asserts; no check may hang on one."""
        root = os.path.dirname(os.path.dirname(os.path.abspath(atk.__file__)))
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        done = subprocess.run(
            [sys.executable, "-O", os.path.abspath(__file__)],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "0 wrong" in done.stdout

else:
    wrong = [(f, case.name, problem) for f in TABLES for case in table(f) if (problem := complaint(case))]
    for line in wrong:
        print(*line, sep=": ")
    print(f"{len(wrong)} wrong, optimised: {not __debug__}")
    sys.exit(bool(wrong))
