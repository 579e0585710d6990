"""Mapping of the radix selection: one block per row, or a row split over blocks when rows are few."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from ..plan import Argument
from . import certify
from .cost import BARRIER, SECTOR, SHARED, Chain, Work, loop, scan, sort
from .draft import Draft, Pairs, RowsDraft, power_of_two

__all__ = [
    "copied_bytes",
    "digit_of_copy",
    "emission",
    "likely_passes",
    "neighbours",
    "scratch_bytes",
    "select",
    "select_buckets",
    "taking",
    "threads_for",
]

#: Bits a pass looks at, as in kernels/radix.cuh.
DIGIT = 11
BINS = 1 << DIGIT
#: Values of a digit that entries are sorted by, as in kernels/radix_sort.cuh.
SORT_BINS = 256
#: Blocks of a split row list the keys with the first digit, up to one in so many of their entries.
LISTED = 8
#: Slots of an entry beside its key: comparing it with the cut, and one addition in shared memory, where neighbours
#: often meet in one bin; registers of a thread.
COMPARE_SLOTS, COUNT_SLOTS = 6.0, 24.0
REGISTERS = 96


def select(draft: Draft, source: Pairs | None) -> Pairs | None:
    """Add the selection of the best k of every row of x, or of the candidates in `source`.

    Returns the selected entries where they still need ordering, None when the result is written.
    """
    r, tuning = draft.request, draft.tuning
    length = r.n if source is None else source.per_row
    shape = _shape(draft, r.rows, length, _vector(draft, source, 1, True))
    if shape.partitions > 1:
        chosen = draft.pairs(r.k) if r.sorted else None
        _split(draft, source, 1, True, r.k, chosen, shape)
        return chosen
    if r.sorted and r.k <= tuning.tile:
        output, chosen = 2, None
    elif r.sorted and source is None and _row_bytes(draft, shape, _by_radix(draft))[1] <= _most_shared(draft):
        output, chosen = _by_radix(draft), None
    elif r.sorted:
        output, chosen = 0, draft.pairs(r.k)
    else:
        output, chosen = 1, None
    _row(draft, source, 1, True, r.k, chosen, shape, output)
    return chosen


def select_buckets(draft: Draft, b: int, kept: int, guards: Pairs | None, final: bool) -> Pairs | None:
    """Add the selection of the best `kept` entries of each of `b` buckets of every row of x.

    Returns the candidates, or None when they are the result (`final`, not with guards). With `guards`, one entry more
    of every bucket is selected, and the worst goes there.
    """
    r = draft.request
    size = -(-r.n // b)
    kept += guards is not None
    chosen = None if final else draft.pairs(b * kept)
    shape = _shape(draft, r.rows * b, size, _vector(draft, None, b, r.interleaved))
    if shape.partitions > 1:
        _split(draft, None, b, r.interleaved, kept, chosen, shape)
    else:
        _row(draft, None, b, r.interleaved, kept, chosen, shape, int(final))
    if guards is not None and chosen is not None:
        certify.take_guards(draft, chosen, kept, guards)
    return chosen


class _Shape(NamedTuple):
    """How a row is shared out: entries of one load, threads of a block, blocks of a row and entries of each."""

    vector: int
    threads: int
    partitions: int
    entries: int


def _shape(draft: Draft, rows: int, length: int, vector: int) -> _Shape:
    tuning = draft.tuning
    threads = threads_for(draft, length, vector)
    # Shifted loads reach up to vector - 1 positions further.
    positions = length + vector - 1
    wanted = -(-tuning.split_blocks * draft.device.multiprocessors // rows)
    wanted = max(1, min(wanted, length // tuning.split_entries))
    entries = -(-positions // wanted)
    entries += -entries % (threads * vector)
    return _Shape(vector, threads, -(-positions // entries), entries)


def threads_for(draft: RowsDraft, length: int, vector: int) -> int:
    """Threads of a block that has `length` entries to read."""
    tuning = draft.tuning
    return min(tuning.row_threads, max(64, power_of_two(length // (tuning.thread_loads * vector))))


def _passes(draft: Draft, source: Pairs | None) -> int:
    """Digits of a key, and of the position where entries do not come in order of position."""
    keys = -(-draft.request.dtype.bits // DIGIT)
    return keys if source is None else keys - (-draft.position_bytes * 8 // DIGIT)


def neighbours(draft: RowsDraft) -> int:
    """Entries of a row that one load of 16 bytes brings, where they are neighbours in memory; else 1."""
    return 16 // draft.request.dtype.itemsize if draft.layout.axis_stride == 1 else 1


def copied_bytes(draft: RowsDraft, vector: int) -> int:
    """Size of a row's copy in shared memory, where loads are aligned as they are in memory."""
    positions = draft.request.n + 2 * (vector - 1)
    return (positions - positions % vector) * draft.request.dtype.itemsize


