"""A stand-in for CuPy whose GPUs are the emulator and whose memory is the CPU's, with streams, graphs and a pool.

With it the CUDA runtime and CuPy's adapter run for real, on CuPy's own arrays of host memory.
"""

from __future__ import annotations

import ctypes
import itertools
import re
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from approxtopk.runtime import substitute
from approxtopk.runtime.cuda import CudaRuntime

from .emulator import Emulator
from .fakes import cupy_array

__all__ = ["CompileException", "FakeCupy", "FakeStream", "fake_gpus", "read"]

_MACRO = re.compile(r"^#define (\w+) (-?\d+)\n", re.MULTILINE)


class CompileException(Exception):
    """As CuPy's."""


class FakeCupy(types.ModuleType):
    """As much of CuPy as approxtopk uses, with a record of what it was asked.

    Attributes
    ----------
    compiled : list of (str, tuple)
        The entry point and the macros of what was compiled.
    launches : list of (str, int, int)
        Kernel, dynamic shared memory and stream.
    filled : list of (int, int)
        Bytes and stream.
    entered : list of int
        Devices made current, and -1 for each time that the one before came back.
    allocated : list of (int, int, int)
        Device, stream and bytes of what the pool was asked for.
    failure : Exception or None
        What the compiler is to raise.
    """

    def __init__(self) -> None:
        super().__init__("cupy")
        self.__version__ = "14.2.0"
        self.emulator = Emulator(seed=1)
        self.compiled: list[tuple[str, tuple[tuple[str, int], ...]]] = []
        self.launches: list[tuple[str, int, int]] = []
        self.shared_limits: list[int] = []
        self.filled: list[tuple[int, int]] = []
        self.entered: list[int] = []
        self.allocated: list[tuple[int, int, int]] = []
        self.devices = 2
        self.failure: Exception | None = None
        self.streams: dict[int, FakeStream] = {}
        self.free: dict[tuple[int, int, int], list[np.ndarray]] = {}
        self.thread = threading.local()
        self.pointers = itertools.count(0x1000, 0x10)
        fake = self

        class FakeDevice:
            def __init__(self, index: int) -> None:
                self.index = index

            def __enter__(self) -> None:
                fake.entered.append(self.index)
                fake.stack().append(self.index)

            def __exit__(self, *_: object) -> None:
                fake.entered.append(-1)
                fake.stack().pop()

        def memset_async(pointer: int, value: int, nbytes: int, stream: int) -> None:
            fake.filled.append((nbytes, stream))
            fake.put(stream, lambda: ctypes.memset(pointer, value, nbytes))

        runtime = types.SimpleNamespace(
            is_hip=False,
            getDeviceCount=lambda: fake.devices,
            getDevice=lambda: fake.stack()[-1],
            getDeviceProperties=lambda index: {
                "name": b"stand-in",
                "major": 9,
                "minor": 0,
                "multiProcessorCount": 132,
                "sharedMemPerBlockOptin": 232448,
            },
            memsetAsync=memset_async,
            CUDARuntimeError=RuntimeError,
        )
        compiler = types.SimpleNamespace(CompileException=CompileException)
        self.cuda = types.SimpleNamespace(
            runtime=runtime, compiler=compiler, Device=FakeDevice, get_current_stream=self.current_stream
        )
        self.RawModule = lambda **keywords: FakeModule(fake, **keywords)
        real = sys.modules.get("cupy")
        if real is not None:
            self.ndarray = real.ndarray
            self.cuda.UnownedMemory, self.cuda.MemoryPointer = real.cuda.UnownedMemory, real.cuda.MemoryPointer

    def stack(self) -> list[int]:
        """The devices made current on this thread; device 0 is so from the start."""
        if not hasattr(self.thread, "devices"):
            self.thread.devices = [0]
        return self.thread.devices

    def current_stream(self) -> FakeStream:
        """Of this thread and its current device."""
        if not hasattr(self.thread, "streams"):
            self.thread.streams = {index: [FakeStream(self, index, 0)] for index in range(self.devices)}
        return self.thread.streams[self.stack()[-1]][-1]

    def empty(self, shape: Any, dtype: Any) -> Any:
        """Memory as CuPy's pool gives it: what was freed on a stream is handed out again on that stream."""
        dtype = np.dtype(dtype)
        nbytes = int(np.prod(shape, dtype=int)) * dtype.itemsize
        key = (self.stack()[-1], self.current_stream().ptr, nbytes)
        self.allocated.append(key)
        chunk = _Chunk(self.free.setdefault(key, []), nbytes)
        return cupy_array(chunk, shape, dtype, device=key[0])

    def put(self, stream: int, work: Callable[[], object]) -> None:
        """Do work in the order of a stream: at once, or into the graph that it is captured in."""
        found = self.streams.get(stream)
        if found is not None and found.recorded is not None:
            found.recorded.append(work)
        else:
            work()


