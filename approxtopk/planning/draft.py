"""A plan being written: steps and workspace so far, and what every kernel must be told."""

from __future__ import annotations

from struct import pack, unpack
from typing import NamedTuple

from ..dtypes import DTYPES
from ..plan import Argument, DeviceInfo, Fill, Launch, Pointer, Step
from ..request import Request
from ..rows import RowsRequest
from .cost import SECTOR, Work, launch_seconds
from .layout import MOST_DIMS, Layout
from .machines import Machine
from .tuning import Tuning

__all__ = ["Draft", "Pairs", "RowsDraft", "power_of_two"]

#: Workspace pieces start at multiples of this, so that any load is aligned.
_ALIGNMENT = 256


class Pairs(NamedTuple):
    """Entries in the workspace: `per_row` keys and positions for every row."""

    keys: Pointer
    positions: Pointer
    per_row: int


class RowsDraft:
    """Collects the steps of one plan.

    Parameters
    ----------
    request : RowsRequest
    device : DeviceInfo
    machine : Machine
        What the cost model knows of the device.
    layout : Layout
        Of the request.
    tuning : Tuning
    """

    def __init__(
        self, request: RowsRequest, device: DeviceInfo, machine: Machine, layout: Layout, tuning: Tuning
    ) -> None:
        self.request = request
        self.device = device
        self.machine = machine
        self.layout = layout
        self.tuning = tuning
        # One general kind of kernel for whatever is rare: half as many to compile as one kind for each.
        general = request.n > tuning.narrow_entries or len(self.layout.extents) > 2
        self.wide = int(general)
        self.key_bytes = 8 if request.dtype.bits == 64 else 4
        self.position_bytes = 8 if self.wide else 4
        self.entry_bytes = 8 if self.key_bytes + self.position_bytes == 8 else 16
        self.batch_dims = MOST_DIMS if general else 2
        self.steps: list[Step] = []
        #: The modelled time of every step.
        self.seconds: list[float] = []
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

    def zeroed(self, nbytes: int) -> Pointer:
        """Set aside `nbytes` of workspace and add their filling with zeros."""
        pointer = self.scratch(nbytes)
        self.fill(pointer, nbytes, 0)
        return pointer

    def fill(self, pointer: Pointer, nbytes: int, byte: int) -> None:
        """Add a fill of memory with one byte."""
        self.steps.append(Fill(pointer, nbytes, byte))
        self.seconds.append(self.machine.launch + nbytes / self.machine.bandwidth)

    def launch(
        self,
        kernel: str,
        defines: dict[str, int],
        grid: int,
        block: int,
        shared_bytes: int,
        *arguments: Argument,
        work: Work,
    ) -> None:
        """Add a kernel that does `work`; the defines that all share are filled in."""
        shared = {"BITS": self.request.dtype.bits, "WIDE": self.wide, "BATCH_DIMS": self.batch_dims}
        variant = tuple(sorted({**shared, **defines}.items()))
        self.steps.append(Launch(kernel, variant, grid, block, shared_bytes, arguments))
        self.seconds.append(launch_seconds(self.machine, grid, block, shared_bytes, work))

    def input_bytes(self, run: int = SECTOR) -> tuple[float, float]:
        """Bytes of one reading of x in runs of `run` neighbours along the axis: from memory, and once more from L2.

        Sectors are read whole. Where they hold entries of other runs, those are assumed to be read soon too.
        """
        itemsize, stride = self.request.dtype.itemsize, abs(self.layout.axis_stride)
        size = float(self.request.rows * self.request.n * itemsize)
        if stride > 1:
            run = 1
        apart = stride > 1 and not self.layout.slab
        fresh = size * min(stride, SECTOR / itemsize) if apart else size
        return fresh, max(0.0, size * max(1.0, SECTOR / (run * itemsize)) - fresh)

    def again(self, nbytes: float) -> tuple[float, float]:
        """How a launch reads what the one before it read or wrote: bytes from memory, and from L2."""
        return (0.0, nbytes) if self.machine.holds(nbytes) else (nbytes, 0.0)

    def rows(self) -> tuple[Argument, ...]:
        """The kernels' ``Rows``."""
        r, layout = self.request, self.layout
        extents = layout.extents
        return (
            Pointer("x"),
            len(extents),
            *extents,
            *(1,) * (self.batch_dims - len(extents)),
            *self._strides(layout.strides),
            r.n,
            layout.axis_stride,
            *self.per_row("starts"),
            *self.per_row("lengths"),
        )

    def along(self, name: str) -> tuple[Argument, ...]:
        """Of an input that has an axis of its own: its address, its ``Strides``, and along the axis; null without it.

        An input of the batch shape has one entry a row.
        """
        r = self.request
        given = r.others.get(name)
        if given is None:
            return (0,) * (2 + self.batch_dims)
        _, shape, strides = given
        step = strides[r.axis] if len(shape) == len(r.shape) and shape[r.axis] > 1 else 1
        return (Pointer(name), *self._strides(self.layout.others[name]), step)

    def per_row(self, name: str) -> tuple[Argument, ...]:
        """The kernels' ``PerRow`` of an input with one entry a row, null without it."""
        given = self.request.others.get(name)
        if given is None:
            return (0,) * (3 + self.batch_dims)
        dtype = DTYPES[given[0]]
        return (Pointer(name), dtype.itemsize, int(dtype.kind == "i"), *self._strides(self.layout.others[name]))

    def number(self, name: str) -> tuple[Argument, ...]:
        """The kernels' ``Number``: the bits of a float64, and the array of one a row in its place, if there is one."""
        value = getattr(self.request, name)
        (bits,) = unpack("<Q", pack("<d", value if isinstance(value, float) else 0.0))
        return (bits, *self.per_row(name))

    def threads_to_fill(self) -> int:
        """Threads that fill the device."""
        return self.device.multiprocessors * self.tuning.resident_threads

    def _strides(self, strides: tuple[int, ...]) -> tuple[int, ...]:
        """The kernels' ``Strides``."""
        return (*strides, *(0,) * (self.batch_dims - len(strides)))

    @property
    def key_slots(self) -> float:
        """Slots to make a key of an entry of x."""
        return (10.0 if self.request.dtype.kind == "f" else 3.0) * (2 if self.key_bytes == 8 else 1)

    def element(self, largest: bool) -> dict[str, int]:
        """The defines of kernels that make keys from x, greater ones for what ranks first."""
        dtype = self.request.dtype
        if dtype.kind != "f":
            return {"FLOAT": 0}
        return {"FLOAT": 1, "LARGEST": int(largest), "LARGEST_NUMBER": dtype.largest_number}

    def coding(self, largest: bool) -> tuple[Argument, ...]:
        """The kernels' ``Coding``: the constants of kernels/keys.cuh, as they stand there."""
        dtype = self.request.dtype
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


