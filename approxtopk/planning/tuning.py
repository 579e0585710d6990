"""Numbers that shape the mapping to a machine: never what is computed, only how."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT", "Tuning"]


@dataclass(frozen=True)
class Tuning:
    """One machine's numbers. Estimates: none has been measured on a GPU yet.

    Attributes
    ----------
    threads : int
        Threads of a walking or merging block.
    resident_threads : int
        Threads per multiprocessor that suffice to draw full memory bandwidth.
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
    split_entries : int
        Entries of a row that are worth a block of their own.
    tile : int
        Entries sorted in one block's shared memory, a power of two.
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
    split_entries: int = 16384
    tile: int = 2048
    narrow_entries: int = 2**31 - 1


#: One table serves every device until measurements say otherwise.
DEFAULT = Tuning()
