"""Tensors that are refused, and the drop-ins, which fail as torch.topk does."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

import approxtopk as atk
from approxtopk import DeviceMismatch, InvalidArgument, InvalidType, UnsupportedDType

from .arguments import argument_cases
from .case import Arrays, Case, array_cases, bound_cases

__all__ = ["torch_cases"]


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
        arrays: Arrays = {
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
        count = torch.zeros(3, dtype=torch.int64)
        wrong_kind = ("{} must be a PyTorch tensor, as x is", "torch.as_tensor({}, device=x.device)")
        bounds: Arrays = {
            "list": ([1, 2, 3], InvalidType, (*wrong_kind, "not list")),
            "int": (3, InvalidType, (*wrong_kind, "not 3 (int)")),
            "NumPy array": (np.zeros(3, int), InvalidType, (*wrong_kind, "not numpy.ndarray")),
            "Size": (torch.Size([1, 2, 3]), InvalidType, (*wrong_kind, "not torch.Size")),
            "float": (count.float(), UnsupportedDType, ("{} has dtype float32", "integers, int8 to int64")),
            "bool": (count.bool(), UnsupportedDType, ("{} has dtype torch.bool; allowed are int8", "uint64")),
            "complex": (count.to(torch.complex64), UnsupportedDType, ("{} has dtype torch.complex64",)),
            "sparse": (count.to_sparse(), InvalidType, ("{} is a sparse_coo tensor", "pass {}.to_dense()")),
            "meta": (count.to("meta"), DeviceMismatch, ("{} is on device meta", "pass {}.to('cpu')")),
            "0-d": (count[0], InvalidArgument, ("{} has shape ()", "allowed is (3,)")),
            "too long": (torch.zeros(4, dtype=torch.int32), InvalidArgument, ("{} has shape (4,)", "allowed is (3,)")),
            "misaligned": (
                torch.frombuffer(bytearray(25), dtype=torch.int64, offset=1),
                InvalidArgument,
                ("{} starts at address", "8 bytes", "pass {}.clone()"),
            ),
        }
    yield from array_cases(arrays)
    yield from bound_cases(x, count, bounds)

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
    yield from drop_in("ndarray", TypeError, "must be Tensor, not numpy.ndarray", input=np.zeros(3))
    yield from drop_in("bool", RuntimeError, "bool", input=x.bool())
    yield from drop_in("complex", RuntimeError, "complex", input=x.to(torch.complex64))
    # topk leaves it to torch.topk, which says in thousands of characters that it cannot.
    yield Case("approx_topk sparse", lambda: approx_topk(x.to_sparse(), 2), RuntimeError, ("sparse_coo",), False)
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
    yield older("k_mult NaN", InvalidArgument, "k_mult = nan", "positive", j=1, k_mult=float("nan"))
    yield older("k_mult str", InvalidType, "k_mult must", "str", j=1, k_mult="2")
    yield older("j 0", InvalidArgument, "j = 0", "at least 1", j=0)
    yield older("j float", InvalidType, "j must", "2.0", j=2.0)
    yield older("j and k_per_bucket", InvalidArgument, "j = 1", "k_per_bucket = 2", j=1, k_per_bucket=2)
    yield older("k_mult and buckets", InvalidArgument, "buckets = 5", "= 6", j=1, k_mult=2, buckets=5)
    yield older("too many buckets", InvalidArgument, "buckets = 12", "1 to 10", j=1, k_mult=4)
    yield Case("approx_topk k, j", lambda: approx_topk(x, 10**5000, j=1), ValueError, ("Overflow",), False)
    yield older("recall", InvalidArgument, "recall_target = 2.0", recall_target=2.0)
