"""CuPy without a GPU: how it describes an array, and the steps of a call."""

from __future__ import annotations

import types
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest

import approxtopk as atk
from approxtopk.buffer import Device
from approxtopk.runtime import substitute

from .fakes import Machine, cupy_array
from .frameworks import expected, expected_ragged, rows

pytest.importorskip("cupy")


def test_cupy_description() -> None:
    from approxtopk.adapters import registry

    host = np.zeros(60, np.float32)
    x = cupy_array(host, (3, 4, 5), np.float32)
    adapter = registry.find(x)
    assert (adapter.name, adapter.default_index) == ("cupy", "int64")
    facts = adapter.facts(x[1:, ::-1].transpose(2, 0, 1))
    assert facts.shape == (5, 2, 4) and facts.strides == (1, 20, -5)
    assert facts.pointer == host.ctypes.data + (20 + 15) * 4
    assert (facts.dtype, facts.device) == ("float32", Device("cuda", 0))


class Gpu(Machine):
    """A machine for arrays that CuPy takes to be on its device 0, and the streams it was given."""

    def __init__(self) -> None:
        super().__init__(Device("cuda", 0))
        self.streams: list[int] = []

    def run(self, step: Any, plan: Any, buffers: Any, stream: int) -> None:
        super().run(step, plan, buffers, stream)
        self.streams.append(stream)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """CuPy's driver calls replaced and its arrays on the host: what was asked for, and the arrays by address."""
    from approxtopk.adapters import cupy as adapter

    log: list[Any] = []

    def empty(shape: Any, dtype: Any) -> Any:
        host = np.empty(shape, dtype)
        log.append(("empty", host.dtype.name))
        array = cupy_array(host, shape, dtype)
        hosts[array.data.ptr] = host
        return array

    def device(index: int) -> AbstractContextManager[Any]:
        log.append(("device", index))
        return nullcontext()

    hosts: dict[int, np.ndarray] = {}
    runtime = types.SimpleNamespace(is_hip=False)
    stream = types.SimpleNamespace(ptr=7)
    cuda = types.SimpleNamespace(runtime=runtime, Device=device, get_current_stream=lambda: stream)
    monkeypatch.setattr(adapter, "cupy", types.SimpleNamespace(cuda=cuda, empty=empty))
    return types.SimpleNamespace(log=log, hosts=hosts)


def test_cupy_run_without_a_gpu(driver: Any) -> None:
    """The adapter's own steps."""
    hosts, machine = driver.hosts, Gpu()
    reference = rows((5, 300), 1).astype(np.float32)
    x = cupy_array(reference, reference.shape, np.float32)
    with substitute("cuda", machine):
        values, indices = atk.top_k(x, 9)
    np.testing.assert_array_equal(hosts[indices.data.ptr], expected(reference, 9, 1)[1])
    np.testing.assert_array_equal(hosts[values.data.ptr], expected(reference, 9, 1)[0])
    assert driver.log[:3] == [("device", 0), ("empty", "float32"), ("empty", "int64")] and set(machine.streams) == {7}


def test_cupy_ragged_rows_without_a_gpu(driver: Any) -> None:
    reference, lengths = rows((5, 300), 1).astype(np.float32), np.array([0, 2, 50, 300, 9], np.uint16)
    x = cupy_array(reference, reference.shape, np.float32)
    starts = np.array([7], np.int32)
    with substitute("cuda", Gpu()):
        values, indices, exact = atk.approx_top_k(
            x,
            9,
            recall_target=1,
            starts=cupy_array(starts, (5,), np.int32, (0,)),
            lengths=cupy_array(lengths, (5,), np.uint16),
            certify=True,
        )
    best, where = expected_ragged(reference, 9, np.full(5, 7), lengths.astype(int))
    np.testing.assert_array_equal(driver.hosts[indices.data.ptr], where)
    np.testing.assert_array_equal(driver.hosts[values.data.ptr], best)
    assert exact.dtype == bool and driver.hosts[exact.data.ptr].tolist() == [True] * 5
