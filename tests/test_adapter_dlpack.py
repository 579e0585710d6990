"""DLPack: reading either protocol, giving memory back once, results in the namespace of the input."""

from __future__ import annotations

import contextlib
import gc
import types
from typing import Any

import numpy as np
import pytest

import approxtopk as atk
from approxtopk.runtime import substitute

from .emulated import emulated
from .fakes import Foreign, Machine
from .frameworks import N, NumPy, expected, expected_ragged, rows


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize("strides", [True, False])
def test_dlpack_reader(versioned: bool, strides: bool) -> None:
    reference = rows((4, 20), 1).astype(np.float32)
    fields = {} if strides else {"strides": 0}
    x = Foreign(reference, versioned, flags=1, data=reference.ctypes.data - 12, byte_offset=12, **fields)
    indices = atk.top_k(x, 3).indices
    np.testing.assert_array_equal(indices, expected(reference, 3, 1)[1])
    assert x.deleted == 1


def test_dlpack_strides() -> None:
    reference = rows((4, 20), 1).astype(np.int16)
    x = Foreign(reference.T[::-1])
    np.testing.assert_array_equal(atk.top_k(x, 3, axis=0)[1], expected(reference.T[::-1], 3, 0)[1])


def test_dlpack_memory_is_given_back_once_on_errors() -> None:
    x = Foreign(rows((4, 20), 1).astype(np.float32))
    for count in (1, 2):
        with pytest.raises(atk.InvalidArgument) as caught:
            atk.top_k(x, 21)
        del caught
        assert x.deleted == count

    class Fails(Machine):
        def run(self, *_: Any) -> None:
            raise RuntimeError("planted")

    with substitute("cpu", Fails()), pytest.raises(RuntimeError, match="planted"):
        atk.top_k(x, 2)
    assert x.deleted == 3


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize("machine", [contextlib.nullcontext, emulated], ids=["host", "emulated"])
def test_dlpack_ragged_rows(versioned: bool, machine: Any) -> None:
    reference = rows((4, 40), 1).astype(np.float32)
    starts, lengths = np.array([30, 20, 10, 0])[::-1], np.broadcast_to(np.int16(15), 4)
    arrays = [Foreign(a, versioned) for a in (reference, starts, lengths)]
    with machine():
        values, indices = atk.top_k(arrays[0], 3, starts=arrays[1], lengths=arrays[2])
    best, where = expected_ragged(reference, 3, starts, lengths.astype(int))
    np.testing.assert_array_equal(indices, where)
    np.testing.assert_array_equal(values, best)
    assert [(a.exported, a.deleted) for a in arrays] == [(1, 1)] * 3


def test_dlpack_gives_back_every_input_on_errors() -> None:
    x, lengths = Foreign(rows((4, 20), 1).astype(np.float32)), Foreign(np.ones(4, np.int32))
    wrong = Foreign(np.ones(5, np.int32)), Foreign(np.ones(4, np.int32), lanes=2), np.ones(4, np.int32)
    for count, other in enumerate(wrong, 1):
        with pytest.raises(atk.ApproxTopKError):
            atk.top_k(x, 2, starts=lengths, lengths=other)
        gc.collect()
        assert (x.deleted, lengths.deleted) == (count, count)
    assert [a.exported for a in wrong[:2]] == [a.deleted for a in wrong[:2]] == [1, 1]

    class Fails(Machine):
        def run(self, *_: Any) -> None:
            raise RuntimeError("planted")

    with substitute("cpu", Fails()), pytest.raises(RuntimeError, match="planted"):
        atk.top_k(x, 2, lengths=lengths)
    assert (x.deleted, lengths.deleted) == (4, 4)


