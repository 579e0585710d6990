"""The cost model behind the planner: what a launch does, and how long that should take.

A launch streams bytes and instructions, and in every block there are stretches where the block waits for itself: a
sample before, a selection and a sort behind. Let a multiprocessor be given `per_unit` blocks, `at_once` of them
resident. Then

    time = launch + max(busy + serial, rounds x (alone + serial))

where `busy` is the time in which the whole GPU moves the bytes or issues the instructions, whichever takes longer;
`serial` what a block waits for itself; `rounds` = per_unit / resident; `alone` what streaming takes a block that has
the multiprocessor to itself. So serial stretches hide behind the streaming of other blocks where there are several
rounds, and stand bare where there is one. Bytes move no faster than the bytes under way allow in one latency
(Little's law). Nothing here knows a kernel: each planner function states the `Work` of its launch.

A slot is the issue of one instruction for one thread at full rate; one at half rate (comparison, minimum, logic)
takes two. The counts beside the mappings are rounded from machine code for sm_90 (bench/NOTES.md) or from the source.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from .machines import Machine

__all__ = ["BARRIER", "NOTHING", "SECTOR", "SHARED", "Chain", "Work", "launch_seconds", "loop", "scan", "sort"]

#: Memory moves in sectors of so many bytes.
SECTOR = 32
#: Slots of a multiprocessor in a cycle, and of one warp, which waits for its own results.
_ISSUE, _WARP_ISSUE = 128.0, 12.0
#: Cycles of a barrier, and from asking shared memory to the answer.
BARRIER, SHARED = 40.0, 30.0


class Chain:
    """A stretch in which a block waits for itself: cycles from start to end, and slots of all its threads."""

    __slots__ = ("cycles", "slots")

    def __init__(self, cycles: float = 0.0, slots: float = 0.0) -> None:
        self.cycles = cycles
        self.slots = slots

    def __add__(self, other: Chain) -> Chain:
        return Chain(self.cycles + other.cycles, self.slots + other.slots)

    def __mul__(self, times: float) -> Chain:
        return Chain(self.cycles * times, self.slots * times)


NOTHING = Chain()


class Work(NamedTuple):
    """What one launch does.

    Attributes
    ----------
    read, reread, written : float
        Bytes of all blocks, in whole sectors: from memory, once more what was read before, and to memory.
    reach : float
        Bytes that a block reads between two readings of the same; re-reading is from L2 where it holds these of all
        resident blocks.
    slots : float
        Of all blocks, while they stream.
    under_way : float
        Bytes a thread asks for before it uses the first.
    serial : Chain
        What every block waits for itself.
    finish, finishing : Chain, float
        What some blocks wait in addition, and their share.
    registers : int
        Of a thread.
    """

    read: float = 0.0
    reread: float = 0.0
    written: float = 0.0
    reach: float = 0.0
    slots: float = 0.0
    under_way: float = 16.0
    serial: Chain = NOTHING
    finish: Chain = NOTHING
    finishing: float = 1.0
    registers: int = 64


def launch_seconds(machine: Machine, grid: int, threads: int, shared_bytes: int, work: Work) -> float:
    """The modelled time of one launch, in seconds."""
    m = machine
    resident = max(
        1,
        min(
            m.most_threads // threads,
            m.most_blocks,
            m.shared_bytes // (shared_bytes + 1024),
            m.registers // (work.registers * threads),
        ),
    )
    per_unit = -(-grid // m.multiprocessors)
    at_once = min(resident, per_unit)
    share = per_unit / grid  # of all blocks, on the multiprocessor that has most

    fresh, again = work.read + work.written, work.reread
    held = m.holds(min(grid, resident * m.multiprocessors) * work.reach)
    bandwidth, latency = (m.cached_bandwidth, m.cached_latency) if held else (m.bandwidth, m.latency)
    # What a block waits for its loads, one batch after the other; blocks at once wait together.
    batch = threads * work.under_way
    fresh_wait = m.latency * max(1.0, fresh / grid / batch) if fresh else 0.0
    again_wait = latency * max(1.0, again / grid / batch) if again else 0.0
    rounds = -(-per_unit // at_once)

    fresh_time = max(fresh / m.bandwidth, fresh * share / m.port_bandwidth, per_unit / at_once * fresh_wait)
    again_time = max(again / bandwidth, again * share / m.port_bandwidth, per_unit / at_once * again_wait)
    slots = work.slots + grid * (work.serial.slots + work.finish.slots * work.finishing)
    busy = max(fresh_time + again_time, slots * share / _issue(m, at_once * threads))
    alone = max(fresh_wait + again_wait, work.slots / grid / _issue(m, threads))
    serial = work.serial.cycles / m.clock
    finish = work.finish.cycles / m.clock
    chain = rounds * (alone + serial + finish * work.finishing) + finish * (1 - work.finishing)
    return m.launch + max(busy + serial + finish, chain)


def _issue(machine: Machine, threads: int) -> float:
    """Slots a second of a multiprocessor with so many threads."""
    return machine.clock * min(_ISSUE, threads / 32 * _WARP_ISSUE)


def loop(items: float, threads: int, cycles: float, slots: float) -> Chain:
    """A block's threads share `items`; each takes so many cycles and slots."""
    rounds = math.ceil(items / threads)
    return Chain(rounds * max(cycles, slots * min(items, threads) / _ISSUE), items * slots)


@lru_cache(maxsize=256)
def scan(threads: int) -> Chain:
    """A sum over the threads before each, as in kernels/block.cuh."""
    return Chain(150 + 2 * BARRIER + threads / 32 * SHARED, threads * 40.0)


@lru_cache(maxsize=256)
def sort(size: int, threads: int) -> Chain:
    """A bitonic sort of `size` entries, a power of two, in shared memory, as in kernels/sort.cuh."""
    levels = size.bit_length() - 1
    stages = levels * (levels + 1) // 2
    return (loop(size / 2, threads, 2 * SHARED, 24) + Chain(BARRIER)) * stages