def _vector(draft: Draft, source: Pairs | None, b: int, interleaved: bool) -> int:
    """Entries one load brings."""
    return neighbours(draft) if source is None and (b == 1 or not interleaved) else 1


def _defines(draft: Draft, source: Pairs | None, vector: int) -> dict[str, int]:
    element = draft.keys() if source is None else {}
    return {**element, "SOURCE": int(source is not None), "VECTOR": vector}


def _aligned(nbytes: int) -> int:
    """`nbytes`, so that what follows is aligned for every load."""
    return nbytes + -nbytes % 16


def _entries(draft: Draft, source: Pairs | None, b: int, interleaved: bool) -> tuple[Argument, ...]:
    """What both kernels are told first: the rows of x, or the candidates, and the buckets they are cut to."""
    per_row = 0 if source is None else source.per_row
    return (*draft.rows(), *draft.where(source), per_row, b, int(interleaved))


def scratch_bytes(draft: RowsDraft) -> int:
    """Size of the kernels' ``Scratch``."""
    return _aligned(BINS * draft.position_bytes + 32 * 8 + 3 * 8)


def _row(
    draft: Draft,
    source: Pairs | None,
    b: int,
    interleaved: bool,
    k: int,
    chosen: Pairs | None,
    shape: _Shape,
    output: int,
) -> None:
    """Add the launch with one block per row (or bucket of a row)."""
    r = draft.request
    defines = {**_defines(draft, source, shape.vector), "OUTPUT": output}
    copy, whole = _row_bytes(draft, shape, output)
    shared = copy
    # A whole row is read once where it fits.
    if source is None and b == 1 and whole <= _most_shared(draft):
        defines["SOURCE"] = 3
        shared = whole
    draft.launch(
        "radix_row",
        defines,
        r.rows * b,
        shape.threads,
        shared,
        *_entries(draft, source, b, interleaved),
        k,
        copy,
        *draft.result(final=output > 0),
        *draft.where(chosen),
        work=_row_work(draft, source, b, interleaved, k, shape, output, defines["SOURCE"] == 3),
    )
    if source is None:
        times = 1 if defines["SOURCE"] == 3 else _passes(draft, source) + 1
        draft.bytes_read += times * r.rows * r.n * r.dtype.itemsize


def _row_bytes(draft: Draft, shape: _Shape, output: int) -> tuple[int, int]:
    """Shared memory before the copy of a row, and with it."""
    k = draft.request.k
    room = {2: power_of_two(k) * draft.entry_bytes, 3: k * draft.entry_bytes, 4: k * 4}.get(output, 0)
    counts = shape.threads // 32 * SORT_BINS * 4 if output >= 3 else 0
    copy = _aligned(scratch_bytes(draft) + counts + room)
    # Sorting by radix moves entries to where the copy was, and back.
    return copy, copy + max(copied_bytes(draft, shape.vector), room if output >= 3 else 0)


def _most_shared(draft: Draft) -> int:
    return min(draft.device.shared_bytes, draft.tuning.copy_bytes)


def _by_radix(draft: Draft) -> int:
    """The kernel's OUTPUT for entries sorted by radix: with key and position in one word, where they fit."""
    return 4 if draft.request.dtype.bits <= 16 and draft.request.n <= 2**16 else 3


