"""Mapping of the bucketed walk: lanes and steps to threads, blocks and, for few rows, partitions."""

from __future__ import annotations

from typing import NamedTuple

from ..plan import Argument, Pointer
from .choose import INSERT_INSTRUCTIONS, INSERT_PER_KEPT, insert_share
from .cost import BARRIER, NOTHING, Chain, Work, loop, scan, sort
from .draft import Draft, Pairs, power_of_two
from .radix import COMPARE_SLOTS, digit_of_copy, emission, likely_passes, scratch_bytes, taking

__all__ = ["KEEP", "walk", "walk_rows"]

#: Queue lengths that are compiled; a k_b between two uses the longer.
KEEP = (1, 2, 3, 4, 6, 8, 12, 16)
#: Those that are compiled with the selection in the same launch.
FUSED_KEEP = KEEP[:4]
#: Threads of a block at most, by the kernels' launch bounds: of one that walks only, and of one that selects too.
WALKING, FUSED = 256, 512


class _Shape(NamedTuple):
    """How lanes and steps are shared out.

    Attributes
    ----------
    keep, vector, unroll, packed : int
        Macros of the kernels.
    groups : int
        Threads that the lanes of one (n, inner) slab need, `vector` lanes each.
    lane_threads, step_threads : int
        How a block's threads share lanes, and steps of a lane.
    partitions, partition_steps : int
        How blocks share steps.
    """

    keep: int
    vector: int
    unroll: int
    packed: int
    groups: int
    lane_threads: int
    step_threads: int
    partitions: int
    partition_steps: int

    @property
    def threads(self) -> int:
        """Of a block, whole warps."""
        used = self.lane_threads * self.step_threads
        return used + -used % 32


