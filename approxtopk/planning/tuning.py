"""Numbers that shape the mapping to a machine: never what is computed, only how."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["AXES", "BUCKETED", "DEFAULT", "EXACT", "Tuning"]


class Tuning(NamedTuple):
    """One way to share out work. The planner tries several and takes the one that the cost model finds cheapest.

    Attributes
    ----------
    threads : int
        Threads of a walking or merging block.
    resident_threads : int
        Threads of a multiprocessor that a walk is spread over.
    bytes_in_flight : int
        Bytes a thread loads before it uses the first.
    kept_entries : int
        Entries a thread may keep in its queues, packed or of 8 bytes.
    unrolled_insertions : int
        Insertions that the unrolled loop may contain, which bounds code size and compile time.
    most_kept : int
        The largest k_b kept in registers; above, buckets are selected by radix.
    least_steps : int
        Steps a walking thread must have left for a split over more threads to be worth it.
    row_threads : int
        Threads of a radix or sorting block, at most (the kernels' launch bounds allow 512).
    thread_loads : int
        Loads of a row that make another thread of a radix block worth it.
    split_blocks : int
        Blocks of a multiprocessor that few rows are spread over; 0: a row has one block.
    split_entries : int
        Entries of a row that are worth a block of their own.
    tile : int
        Entries sorted in one block's shared memory, a power of two.
    small_entries, chip_entries, filter_entries : int
        The longest row from which few entries are selected exactly in registers, on chip, and by filter; what is
        neither is selected by radix.
    sample : int
        How many times the usual sample a filter takes: fewer entries survive it.
    copy_bytes : int
        Shared memory that a block may take for a copy of its row that is selected from by radix.
    fused_bytes : int
        Shared memory that a walking block may take for the selection in the same launch.
    narrow_entries : int
        The longest axis whose positions are counted in 32 bits.
    """

    threads: int = 256
    resident_threads: int = 1024
    bytes_in_flight: int = 64
    kept_entries: int = 32
    unrolled_insertions: int = 64
    most_kept: int = 16
    least_steps: int = 16
    row_threads: int = 512
    thread_loads: int = 8
    split_blocks: int = 1
    split_entries: int = 16384
    tile: int = 2048
    small_entries: int = 1024
    chip_entries: int = 8192
    filter_entries: int = 2**32 - 1
    sample: int = 1
    copy_bytes: int = 2**20
    fused_bytes: int = 49152
    narrow_entries: int = 2**31 - 1


#: Where the planner's search begins. Any other record put here is taken as it is, without a search.
DEFAULT = Tuning()

#: What another way to select begins with, each tried from the start: with the selection in the walk's launch or
#: behind it, without queues; exactly in registers, on chip, by filter, the same with a larger
#: sample and sort, by radix with a copy on chip and without.
BUCKETED: tuple[dict[str, int], ...] = (
    {"fused_bytes": 2**20},
    {"fused_bytes": 0},
    {"most_kept": 0},
)
EXACT: tuple[dict[str, int], ...] = (
    {"chip_entries": 2**20},
    {"small_entries": 0, "chip_entries": 2**20},
    {"small_entries": 0, "chip_entries": 0},
    {"small_entries": 0, "chip_entries": 0, "tile": 8192, "sample": 2},
    {"small_entries": 0, "chip_entries": 0, "filter_entries": 0},
    {"small_entries": 0, "chip_entries": 0, "filter_entries": 0, "copy_bytes": 0},
)

_WALKS = frozenset({"bucket_walk", "bucket_row"})
_RADIX = frozenset({"radix_row", "radix_histogram"})
#: What is then tried of each, one line after the other, where a plan has such kernels. No macro depends on these
#: numbers, so that the search compiles nothing.
AXES: tuple[tuple[frozenset[str], tuple[dict[str, int], ...]], ...] = (
    (_RADIX | {"order_merge"}, ({"tile": 4096}, {"tile": 8192})),
    (
        _WALKS | {"warp_row"},
        ({"resident_threads": 256}, {"resident_threads": 512}, {"resident_threads": 2048, "least_steps": 4}),
    ),
    (
        _WALKS,
        (
            {"threads": 64},
            {"threads": 128},
            {"threads": 512},
            {"threads": 512, "resident_threads": 256, "least_steps": 2},
        ),
    ),
    (_WALKS, ({"least_steps": 2}, {"least_steps": 64})),
    (_RADIX | {"filter_row"}, ({"thread_loads": 1}, {"thread_loads": 4})),
    (
        _RADIX,
        (
            {"split_blocks": 0},
            {"split_entries": 4096},
            {"split_blocks": 2},
            {"split_blocks": 2, "split_entries": 4096},
            {"split_blocks": 4, "split_entries": 4096},
        ),
    ),
    (
        frozenset({"filter_row"}),
        (
            {"split_blocks": 0},
            {"split_blocks": 0, "sample": 2},
            {"split_blocks": 2},
            {"split_blocks": 4},
            {"split_blocks": 8, "row_threads": 256},
        ),
    ),
    (frozenset({"filter_row"}), ({"sample": 2}, {"sample": 4})),
    (_RADIX | {"filter_row", "order_tiles"}, tuple({"row_threads": n} for n in (32, 64, 128, 256))),
)