class Draft(RowsDraft):
    """The plan of a selection being written."""

    request: Request

    def pairs(self, per_row: int) -> Pairs:
        """Set aside `per_row` entries for every row."""
        count = self.request.rows * per_row
        return Pairs(self.scratch(count * self.key_bytes), self.scratch(count * self.position_bytes), per_row)

    def stored_bytes(self, entries: int) -> float:
        """Size of so many entries of every row in the workspace."""
        return float(self.request.rows * entries * (self.key_bytes + self.position_bytes))

    def answer_bytes(self) -> float:
        """Size of the values and indices."""
        r = self.request
        return float(r.rows * r.k * (r.dtype.itemsize + (8 if r.index_dtype == "int64" else 4)))

    def keys(self) -> dict[str, int]:
        """The defines of kernels that make keys from x."""
        return self.element(self.request.largest)

    def result(self, final: bool) -> tuple[Argument, ...]:
        """The kernels' ``Result``; its arrays are null unless `final`."""
        r = self.request
        arrays: tuple[Argument, ...] = (Pointer("values"), Pointer("indices")) if final else (0, 0)
        return (*arrays, int(r.index_dtype == "int64"), r.k, r.inner, r.padding, *self.coding(r.largest))

    def where(self, pairs: Pairs | None) -> tuple[Argument, ...]:
        """The kernels' ``Pairs``, null without any."""
        return (0, 0) if pairs is None else (pairs.keys, pairs.positions)


def power_of_two(value: int) -> int:
    """The smallest power of two that is at least `value`."""
    return 1 << max(value - 1, 0).bit_length()