def _split(
    draft: Draft,
    source: Pairs | None,
    b: int,
    interleaved: bool,
    k: int,
    chosen: Pairs | None,
    shape: _Shape,
) -> None:
    """Add the launches with several blocks per row (or bucket of a row)."""
    r = draft.request
    rows = r.rows * b
    passes = _passes(draft, source)
    histograms = draft.zeroed(rows * passes * BINS * draft.position_bytes)
    cuts = draft.scratch(rows * passes * 6 * 8)
    counts = draft.scratch(rows * 2 * shape.partitions * draft.position_bytes)
    # Of rows in random order a few in a hundred entries share the first digit of the k-th.
    capacity = shape.entries // LISTED if source is None and passes > 1 else 0
    lists = draft.scratch(rows * shape.partitions * capacity * draft.key_bytes) if capacity else 0
    listed = draft.scratch(rows * shape.partitions * 2 * draft.position_bytes) if capacity else 0
    stages = [("radix_histogram", i) for i in range(passes)] + [("radix_count", 0), ("radix_scatter", 0)]
    for kernel, number in stages:
        draft.launch(
            kernel,
            _defines(draft, source, shape.vector),
            rows * shape.partitions,
            shape.threads,
            scratch_bytes(draft),
            *_entries(draft, source, b, interleaved),
            shape.partitions,
            shape.entries,
            k,
            number,
            histograms,
            cuts,
            counts,
            lists,
            listed,
            capacity,
            *draft.result(final=chosen is None),
            *draft.where(chosen),
            work=_stage_work(draft, source, b, interleaved, k, shape, kernel, number),
        )
    if source is None:
        # The first two passes and the last, the others by lists; of narrow types, the one, the count and the last.
        draft.bytes_read += 3 * r.rows * r.n * r.dtype.itemsize


# ---- What it costs --------------------------------------------------------------------------------------------


