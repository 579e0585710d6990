"""Mapping of ranks: one reading of every row, by a few warps, a block or several, and sums of what they counted."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..errors import InvalidArgument
from ..plan import Argument, DeviceInfo, HostCall, Plan, Pointer
from ..rank_request import TIES, RankRequest
from . import tuning
from .cost import BARRIER, SECTOR, SHARED, Chain, Work, loop, scan, sort
from .draft import RowsDraft, power_of_two
from .layout import Layout
from .machines import machine_of

__all__ = ["mappings", "plan_rank"]

#: Targets of a row that registers have room for; one is by far the most common.
FEW = 4
#: Threads of a block that reads several rows, at least.
LEAST_BLOCK = 128
#: Entries of a block, at most: they are counted in 32 bits.
MOST_COUNTED = 2**31
#: Blocks of a launch, at most.
_MOST_BLOCKS = 2**31 - 1
#: What is tried: threads that read a row together, and for how many blocks of a multiprocessor few rows are split.
_CHOICES = tuple(
    {"row_threads": threads, "split_blocks": blocks} for threads in (512, 256, 128) for blocks in (0, 1, 2, 4)
)


class RankDraft(RowsDraft):
    """The plan of ranks being written."""

    request: RankRequest


def plan_rank(request: RankRequest, device: DeviceInfo) -> Plan:
    """Plan `request` for `device`: of the mappings considered, the one that should take the least time.

    Raises
    ------
    InvalidArgument
        For more blocks than a launch may have (2**31 - 1).
    """
    r = request
    if r.rows == 0:
        return Plan(r, device, r.outputs, (), 0, 0)
    if device.architecture == "cpu":
        return Plan(r, device, r.outputs, (HostCall("host.rank"),), math.prod(r.shape) * r.dtype.itemsize, 0)
    draft = min(mappings(r, device), key=lambda draft: sum(draft.seconds))
    grid = max(launch.grid for launch in draft.launches)
    if grid > _MOST_BLOCKS:
        raise InvalidArgument(f"x of shape {r.shape} needs {grid} blocks; allowed are {_MOST_BLOCKS} at most")
    return Plan(r, device, r.outputs, tuple(draft.steps), draft.bytes_read, draft.workspace_bytes)


def mappings(request: RankRequest, device: DeviceInfo) -> Iterator[RankDraft]:
    """Every mapping that is considered, or the one that is forced; all have the same kernel and macros."""
    choices = _CHOICES if tuning.Tuning() == tuning.DEFAULT else ({},)
    machine, layout = machine_of(device), Layout.of(request)
    for numbers in choices:
        draft = RankDraft(request, device, machine, layout, tuning.DEFAULT._replace(**numbers))
        _map(draft)
        yield draft


def _map(draft: RankDraft) -> None:
    r, numbers = draft.request, draft.tuning
    many = r.m > FEW
    vector = 16 // r.dtype.itemsize if draft.layout.axis_stride == 1 else 1
    targets = 1 if r.m <= 1 else FEW
    # With several targets there is more to do for a load, and less room in registers.
    flight = numbers.bytes_in_flight // (1 if many or targets == 1 else 2)
    unroll = max(2, min(8, flight // (vector * r.dtype.itemsize)))
    team = min(numbers.row_threads, max(32, power_of_two(r.n // (numbers.thread_loads * vector))))
    if vector == 1 and r.rows * 32 >= draft.threads_to_fill():
        # Neighbouring entries in memory are of other rows: a block that reads many rows finds them in its cache.
        team = 32
    # Shifted loads reach up to vector - 1 positions further.
    positions = r.n + vector - 1
    wanted = -(-numbers.split_blocks * draft.device.multiprocessors // r.rows)
    wanted = max(1, min(wanted, r.n // numbers.split_entries), -(-positions // MOST_COUNTED))
    if wanted > 1 or many:
        team = max(team, min(numbers.row_threads, LEAST_BLOCK))
    rows = max(1, LEAST_BLOCK // team) if wanted == 1 and not many else 1
    entries = -(-positions // wanted)
    entries += -entries % (team * vector)
    pieces = max(1, -(-positions // entries))
    chunk, chunks = max(r.m, 1), 1
    if many:
        room = _room(draft)
        chunks = -(-r.m // room)
        chunk = -(-r.m // chunks)
    parts: Argument = 0
    done: Argument = 0
    if pieces > 1:
        parts = draft.scratch(r.rows * r.m * pieces * 3 * 4)
        done = draft.zeroed(r.rows * chunks * 4)
    threads = team * rows
    results = [output.name for output in r.outputs]
    index = r.others.get("index")
    step = index[2][r.axis] if index is not None and len(index[1]) == len(r.shape) else 0
    draft.launch(
        "rank_many" if many else "rank",
        {
            **draft.element(r.largest),
            "VECTOR": vector,
            "UNROLL": unroll,
            **({} if many else {"TARGETS": targets}),
        },
        -(-r.rows // rows) * pieces * chunks,
        threads,
        _many_bytes(draft, power_of_two(chunk)) if many else threads // 32 * targets * 12 + 4,
        *draft.rows(),
        r.rows,
        r.inner,
        *draft.per_row("index"),
        step,
        *draft.along("value"),
        r.index if isinstance(r.index, int) else 0,
        r.m,
        chunk,
        chunks,
        team,
        pieces,
        entries,
        parts,
        done,
        *(Pointer(name) if name in results else 0 for name in ("rank", "greater", "equal", "valid")),
        int(r.count_dtype == "int64"),
        TIES.index(r.ties or "optimistic"),  # in the order of kernels/rank.cuh
        r.base,
        *draft.coding(r.largest),
        work=_work(draft, vector, unroll, threads, pieces, chunk, chunks),
    )
    draft.bytes_read += r.rows * (r.n * chunks + r.m) * r.dtype.itemsize


def _room(draft: RankDraft) -> int:
    """Targets that fit a block's shared memory, a power of two."""
    room = power_of_two(draft.request.m)
    while _many_bytes(draft, room) > draft.device.shared_bytes:
        room //= 2
    return room


