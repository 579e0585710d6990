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
from .frameworks import expected, rows

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


def test_cupy_run_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The adapter's own steps, with CuPy's driver calls replaced and its arrays on the host."""
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

    class Gpu(Machine):
        def run(self, step: Any, plan: Any, buffers: Any, stream: int) -> None:
            super().run(step, plan, buffers, stream)
            log.append(("stream", stream))

    hosts: dict[int, np.ndarray] = {}
    runtime = types.SimpleNamespace(is_hip=False)
    stream = types.SimpleNamespace(ptr=7)
    cuda = types.SimpleNamespace(runtime=runtime, Device=device, get_current_stream=lambda: stream)
    monkeypatch.setattr(adapter, "cupy", types.SimpleNamespace(cuda=cuda, empty=empty))
    reference = rows((5, 300), 1).astype(np.float32)
    x = cupy_array(reference, reference.shape, np.float32)
    with substitute("cuda", Gpu(Device("cuda", 0))):
        values, indices = atk.top_k(x, 9)
    np.testing.assert_array_equal(hosts[indices.data.ptr], expected(reference, 9, 1)[1])
    np.testing.assert_array_equal(hosts[values.data.ptr], expected(reference, 9, 1)[0])
    assert log[:3] == [("device", 0), ("empty", "float32"), ("empty", "int64")] and log[-1] == ("stream", 7)
