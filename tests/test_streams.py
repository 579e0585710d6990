"""CuPy's streams, graphs, devices and threads, by the same code on a stand-in for its GPUs and on a GPU."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import approxtopk as atk
from approxtopk.buffer import Device
from approxtopk.runtime import serving, substitute
from approxtopk.runtime.cuda import CudaRuntime

from .backends import gpu_present, tuned
from .fake_cupy import FakeStream, fake_gpus, read
from .inputs import make

#: Shape, k and the public call's keywords: a launch or several, with workspace, counters, and without.
CALLS: list[tuple[tuple[int, int], int, dict[str, Any]]] = [
    ((3, 5000), 7, {}),
    ((2, 70_000), 40, {}),
    ((20, 700), 20, {"mode": "smallest"}),
    ((2, 70_000), 30, {"buckets": 512, "k_per_bucket": 2, "certify": True}),
]


class RealGpus:
    """What the tests ask of CuPy."""

    replays = 1000
    streams = 32

    def __init__(self) -> None:
        import cupy

        self.cupy = cupy
        self.devices = int(cupy.cuda.runtime.getDeviceCount())
        self.device = cupy.cuda.Device

    def put(self, host: np.ndarray) -> Any:
        return self.cupy.asarray(host)

    def write(self, x: Any, host: np.ndarray) -> None:
        x.set(host)

    def get(self, x: Any) -> np.ndarray:
        return x.get()

    def stream(self) -> Any:
        return self.cupy.cuda.Stream(non_blocking=True)

    def wait(self) -> None:
        self.cupy.cuda.runtime.deviceSynchronize()

    def current(self) -> int:
        return int(self.cupy.cuda.runtime.getDevice())


class StandIn(RealGpus):
    """The same of the stand-in."""

    replays = 5
    streams = 6

    def __init__(self, cupy: Any) -> None:
        self.cupy, self.devices, self.device = cupy, cupy.devices, cupy.cuda.Device

    def put(self, host: np.ndarray) -> Any:
        x = self.cupy.empty(host.shape, host.dtype)
        self.write(x, host)
        return x

    def write(self, x: Any, host: np.ndarray) -> None:
        ctypes.memmove(x.data.ptr, np.ascontiguousarray(host).ctypes.data, host.nbytes)

    def get(self, x: Any) -> np.ndarray:
        return read(x)

    def stream(self) -> Any:
        return FakeStream(self.cupy, self.current())

    def wait(self) -> None:
        """All is done at once."""

    def current(self) -> int:
        return self.cupy.stack()[-1]


REAL = pytest.param("CuPy", marks=[pytest.mark.gpu, pytest.mark.skipif(not gpu_present(), reason="needs a GPU")])


@pytest.fixture(params=["stand-in", REAL])
def gpus(request: pytest.FixtureRequest) -> Iterator[RealGpus]:
    """Kernels that nothing has been compiled of yet, and plans of several launches."""
    with tuned(chip_entries=0, copy_bytes=0):
        if request.param == "stand-in":
            with fake_gpus() as fake:
                yield StandIn(fake)
        else:
            with substitute("cuda", CudaRuntime()):
                yield RealGpus()


def host(shape: tuple[int, int], seed: int) -> np.ndarray:
    return make("random", "float32", shape, seed).view(np.float32)


def select(x: Any, k: int, options: dict[str, Any]) -> Any:
    return (atk.approx_top_k if "buckets" in options else atk.top_k)(x, k, **options)


def same(gpus: RealGpus, got: Any, want: Any) -> None:
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_array_equal(gpus.get(ours), theirs)


@contextmanager
def capturing(stream: Any) -> Iterator[dict[str, Any]]:
    """Capture what is done within, as "graph" of what is given."""
    found: dict[str, Any] = {}
    with stream:
        stream.begin_capture()
        try:
            yield found
        finally:
            found["graph"] = stream.end_capture()


@pytest.mark.parametrize("which", range(len(CALLS)))
def test_replays_with_changing_inputs(gpus: RealGpus, which: int) -> None:
    shape, k, options = CALLS[which]
    inputs = [host(shape, seed) for seed in range(5)]
    wanted = [select(x, k, options) for x in inputs]
    x = gpus.put(inputs[0])
    prepared = atk.prepare(shape, k, exact="buckets" not in options, device="cuda", **options)
    prepared(x)  # compiled, and its counters filled: of no use to the graph
    stream = gpus.stream()
    gpus.wait()
    with capturing(stream) as found:
        graphs = [select(x, k, options), prepared(x)]
    filler = []
    for turn in range(gpus.replays):
        gpus.write(x, inputs[turn % 5])
        gpus.wait()
        with stream:
            found["graph"].launch()
            if turn < 20:
                # What a graph writes to and does not keep, these would get, and lose.
                filler.append(gpus.put(np.full(prepared.plan.workspace_bytes, turn, np.uint8)))
        stream.synchronize()
        if turn < 10 or turn % 50 == 0:
            for got in graphs:
                same(gpus, got, wanted[turn % 5])
    for turn, array in enumerate(filler):
        assert (gpus.get(array) == turn).all()
    same(gpus, prepared(x), wanted[(gpus.replays - 1) % 5])


def test_a_pool_of_the_graphs_own(gpus: RealGpus) -> None:
    """The way to capture that keeps what CuPy's own functions allocate as well."""
    if isinstance(gpus, StandIn):
        pytest.skip("the stand-in has no such pools")
    x = gpus.put(host((2, 70_000), 0))
    want = atk.top_k(host((2, 70_000), 0), 40)
    atk.warmup(x, 40, exact=True)
    (x * 2).sum()
    pool, stream = gpus.cupy.cuda.MemoryPool(), gpus.stream()
    gpus.wait()
    with gpus.cupy.cuda.using_allocator(pool.malloc), capturing(stream) as found:
        doubled = atk.top_k(x * 2, 40).values * 2
    taken = [gpus.put(np.zeros(70_000 * 2, np.float32)) for _ in range(4)]
    for _ in range(20):
        found["graph"].launch(stream)
    stream.synchronize()
    np.testing.assert_array_equal(gpus.get(doubled), want.values * 4)
    assert all((gpus.get(array) == 0).all() for array in taken)


