"""Machines that run plans, by kind of device."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..buffer import Device
from .protocol import Runtime

__all__ = ["Runtime", "serving", "substitute"]

_runtimes: dict[str, Runtime] = {}
_lock = threading.Lock()


def serving(device: Device) -> Runtime:
    """Return the runtime that serves `device`, made when first asked for.

    Raises
    ------
    BackendMissing
        For a CUDA device when CuPy, or the NVRTC it compiles with, is not installed.
    """
    runtime = _runtimes.get(device.kind)
    return runtime if runtime is not None else _start(device.kind)


def _start(kind: str) -> Runtime:
    with _lock:
        if kind not in _runtimes:
            # Imported late: the CUDA runtime imports CuPy.
            if kind == "cuda":
                from .cuda import CudaRuntime

                _runtimes[kind] = CudaRuntime()
            else:
                from .host import HostRuntime

                _runtimes[kind] = HostRuntime()
        return _runtimes[kind]


@contextmanager
def substitute(kind: str, runtime: Runtime) -> Iterator[Runtime]:
    """Let `runtime` serve every device of `kind` within the context.

    This is how the tests' emulator claims CPU pointers. It holds for all threads.
    """
    before = serving(Device("cpu")) if kind == "cpu" else _runtimes.get(kind)
    _runtimes[kind] = runtime
    try:
        yield runtime
    finally:
        if before is None:
            del _runtimes[kind]
        else:
            _runtimes[kind] = before
