"""What the core asks of a machine that runs plans."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from ..buffer import Buffer, Device
from ..plan import DeviceInfo, Plan, Step

__all__ = ["Runtime"]


class Runtime(Protocol):
    """One kind of machine: CUDA GPUs, the CPU by NumPy, or the emulator of the tests."""

    def device_info(self, device: Device) -> DeviceInfo:
        """The facts a plan depends on; cached, cheap to ask again."""
        ...

    def current(self) -> Device:
        """The device that this thread uses where it names none."""
        ...

    def guard(self, device: Device) -> AbstractContextManager[object]:
        """Make `device` current within the context and restore the one before."""
        ...

    def run(self, step: Step, plan: Plan, buffers: Mapping[str, Buffer], stream: int) -> None:
        """Put one step on `stream` (a driver handle; 0 is the default stream). Never synchronises."""
        ...

    def prepare(self, plan: Plan, device: Device) -> None:
        """Compile and load every kernel of `plan`, so that running it later does neither."""
        ...
