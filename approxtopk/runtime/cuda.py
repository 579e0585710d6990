"""NVIDIA GPUs as a machine: kernels are compiled by NVRTC through ``cupy.RawModule`` when first needed.

The one importer of CuPy's compiler. CuPy keeps compiled binaries on disk (``$CUPY_CACHE_DIR``, else
``~/.cupy/kernel_cache``), keyed on the full joined source, the options, the architecture and NVRTC's version.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..buffer import Buffer, Device
from ..errors import BackendMissing, CompileError, DeviceMismatch
from ..plan import DeviceInfo, Fill, HostCall, Launch, Plan, Step
from .source import OPTIONS, Parameter, source

__all__ = ["INSTALL", "CudaRuntime"]

INSTALL = 'pip install "approxtopk[cuda12]" (or "approxtopk[cuda13]", to match your other CUDA packages)'


class _Stream(NamedTuple):
    """What CuPy reads of a launch's ``stream=``."""

    ptr: int


_stream = lru_cache(maxsize=256)(_Stream)


class _Ready(NamedTuple):
    """All of a launch that is the same in every call."""

    step: Launch
    function: Any
    grid: tuple[int]
    block: tuple[int]
    parameter: Parameter
    dtype: np.dtype[Any]


#: Launches to keep ready, of a program that makes ever new plans.
_MOST_READY = 16384


class CudaRuntime:
    """Serves CUDA memory through CuPy.

    Raises
    ------
    BackendMissing
        When CuPy is not installed, or finds no driver.
    """

    def __init__(self) -> None:
        try:
            import cupy
        except ImportError as error:
            raise BackendMissing(f"arrays on a GPU need CuPy, which is not installed: {INSTALL}") from error
        self._cupy: Any = cupy
        try:
            self._count = int(cupy.cuda.runtime.getDeviceCount())
        except Exception as error:
            raise BackendMissing(f"CuPy {cupy.__version__} finds no usable CUDA driver or device: {error}") from error
        self._infos: dict[int, DeviceInfo] = {}
        self._functions: dict[tuple[int, str, tuple[tuple[str, int], ...]], Any] = {}
        # A Launch is slow to hash, so its identity is the key. The value holds it: none other can take that over.
        self._ready: dict[tuple[int, int], _Ready] = {}
        self._locks: dict[object, threading.Lock] = {}
        self._lock = threading.Lock()

    def device_info(self, device: Device) -> DeviceInfo:
        """Properties of one GPU.

        Raises
        ------
        DeviceMismatch
            When there is no GPU of that index.
        """
        info = self._infos.get(device.index)
        if info is None:
            if not 0 <= device.index < self._count:
                raise DeviceMismatch(f"device cuda:{device.index} does not exist; there are {self._count} GPUs")
            properties = self._cupy.cuda.runtime.getDeviceProperties(device.index)
            info = DeviceInfo(
                name=properties["name"].decode(),
                architecture=f"sm_{properties['major']}{properties['minor']}",
                multiprocessors=int(properties["multiProcessorCount"]),
                shared_bytes=int(properties["sharedMemPerBlockOptin"]),
            )
            self._infos[device.index] = info
        return info

    def current(self) -> Device:
        """The GPU that CUDA has current on this thread."""
        return Device("cuda", int(self._cupy.cuda.runtime.getDevice()))

    def guard(self, device: Device) -> AbstractContextManager[object]:
        """Make the GPU current, and the one before it afterwards."""
        guard: AbstractContextManager[object] = self._cupy.cuda.Device(device.index)
        return guard

    def prepare(self, plan: Plan, device: Device) -> None:
        """Compile and load the plan's kernels on `device`."""
        with self.guard(device):
            for step in plan.steps:
                if isinstance(step, Launch):
                    self._function(step, device.index)

    def run(self, step: Step, plan: Plan, buffers: Mapping[str, Buffer], stream: int) -> None:
        """Put a launch or a fill on `stream`."""
        assert not isinstance(step, HostCall), "plans for a GPU have no NumPy steps"
        if isinstance(step, Fill):
            pointer = buffers[step.pointer.buffer].pointer + step.pointer.offset
            self._cupy.cuda.runtime.memsetAsync(pointer, step.byte, step.nbytes, stream)
            return
        device = buffers["x"].device.index
        ready = self._ready.get((id(step), device)) or self._make_ready(step, device)
        # CuPy passes a NumPy array of one element by value: here the whole parameter struct.
        parameter = np.frombuffer(ready.parameter.at(buffers), ready.dtype)
        ready.function(ready.grid, ready.block, (parameter,), shared_mem=step.shared_bytes, stream=_stream(stream))

    def _make_ready(self, step: Launch, device: int) -> _Ready:
        dtype = np.dtype(f"V{8 * len(step.arguments)}")
        ready = _Ready(step, self._function(step, device), (step.grid,), (step.block,), Parameter(step), dtype)
        if len(self._ready) >= _MOST_READY:
            self._ready.clear()
        self._ready[id(step), device] = ready
        return ready

    def _function(self, launch: Launch, device: int) -> Any:
        """The loaded kernel, compiled by the first thread that asks while others wait."""
        key = (device, launch.kernel, launch.defines)
        function = self._functions.get(key)
        if function is None:
            with self._lock:
                lock = self._locks.setdefault(key, threading.Lock())
            with lock:
                function = self._functions.get(key)
                if function is None:
                    function = self._functions[key] = self._load(launch, device)
        return function

    def _load(self, launch: Launch, device: int) -> Any:
        cupy = self._cupy
        module = cupy.RawModule(code=source(launch), options=OPTIONS, backend="nvrtc")
        try:
            kernel = module.get_function(launch.kernel)
            # More than 48 KiB must be asked for; once, for all later launches, whose need may differ.
            kernel.max_dynamic_shared_size_bytes = self.device_info(Device("cuda", device)).shared_bytes
            return kernel.kernel
        except cupy.cuda.compiler.CompileException as error:
            raise CompileError(f"{launch.kernel} {dict(launch.defines)} does not compile:\n{error}") from error
        except (ImportError, RuntimeError) as error:
            if "STREAM_CAPTURE" in str(error):
                raise CompileError(
                    f"{launch.kernel} is needed for the first time, and cannot be loaded while a graph is captured "
                    f"({error}): make the call once, or approxtopk.warmup, before the capture"
                ) from error
            if "nvrtc" not in str(error).lower():
                raise
            raise BackendMissing(f"CuPy cannot load NVRTC, its compiler ({error}): {INSTALL}") from error
