"""The emulator as a runtime of the library: it claims CPU pointers and reports an sm_90."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np

from approxtopk.buffer import Buffer, Device
from approxtopk.dtypes import DTYPES
from approxtopk.plan import DeviceInfo, Fill, Launch, Plan, Step
from approxtopk.runtime import substitute
from approxtopk.runtime.source import joined, pack

from .emulator import Emulator, Kernel, Range, Stats

__all__ = ["EmulatedRuntime", "emulated"]


class EmulatedRuntime:
    """Runs plans on the emulator, letting kernels touch nothing but the call's buffers.

    Attributes
    ----------
    launched : list of (str, Stats)
        The kernels run so far and what each did; fills count as kernel ``"fill"``.
    """

    def __init__(self, seed: int = 0, *, multiprocessors: int = 132, sanitize: bool = False) -> None:
        self.emulator = Emulator(seed=seed, multiprocessors=multiprocessors, sanitize=sanitize)
        self.info = DeviceInfo("emulated GPU", self.emulator.architecture, multiprocessors, self.emulator.shared_bytes)
        self.launched: list[tuple[str, Stats]] = []

    def device_info(self, device: Device) -> DeviceInfo:
        return self.info

    def guard(self, device: Device) -> AbstractContextManager[object]:
        return nullcontext()

    def prepare(self, plan: Plan, device: Device) -> None:
        for step in plan.steps:
            if isinstance(step, Launch):
                self._kernel(step)

    def run(self, step: Step, plan: Plan, buffers: Mapping[str, Buffer], stream: int) -> None:
        if isinstance(step, Fill):
            self.emulator.fill(buffers[step.pointer.buffer].pointer + step.pointer.offset, step.nbytes, step.byte)
            self.launched.append(("fill", Stats(0, step.nbytes, 0)))
            return
        assert isinstance(step, Launch)
        written = {"workspace", *(output.name for output in plan.outputs)}
        ranges = [_range(buffer, name in written) for name, buffer in buffers.items()]
        stats = self.emulator.launch(
            self._kernel(step), step.grid, step.block, step.shared_bytes, pack(step, buffers), ranges
        )
        self.launched.append((step.kernel, stats))

    def _kernel(self, launch: Launch) -> Kernel:
        return self.emulator.compile(joined(launch.kernel), launch.defines, launch.kernel)


@contextmanager
def emulated(seed: int = 0, **options: object) -> Iterator[EmulatedRuntime]:
    """Let CPU arrays of every framework be served by the emulated GPU."""
    runtime = EmulatedRuntime(seed, **options)  # type: ignore[arg-type]
    with substitute("cpu", runtime):
        yield runtime


def _range(buffer: Buffer, writable: bool) -> Range:
    """The memory of a buffer, from its lowest element to its highest."""
    itemsize = DTYPES[buffer.dtype].itemsize if buffer.dtype in DTYPES else np.dtype(buffer.dtype).itemsize
    if math.prod(buffer.shape) == 0:
        return Range(0, 0, False)
    reach = [(e - 1) * s * itemsize for e, s in zip(buffer.shape, buffer.strides, strict=True)]
    low = sum(r for r in reach if r < 0)
    high = sum(r for r in reach if r > 0) + itemsize
    return Range(buffer.pointer + low, high - low, writable)
