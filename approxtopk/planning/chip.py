"""Mapping of the exact selection of few entries of rows that fit a block's shared memory."""

from __future__ import annotations

from .cost import SHARED, Work, loop, sort
from .draft import Draft, power_of_two
from .radix import (
    COMPARE_SLOTS,
    copied_bytes,
    digit_of_copy,
    emission,
    likely_passes,
    neighbours,
    scratch_bytes,
    threads_for,
)

__all__ = ["chip_rows"]


def chip_rows(draft: Draft) -> bool:
    """Add the selection of few of each row by a threshold that at least k entries reach, if possible; say whether."""
    r = draft.request
    vector = neighbours(draft)
    threads = threads_for(draft, r.n, vector)
    # The threshold is the k-th best of the best of so many slices: half as many let 1.4 k entries through.
    slices = threads * vector
    if r.k > min(slices // 2, draft.tuning.tile):
        return False
    capacity = power_of_two(max(2 * r.k, 64))
    room = max(slices * draft.key_bytes, capacity * draft.entry_bytes)
    copy = scratch_bytes(draft) + 16 + room
    shared = copy + copied_bytes(draft, vector)
    if shared > draft.device.shared_bytes:
        return False
    draft.launch(
        "filter_row",
        {**draft.keys(), "SOURCE": 3, "VECTOR": vector, "UNROLL": 2},
        r.rows,
        threads,
        shared,
        *draft.rows(),
        r.k,
        copy,
        0,
        r.k,
        capacity,
        1,
        r.n + vector,
        *draft.where(None),
        0,
        *draft.result(final=True),
        work=_work(draft, vector, threads, slices),
    )
    draft.bytes_read += r.rows * r.n * r.dtype.itemsize
    return True


def _work(draft: Draft, vector: int, threads: int, slices: int) -> Work:
    r = draft.request
    fresh, again = draft.input_bytes()
    # The best of each slice, the k-th of those, the filter, and the survivors in order.
    looked = loop(r.n / vector, threads, 2 * SHARED, vector * (draft.key_slots + 4))
    serial = looked + looked
    for number in range(likely_passes(draft, slices, True)):
        serial = serial + digit_of_copy(slices, threads, COMPARE_SLOTS, number == 0)
    survivors = r.k * 3 // 2
    serial = serial + loop(survivors, threads, 4 * SHARED, 60 * vector) + sort(power_of_two(survivors), threads)
    return Work(
        fresh,
        again,
        draft.answer_bytes(),
        under_way=r.n * r.dtype.itemsize / threads,
        serial=serial + emission(r.k, threads),
        registers=80,
    )