def likely_passes(draft: Draft, entries: int, in_order: bool) -> int:
    """Digits that are looked at before few enough entries have them, in a row of so many."""
    keys = -(-draft.request.dtype.bits // DIGIT)
    # Digits of the position decide between equal keys, which short keys often are.
    return min(keys, 2 if entries <= 2**16 else 3) + (0 if in_order or keys > 2 else 2)


@lru_cache(maxsize=256)
def clear(threads: int) -> Chain:
    """The histogram emptied."""
    return loop(BINS, threads, 8, 4) + Chain(BARRIER)


@lru_cache(maxsize=256)
def narrow(threads: int) -> Chain:
    """The cut's next digit found in the histogram."""
    per_thread = -(-BINS // threads)
    return loop(BINS, threads, SHARED, 5) + scan(threads) + Chain(per_thread * SHARED / 2 + 3 * BARRIER)


@lru_cache(maxsize=256)
def digit_of_copy(entries: float, threads: int, slots: float, first: bool) -> Chain:
    """One digit of entries in shared memory, that take so many slots each to look at."""
    counting = COUNT_SLOTS if first else 0.0
    return clear(threads) + loop(entries, threads, 2 * SHARED / 4, slots + counting) + narrow(threads)


def taking(entries: int, threads: int, vector: int, k: int) -> Chain:
    """The answer's entries taken in order of position, tile by tile; looking at them not counted."""
    tiles = -(-entries // (threads * vector))
    taken = scan(threads) + Chain(20.0 * vector, 8.0 * vector * threads)
    return Chain(BARRIER) * tiles + taken * min(tiles, k)


def _sorting(k: int, threads: int) -> Chain:
    """Entries ordered by one digit, in shared memory."""
    counts = loop(SORT_BINS, threads, threads / 32 * SHARED, threads / 32 * 8)
    return loop(k, threads, 2 * SHARED, 12) + counts + scan(threads) + loop(k, threads, 3 * SHARED, 45)


def emission(entries: int, threads: int) -> Chain:
    """Entries written to the answer."""
    return loop(entries, threads, 40, 40)


def _row_work(
    draft: Draft,
    source: Pairs | None,
    b: int,
    interleaved: bool,
    k: int,
    shape: _Shape,
    output: int,
    on_chip: bool,
) -> Work:
    """The work of one block per row (or bucket of a row)."""
    r, threads, vector = draft.request, shape.threads, shape.vector
    length = -(-r.n // b) if source is None else source.per_row
    passes = likely_passes(draft, length, source is None)
    entries = float(r.rows * b * length)
    slots = COMPARE_SLOTS + (draft.key_slots if source is None else 1.0)
    chain = taking(length, threads, vector, k)
    if output == 2:
        chain = chain + sort(power_of_two(k), threads)
    elif output >= 3:
        chain = chain + _sorting(k, threads) * (r.dtype.bits // 8)
    chain = chain + emission(k, threads)
    written = draft.stored_bytes(b * k) if output == 0 else draft.answer_bytes()
    if on_chip:
        for number in range(passes):
            chain = chain + digit_of_copy(length, threads, slots, number == 0)
        fresh, again = draft.input_bytes()
        looked = loop(length, threads, 2 * SHARED / 4, slots)
        under_way = length * r.dtype.itemsize / threads
        return Work(fresh, again, written, 0.0, entries, under_way, chain + looked, registers=REGISTERS)
    chain = chain + (clear(threads) + narrow(threads)) * passes
    slots = entries * (slots * (passes + 1) + COUNT_SLOTS)
    if source is None:
        fresh, shared = draft.input_bytes(1 if interleaved and b > 1 else SECTOR)
        again = fresh * passes + shared * (passes + 1)
        moved = SECTOR if shared else vector * r.dtype.itemsize
        reach = float(r.n if interleaved and b > 1 else length) * r.dtype.itemsize
        return Work(fresh, again, written, reach, slots, moved, chain, registers=REGISTERS)
    fresh, again = draft.again(draft.stored_bytes(source.per_row))
    again += draft.stored_bytes(source.per_row) * passes / 2
    reach = length * float(draft.key_bytes + draft.position_bytes)
    return Work(fresh, again, written, reach, slots, draft.key_bytes, chain, registers=REGISTERS)


def _stage_work(
    draft: Draft,
    source: Pairs | None,
    b: int,
    interleaved: bool,
    k: int,
    shape: _Shape,
    kernel: str,
    number: int,
) -> Work:
    """The work of one launch of several blocks per row (or bucket of a row)."""
    r, threads, vector = draft.request, shape.threads, shape.vector
    length = -(-r.n // b) if source is None else source.per_row
    # Each block works out the digit before from the histogram in memory, or reads what others have counted.
    latency = draft.machine.cached_latency * draft.machine.clock
    serial = Chain(2 * latency) + loop(BINS, threads, latency / 4, 8) + narrow(threads)
    if kernel == "radix_histogram":
        if number >= likely_passes(draft, length, source is None):
            return Work(serial=serial, registers=REGISTERS)
        serial = serial + clear(threads) + loop(BINS, threads, SHARED, 20)
    elif kernel == "radix_scatter":
        serial = serial + taking(shape.entries, threads, vector, -(-k // shape.partitions))
    slots = COMPARE_SLOTS + (draft.key_slots if source is None else 1.0)
    if kernel == "radix_histogram" and number == 0:
        slots += COUNT_SLOTS
    # Later digits are counted, and the answer too, from lists of half their room.
    listed = source is None and _passes(draft, source) > 1 and (number > 1 or kernel == "radix_count")
    if listed:
        fresh, again = draft.again(draft.request.rows * b * length * draft.key_bytes / LISTED / 2)
        slots /= 2 * LISTED
        under_way = float(draft.key_bytes)
    elif source is None:
        read, shared = draft.input_bytes(1 if interleaved and b > 1 else SECTOR)
        fresh, again = draft.again(read) if number or kernel != "radix_histogram" else (read, 0.0)
        again += shared
        under_way = float(vector * r.dtype.itemsize)
    else:
        fresh, again = draft.again(draft.stored_bytes(source.per_row))
        under_way = float(draft.key_bytes)
    written = 0.0
    if kernel == "radix_scatter":
        written = draft.answer_bytes() if r.k == b * k else draft.stored_bytes(b * k)
    return Work(
        fresh,
        again,
        written,
        slots=slots * r.rows * b * length,
        under_way=under_way,
        serial=serial,
        registers=REGISTERS,
    )
