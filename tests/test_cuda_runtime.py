"""The CUDA runtime, run for real on a stand-in for CuPy whose GPU is the emulator and whose memory is the CPU's."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import approxtopk as atk
from approxtopk import BackendMissing, CompileError, DeviceMismatch
from approxtopk.buffer import Device
from approxtopk.plan import Launch
from approxtopk.runtime import cuda, substitute
from approxtopk.runtime.cuda import CudaRuntime

from .fake_cupy import CompileException, FakeCupy
from .inputs import make


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCupy]:
    fake = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", fake)
    yield fake


def test_selections_run_through_it(cupy: FakeCupy) -> None:
    x = make("random", "float32", (2, 70_000)).view(np.float32)
    want = atk.top_k(x, 3000), atk.approx_top_k(x, 30, buckets=64, k_per_bucket=2)
    with substitute("cpu", CudaRuntime()):
        got = atk.top_k(x, 3000), atk.approx_top_k(x, 30, buckets=64, k_per_bucket=2)
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_array_equal(ours.indices, theirs.indices)
        np.testing.assert_array_equal(ours.values, theirs.values)
    assert {stream for _, _, stream in cupy.launches} == {0}
    assert len(cupy.filled) == 1
    assert set(cupy.shared_limits) == {232448}
    assert cupy.entered == [0, -1] * 2


@pytest.mark.parametrize("most", [1, 100])
def test_launches_kept_ready_take_the_next_calls_memory(
    cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(cuda, "_MOST_READY", most)
    arrays = [make("random", "float32", (2, n), seed).view(np.float32) for seed, n in enumerate((300, 3000, 300, 3000))]
    runtime = CudaRuntime()
    with substitute("cpu", runtime):
        kept = [(atk.top_k(x, 4), x) for _ in range(3) for x in arrays]
        assert len(runtime._ready) == min(most, 2)
    for got, x in kept:
        np.testing.assert_array_equal(got.indices, atk.top_k(x, 4).indices)


def test_a_variant_is_compiled_once_by_any_number_of_threads(cupy: FakeCupy) -> None:
    x = make("random", "float32", (3, 3000)).view(np.float32)
    start = threading.Barrier(16)

    def work(number: int) -> Any:
        start.wait()
        return atk.approx_top_k(x, 9, buckets=32, k_per_bucket=1 + number % 2).indices

    with substitute("cpu", CudaRuntime()), ThreadPoolExecutor(16) as pool:
        results = list(pool.map(work, range(16)))
    assert len(cupy.compiled) == len(set(cupy.compiled)) == 2  # one kernel for each k_b
    for kept in (1, 2):
        want = atk.approx_top_k(x, 9, buckets=32, k_per_bucket=kept).indices
        for result in results[kept - 1 :: 2]:
            np.testing.assert_array_equal(result, want)


def test_kernels_are_kept_per_device_and_prepared_ahead(cupy: FakeCupy) -> None:
    runtime = CudaRuntime()
    plan = atk.plan((3, 3000), 9, device=runtime.device_info(Device("cuda")), buckets=32, k_per_bucket=1)
    runtime.prepare(plan, Device("cuda", 0))
    runtime.prepare(plan, Device("cuda", 1))
    runtime.prepare(plan, Device("cuda", 0))
    assert len(cupy.compiled) == 2 * sum(isinstance(step, Launch) for step in plan.steps)
    assert cupy.launches == []


def test_what_is_missing_is_said(cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceMismatch, match="cuda:7 does not exist; there are 2"):
        CudaRuntime().device_info(Device("cuda", 7))
    x = np.zeros((2, 300), np.float32)
    with substitute("cpu", CudaRuntime()):
        cupy.failure = CompileException("kernel.cu(3): error: no")
        with pytest.raises(CompileError, match=r"warp_row .*does not compile:\n.*error: no"):
            atk.top_k(x, 2)
        cupy.failure = RuntimeError("CuPy failed to load libnvrtc.so.12")
        with pytest.raises(BackendMissing, match="pip install"):
            atk.top_k(x, 2)
        cupy.failure = None
        assert atk.top_k(x, 2).indices.shape == (2, 2)

    def no_driver() -> int:
        raise RuntimeError("cudaErrorInsufficientDriver")

    cupy.cuda.runtime.getDeviceCount = no_driver
    with pytest.raises(BackendMissing, match="finds no usable CUDA driver"):
        CudaRuntime()
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(BackendMissing, match="pip install"):
        CudaRuntime()
