"""What ``torch.topk`` should take on a GPU: modelled, not measured, and taken for faster than it is where in doubt.

Nothing here ran on a GPU. Read in PyTorch's source (``aten/src/ATen/native/cuda``: ``TensorTopK.cpp``,
``TensorTopK.cu``, ``SortingRadixSelect.cuh``, ``Sort.h``; ``torch/_native/ops/topk`` of 2.13), by which a call is

- a copy of the input, where it is not contiguous;
- *one block a row*, one launch: radix selection by 2 bits, so that a row of b-bit entries is read b / 2 times, and
  twice more to take the larger and the equal ones, a barrier in every step of those two; or
- *several blocks a row*, for long rows: radix selection by 8 bits, b / 8 readings of three launches each, one more
  reading to take the result, and 9 launches of counters and prefix sums; or
- *PyTorch's newer kernel*, one launch, where it is installed and eligible: float32, the largest along the last axis,
  k a power of two from 16 to 1024, a row for every multiprocessor. It is taken to be there;
- if sorted, one launch up to k = 4096, and above a segmented sort, a gather and two copies.

The constants of the machine are those that our own mappings are weighed with, `approxtopk.planning.machines`.
"""

from __future__ import annotations

from ...buffer import row_major
from ...planning.cost import BARRIER, NOTHING, SHARED, Chain, Work, launch_seconds
from ...planning.machines import Machine
from ...request import Request

__all__ = ["HOST", "seconds"]

#: On the host: a call until its first launch, and each launch with its allocations.
HOST, HOST_LAUNCH = 3e-6, 1.5e-6
#: Slots to test an entry against a digit, with the ballots of its warp, and to take it or leave it.
_DIGIT_SLOTS, _TAKE_SLOTS = 16.0, 12.0
#: Launches of a segmented sort, with the gather and the copies behind it, at the least.
_LONG_SORT = 8
_SHORT_SORT_ENTRIES = 4096
_MOST_THREADS = 1024
#: Bytes of a row that a multiprocessor's own cache keeps from one reading to the next.
_CACHED_ROW = 96 * 1024


def seconds(request: Request, machine: Machine) -> tuple[float, float]:
    """What PyTorch's own kernels should take on the GPU, and on the host to launch them."""
    r = request
    size = float(r.rows * r.n * r.dtype.itemsize)
    total, launches = 0.0, 0
    if r.strides != row_major(r.shape):
        total, launches = machine.launch + 2 * size / machine.bandwidth, 1
    ways = [_several_blocks(r, machine)] if _splits(r.rows, r.n) else [_one_block(r, machine)]
    if r.sorted:
        ways = [(spent + time, count + more) for spent, count in ways for time, more in [_sort(r, machine)]]
    if _fused(r, machine):
        ways.append(_one_launch(r, machine))
    time, count = min(ways)
    total, launches = total + time, launches + count
    return total, HOST + launches * HOST_LAUNCH


def _splits(rows: int, n: int) -> bool:
    """``should_use_multiblock``, to the letter."""
    if rows <= 20:
        return n >= 20000
    if rows <= 40:
        return n >= 10000
    if rows <= 80:
        return n >= 8000
    if rows < 200:
        return n >= 5000
    if rows < 800:
        return n >= 3000
    return n >= (800 if rows <= 4000 else 400)


def _one_block(r: Request, machine: Machine) -> tuple[float, int]:
    digits = r.dtype.bits / 2
    size = float(r.rows * r.n * r.dtype.itemsize)
    threads = min(-(-r.n // 32) * 32, _MOST_THREADS)
    steps = -(-r.n // threads)
    cached = r.n * r.dtype.itemsize <= _CACHED_ROW
    again = (digits + 1) * steps * SHARED if cached else 0.0
    work = Work(
        read=size,
        reread=0.0 if cached else size * (digits + 1),
        written=_answer(r),
        reach=float(r.n * r.dtype.itemsize),
        slots=r.rows * r.n * (digits * _DIGIT_SLOTS + 2 * _TAKE_SLOTS),
        under_way=float(r.dtype.itemsize),
        serial=Chain(digits * 2 * BARRIER + 2 * steps * 2 * BARRIER + again),
        registers=32,
    )
    return launch_seconds(machine, r.rows, threads, 0, work), 1


def _several_blocks(r: Request, machine: Machine) -> tuple[float, int]:
    readings = r.dtype.bits // 8
    launches = 9 + 3 * readings
    size = float(r.rows * r.n * r.dtype.itemsize)
    again = machine.cached_bandwidth if machine.holds(size) else machine.bandwidth
    streaming = size / machine.bandwidth + readings * size / again + _answer(r) / machine.bandwidth
    return launches * machine.launch + streaming, launches


def _fused(r: Request, machine: Machine) -> bool:
    return (
        r.dtype.name == "float32"
        and r.largest
        and r.sorted
        and r.axis == len(r.shape) - 1
        and r.strides == row_major(r.shape)
        and r.k in (16, 32, 64, 128, 256, 512, 1024)
        and r.rows >= machine.multiprocessors
    )


def _one_launch(r: Request, machine: Machine) -> tuple[float, int]:
    """Four digits and the taking; with small k, where rows stay in registers, one reading."""
    size = float(r.rows * r.n * 4)
    work = Work(
        read=size,
        reread=0.0 if r.k <= 32 else size * 4,
        written=_answer(r),
        reach=float(r.n * 4),
        slots=r.rows * r.n * _DIGIT_SLOTS,
        serial=NOTHING,
    )
    return launch_seconds(machine, r.rows, 256, 0, work), 1


def _sort(r: Request, machine: Machine) -> tuple[float, int]:
    moved = 2 * _answer(r) / machine.bandwidth
    if r.k <= _SHORT_SORT_ENTRIES:
        return machine.launch + moved, 1
    return _LONG_SORT * (machine.launch + moved), _LONG_SORT


def _answer(r: Request) -> float:
    """Bytes of values and int64 indices."""
    return float(r.rows * r.k * (r.dtype.itemsize + 8))
