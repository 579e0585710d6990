"""The CUDA runtime, run for real on a stand-in for CuPy whose GPU is the emulator and whose memory is the CPU's."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import approxtopk as atk
from approxtopk import BackendMissing, CompileError, DeviceMismatch
from approxtopk.buffer import Device
from approxtopk.plan import Launch
from approxtopk.runtime import substitute
from approxtopk.runtime.cuda import CudaRuntime

from .emulator import Emulator
from .inputs import make


class CompileException(Exception):
    """As CuPy's."""


class FakeCupy(types.ModuleType):
    """As much of CuPy as the runtime uses, with a record of what it was asked."""

    def __init__(self) -> None:
        super().__init__("cupy")
        self.__version__ = "14.2.0"
        self.emulator = Emulator(seed=1)
        self.compiled: list[tuple[str, tuple[str, ...]]] = []
        self.launches: list[tuple[str, int, int]] = []
        self.shared_limits: list[int] = []
        self.filled: list[tuple[int, int]] = []
        self.entered: list[int] = []
        self.devices = 2
        self.failure: Exception | None = None
        fake = self

        class FakeDevice:
            def __init__(self, index: int) -> None:
                self.index = index

            def __enter__(self) -> None:
                fake.entered.append(self.index)

            def __exit__(self, *_: object) -> None:
                fake.entered.append(-1)

        def memset_async(pointer: int, value: int, nbytes: int, stream: int) -> None:
            ctypes.memset(pointer, value, nbytes)
            fake.filled.append((nbytes, stream))

        runtime = types.SimpleNamespace(
            getDeviceCount=lambda: fake.devices,
            getDeviceProperties=lambda index: {
                "name": b"stand-in",
                "major": 9,
                "minor": 0,
                "multiProcessorCount": 132,
                "sharedMemPerBlockOptin": 232448,
            },
            memsetAsync=memset_async,
        )
        compiler = types.SimpleNamespace(CompileException=CompileException)
        self.cuda = types.SimpleNamespace(runtime=runtime, compiler=compiler, Device=FakeDevice)
        self.RawModule = lambda **keywords: FakeModule(fake, **keywords)


class FakeModule:
    def __init__(self, cupy: FakeCupy, code: str, options: tuple[str, ...], backend: str) -> None:
        assert backend == "nvrtc"
        self.cupy, self.code, self.options = cupy, code, options

    def get_function(self, name: str) -> FakeKernel:
        return FakeKernel(self, name)


class FakeKernel:
    def __init__(self, module: FakeModule, name: str) -> None:
        self.module, self.name = module, name

    @property
    def kernel(self) -> Any:
        cupy, options = self.module.cupy, self.module.options
        if cupy.failure is not None:
            raise cupy.failure
        time.sleep(0.01)  # a window for other threads to compile the same again
        cupy.compiled.append((self.name, options))
        defines = [tuple(o[2:].split("=")) for o in options if o.startswith("-D")]
        kernel = cupy.emulator.compile(self.module.code, [(name, int(value)) for name, value in defines], self.name)

        def call(grid: Any, block: Any, args: Any, *, shared_mem: int, stream: Any) -> None:
            (parameter,) = args
            assert isinstance(parameter, np.ndarray) and parameter.size == 1
            cupy.launches.append((self.name, shared_mem, stream.ptr))
            cupy.emulator.launch(kernel, *grid, *block, shared_mem, parameter.tobytes())

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "max_dynamic_shared_size_bytes":
            self.module.cupy.shared_limits.append(value)
        else:
            super().__setattr__(name, value)


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
