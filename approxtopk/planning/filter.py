"""Mapping of the exact selection by filter: a threshold from a sample, one pass over the row, few survivors."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from ..plan import Argument, Pointer
from .draft import Draft, power_of_two
from .radix import neighbours, scratch_bytes

__all__ = ["filter_rows"]

#: Chance that the sample misleads about a row in random order, either way, and the row is read again.
MISS = 1e-7
#: The sample is at most this share of the entries its block reads; in rows of 8 times as many, this many are allowed.
SHARE = 1 / 64
SPLIT_SHARE = 1 / 4
SMALL_SAMPLE = 1024
#: Fewer leave too many survivors; more save none.
LEAST_SAMPLE, MOST_SAMPLE = 512, 32768


class _Sample(NamedTuple):
    """`loads` spread over the row, the threshold's rank among their entries, and room for its survivors."""

    loads: int
    rank: int
    capacity: int


def filter_rows(draft: Draft) -> bool:
    """Add the filter's launches, if the rows are long enough and k is small enough; say whether."""
    r, tuning = draft.request, draft.tuning
    if r.k > tuning.tile:
        return False
    vector = neighbours(draft)
    multiprocessors = draft.device.multiprocessors
    wanted = 1 if 2 * r.rows >= multiprocessors else -(-multiprocessors // r.rows)
    wanted = max(1, min(wanted, r.n // (SMALL_SAMPLE * 4)))
    share = SHARE if wanted == 1 else max(SHARE / 8, SPLIT_SHARE / wanted)
    sample = _sample(draft, vector, share)
    if sample is None:
        return False
    # Shifted loads reach up to vector - 1 positions further.
    entries = -(-(r.n + vector - 1) // wanted)
    threads = min(tuning.row_threads, max(128, power_of_two(entries // (2 * vector))))
    entries += -entries % (threads * vector)
    partitions = -(-(r.n + vector - 1) // entries)
    shared = _shared_bytes(draft, sample.loads * vector, sample.capacity)
    survivors = None
    counts: Argument = 0
    thresholds: Argument = 0
    kernels = [("filter_row", r.rows)]
    if partitions > 1:
        survivors = draft.pairs(sample.capacity)
        counts = draft.zeroed(r.rows * 2 * draft.position_bytes)
        thresholds = draft.scratch(r.rows * draft.key_bytes)
        kernels = [("filter_split", r.rows * partitions), ("filter_finish", r.rows)]
    # Every load is followed by its own code for survivors: more of them would not compile in 0.3 s.
    unroll = max(2, min(8, tuning.bytes_in_flight // (vector * r.dtype.itemsize), 32 // vector))
    for kernel, grid in kernels:
        draft.launch(
            kernel,
            {**draft.element(), "PAIRS": 0, "VECTOR": vector, "UNROLL": unroll},
            grid,
            threads,
            shared,
            Pointer("x"),
            *draft.batch(),
            r.n,
            draft.layout.axis_stride,
            r.k,
            sample.loads,
            sample.rank,
            sample.capacity,
            partitions,
            entries,
            *draft.where(survivors),
            counts,
            thresholds,
            *draft.result(final=True),
        )
    sampled = partitions * sample.loads * vector
    draft.bytes_read += r.rows * (r.n + sampled) * r.dtype.itemsize
    return True


def _sample(draft: Draft, vector: int, share: float) -> _Sample | None:
    """A sample of about `share` of the row, or a few times more if a block cannot keep its survivors otherwise."""
    r = draft.request
    size = int(min(MOST_SAMPLE, max(share * r.n, min(SMALL_SAMPLE, r.n / 8))))
    for loads in (size // vector, 2 * size // vector, 4 * size // vector):
        if not LEAST_SAMPLE <= loads * vector <= min(MOST_SAMPLE, r.n // 8):
            continue
        rank, capacity = threshold_rank(r.n, r.k, loads * vector)
        fits = _shared_bytes(draft, loads * vector, capacity) <= draft.device.shared_bytes
        if r.k <= capacity <= r.n // 4 and fits:
            return _Sample(loads, rank, capacity)
    return None


def _shared_bytes(draft: Draft, sample: int, capacity: int) -> int:
    """Size of the kernels' ``Filter`` and what follows it: the sample, then the survivors."""
    return scratch_bytes(draft) + 16 + max(sample * draft.key_bytes, power_of_two(capacity) * draft.entry_bytes)


@lru_cache(maxsize=4096)
def threshold_rank(n: int, k: int, sample: int) -> tuple[int, int]:
    """Rank of the threshold in a random sample of a row, and how many entries may survive it.

    Of the k - 1 entries better than the k-th, the sample holds about a Poisson number of mean (k - 1) sample / n;
    the rank is the least such that more are there with a chance below `MISS`, so that the threshold is not better
    than the k-th. As many entries survive as lie before the sample's entry of that rank: a gamma variable, whose
    bound is the mean at which a Poisson number falls below the rank with that chance.

    Parameters
    ----------
    n, k, sample : int
        Length of the row, entries to pick, size of the sample.

    Returns
    -------
    rank, capacity : int
        rank from 1 to about the sample's size; capacity at least k but for a miss.
    """
    mean = (k - 1) * sample / n
    rank = 1
    while _poisson_tail(mean, rank) > MISS:
        rank += 1
    # The least mean at which fewer than `rank` come with a chance below MISS, by bisection.
    low, high = float(rank), 4.0 * rank + 64
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if 1 - _poisson_tail(middle, rank) > MISS else (low, middle)
    return rank, math.ceil(high * n / sample)


def _poisson_tail(mean: float, least: int) -> float:
    """Chance that a Poisson variable is at least `least`."""
    if mean == 0:
        return float(least <= 0)
    term = math.exp(-mean + least * math.log(mean) - math.lgamma(least + 1))
    if least <= mean:
        # Sum the other side, whose terms fall.
        below, number = 0.0, least
        part = term
        while number > 0 and part > 1e-18:
            part *= number / mean
            number -= 1
            below += part
        return 1 - below
    total, number = 0.0, least
    while term > 1e-18 * (total + 1e-300):
        total += term
        number += 1
        term *= mean / number
    return total