def _many_bytes(draft: RankDraft, room: int) -> int:
    """Shared memory of rank_many: room for so many targets, three sums for each, and what the sums need."""
    return room * (draft.entry_bytes + 12) + 32 * 4


def _work(draft: RankDraft, vector: int, unroll: int, threads: int, pieces: int, chunk: int, chunks: int) -> Work:
    r, machine = draft.request, draft.machine
    fresh, again = draft.input_bytes()
    itemsize = r.dtype.itemsize
    latency, cached = machine.latency * machine.clock, machine.cached_latency * machine.clock
    # The row's length, the target, its value; and behind the row what the warps counted.
    serial = Chain(3 * latency + 5 * 2 * 30 + 2 * BARRIER, threads * 150.0)
    finish = Chain()
    if r.m > FEW:
        size = power_of_two(chunk)
        serial = serial + loop(size, threads, 3 * latency, 60) + sort(size, threads)
        serial = serial + scan(threads) * (3 * -(-chunk // threads)) + loop(chunk, threads, latency + 40 * SHARED, 400)
        # As if no entry were worse than all targets.
        slots = draft.key_slots + 16 * size.bit_length() + 30.0
    else:
        slots = _SLOTS[min(r.dtype.bits, 64), r.dtype.kind == "f"] * max(r.m, 1)
    if pieces > 1:
        serial = serial + Chain(2 * cached + 4 * BARRIER)
        finish = loop(chunk * pieces * 3, min(threads, chunk), cached, 20) + Chain(4 * cached)
    written = r.rows * (r.m if r.ties else 2 * r.m + 1) * (8.0 if r.count_dtype == "int64" else 4.0)
    return Work(
        fresh,
        again + fresh * (chunks - 1),
        written,
        slots=r.rows * r.n * chunks * slots,
        under_way=float(unroll * vector * itemsize if vector > 1 else SECTOR),
        serial=serial,
        finish=finish,
        finishing=1 / pieces,
        registers=64 if r.m > FEW else 72 if r.m <= 1 else 104,
    )


#: Slots of an entry and a target, by bits and whether it is a float; see tests/test_rank_compile.py.
_SLOTS = {
    (8, True): 5.0,
    (8, False): 5.5,
    (16, True): 4.0,
    (16, False): 10.0,
    (32, True): 6.5,
    (32, False): 10.0,
    (64, True): 10.0,
    (64, False): 18.0,
}
