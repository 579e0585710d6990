"""The planner of the soft top-k and its derivatives: one block per row, the row on chip where it fits.

How a row is shared out among threads, which decides in what order its sums are rounded, depends on its length, element
type and layout and on the device, not on how many rows there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from struct import pack, unpack

from ..errors import InvalidArgument
from ..plan import Argument, DeviceInfo, HostCall, Plan, Pointer
from ..soft_request import SoftRequest
from . import tuning
from .cost import BARRIER, SHARED, Chain, Work, loop, scan
from .draft import RowsDraft, power_of_two
from .layout import Layout
from .machines import machine_of
from .radix import COMPARE_SLOTS, copied_bytes, digit_of_copy, neighbours, scratch_bytes, threads_for

__all__ = ["plan_soft", "ways"]

#: Blocks of a launch, at most.
_MOST_BLOCKS = 2**31 - 1
#: Entries near the threshold that a block lists: of a row on chip at least, where there is room, and of others. They
#: are more than matter, unless the strength is large beside their spread.
LEAST_LISTED, LISTED, MOST_LISTED = 256, 2048, 6144
#: Evaluations until the threshold is found, as the model has it, and slots of one for one entry: of a power in float64,
#: of an exponential in the type that x is computed in.
STEPS = 5
POWER_SLOTS = 30.0
EXPONENTIAL_SLOTS = {32: 50.0, 64: 160.0}
#: The exponents 1 / (p - 1) that are multiplications, as in kernels/real.cuh.
_KNOWN = {2.0: 1, 4 / 3: 3}


def plan_soft(request: SoftRequest, device: DeviceInfo) -> Plan:
    """Plan `request` for `device`.

    Raises
    ------
    InvalidArgument
        For more rows than one launch has blocks (2**31 - 1).
    """
    r = request
    # Without entries there may still be a threshold, or the derivatives of k and l, one a row.
    if all(math.prod(output.shape) == 0 for output in r.outputs):
        return Plan(r, device, r.outputs, (), 0, 0)
    if device.architecture == "cpu":
        read = math.prod(r.shape) * r.dtype.itemsize * (1 if r.g is None else 2)
        return Plan(r, device, r.outputs, (HostCall("host.soft"),), read, 0)
    if r.rows > _MOST_BLOCKS:
        raise InvalidArgument(f"x of shape {r.shape} needs {r.rows} blocks; allowed are {_MOST_BLOCKS} at most")
    draft = next(ways(r, device))
    return Plan(r, device, r.outputs, tuple(draft.steps), draft.bytes_read, draft.workspace_bytes)


def ways(request: SoftRequest, device: DeviceInfo) -> Iterator[RowsDraft]:
    """The ways to map a request, the one that is taken first."""
    numbers = tuning.DEFAULT
    for choice in (numbers, numbers._replace(copy_bytes=0)):
        draft = RowsDraft(request, device, machine_of(device), Layout.of(request), choice)
        if request.g is None:
            _forward(draft, request)
            yield draft
        elif choice is numbers:
            _derivative(draft, request)
            yield draft


def _forward(draft: RowsDraft, r: SoftRequest) -> None:
    """Add the launch of the mask, or of x made sparse."""
    smooth = r.kind != "pnorm"
    is_mask = r.operator == "soft_top_k_mask"
    # Rare kernels come without loads of neighbours: half as many to compile.
    vector = 1 if draft.wide else neighbours(draft)
    threads = threads_for(draft, r.n, vector)
    # Where all entries matter, none are listed.
    wanted = 0 if smooth else r.n
    block, most = _block_bytes(draft), draft.device.shared_bytes
    row = copied_bytes(draft, vector)
    capacity = min(wanted, LISTED, (most - block - row) // 16 * 2)
    on_chip = capacity >= min(wanted, LEAST_LISTED) and block + row <= min(most, draft.tuning.copy_bytes)
    if not on_chip:
        capacity = min(wanted, MOST_LISTED, (most - block) // 16 * 2)
    copy = block + -(-capacity * 8 // 16) * 16
    defines = {**draft.element(True), "SOURCE": 3 if on_chip else 0, "VECTOR": vector}
    results: tuple[Argument, ...]
    if is_mask:
        defines["SMOOTH"] = int(smooth)
        results = (int(r.kind == "laplace"), Pointer("y"))
    else:
        results = (Pointer("y"), Pointer("tau"), Pointer("rest"))
    draft.launch(
        r.operator.replace("top_k_", ""),
        defines,
        r.rows,
        threads,
        copy + (row if on_chip else 0),
        *draft.rows(),
        *draft.number("k"),
        *draft.number("l"),
        *_power(r.p),
        *results,
        r.inner,
        capacity,
        copy,
        work=_forward_work(draft, r, threads, vector, on_chip),
    )
    # First digits, entries near the threshold and the result; or two digits, the solver's steps and the result.
    times = 1 if on_chip else 3 + STEPS if smooth else 3
    draft.bytes_read += times * r.rows * r.n * r.dtype.itemsize


def _derivative(draft: RowsDraft, r: SoftRequest) -> None:
    """Add the launch of a derivative."""
    is_mask = r.operator == "soft_top_k_mask_vjp"
    smooth = r.kind != "pnorm"
    threads = min(draft.tuning.row_threads, max(64, power_of_two(r.n // draft.tuning.thread_loads)))
    defines = draft.element(True)
    if is_mask:
        defines["SMOOTH"] = int(smooth)
    threshold = () if is_mask else (*draft.per_row("tau"), *draft.per_row("rest"))
    draft.launch(
        r.operator.replace("top_k_", ""),
        defines,
        r.rows,
        threads,
        3 * 32 * 8,
        *draft.rows(),
        *draft.along("g"),
        *threshold,
        *draft.number("l"),
        *_power(r.p),
        *((int(r.kind == "laplace"),) if is_mask else ()),
        Pointer("dx"),
        Pointer("dk"),
        Pointer("dl"),
        r.inner,
        work=_derivative_work(draft, r, threads),
    )
    draft.bytes_read += 2 * 2 * r.rows * r.n * r.dtype.itemsize


def _power(p: float) -> tuple[Argument, ...]:
    """The kernels' ``Power``."""
    known = _KNOWN.get(p, 0)
    (bits,) = unpack("<Q", pack("<d", float(known) if known else 1 / (p - 1)))
    return (known, bits)


