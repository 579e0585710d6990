"""Mapping of the bucketed walk: lanes and steps to threads, blocks and, for few rows, partitions."""

from __future__ import annotations

from ..plan import Argument, Pointer
from .draft import Draft, Pairs, power_of_two

__all__ = ["KEEP", "walk"]

#: Queue lengths that are compiled; a k_b between two uses the longer.
KEEP = (1, 2, 3, 4, 6, 8, 12, 16)


def walk(draft: Draft, b: int, kept: int, final: bool) -> Pairs | None:
    """Add the walk that keeps the best `kept` of each of `b` buckets.

    Returns the candidates, or None when they are the result (`final`).
    """
    r, layout, tuning = draft.request, draft.layout, draft.tuning
    keep = next(size for size in KEEP if size >= kept)
    slab = layout.slab and (r.interleaved or b == 1)
    vector = _vector(draft, b, keep) if slab else 1

    slabs = r.rows // layout.inner
    groups_per_slab = b * layout.inner // vector
    groups = slabs * groups_per_slab
    steps = -(-(r.n * layout.inner + vector - 1) // (b * layout.inner)) if vector > 1 else -(-r.n // b)

    step_threads, partitions = _split(draft, groups, steps, vector, adjacent=not r.interleaved and layout.inner == 1)
    packed = _packed(draft)
    if packed:
        # A packed entry counts so many steps: a longer bucket is cut, rather than compiled for another way.
        most_steps = (1 << (32 - r.dtype.bits)) - 1
        partitions = max(partitions, -(-steps // (most_steps - most_steps % step_threads)))
    partition_steps = -(-steps // partitions)
    partition_steps += -partition_steps % step_threads
    partitions = -(-steps // partition_steps)

    queue_bytes = vector * keep * (4 if packed else draft.entry_bytes)
    lane_threads = tuning.threads // step_threads
    shared = step_threads // 2 * lane_threads * queue_bytes
    loads = tuning.bytes_in_flight // (vector * r.dtype.itemsize)
    unroll = max(2, min(8, loads, tuning.unrolled_insertions // (vector * keep)))

    direct = final and partitions == 1
    candidates = None if direct else draft.pairs(partitions * kept * b)
    draft.launch(
        "bucket_walk",
        {**draft.element(), "KEEP": keep, "VECTOR": vector, "UNROLL": unroll, "PACKED": int(packed)},
        -(-groups // lane_threads) * partitions,
        tuning.threads,
        shared,
        Pointer("x"),
        *_output(draft, candidates, partitions, kept),
        *draft.batch(),
        r.n,
        layout.inner,
        layout.axis_stride,
        b,
        int(slab or r.interleaved),
        groups,
        groups_per_slab,
        partition_steps,
        step_threads,
    )
    draft.bytes_read += r.rows * r.n * r.dtype.itemsize
    if candidates is None or partitions == 1:
        return candidates
    return _merge(draft, candidates, b, kept, keep, partitions, final)


def _merge(draft: Draft, candidates: Pairs, b: int, kept: int, keep: int, partitions: int, final: bool) -> Pairs | None:
    """Add the merge of a walk's partitions under the k_b cap."""
    r, tuning = draft.request, draft.tuning
    lanes = r.rows * b
    per_bucket = partitions * kept
    wanted = min(power_of_two(-(-draft.threads_to_fill() // lanes)), power_of_two(-(-per_bucket // 4)))
    step_threads = min(wanted, tuning.threads // 8)
    lane_threads = tuning.threads // step_threads
    merged = None if final else draft.pairs(kept * b)
    draft.launch(
        "bucket_merge",
        {"KEEP": keep, "PACKED": 0},
        -(-lanes // lane_threads),
        tuning.threads,
        step_threads // 2 * lane_threads * keep * draft.entry_bytes,
        *draft.where(candidates),
        per_bucket,
        Pointer("x"),
        *_output(draft, merged, 1, kept),
        *draft.batch(),
        draft.layout.axis_stride,
        b,
        lanes,
        step_threads,
    )
    return merged


def _vector(draft: Draft, b: int, keep: int) -> int:
    """Lanes of one thread: as many as 16 bytes, the registers and the lanes of a slab allow."""
    dtype = draft.request.dtype
    vector = 16 // dtype.itemsize
    most = draft.tuning.kept_entries
    if not _packed(draft):
        most = most * 8 // draft.entry_bytes
        if keep > 4:
            # Long queues of unpacked entries are inserted into by long code: half as many compile in 0.3 s.
            most //= 2
    while vector > 1 and (vector * keep > most or b * draft.layout.inner % vector):
        vector //= 2
    return vector


def _packed(draft: Draft) -> bool:
    """Whether an entry's key and step share one word."""
    return draft.request.dtype.bits <= 16


def _split(draft: Draft, groups: int, steps: int, vector: int, adjacent: bool) -> tuple[int, int]:
    """How many threads of a block, and how many blocks, share the steps of a lane."""
    tuning = draft.tuning
    wanted = -(-draft.threads_to_fill() // groups)
    worthwhile = max(1, steps // tuning.least_steps)
    wanted = min(wanted, worthwhile)
    # A warp's loads should meet in 128 bytes: neighbouring lanes, or neighbouring steps of a contiguous bucket.
    itemsize = draft.request.dtype.itemsize
    if adjacent:
        step_threads = min(tuning.threads, max(32, power_of_two(wanted)), power_of_two(steps))
    else:
        lane_threads = min(power_of_two(groups), max(1, 128 // (vector * itemsize)), tuning.threads)
        step_threads = min(power_of_two(wanted), tuning.threads // lane_threads)
    return step_threads, max(1, min(-(-wanted // step_threads), worthwhile))


def _output(draft: Draft, pairs: Pairs | None, partitions: int, kept: int) -> tuple[Argument, ...]:
    """The kernels' ``Output``: the result, or candidates in the workspace."""
    return (*draft.result(final=pairs is None), *draft.where(pairs), partitions, kept)
