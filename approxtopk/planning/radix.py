"""Mapping of the radix selection: one block per row, or a row split over blocks when rows are few."""

from __future__ import annotations

from typing import NamedTuple

from ..plan import Argument, Pointer
from .draft import Draft, Pairs, power_of_two

__all__ = ["neighbours", "scratch_bytes", "select", "select_buckets"]

#: Bits a pass looks at, as in kernels/radix.cuh.
DIGIT = 11
BINS = 1 << DIGIT


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
    elif r.sorted:
        output, chosen = 0, draft.pairs(r.k)
    else:
        output, chosen = 1, None
    _row(draft, source, 1, True, r.k, chosen, shape, output)
    return chosen


def select_buckets(draft: Draft, b: int, kept: int, interleaved: bool, final: bool) -> Pairs | None:
    """Add the selection of the best `kept` entries of each of `b` buckets of every row of x.

    Returns the candidates, or None when they are the result (`final`).
    """
    r = draft.request
    size = -(-r.n // b)
    chosen = None if final else draft.pairs(b * kept)
    shape = _shape(draft, r.rows * b, size, _vector(draft, None, b, interleaved))
    if shape.partitions > 1:
        _split(draft, None, b, interleaved, kept, chosen, shape)
    else:
        _row(draft, None, b, interleaved, kept, chosen, shape, int(final))
    return chosen


class _Shape(NamedTuple):
    """How a row is shared out: entries of one load, threads of a block, blocks of a row and entries of each."""

    vector: int
    threads: int
    partitions: int
    entries: int


def _shape(draft: Draft, rows: int, length: int, vector: int) -> _Shape:
    tuning, multiprocessors = draft.tuning, draft.device.multiprocessors
    threads = min(tuning.row_threads, max(128, power_of_two(length // (2 * vector))))
    # Shifted loads reach up to vector - 1 positions further.
    positions = length + vector - 1
    # Where rows occupy half the device one block each will do, since a split row costs a launch per digit.
    wanted = 1 if 2 * rows >= multiprocessors else -(-2 * multiprocessors // rows)
    wanted = max(1, min(wanted, length // tuning.split_entries))
    entries = -(-positions // wanted)
    entries += -entries % (threads * vector)
    return _Shape(vector, threads, -(-positions // entries), entries)


def _passes(draft: Draft, source: Pairs | None) -> int:
    """Digits of a key, and of the position where entries do not come in order of position."""
    keys = -(-draft.request.dtype.bits // DIGIT)
    return keys if source is None else keys - (-draft.position_bytes * 8 // DIGIT)


def neighbours(draft: Draft) -> int:
    """Entries of a row that one load of 16 bytes brings, where they are neighbours in memory; else 1."""
    return 16 // draft.request.dtype.itemsize if draft.layout.axis_stride == 1 else 1


def _vector(draft: Draft, source: Pairs | None, b: int, interleaved: bool) -> int:
    """Entries one load brings."""
    return neighbours(draft) if source is None and (b == 1 or not interleaved) else 1


def _defines(draft: Draft, source: Pairs | None, vector: int) -> dict[str, int]:
    element = draft.element() if source is None else {}
    return {**element, "PAIRS": int(source is not None), "VECTOR": vector}


def _entries(draft: Draft, source: Pairs | None, b: int, interleaved: bool) -> tuple[Argument, ...]:
    """What both kernels are told first: the rows of x, or the candidates, and the buckets they are cut to."""
    length = draft.request.n if source is None else source.per_row
    rows = (Pointer("x"), *draft.batch(), length, draft.layout.axis_stride)
    return (*rows, *draft.where(source), b, int(interleaved))


def scratch_bytes(draft: Draft) -> int:
    """Size of the kernels' ``Scratch``."""
    size = BINS * draft.position_bytes + 32 * 8 + 3 * 8
    return size + -size % 16


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
    shared = scratch_bytes(draft)
    if output == 2:
        shared += power_of_two(k) * draft.entry_bytes
    draft.launch(
        "radix_row",
        {**_defines(draft, source, shape.vector), "OUTPUT": output},
        r.rows * b,
        shape.threads,
        shared,
        *_entries(draft, source, b, interleaved),
        k,
        *draft.result(final=output > 0),
        *draft.where(chosen),
    )
    if source is None:
        draft.bytes_read += (_passes(draft, source) + 1) * r.rows * r.n * r.dtype.itemsize


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
            *draft.result(final=chosen is None),
            *draft.where(chosen),
        )
    if source is None:
        draft.bytes_read += (passes + 2) * r.rows * r.n * r.dtype.itemsize
