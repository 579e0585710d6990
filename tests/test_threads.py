"""Many threads whose first calls come together: each kernel is compiled once, and every answer is the oracle's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import approxtopk as atk
from approxtopk import runtime
from approxtopk.buffer import Device
from approxtopk.planning.cached import cached_plan
from approxtopk.runtime import serving, substitute

from .emulated import emulated
from .fake_cupy import FakeCupy, FakeStream, fake_gpus, read
from .fakes import Idle, cupy_array
from .frameworks import FRAMEWORKS, expected, expected_ragged, rows
from .interpreter import python

THREADS = 16
#: Shape, k and axis: small rows, long ones, columns.
SHAPES = [((3, 400), 5, 1), ((2, 3000), 30, 1), ((300, 4), 7, 0), ((40,), 3, 0)]


def together(work: Callable[[int], Any]) -> list[Any]:
    """What `work` returns for the numbers of the threads, which start at once."""
    start = threading.Barrier(THREADS)

    def one(number: int) -> Any:
        start.wait()
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(one, range(THREADS)))


@contextmanager
def stand_in() -> Iterator[FakeCupy]:
    """The CUDA runtime on the stand-in for CuPy, for CPU arrays of every framework too."""
    with fake_gpus() as gpus, substitute("cpu", serving(Device("cuda"))):
        yield gpus


@pytest.mark.parametrize("machine", [emulated, stand_in], ids=["emulated", "CUDA runtime"])
def test_first_calls_of_every_framework(machine: Any) -> None:
    frameworks = [kind() for kind in FRAMEWORKS.values()]
    arrays = [rows(shape, axis).astype(np.float32) for shape, _, axis in SHAPES]
    lengths = np.array([9, 4, 300, 0])
    cached_plan.cache_clear()

    def work(number: int) -> None:
        framework = frameworks[number % len(frameworks)]
        for turn in range(len(SHAPES)):
            which = (number // len(frameworks) + turn) % len(SHAPES)
            _, k, axis = SHAPES[which]
            x = framework.make(arrays[which], "float32")
            values, indices = atk.top_k(x, k, axis=axis)
            best, where = expected(arrays[which], k, axis)
            np.testing.assert_array_equal(framework.back(indices), where)
            np.testing.assert_array_equal(framework.back(values), best)
            kept = atk.approx_top_k(x, 3, axis=axis, buckets=8, k_per_bucket=3)  # no bucket can lose one
            np.testing.assert_array_equal(framework.back(kept.indices), expected(arrays[which], 3, axis)[1])
        columns = framework.make(arrays[2], "float32")
        got = atk.top_k(columns, 4, axis=0, lengths=framework.make(lengths, "int32"))
        where = expected_ragged(arrays[2].T, 4, np.zeros(4), lengths)[1]
        np.testing.assert_array_equal(framework.back(got.indices), where.T)

    with machine() as what:
        together(work)
        if isinstance(what, FakeCupy):
            assert len(what.compiled) == len(set(what.compiled)) >= len(SHAPES)


def test_first_calls_on_streams_of_two_devices() -> None:
    arrays = [rows(shape, axis).astype(np.float32) for shape, _, axis in SHAPES]
    with fake_gpus() as gpus:

        def work(number: int) -> Any:
            device, which = number % 2, number // 2 % len(SHAPES)
            _, k, axis = SHAPES[which]
            with gpus.cuda.Device(device), FakeStream(gpus, device) as stream:
                x = cupy_array(arrays[which], arrays[which].shape, np.float32, device=device)
                indices = atk.top_k(x, k, axis=axis).indices
                np.testing.assert_array_equal(read(indices), expected(arrays[which], k, axis)[1])
                return device, stream.ptr, indices.data.device_id, list(gpus.stack())

        results = together(work)
        counts = {one: gpus.compiled.count(one) for one in gpus.compiled}
        assert set(counts.values()) == {2}, "once on each device"
        assert {(ptr, device) for device, ptr, _, _ in results} == {(ptr, device) for device, ptr, _ in gpus.allocated}
        assert all(device == where and stack == [0, device] for device, _, where, stack in results)


def test_warmup_and_calls_together() -> None:
    x = rows((3, 400), 1).astype(np.float32)
    with stand_in() as gpus:

        def work(number: int) -> None:
            if number % 2:
                atk.warmup([(3, 400), (4, 400)], 5, exact=True, dtype=["float32", "float16"], device="cpu")
            else:
                np.testing.assert_array_equal(atk.top_k(x, 5).indices, expected(x, 5, 1)[1])

        together(work)
        assert len(gpus.compiled) == len(set(gpus.compiled))


def test_one_runtime_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []

    class Slow(Idle):
        def __init__(self) -> None:
            super().__init__()
            started.append(self)
            time.sleep(0.05)

    monkeypatch.setattr(runtime, "_runtimes", {})
    monkeypatch.setattr("approxtopk.runtime.cuda.CudaRuntime", Slow)
    found = together(lambda number: serving(Device("cuda", number % 2)))
    assert len(started) == 1 and set(map(id, found)) == {id(started[0])}


def test_a_failed_compilation_fails_for_all_and_is_not_remembered() -> None:
    x = rows((3, 400), 1).astype(np.float32)
    with stand_in() as gpus:
        gpus.failure = RuntimeError("no memory")

        def work(number: int) -> bool:
            with pytest.raises(RuntimeError, match="no memory"):
                atk.top_k(x, 5)
            return True

        assert all(together(work))
        gpus.failure = None
        np.testing.assert_array_equal(atk.top_k(x, 5).indices, expected(x, 5, 1)[1])


def test_first_import_by_many_threads() -> None:
    """Importing the package, its adapters and the NumPy path is a first call too."""
    code = f"""
        import threading
        import numpy, torch
        x = numpy.arange(3000, dtype=numpy.float32)
        start = threading.Barrier({THREADS})
        right = []
        def work(number):
            start.wait()
            import approxtopk
            y = torch.from_numpy(x) if number % 2 else x
            right.append(int(approxtopk.top_k(y, 3).indices[0]) == 2999)
        threads = [threading.Thread(target=work, args=(number,)) for number in range({THREADS})]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(len(right), all(right))
    """
    assert python(code).split() == [str(THREADS), "True"]
