"""Mapping of the exact selection of few entries from short rows: a row in the registers of a few lanes."""

from __future__ import annotations

from .cost import Chain, Work
from .draft import Draft
from .radix import neighbours

__all__ = ["small_rows"]

#: Threads of a block, at most as many as kernels/warp_row.cu says.
THREADS = 128
#: Lanes that may share a row, at least k of them, and entries that a lane may hold: of 64 bits half as many.
LANES = (8, 16, 32)
ENTRIES = (8, 16, 32)


def small_rows(draft: Draft) -> bool:
    """Add the launch, if the rows are short enough and k is small enough; say whether."""
    r = draft.request
    sizes = ENTRIES[:-1] if draft.key_bytes == 8 else ENTRIES
    if r.k > LANES[-1] or r.n > LANES[-1] * sizes[-1]:
        return False
    lanes, entries = LANES[-1], sizes[-1]
    if not draft.wide:
        lanes = next(lanes for lanes in LANES if lanes >= r.k and lanes * sizes[-1] >= r.n)
        # A warp has nearly as much to do for one row as for four. But rows that do not fill the device take less
        # time when more lanes share them.
        while lanes < LANES[-1] and lanes * sizes[0] < r.n and 2 * lanes * r.rows <= draft.threads_to_fill():
            lanes *= 2
        entries = next(entries for entries in sizes if lanes * entries >= r.n)
    rows = THREADS // lanes
    vector = min(neighbours(draft), entries)
    draft.launch(
        "warp_row",
        {**draft.keys(), "VECTOR": vector, "LANES": lanes, "ENTRIES": entries},
        -(-r.rows // rows),
        THREADS,
        rows * _survivor_bytes(draft, lanes),
        *draft.rows(),
        r.rows,
        r.k,
        *draft.result(final=True),
        work=_work(draft, vector, lanes, entries),
    )
    draft.bytes_read += r.rows * r.n * r.dtype.itemsize
    return True


def _survivor_bytes(draft: Draft, lanes: int) -> int:
    """Size of the kernel's ``Survivors``."""
    return (lanes + 32 + 4 + lanes) * (4 if draft.request.dtype.bits <= 16 else draft.entry_bytes)


def _work(draft: Draft, vector: int, lanes: int, entries: int) -> Work:
    r, words = draft.request, entries * draft.key_bytes // 4
    fresh, again = draft.input_bytes(vector)
    # Behind the loads, every lane does the same: a key of each entry and its comparisons, then two sorts by shuffles,
    # the ranks of the survivors and the answer.
    return Work(
        fresh,
        again,
        draft.answer_bytes(),
        slots=float(r.rows * lanes) * (20 * words + 600),
        under_way=entries * r.dtype.itemsize,
        serial=Chain(8.0 * words + 1200),
        registers=32 + 2 * words,
    )