def _block_bytes(draft: RowsDraft) -> int:
    """Size of the kernels' ``Soft``."""
    return -(-(scratch_bytes(draft) + 3 * 32 * 8 + 3 * 8 + 4 * draft.position_bytes) // 16) * 16


# ---- What it costs --------------------------------------------------------------------------------------------


def _forward_work(draft: RowsDraft, r: SoftRequest, threads: int, vector: int, on_chip: bool) -> Work:
    """Of rows of which few entries matter, or all."""
    size = float(r.rows * r.n * r.dtype.itemsize)
    fresh, again = draft.input_bytes()
    look = draft.key_slots + COMPARE_SLOTS
    # The list's own digits, or those of the row; sums over a block.
    serial = digit_of_copy(r.n if on_chip else 0, threads, look, True)
    reduction = Chain(10 * SHARED + 2 * BARRIER + threads / 32 * SHARED, threads * 60.0)
    if r.kind == "pnorm":
        sweeps = 3
        serial = serial + digit_of_copy(LISTED / 8, threads, COMPARE_SLOTS, False) * 2 + scan(threads) * 2
        serial = serial + (loop(LISTED / 8, threads, 4 * SHARED, POWER_SLOTS) + reduction) * STEPS
        each = 2 * look
    else:
        sweeps = 3 + STEPS
        evaluation = EXPONENTIAL_SLOTS[64 if r.dtype.bits == 64 else 32]
        serial = serial + digit_of_copy(r.n if on_chip else 0, threads, look, False) + reduction * STEPS
        each = look + evaluation * (STEPS + 1)
    entries = float(r.rows * r.n)
    if on_chip:
        serial = serial + loop(r.n, threads, SHARED / 4, each)
        return Work(fresh, again, size, under_way=r.n * r.dtype.itemsize / threads, serial=serial, registers=96)
    moved = float(vector * r.dtype.itemsize)
    again = again * sweeps + fresh * (sweeps - 1)
    reach = float(r.n * r.dtype.itemsize)
    return Work(fresh, again, size, reach, entries * (each + look), moved, serial, registers=96)


def _derivative_work(draft: RowsDraft, r: SoftRequest, threads: int) -> Work:
    """Two readings of the rows and the cotangent."""
    size = float(r.rows * r.n * r.dtype.itemsize)
    fresh, again = draft.input_bytes()
    serial = Chain(4 * (10 * SHARED + 2 * BARRIER), threads * 240.0)
    slots = (8.0 if r.kind == "pnorm" else 2 * EXPONENTIAL_SLOTS[64 if r.dtype.bits == 64 else 32]) * r.rows * r.n
    reach = 2.0 * r.n * r.dtype.itemsize
    under_way = 4.0 * r.dtype.itemsize
    return Work(2 * fresh, 2 * again + 2 * fresh, size, reach, slots, under_way, serial, registers=96)
