"""Mapping of the exact selection by filter: a threshold from a sample, one pass over the row, few survivors."""

from __future__ import annotations

import math
from bisect import bisect_left
from functools import lru_cache
from typing import NamedTuple

from ..plan import Argument
from .cost import BARRIER, SECTOR, SHARED, Chain, Work, loop, scan, sort
from .draft import Draft, power_of_two
from .radix import COMPARE_SLOTS, digit_of_copy, emission, likely_passes, neighbours, scratch_bytes

__all__ = ["filter_rows"]

#: Chance that the sample misleads about a row in random order, either way, and the row is read again.
MISS = 1e-7
#: The sample is at most this share of the entries its block reads; in rows of 8 times as many, this many are allowed.
SHARE = 1 / 64
SPLIT_SHARE = 1 / 4
SMALL_SAMPLE = 1024
#: Survivors that are worth a selection before they are sorted, as in kernels/filter.cuh.
LEAST_CUT = 1024
#: Fewer leave too many survivors; more save none.
LEAST_SAMPLE, MOST_SAMPLE = 512, 32768


class _Sample(NamedTuple):
    """`loads` spread over the row, the threshold's rank among their entries, and room for its survivors."""

    loads: int
    rank: int
    capacity: int


def filter_rows(draft: Draft) -> bool:
    """Add the filter's launch, if the rows are long enough and k is small enough; say whether."""
    r, tuning = draft.request, draft.tuning
    # Survivors are counted in 32 bits.
    if r.k > tuning.tile or r.n > min(tuning.filter_entries, 2**32 - 1):
        return False
    vector = neighbours(draft)
    wanted = -(-tuning.split_blocks * draft.device.multiprocessors // r.rows)
    wanted = max(1, min(wanted, r.n // (SMALL_SAMPLE * 4)))
    # Blocks of a split row find most of the sample in the cache; alone, one reads it twice from memory.
    share = SHARE if wanted == 1 else tuning.sample * max(SHARE / 8, SPLIT_SHARE / wanted)
    sample = _sample(draft, vector, share)
    if sample is None:
        return False
    # Shifted loads reach up to vector - 1 positions further.
    entries = -(-(r.n + vector - 1) // wanted)
    threads = min(tuning.row_threads, max(128, power_of_two(entries // (2 * vector))))
    entries += -entries % (threads * vector)
    partitions = -(-(r.n + vector - 1) // entries)
    survivors = None
    counts: Argument = 0
    if partitions > 1:
        survivors = draft.pairs(sample.capacity)
        counts = draft.zeroed(r.rows * 3 * 4)
    # Every load is followed by its own code for survivors: more of them would not compile in 0.3 s.
    unroll = max(2, min(8, tuning.bytes_in_flight // (vector * r.dtype.itemsize), 32 // vector))
    draft.launch(
        "filter_row",
        {**draft.keys(), "SOURCE": 0, "VECTOR": vector, "UNROLL": unroll},
        r.rows * partitions,
        threads,
        _shared_bytes(draft, sample.loads * vector, sample.capacity),
        *draft.rows(),
        r.k,
        0,
        sample.loads,
        sample.rank,
        sample.capacity,
        partitions,
        entries,
        *draft.where(survivors),
        counts,
        *draft.result(final=True),
        work=_work(draft, sample, vector, unroll, threads, partitions),
    )
    sampled = partitions * sample.loads * vector
    draft.bytes_read += r.rows * (r.n + sampled) * r.dtype.itemsize
    return True


def _work(draft: Draft, sample: _Sample, vector: int, unroll: int, threads: int, partitions: int) -> Work:
    r, machine = draft.request, draft.machine
    size = sample.loads * vector
    survivors = r.n * sample.rank // size
    fresh, shared = draft.input_bytes()
    # The sample: loads one after the other, then the key of its rank.
    latency, cached = machine.latency * machine.clock, machine.cached_latency * machine.clock
    serial = loop(sample.loads, threads, latency + 60, 60 + vector * draft.key_slots)
    for number in range(likely_passes(draft, size, True)):
        serial = serial + digit_of_copy(size, threads, COMPARE_SLOTS, number == 0)
    # A gate looks at whole words; where a warp's load holds a survivor, each entry is looked at.
    gate = 1.0 + 3 * r.dtype.bits / 32 if r.dtype.bits < 64 and vector > 1 else draft.key_slots + 3
    met = 1 - math.exp(-32 * vector * survivors / r.n)
    slots = r.rows * r.n * (gate + met * (draft.key_slots + 6 + 40 / vector))
    finish = emission(r.k, threads)
    if survivors > LEAST_CUT and power_of_two(survivors) > power_of_two(r.k):
        for number in range(likely_passes(draft, survivors, True)):
            finish = finish + digit_of_copy(survivors, threads, COMPARE_SLOTS, number == 0)
        finish = finish + scan(threads) * -(-survivors // threads) + sort(power_of_two(r.k), threads)
    else:
        finish = finish + sort(power_of_two(survivors), threads)
    if partitions > 1:
        # Two counters, the survivors written, another counter, and read.
        finish = finish + loop(survivors, threads, cached, 20)
        serial = serial + Chain(5 * cached + 6 * BARRIER) + loop(survivors / partitions, threads, 2 * SHARED, 20)
    return Work(
        fresh,
        shared + r.rows * partitions * size * r.dtype.itemsize,
        draft.answer_bytes(),
        slots=slots,
        under_way=float(unroll * vector * r.dtype.itemsize if vector > 1 else SECTOR),
        serial=serial,
        finish=finish,
        finishing=1 / partitions,
        registers=80,
    )


def _sample(draft: Draft, vector: int, share: float) -> _Sample | None:
    """A sample of about `share` of the row, or a few times more if a block cannot keep its survivors otherwise."""
    r = draft.request
    room = (draft.device.shared_bytes - _shared_bytes(draft, 0, 0)) // draft.key_bytes
    size = int(min(MOST_SAMPLE, room, max(share * r.n, min(SMALL_SAMPLE, r.n / 8))))
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
    survivors = power_of_two(capacity) * draft.entry_bytes if capacity else 0
    return scratch_bytes(draft) + 16 + max(sample * draft.key_bytes, survivors)


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
    # No rank up to the mean will do.
    first = max(1, int(mean))
    ranks = range(first, first + 8 * math.isqrt(first) + 64)
    rank = ranks[bisect_left(ranks, True, key=lambda rank: _poisson_tail(mean, rank) <= MISS)]
    # The least mean, or a little more, at which fewer than `rank` come with a chance below MISS.
    low, high = float(rank), rank + 12.0 * math.sqrt(rank) + 64
    while high - low > 1e-3 * low:
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