class _Chunk:
    """A piece of the pool, with the look of the NumPy array whose memory it is; it goes back when it is garbage."""

    def __init__(self, free: list[np.ndarray], nbytes: int) -> None:
        self.free, self.nbytes = free, nbytes
        self.memory = free.pop() if free else np.full(nbytes + 256, 0xA5, np.uint8)
        start = -(-self.memory.ctypes.data // 256) * 256
        self.ctypes = types.SimpleNamespace(data=start)

    def __del__(self) -> None:
        self.free.append(self.memory)


class FakeStream:
    """A CUDA stream on which all is done at once, or captured."""

    def __init__(self, cupy: FakeCupy, device: int = 0, ptr: int | None = None) -> None:
        self.cupy, self.device = cupy, device
        self.ptr = next(cupy.pointers) if ptr is None else ptr
        self.recorded: list[Callable[[], object]] | None = None
        if self.ptr:
            cupy.streams[self.ptr] = self

    def __enter__(self) -> FakeStream:
        assert self.cupy.stack()[-1] == self.device, "CuPy refuses streams of another device"
        self.cupy.current_stream()
        self.cupy.thread.streams[self.device].append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.cupy.thread.streams[self.device].pop()

    def is_capturing(self) -> bool:
        return self.recorded is not None

    def begin_capture(self) -> None:
        self.recorded = []

    def synchronize(self) -> None:
        """All is done at once."""

    def end_capture(self) -> FakeGraph:
        recorded, self.recorded = self.recorded, None
        assert recorded is not None
        return FakeGraph(recorded)


class FakeGraph:
    """What was captured; it holds addresses, not memory."""

    def __init__(self, work: list[Callable[[], object]]) -> None:
        self.work = work

    def launch(self) -> None:
        for one in self.work:
            one()


class FakeModule:
    def __init__(self, cupy: FakeCupy, code: str, options: tuple[str, ...], backend: str) -> None:
        assert backend == "nvrtc" and options == ("--std=c++17",)
        self.cupy = cupy
        macros, _, self.code = code.partition("#line 1\n")
        self.defines = tuple((name, int(value)) for name, value in _MACRO.findall(macros))
        assert _MACRO.sub("", macros) == ""

    def get_function(self, name: str) -> FakeKernel:
        return FakeKernel(self, name)


class FakeKernel:
    def __init__(self, module: FakeModule, name: str) -> None:
        self.module, self.name = module, name

    @property
    def kernel(self) -> Any:
        cupy, defines = self.module.cupy, self.module.defines
        if cupy.failure is not None:
            raise cupy.failure
        if any(stream.is_capturing() for stream in cupy.streams.values()):
            raise RuntimeError(
                "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED: operation not permitted when stream is capturing"
            )
        time.sleep(0.01)  # a window for other threads to compile the same again
        cupy.compiled.append((self.name, defines))
        kernel = cupy.emulator.compile(self.module.code, defines, self.name)

        def call(grid: Any, block: Any, args: Any, *, shared_mem: int, stream: Any) -> None:
            (parameter,) = args
            assert isinstance(parameter, np.ndarray) and parameter.size == 1
            parameters = parameter.tobytes()
            cupy.launches.append((self.name, shared_mem, stream.ptr))
            cupy.put(stream.ptr, lambda: cupy.emulator.launch(kernel, *grid, *block, shared_mem, parameters))

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "max_dynamic_shared_size_bytes":
            self.module.cupy.shared_limits.append(value)
        else:
            super().__setattr__(name, value)


@contextmanager
def fake_gpus() -> Iterator[FakeCupy]:
    """Two GPUs, for CuPy's arrays and for all that asks for CUDA devices; none of them for other frameworks."""
    pytest.importorskip("cupy")
    from approxtopk.adapters import cupy as adapter

    with pytest.MonkeyPatch.context() as patch:
        fake = FakeCupy()
        patch.setitem(sys.modules, "cupy", fake)
        patch.setattr(adapter, "cupy", fake)
        with substitute("cuda", CudaRuntime()):
            yield fake


def read(array: Any) -> np.ndarray:
    """What a contiguous array of the stand-in's memory holds now."""
    memory = (ctypes.c_ubyte * array.nbytes).from_address(array.data.ptr)
    return np.frombuffer(memory, array.dtype).reshape(array.shape).copy()
