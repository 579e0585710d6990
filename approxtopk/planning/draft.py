"""A plan being written: steps and workspace so far, and what every kernel must be told."""

from __future__ import annotations

from typing import NamedTuple

from ..plan import Argument, DeviceInfo, Launch, Pointer, Step, Zero
from ..request import Request
from .layout import MOST_DIMS, Layout
from .tuning import Tuning

__all__ = ["Draft", "Pairs", "power_of_two"]

#: Workspace pieces start at multiples of this, so that any load is aligned.
_ALIGNMENT = 256


class Pairs(NamedTuple):
    """Entries in the workspace: `per_row` keys and positions for every row."""

    keys: Pointer
    positions: Pointer
    per_row: int


class Draft:
    """Collects the steps of one plan.

    Parameters
    ----------
    request : Request
    device : DeviceInfo
    tuning : Tuning
    """

    def __init__(self, request: Request, device: DeviceInfo, tuning: Tuning) -> None:
        self.request = request
        self.device = device
        self.tuning = tuning
        self.layout = Layout.of(request)
        # One general kind of kernel for whatever is rare: half as many to compile as one kind for each.
        general = request.n > tuning.narrow_entries or len(self.layout.extents) > 2
        self.wide = int(general)
        self.key_bytes = 8 if request.dtype.bits == 64 else 4
        self.position_bytes = 8 if self.wide else 4
        self.entry_bytes = 8 if self.key_bytes + self.position_bytes == 8 else 16
        self.batch_dims = MOST_DIMS if general else 2
        self.steps: list[Step] = []
        self.bytes_read = 0
        self.workspace_bytes = 0

    @property
    def launches(self) -> list[Launch]:
        """The kernels so far."""
        return [step for step in self.steps if isinstance(step, Launch)]

    def scratch(self, nbytes: int) -> Pointer:
        """Set aside `nbytes` of workspace."""
        start = self.workspace_bytes
        self.workspace_bytes = start + -(-nbytes // _ALIGNMENT) * _ALIGNMENT
        return Pointer("workspace", start)

    def pairs(self, per_row: int) -> Pairs:
        """Set aside `per_row` entries for every row."""
        count = self.request.rows * per_row
        return Pairs(self.scratch(count * self.key_bytes), self.scratch(count * self.position_bytes), per_row)

    def zeroed(self, nbytes: int) -> Pointer:
        """Set aside `nbytes` of workspace and add their filling with zeros."""
        pointer = self.scratch(nbytes)
        self.steps.append(Zero(pointer, nbytes))
        return pointer

    def launch(
        self,
        kernel: str,
        defines: dict[str, int],
        grid: int,
        block: int,
        shared_bytes: int,
        *arguments: Argument,
    ) -> None:
        """Add a kernel; the defines that all share are filled in."""
        shared = {"BITS": self.request.dtype.bits, "WIDE": self.wide, "BATCH_DIMS": self.batch_dims}
        variant = tuple(sorted({**shared, **defines}.items()))
        self.steps.append(Launch(kernel, variant, grid, block, shared_bytes, arguments))

    def element(self) -> dict[str, int]:
        """The defines of kernels that make keys from x."""
        dtype = self.request.dtype
        if dtype.kind != "f":
            return {"FLOAT": 0}
        return {"FLOAT": 1, "LARGEST": int(self.request.largest), "LARGEST_NUMBER": dtype.largest_number}

    def batch(self) -> tuple[Argument, ...]:
        """The kernels' ``Batch``."""
        extents, strides = self.layout.extents, self.layout.strides
        pad = self.batch_dims - len(extents)
        return (len(extents), *extents, *(1,) * pad, *strides, *(0,) * pad)

    def result(self, final: bool) -> tuple[Argument, ...]:
        """The kernels' ``Result``; its arrays are null unless `final`."""
        r = self.request
        arrays: tuple[Argument, ...] = (Pointer("values"), Pointer("indices")) if final else (0, 0)
        return (*arrays, int(r.index_dtype == "int64"), r.k, r.inner, *self._coding())

    def where(self, pairs: Pairs | None) -> tuple[Argument, ...]:
        """The kernels' ``Pairs``, null without any."""
        return (0, 0) if pairs is None else (pairs.keys, pairs.positions)

    def threads_to_fill(self) -> int:
        """Threads that fill the device."""
        return self.device.multiprocessors * self.tuning.resident_threads

    def _coding(self) -> tuple[Argument, ...]:
        """The kernels' ``Coding``: the constants of kernels/keys.cuh, as they stand there."""
        dtype, largest = self.request.dtype, self.request.largest
        width = self.key_bytes * 8
        shift = width - dtype.bits
        everything = (1 << width) - 1
        sign = 1 << (width - 1)
        if dtype.kind == "f":
            unit = 1 << shift
            top = dtype.largest_number << shift
            zero = top if largest else -top - unit
            nan = 2 * top + unit if largest else -2 * top - 2 * unit
            return (1, int(largest), zero & everything, nan & everything, 0)
        flip = (sign if dtype.kind == "i" else 0) ^ (0 if largest else (everything << shift) & everything)
        return (0, int(largest), 0, 0, flip)


def power_of_two(value: int) -> int:
    """The smallest power of two that is at least `value`."""
    return 1 << max(value - 1, 0).bit_length()