@pytest.mark.parametrize("dtype", ["float32", "int64", "uint16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_dlpack_result_by_the_namespace(dtype: str) -> None:
    torch = pytest.importorskip("torch")

    class Foreigner:
        def __init__(self, x: Any) -> None:
            self.x = x

        def __dlpack__(self, **keywords: Any) -> object:
            return self.x.__dlpack__(**keywords)

        def __dlpack_device__(self) -> Any:
            return self.x.__dlpack_device__()

        def __array_namespace__(self) -> Any:
            return torch

    reference = rows((4, N), 1)
    values, indices = atk.top_k(Foreigner(torch.from_numpy(reference).to(getattr(torch, dtype))), 3)
    assert values.dtype is getattr(torch, dtype) and indices.dtype is torch.int64
    np.testing.assert_array_equal(indices.numpy(), expected(reference, 3, 1)[1])
    np.testing.assert_array_equal(values.double().numpy(), expected(reference, 3, 1)[0])
    exact = atk.approx_top_k(Foreigner(torch.from_numpy(reference)), 3, certify=True).exact
    assert exact.dtype is torch.bool and exact.all()


class Housed(Foreign):
    """Of a namespace that is given: a callable that `__array_namespace__` is, or the error it raises."""

    def __init__(self, x: np.ndarray, namespace: Any) -> None:
        super().__init__(x)
        self.namespace = namespace

    def __array_namespace__(self) -> Any:
        if isinstance(self.namespace, Exception):
            raise self.namespace
        return self.namespace


def refuse(x: Any) -> Any:
    raise BufferError("not from strangers")


def take_no_integers(x: Any) -> Any:
    return refuse(x) if isinstance(x, np.ndarray) and x.dtype == np.int64 else np.from_dlpack(x)


def take_no_bools(x: Any) -> Any:
    return refuse(x) if isinstance(x, np.ndarray) and x.dtype == bool else np.from_dlpack(x)


NAMESPACES = {
    "NumPy's": np,
    "wrapped NumPy": types.SimpleNamespace(from_dlpack=np.from_dlpack),
    "raises": RuntimeError("no standard here"),
    "lacks it": types.SimpleNamespace(),
    "None": None,
    "not callable": types.SimpleNamespace(from_dlpack=3),
    "refuses": types.SimpleNamespace(from_dlpack=refuse),
    "refuses indices": types.SimpleNamespace(from_dlpack=take_no_integers),
    "refuses bools": types.SimpleNamespace(from_dlpack=take_no_bools),
    "no bfloat16": types.SimpleNamespace(from_dlpack=lambda x: np.from_dlpack(x)),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("name", NAMESPACES)
def test_dlpack_result_where_the_namespace_does_not_take_it(name: str, dtype: str) -> None:
    reference = rows((4, N), 1)
    x = Housed(NumPy().make(reference, dtype), NAMESPACES[name])
    values, indices = atk.top_k(x, 3)
    assert type(values) is type(indices) is np.ndarray
    assert (values.dtype.name, indices.dtype.name) == (dtype, "int64")
    np.testing.assert_array_equal(values.astype(float), expected(reference, 3, 1)[0])
    np.testing.assert_array_equal(indices, expected(reference, 3, 1)[1])
    assert x.deleted == 1
    assert atk.top_k(x, 0).values.shape == (4, 0)
    certified = atk.approx_top_k(x, 3, certify=True)
    assert {type(array) for array in certified} == {np.ndarray} and certified.exact.dtype == bool


def test_dlpack_without_ml_dtypes_is_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from approxtopk.adapters import dlpack

    def missing(name: str) -> Any:
        raise atk.BackendMissing("x has dtype bfloat16, which NumPy has through ml_dtypes only")

    x = Housed(NumPy().make(rows((4, N), 1), "bfloat16"), np)
    monkeypatch.setattr(dlpack, "_numpy_dtype", missing)
    machine = Machine()
    with substitute("cpu", machine), pytest.raises(atk.BackendMissing, match="ml_dtypes"):
        atk.top_k(x, 3)
    assert (machine.runs, x.deleted) == (0, 1)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("housed", [False, True])
def test_dlpack_soft_top_k_and_ranks(housed: bool, dtype: str) -> None:
    namespace = pytest.importorskip("torch") if housed else RuntimeError("none")

    def foreign(array: np.ndarray) -> Foreign:
        return Housed(array, namespace)

    x, index = rows((4, 20), 1).astype(dtype), np.array([3, 0, 19, 7])
    for ours, theirs in zip(atk.rank_counts(foreign(x), foreign(index)), atk.rank_counts(x, index), strict=True):
        assert str(ours.dtype).endswith("int64")
        np.testing.assert_array_equal(np.asarray(ours), theirs)
    if dtype != "int64":
        k = np.array([1, 2.5, 3, 4], dtype)
        ours = atk.soft_top_k_mask(foreign(x), foreign(k), l=2)
        assert str(ours.dtype).endswith(dtype)
        np.testing.assert_array_equal(np.asarray(ours), atk.soft_top_k_mask(x, k, l=2))
    with pytest.raises(atk.InvalidType, match="known by DLPack only"):
        atk.hard_top_k_mask(foreign(x), 3)