def test_warmup_then_capture(gpus: RealGpus) -> None:
    """No first call, neither in the capture's thread nor in another."""
    stream = gpus.stream()
    for number, (shape, k, options) in enumerate(CALLS):
        atk.warmup(shape, k, exact="buckets" not in options, device="cuda", **options)
        x = gpus.put(host(shape, number))
        gpus.wait()
        results: list[Any] = []

        def work(x: Any = x, k: int = k, options: Any = options, results: Any = results) -> None:
            with capturing(stream) as found:
                results.append(select(x, k, options))
            with stream:
                found["graph"].launch()
            stream.synchronize()
            results.append(found)

        if number % 2:
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        else:
            work()
        assert len(results) == 2, "the capture failed"
        same(gpus, results[0], select(host(shape, number), k, options))


def test_many_streams(gpus: RealGpus) -> None:
    arrays = [gpus.put(host(shape, 0)) for shape, _, _ in CALLS]
    wanted = [select(host(shape, 0), k, options) for shape, k, options in CALLS]
    gpus.wait()
    streams = [gpus.stream() for _ in range(gpus.streams)]
    results = []
    for turn in range(2):
        for number, stream in enumerate(streams):
            which = (number + turn) % len(CALLS)
            _, k, options = CALLS[which]
            with stream:
                results.append((which, select(arrays[which], k, options)))
    gpus.wait()
    for which, got in results:
        same(gpus, got, wanted[which])


def test_first_calls_of_many_threads(gpus: RealGpus) -> None:
    arrays = [host(shape, 0) for shape, _, _ in CALLS]
    wanted = [select(x, k, options) for x, (_, k, options) in zip(arrays, CALLS, strict=True)]
    runtime = serving(Device("cuda"))
    loaded: list[Any] = []
    load = runtime._load  # type: ignore[attr-defined]

    def watched(launch: Any, device: int) -> Any:
        loaded.append((device, launch.kernel, launch.defines))
        return load(launch, device)

    start = threading.Barrier(16)

    def work(number: int) -> None:
        start.wait()
        with gpus.stream() as stream:
            for turn in range(4):
                which = (number + turn) % len(CALLS)
                _, k, options = CALLS[which]
                got = select(gpus.put(arrays[which]), k, options)
                stream.synchronize()
                same(gpus, got, wanted[which])

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(16) as pool:
        patch.setattr(runtime, "_load", watched)
        list(pool.map(work, range(16)))
    assert len(loaded) == len(set(loaded)) >= 3


def test_a_device_that_is_not_current(gpus: RealGpus) -> None:
    if gpus.devices < 2:
        pytest.skip("needs two GPUs")
    for shape, k, options in CALLS:
        with gpus.device(1):
            x = gpus.put(host(shape, 0))
        before = gpus.current()
        got = select(x, k, options)
        assert gpus.current() == before == 0
        assert {array.data.device_id for array in got} == {1}
        with gpus.device(1):
            gpus.wait()
            same(gpus, got, select(host(shape, 0), k, options))


def test_memory_of_others(gpus: RealGpus) -> None:
    """Read in place, where CuPy says it is: part of a buffer that somebody else owns."""
    values = host((1, 70_100), 0)
    owner = gpus.put(values)
    memory = gpus.cupy.cuda.UnownedMemory(owner.data.ptr, owner.nbytes, owner, 0)
    x = gpus.cupy.ndarray((2, 35_000), np.float32, gpus.cupy.cuda.MemoryPointer(memory, 80))
    same(gpus, atk.top_k(x, 40), atk.top_k(values[0, 20:70_020].reshape(2, -1), 40))


def test_managed_memory(gpus: RealGpus) -> None:
    if isinstance(gpus, StandIn):
        pytest.skip("the stand-in has none")
    x = gpus.cupy.ndarray((2, 70_000), np.float32, gpus.cupy.cuda.malloc_managed(2 * 70_000 * 4))
    x.set(host((2, 70_000), 0))
    same(gpus, atk.top_k(x, 40), atk.top_k(host((2, 70_000), 0), 40))
