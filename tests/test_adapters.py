"""What every adapter promises: types in = types out, every dtype, any axis, no launch for nothing, threads."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest

import approxtopk as atk
from approxtopk.dtypes import DTYPES
from approxtopk.runtime import substitute

from .emulated import emulated
from .fakes import Machine
from .frameworks import FRAMEWORKS, Framework, N, expected, expected_ragged, rows


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> Framework:
    return FRAMEWORKS[request.param]()


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_types_in_are_types_out(framework: Framework, dtype: str, axis: int) -> None:
    with framework.context(dtype):
        reference = rows((N, N, N), axis)
        x = framework.make(reference, dtype)
        for mode in ("largest", "smallest"):
            values, indices = atk.top_k(x, 3, axis=axis, mode=mode)
            best, where = expected(reference, 3, axis, mode)
            assert isinstance(values, framework.kind) and isinstance(indices, framework.kind)
            name = str(getattr(x.dtype, "name", x.dtype)).removeprefix("torch.")
            assert str(values.dtype).removeprefix("torch.") == name == dtype
            assert str(indices.dtype).removeprefix("torch.") == framework.default_index
            np.testing.assert_array_equal(framework.back(indices), where)
            np.testing.assert_array_equal(framework.back(values), best)


def test_on_a_machine_with_workspace(framework: Framework) -> None:
    reference = rows((5, 4000), 1)
    x = framework.make(reference, "float32")
    machine = Machine()
    with substitute("cpu", machine):
        values, indices = atk.top_k(x, 50)
        np.testing.assert_array_equal(framework.back(values), expected(reference, 50, 1)[0])
        np.testing.assert_array_equal(framework.back(indices), expected(reference, 50, 1)[1])
    assert machine.runs
    before = machine.runs
    atk.top_k(x, 50)
    assert machine.runs == before, "a substituted machine served a call after its context"


def test_on_the_emulated_gpu(framework: Framework) -> None:
    reference = rows((6, 1500), 1)
    x = framework.make(reference, "float32")
    with emulated(0):
        for axis, k in ((1, 20), (0, 2)):
            order = np.take(np.argsort(-reference, axis=axis, kind="stable"), range(k), axis=axis)
            values, indices = atk.top_k(x, k, axis=axis)
            np.testing.assert_array_equal(framework.back(indices), order)
            np.testing.assert_array_equal(framework.back(values), np.take_along_axis(reference, order, axis))
        values = framework.back(atk.approx_top_k(x, 8, buckets=8, k_per_bucket=1)[0])
        best = np.stack([reference[:, i::8].max(axis=1) for i in range(8)], 1)
        np.testing.assert_array_equal(values, -np.sort(-best, axis=1))


def test_index_dtype_is_kept(framework: Framework) -> None:
    x = framework.make(rows((3, N), 1), "float32")
    assert str(atk.top_k(x, 2, index_dtype="int32")[1].dtype).endswith("int32")
    with framework.context("int64"):
        assert str(atk.top_k(x, 2, index_dtype="int64")[1].dtype).endswith("int64")
        assert str(atk.top_k(x, 2, index_dtype=np.int64)[1].dtype).endswith("int64")


@pytest.mark.parametrize(
    ("shape", "k", "axis"), [((0, 5), 2, 1), ((5, 0), 0, 1), ((4, 5), 0, 1), ((0,), 0, 0), ((3, 0, 2), 1, 0)]
)
def test_nothing_to_return_launches_nothing(framework: Framework, shape: tuple[int, ...], k: int, axis: int) -> None:
    machine = Machine()
    with substitute("cpu", machine):
        values, indices = atk.top_k(framework.make(np.zeros(shape), "float32"), k, axis=axis)
    result = (*shape[:axis], k, *shape[axis + 1 :])
    assert tuple(values.shape) == tuple(indices.shape) == result
    assert str(values.dtype).endswith("float32") and machine.runs == 0


def test_approximate(framework: Framework) -> None:
    reference = rows((4, 64), 1)
    values, indices = atk.approx_top_k(framework.make(reference, "float32"), 8, buckets=8, k_per_bucket=1, sorted=False)
    best = reference.reshape(4, 8, 8).max(axis=1)
    np.testing.assert_array_equal(np.sort(framework.back(values), 1), np.sort(best, 1))
    picked = np.take_along_axis(reference, framework.back(indices).astype(int), 1)
    np.testing.assert_array_equal(picked, framework.back(values))


def test_many_threads(framework: Framework) -> None:
    reference = rows((3, 500), 1)
    x = framework.make(reference, "float32")
    wrong: list[Any] = []

    def work(k: int) -> None:
        try:
            for _ in range(5):
                np.testing.assert_array_equal(framework.back(atk.top_k(x, k)[1]), expected(reference, k, 1)[1])
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(1 + i % 4,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


MACHINES: dict[str, Any] = {"host": nullcontext, "emulated": emulated}
INTEGERS = [name for name, dtype in DTYPES.items() if dtype.kind != "f"]
STARTS, LENGTHS = [0, 3, 120, -20, 40, 5], [0, 2, 100, 30, 60, 127]


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest) -> AbstractContextManager[Any]:
    return MACHINES[request.param]()


@pytest.mark.parametrize("given", [("starts",), ("lengths",), ("starts", "lengths")], ids="-".join)
def test_ragged_rows(framework: Framework, machine: Any, given: tuple[str, ...]) -> None:
    reference = rows((6, 128), 1)
    bounds = {"starts": np.array(STARTS), "lengths": np.array(LENGTHS)}
    arrays = {name: framework.make(bounds[name], "int32") for name in given}
    every = {"starts": np.zeros(6, int), "lengths": np.full(6, 200)} | {name: bounds[name] for name in given}
    best, where = expected_ragged(reference, 4, **every)
    with machine:
        values, indices = atk.top_k(framework.make(reference, "float32"), 4, **arrays)
        assert isinstance(values, framework.kind) and str(indices.dtype).endswith(framework.default_index)
        np.testing.assert_array_equal(framework.back(indices), where)
        np.testing.assert_array_equal(framework.back(values), best)
        columns = atk.approx_top_k(framework.make(reference.T, "float32"), 4, axis=0, recall_target=1, **arrays)
        np.testing.assert_array_equal(framework.back(columns.indices), where.T)
        np.testing.assert_array_equal(framework.back(columns.values), best.T)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_every_integer_type_counts(framework: Framework, machine: Any, dtype: str) -> None:
    reference = rows((3, 2, 128), 2)
    bounds = {name: np.abs(line).reshape(3, 2) for name, line in (("starts", STARTS), ("lengths", LENGTHS))}
    with framework.context(dtype), machine:
        arrays = {name: framework.make(array, dtype) for name, array in bounds.items()}
        values, indices = atk.top_k(framework.make(reference, "float32"), 4, **arrays)
        best, where = expected_ragged(reference, 4, **bounds)
        np.testing.assert_array_equal(framework.back(indices), where)
        np.testing.assert_array_equal(framework.back(values), best)


def test_one_ragged_row(framework: Framework, machine: Any) -> None:
    reference = rows((128,), 0)
    with machine:
        got = atk.top_k(framework.make(reference, "float32"), 3, lengths=framework.make(np.array(2), "int32"))
        np.testing.assert_array_equal(framework.back(got.indices), expected_ragged(reference, 3, 0, np.array(2))[1])


def test_certificate(framework: Framework, machine: Any) -> None:
    reference = rows((64, 128), 1, seed=5)
    x = framework.make(reference, "float32")
    with machine:
        values, indices, exact = atk.approx_top_k(x, 4, buckets=16, k_per_bucket=1, certify=True)
        assert isinstance(exact, framework.kind) and str(exact.dtype).removeprefix("torch.") == "bool"
        assert tuple(exact.shape) == (64,)
        best, where = expected(reference, 4, 1)
        right = (framework.back(indices) == where).all(1)
        assert 0 < right.sum() < 64
        np.testing.assert_array_equal(framework.back(exact), right)
        np.testing.assert_array_equal(framework.back(values)[right], best[right])
        columns = atk.approx_top_k(framework.make(reference.T, "float32"), 4, axis=0, certify=True, recall_target=1)
        assert framework.back(columns.exact).all()
        lengths = np.arange(64) // 2
        ragged = atk.approx_top_k(
            x, 4, buckets=16, k_per_bucket=1, certify=True, lengths=framework.make(lengths, "int32")
        )
        right = framework.back(ragged.indices) == expected_ragged(reference, 4, np.zeros(64), lengths)[1]
        np.testing.assert_array_equal(framework.back(ragged.exact), right.all(1))


@pytest.mark.parametrize(("shape", "k", "axis"), [((4, 5), 0, 1), ((0, 5), 2, 1), ((5, 0), 0, 1), ((0,), 0, 0)])
@pytest.mark.parametrize("dtype", ["float32", "float8_e5m2"])
def test_nothing_is_certified_exact(framework: Framework, shape: Any, k: int, axis: int, dtype: str) -> None:
    """Rows of which nothing is asked are answered exactly, and nothing is launched."""
    idle = Machine()
    x = framework.make(np.zeros(shape), dtype)
    batch = (*shape[:axis], *shape[axis + 1 :])
    lengths = framework.make(np.ones(batch), "int32")
    with substitute("cpu", idle):
        values, indices, exact = atk.approx_top_k(x, k, axis=axis, lengths=lengths, certify=True)
    assert tuple(values.shape) == tuple(indices.shape) == (*batch[:axis], k, *batch[axis:])
    assert tuple(exact.shape) == batch and framework.back(exact).all() and idle.runs == 0
