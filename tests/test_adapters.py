"""What every adapter promises: types in = types out, every dtype, any axis, no launch for nothing, threads."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import approxtopk as atk
from approxtopk.dtypes import DTYPES
from approxtopk.runtime import substitute

from .emulated import emulated
from .fakes import Machine
from .frameworks import FRAMEWORKS, Framework, N, expected, rows


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
