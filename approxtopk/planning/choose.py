"""Which route and which (b, k_b): a pure function of n, k and recall_target, and of what the caller named.

Rows, dtype, layout and device never enter, so a row gets the same answer wherever it runs. The cost model
below therefore speaks of a reference (float32 on a Hopper GPU with enough rows to fill it); the host path
shares the choice, and fares well by it, because it too pays for one reading and for every candidate.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from functools import lru_cache
from typing import Literal, NamedTuple

from ..recall import recall_of

__all__ = ["INSERT_INSTRUCTIONS", "INSERT_PER_KEPT", "Choice", "choose", "exact_cost", "insert_share", "modelled_cost"]

# Costs are in elements of the row: 1.0 is one float32 element streamed from memory at full bandwidth.

#: The exact route reads a row once, and a sample of it, where a block can sort so many; else it reads it again for
#: every digit. Each entry of the answer is sorted among those that survive. These numbers and the next are rounded from
#: the cost model of the mappings (cost.py) for an H200, which has not been measured yet.
FILTER_PASSES = 1.1
MOST_FILTERED = 8192
RADIX_PASSES = 4.0
ANSWER_COST = 40.0
#: A candidate is written, and read several times by the second selection.
CANDIDATE_COST = 20.0
#: An entry kept by one of several threads that share a bucket, merged on chip.
MERGE_COST = 4.0
#: Half-rate instructions that hide under the loading of one float32 element.
FREE_INSTRUCTIONS = 14.0
#: Key, compare and loop, per element; and an insertion, which moves the entries below.
LOOP_INSTRUCTIONS = 6.0
INSERT_INSTRUCTIONS = 3.0
INSERT_PER_KEPT = 4.0
#: Lanes of a warp insert together: one lane's insertion costs all of them.
WARP = 32
#: A warp walks at least this many lanes (32 threads of four neighbouring buckets), and a lane at most so
#: many steps before a GPU of 80,000 threads runs short of work: fewer buckets are split and merged.
LEAST_LANES = 128
MOST_STEPS = 256
#: Numbers kept per bucket that are considered; beyond them the insertion alone costs more than the exact route.
KEPT = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
#: An automatic bucket holds at least this many times what it keeps; b k_b is then at most n / 4.
LEAST_FILL = 4
#: Up to here a row fits in a warp's or a block's registers, and fixed costs outweigh any saving.
SMALL_ROW = 2048
#: Recall must clear the target by this much (or be 1.0), so that a recall equal to the target in exact
#: arithmetic is treated alike whatever the last digit of this machine's logarithm.
MARGIN = 1e-13


class Choice(NamedTuple):
    """How a row will be selected from.

    Attributes
    ----------
    route : {"bucketed", "exact"}
        The algorithm.
    buckets, k_per_bucket : int or None
        b and k_b; None on the exact route.
    expected_recall : float
        1.0 on the exact route.
    """

    route: Literal["bucketed", "exact"]
    buckets: int | None
    k_per_bucket: int | None
    expected_recall: float


EXACT = Choice("exact", None, None, 1.0)


@lru_cache(maxsize=4096)
def choose(n: int, k: int, recall_target: float, buckets: int | None = None, k_per_bucket: int | None = None) -> Choice:
    """Choose the route, the buckets and how many entries each keeps, for arguments a Request has validated.

    Both named: they are used, whatever the target. Otherwise a target of 1 means the exact route, also when
    one is named. One named: the smallest other that reaches the target with b * k_b >= k; k_b of all whole
    numbers, b of the grid (`_grid`) and n. None named: the cheapest modelled pair whose exact expected
    recall reaches the target, or the exact route when that is cheaper.

    `sorted` does not enter either, so b * k_b = k, which needs no second stage when unsorted, is not sought.

    Parameters
    ----------
    n, k : int
        0 <= k <= n.
    recall_target : float
        In (0, 1].
    buckets, k_per_bucket : int, optional
        What the caller named; 1 <= buckets <= max(n, 1), k_per_bucket >= 1, b * k_b >= k.

    Returns
    -------
    Choice
        Its expected recall is at least `recall_target`, unless both were named.
    """
    if buckets is not None and k_per_bucket is not None:
        return _bucketed(n, k, buckets, k_per_bucket)
    if recall_target >= 1.0:
        return EXACT
    if buckets is not None:
        return _bucketed(n, k, buckets, _least_kept(n, k, buckets, recall_target))
    if k_per_bucket is not None:
        most = max(n, 1)
        b = _least_buckets(n, k, k_per_bucket, recall_target, 1, most)
        return _bucketed(n, k, most if b is None else b, k_per_bucket)  # buckets of one entry lose nothing
    return _cheapest(n, k, recall_target)


def modelled_cost(n: int, b: int, kept: int) -> float:
    """Modelled cost of the bucketed route, in elements streamed."""
    lanes = _lanes(n, b)
    merged = lanes * kept if lanes > b else 0.0
    return _stream_cost(n, b, kept) + MERGE_COST * merged + CANDIDATE_COST * b * kept


def exact_cost(n: int, k: int) -> float:
    """Modelled cost of the exact route, in elements streamed."""
    return (FILTER_PASSES if k <= MOST_FILTERED else RADIX_PASSES) * n + ANSWER_COST * k


def _lanes(n: int, b: int) -> float:
    return max(b, LEAST_LANES, n / MOST_STEPS)


def _stream_cost(n: int, b: int, kept: int) -> float:
    """Cost of stage one alone: bound by memory, or by issuing instructions where lanes insert often."""
    insert = (INSERT_INSTRUCTIONS + INSERT_PER_KEPT * kept) * insert_share(kept, n / _lanes(n, b))
    return n * max(1.0, (LOOP_INSTRUCTIONS + insert) / FREE_INSTRUCTIONS)


@lru_cache(maxsize=1024)
def insert_share(kept: int, steps: float) -> float:
    """Share of its steps on which a warp inserts, entries in random order.

    At step s one lane inserts with probability q = min(1, kept / s), a warp with 1 - (1 - q)^32. That
    averaged over s, its sum replaced by the integral, which has a closed form: expand
    (1 - (1 - q)^32) / q = sum of (1 - q)^j, j = 0 to 31, and integrate term by term over q from kept / steps to 1.
    """
    if steps <= kept:
        return 1.0
    miss = 1.0 - kept / steps
    total = 1.0 - WARP * math.log1p(-miss)
    power = 1.0
    for i in range(1, WARP):
        power *= miss
        total -= (WARP - i) / i * power
    return min(1.0, kept * total / steps)


def _bucketed(n: int, k: int, b: int, kept: int) -> Choice:
    return Choice("bucketed", b, kept, recall_of(n, k, b, kept))


def _cheapest(n: int, k: int, target: float) -> Choice:
    """The cheapest pair on the grid that reaches the target, or the exact route; fewer kept wins a tie.

    b is at least LEAST_LANES here: fewer buckets would be split over as many lanes and merged, for less recall.
    """
    if k == 0 or n <= SMALL_ROW:
        return EXACT
    best: tuple[int, int] | None = None
    least = exact_cost(n, k)
    most = n  # keeping more never takes more buckets: each search is bounded by the one before
    for kept in KEPT:
        low = _grid(_position(max(LEAST_LANES, -(-k // kept))))
        # Stage one and the candidates only grow with b: a bound that spares most searches.
        if _stream_cost(n, low, kept) + CANDIDATE_COST * low * kept >= least:
            continue
        b = _least_buckets(n, k, kept, target, LEAST_LANES, min(most, n // (LEAST_FILL * kept)))
        if b is None:
            continue
        most = b
        cost = modelled_cost(n, b, kept)
        if cost < least:
            best, least = (b, kept), cost
    return EXACT if best is None else _bucketed(n, k, *best)


def _reaches(n: int, k: int, b: int, kept: int, target: float) -> bool:
    recall = recall_of(n, k, b, kept)
    return recall == 1.0 or recall >= target + MARGIN


def _least_buckets(n: int, k: int, kept: int, target: float, least: int, most: int) -> int | None:
    """The smallest b on the grid, from `least` to `most`, with b * kept >= k that reaches the target; None without one.

    Recall does not decrease in b (see `recall_of`), so bisection finds it.
    """
    first = _position(max(least, -(-k // kept)))
    end = _position(most + 1)
    at = first + bisect_left(range(first, max(first, end)), True, key=lambda i: _reaches(n, k, _grid(i), kept, target))
    return _grid(at) if at < end else None


def _least_kept(n: int, k: int, b: int, target: float) -> int:
    """The smallest k_b with b * k_b >= k that reaches the target with `b` buckets."""
    low = max(1, -(-k // b))
    high = max(1, min(k, -(-n // b)))  # from here on nothing is lost
    # The answer is near `low` (a bucket's mean share of k), within some of its standard deviations: gallop.
    stride = max(1, math.isqrt(low) // 4)
    while low < high:
        probe = min(low + stride - 1, high)
        if _reaches(n, k, b, probe, target):
            high = probe
            break
        low, stride = probe + 1, stride * 2
    return low + bisect_left(range(low, high), True, key=lambda kept: _reaches(n, k, b, kept, target))


def _grid(i: int) -> int:
    """The i-th number of buckets that is chosen automatically.

    Powers of two to 64, multiples of 128 to 1024, then eighths of an octave. A thread loads 16 bytes (4, 8 or
    16 neighbouring interleaved buckets), so multiples of 128 keep every warp on whole aligned segments.
    """
    if i < 7:
        return 1 << i
    if i < 14:
        return 128 * (i - 6)
    octave, eighth = divmod(i - 14, 8)
    return (8 + eighth) << (7 + octave)


def _position(b: int) -> int:
    """The least i with `_grid(i)` >= b, for b >= 1."""
    if b <= 64:
        return (b - 1).bit_length()
    if b <= 1024:
        return 6 + -(-b // 128)
    octave = b.bit_length() - 11
    return 6 + 8 * octave + -(-b // (128 << octave))