def walk(draft: Draft, b: int, kept: int, guards: Pairs | None, final: bool) -> Pairs | None:
    """Add the walk that keeps the best `kept` of each of `b` buckets, and writes the next best to `guards`, if any.

    Returns the candidates, or None when they are the result (`final`).
    """
    r = draft.request
    shape = _shape(draft, b, kept + (guards is not None), WALKING)
    partitions = shape.partitions
    groups = r.rows // draft.layout.inner * shape.groups
    # Of a bucket in parts the guard is known when they are merged.
    stored = kept + (guards is not None and partitions > 1)
    candidates = None if final and partitions == 1 else draft.pairs(partitions * stored * b)
    draft.launch(
        "bucket_walk",
        _defines(draft, shape),
        -(-groups // shape.lane_threads) * partitions,
        shape.threads,
        _merge_bytes(draft, shape),
        *_walk_arguments(draft, b, shape, candidates, guards if stored == kept else None, stored),
        work=_walk_work(draft, b, shape, partitions * stored * b if candidates else None),
    )
    draft.bytes_read += r.rows * r.n * r.dtype.itemsize
    if candidates is None or partitions == 1:
        return candidates
    return _merge(draft, candidates, b, kept, guards, shape.keep, partitions * stored, final)


def walk_rows(draft: Draft, b: int, kept: int) -> bool:
    """Add the one launch that walks, selects and orders, if the candidates fit a block's memory; say whether."""
    r, tuning = draft.request, draft.tuning
    places = kept + r.certify
    if places > min(FUSED_KEEP[-1], tuning.most_kept) or draft.layout.inner > 1 or r.k > tuning.tile:
        return False
    finish = scratch_bytes(draft) + (32 + b * kept + power_of_two(r.k)) * draft.entry_bytes
    if finish > min(tuning.fused_bytes, draft.device.shared_bytes):
        return False
    shape = _shape(draft, b, places, FUSED)
    lane_blocks = -(-shape.groups // shape.lane_threads)
    blocks = lane_blocks * shape.partitions
    candidates = draft.pairs(shape.partitions * places * b)
    draft.launch(
        "bucket_row",
        {**_defines(draft, shape), "SOURCE": 2},
        r.rows * blocks,
        shape.threads,
        max(finish, _merge_bytes(draft, shape)),
        *_walk_arguments(draft, b, shape, candidates, None, kept, final=True),
        places,
        lane_blocks,
        r.k,
        draft.zeroed(r.rows * 4) if blocks > 1 else 0,
        Pointer("exact") if r.certify else 0,
        work=_row_work(draft, b, kept, places, shape, blocks),
    )
    draft.bytes_read += r.rows * r.n * r.dtype.itemsize
    return True


def _merge(
    draft: Draft, candidates: Pairs, b: int, kept: int, guards: Pairs | None, keep: int, per_bucket: int, final: bool
) -> Pairs | None:
    """Add the merge of a walk's partitions under the k_b cap."""
    r, tuning = draft.request, draft.tuning
    lanes = r.rows * b
    wanted = min(power_of_two(-(-draft.threads_to_fill() // lanes)), power_of_two(-(-per_bucket // 4)))
    threads = min(tuning.threads, WALKING)
    step_threads = min(wanted, threads // 8)
    lane_threads = threads // step_threads
    merged = None if final else draft.pairs(kept * b)
    draft.launch(
        "bucket_merge",
        {"KEEP": keep, "PACKED": 0},
        -(-lanes // lane_threads),
        threads,
        step_threads // 2 * lane_threads * keep * draft.entry_bytes,
        *draft.where(candidates),
        per_bucket,
        *draft.rows(),
        *_output(draft, merged, guards, 1, kept, merged is None),
        b,
        lanes,
        lane_threads,
        step_threads,
        work=_merge_work(draft, b, kept, keep, per_bucket, step_threads, merged is None),
    )
    return merged


def _shape(draft: Draft, b: int, places: int, most_threads: int) -> _Shape:
    r, layout, tuning = draft.request, draft.layout, draft.tuning
    keep = next(size for size in KEEP if size >= places)
    vector = _vector(draft, b, keep) if _slab(draft, b) else 1
    groups = b * layout.inner // vector
    steps = -(-(r.n * layout.inner + vector - 1) // (b * layout.inner)) if vector > 1 else -(-r.n // b)
    threads = min(tuning.threads, most_threads)
    lane_threads, step_threads, partitions = _split(draft, groups, steps, vector, threads, most_threads)
    packed = _packed(draft)
    if packed:
        # A packed entry counts so many steps: a longer bucket is cut, rather than compiled for another way.
        most_steps = (1 << (32 - r.dtype.bits)) - 1
        partitions = max(partitions, -(-steps // (most_steps - most_steps % step_threads)))
    partition_steps = -(-steps // partitions)
    partition_steps += -partition_steps % step_threads
    loads = tuning.bytes_in_flight // (vector * r.dtype.itemsize)
    return _Shape(
        keep=keep,
        vector=vector,
        unroll=max(2, min(8, loads, tuning.unrolled_insertions // (vector * keep))),
        packed=int(packed),
        groups=groups,
        lane_threads=lane_threads,
        step_threads=step_threads,
        partitions=-(-steps // partition_steps),
        partition_steps=partition_steps,
    )


def _slab(draft: Draft, b: int) -> bool:
    """Whether neighbouring lanes are neighbours in memory, at every step."""
    r, layout = draft.request, draft.layout
    # Ragged rows that stand side by side begin at steps of their own.
    return layout.slab and (r.interleaved or b == 1) and (layout.inner == 1 or not r.ragged)


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


def _split(draft: Draft, groups: int, steps: int, vector: int, threads: int, most_threads: int) -> tuple[int, int, int]:
    """How a block's threads share lanes, and steps of a lane, and how many blocks share the steps."""
    r, tuning = draft.request, draft.tuning
    all_groups = r.rows // draft.layout.inner * groups
    wanted = -(-draft.threads_to_fill() // all_groups)
    worthwhile = max(1, steps // tuning.least_steps)
    wanted = min(wanted, worthwhile)
    # A warp's loads should meet in 128 bytes: neighbouring lanes, or neighbouring steps of a contiguous bucket.
    if not r.interleaved and draft.layout.inner == 1:
        step_threads = min(threads, max(32, power_of_two(wanted)), power_of_two(steps))
    else:
        fewest = min(power_of_two(groups), max(1, 128 // (vector * r.dtype.itemsize)), threads)
        step_threads = min(power_of_two(wanted), threads // fewest)
    lane_threads = threads // step_threads
    if most_threads == FUSED:
        # Blocks of whole rows: lanes shared evenly by as few as can.
        blocks = -(-groups // lane_threads)
        warp_lanes = max(1, 32 // step_threads)
        lane_threads = -(-groups // blocks)
        lane_threads += -lane_threads % warp_lanes
    partitions = max(1, min(-(-wanted // step_threads), worthwhile))
    return lane_threads, step_threads, partitions


def _defines(draft: Draft, shape: _Shape) -> dict[str, int]:
    return {
        **draft.keys(),
        "KEEP": shape.keep,
        "VECTOR": shape.vector,
        "UNROLL": shape.unroll,
        "PACKED": shape.packed,
    }


def _merge_bytes(draft: Draft, shape: _Shape) -> int:
    """Shared memory in which threads of the same lanes merge."""
    queue_bytes = shape.vector * shape.keep * (4 if shape.packed else draft.entry_bytes)
    return shape.step_threads // 2 * shape.lane_threads * queue_bytes


def _walk_arguments(
    draft: Draft, b: int, shape: _Shape, pairs: Pairs | None, guards: Pairs | None, kept: int, final: bool = False
) -> tuple[Argument, ...]:
    """The kernels' ``WalkParams``."""
    inner = draft.layout.inner
    return (
        *draft.rows(),
        *_output(draft, pairs, guards, shape.partitions, kept, final or pairs is None),
        inner,
        b,
        int(draft.request.interleaved or _slab(draft, b)),
        draft.request.rows // inner * shape.groups,
        shape.groups,
        shape.partition_steps,
        shape.lane_threads,
        shape.step_threads,
    )


def _output(
    draft: Draft, pairs: Pairs | None, guards: Pairs | None, partitions: int, kept: int, final: bool
) -> tuple[Argument, ...]:
    """The kernels' ``Output``: the result, or candidates in the workspace."""
    return (*draft.result(final), *draft.where(pairs), *draft.where(guards), partitions, kept)


# ---- What it costs --------------------------------------------------------------------------------------------


def _walk_slots(draft: Draft, shape: _Shape) -> float:
    """Slots of an entry in the loop at full speed."""
    dtype, keep = draft.request.dtype, shape.keep
    steps = shape.partition_steps / shape.step_threads
    insertion = 2 * (INSERT_INSTRUCTIONS + INSERT_PER_KEPT * keep) * insert_share(keep, steps)
    if shape.packed:
        base = 5.0 if dtype.bits == 8 and dtype.kind != "f" else 9.0
        # Up to four are kept without branches.
        return base + 4 * (keep - 1) if keep <= 4 else base + insertion
    if dtype.bits == 64:
        return 35.0 + 2 * insertion
    return 7.0 if keep == 1 else 9.0 + insertion


def _walk_work(draft: Draft, b: int, shape: _Shape, stored: int | None) -> Work:
    """The work of the walk; `stored` entries of a row are written to the workspace, or the answer."""
    r, machine = draft.request, draft.machine
    itemsize, vector, keep = r.dtype.itemsize, shape.vector, shape.keep
    neighbours = shape.lane_threads * vector if r.interleaved or _slab(draft, b) else min(32, shape.step_threads)
    fresh, again = draft.input_bytes(neighbours)
    # The first entries come one by one, and so do the last.
    steps = shape.partition_steps / shape.step_threads
    slow = min(steps, keep + 1 + (shape.unroll - 1) / 2)
    serial = Chain(slow * machine.latency * machine.clock)
    # Queues merge in pairs, then every lane's is written, one after the other.
    halvings = shape.step_threads.bit_length() - 1
    merging = vector * (keep * 8 + (1 + keep / 2) * 50)
    written = vector * (100 + keep * 40.0)
    threads = shape.threads
    serial = serial + Chain(halvings * (merging + 2 * BARRIER), 2 * merging * threads)
    serial = serial + Chain(written, written * shape.lane_threads / 2)
    wide = draft.entry_bytes > 8 or keep > 8
    return Work(
        fresh,
        again,
        draft.answer_bytes() if stored is None else draft.stored_bytes(stored),
        slots=r.rows * r.n * _walk_slots(draft, shape),
        under_way=float(shape.unroll * vector * itemsize),
        serial=serial,
        registers=120 if wide else 96,
    )


def _row_work(draft: Draft, b: int, kept: int, places: int, shape: _Shape, blocks: int) -> Work:
    """The work of the walk and, in the last of a row's `blocks`, the selection from the candidates."""
    r, threads, count = draft.request, shape.threads, b * kept
    walk = _walk_work(draft, b, shape, shape.partitions * places * b)
    latency = draft.machine.cached_latency * draft.machine.clock
    # A partition's best is looked at; those behind it are mostly no better.
    finish = loop(b, threads, shape.partitions * (1 + places / 2) * latency, 40 * shape.partitions * places)
    if r.k < count:
        for number in range(likely_passes(draft, count, False)):
            finish = finish + digit_of_copy(count, threads, COMPARE_SLOTS, number == 0)
    finish = finish + taking(count, threads, 1, r.k) + sort(power_of_two(r.k), threads) + emission(r.k, threads)
    if r.certify:
        finish = finish + scan(threads)
    arrival = Chain(3 * latency + 3 * BARRIER) if blocks > 1 else NOTHING
    return walk._replace(
        written=draft.answer_bytes(),
        reread=walk.reread + draft.stored_bytes(2 * shape.partitions * places * b),
        serial=walk.serial + arrival,
        finish=finish,
        finishing=1 / blocks,
    )


def _merge_work(draft: Draft, b: int, kept: int, keep: int, per_bucket: int, step_threads: int, final: bool) -> Work:
    lanes = draft.request.rows * b
    fresh, again = draft.again(draft.stored_bytes(b * per_bucket))
    halvings = step_threads.bit_length() - 1
    serial = Chain(halvings * (keep * 8 + (1 + keep / 2) * 50 + 2 * BARRIER) + 100 + 40.0 * kept)
    return Work(
        fresh,
        again,
        draft.answer_bytes() if final else draft.stored_bytes(b * kept),
        slots=lanes * per_bucket * (20.0 + 8 * keep * insert_share(keep, per_bucket / step_threads)),
        # A pair at a time, after the one before has been inserted.
        under_way=float(draft.key_bytes + draft.position_bytes),
        serial=serial,
    )
