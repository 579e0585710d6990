"""The CPU as a machine: a plan's one step is a call of the NumPy path."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..buffer import Buffer, Device
from ..host import select
from ..plan import DeviceInfo, Plan, Step

__all__ = ["HostRuntime"]

_INFO = DeviceInfo(name="cpu", architecture="cpu", multiprocessors=1, shared_bytes=0)


class HostRuntime:
    """Serves CPU memory through `approxtopk.host`."""

    def device_info(self, device: Device) -> DeviceInfo:
        """The CPU; plans do not depend on which."""
        return _INFO

    def current(self) -> Device:
        """The CPU."""
        return Device("cpu")

    def guard(self, device: Device) -> AbstractContextManager[object]:
        """There is one CPU and it is always current."""
        return nullcontext()

    def prepare(self, plan: Plan, device: Device) -> None:
        """Nothing to compile."""

    def run(self, step: Step, plan: Plan, buffers: Mapping[str, Buffer], stream: int) -> None:
        """Select with NumPy, on the caller's thread and a small pool."""
        r = plan.request
        bits = f"uint{r.dtype.bits}"
        starts, lengths, exact = (buffers.get(name) for name in ("starts", "lengths", "exact"))
        select(
            _view(buffers["x"], bits),
            _view(buffers["values"], bits),
            _view(buffers["indices"], r.index_dtype),
            dtype=r.dtype,
            k=r.k,
            axis=r.axis,
            largest=r.largest,
            sorted=r.sorted,
            buckets=plan.buckets,
            k_per_bucket=plan.k_per_bucket,
            interleaved=r.interleaved,
            starts=None if starts is None else _view(starts, starts.dtype),
            lengths=None if lengths is None else _view(lengths, lengths.dtype),
            exact=None if exact is None else _view(exact, "bool"),
            padding=r.padding,
        )


def _view(buffer: Buffer, name: str) -> NDArray[Any]:
    """A NumPy view of CPU memory as elements of dtype `name`."""
    dtype = np.dtype(name)
    strides = tuple(s * dtype.itemsize for s in buffer.strides)
    # np.ndarray checks an array against its memory's bounds, so the memory spans what the strides reach.
    reach = [(extent - 1) * stride for extent, stride in zip(buffer.shape, strides, strict=True)]
    low = sum(r for r in reach if r < 0)
    high = sum(r for r in reach if r > 0) + dtype.itemsize
    memory: Any = (ctypes.c_ubyte * (high - low)).from_address(buffer.pointer + low)
    return np.ndarray(buffer.shape, dtype, memory, offset=-low, strides=strides)
