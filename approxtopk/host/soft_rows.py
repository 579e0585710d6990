"""What the soft operators share: groups of rows, threads, and element types."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np

from ..dtypes import DType
from . import threads
from .keys import Array
from .select import blocks

__all__ = ["BLOCK", "Input", "Map", "Output", "Where", "over_groups", "per_row"]

BLOCK = 1 << 20
"""Entries looked at in one go. Threads hand Python's lock to each other at every call, so calls are to be long: with an
eighth of this, which stays in the cache, two threads are slower than one."""

GROUP = 1 << 21
"""Entries of a group of rows: what is left of them after a first look is solved together, in some hundred calls."""

ALONE = 1 << 17
"""Entries that are not worth waking another thread for."""

Map = Callable[[Callable[[Any], Any], list[Any]], list[Any]]
"""`map` to a list, perhaps on several threads."""

Where = tuple[Any, ...]


def over_groups(shape: tuple[int, ...], task: Callable[[Where, Map], None]) -> None:
    """Call `task` with an index tuple for every group of whole rows, and what maps a function inside of it.

    Parameters
    ----------
    shape : tuple of int
        Of an array whose rows are its last axis.
    task : callable
        Rows must fare alike in whichever group they are.
    """
    lead, n = shape[:-1], shape[-1]
    rows, at_once = prod(lead), max(GROUP // n, 1)
    if rows * n > ALONE:  # a group for everybody
        at_once = min(at_once, -(-rows // threads.width()))
    parts = list(blocks(lead, at_once))
    inside = n > BLOCK and len(parts) < threads.width()  # then the threads share each row

    def quiet(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def call(item: Any) -> Any:
            with np.errstate(all="ignore"):  # which each thread has its own of
                return function(item)

        return call

    def serial(function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        return [function(item) for item in items]

    def shared(function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        return threads.run(quiet(function), items, len(items))

    if inside:
        for where in parts:
            quiet(lambda here: task(here, shared))(where)
    else:
        threads.run(quiet(lambda where: task(where, serial)), parts, len(parts))


class Input:
    """A group of rows to compute with: float64 stays, all else becomes float32.

    Parameters
    ----------
    part : ndarray, shape (..., n)
        bfloat16 as its bits.
    dtype : DType
        What it holds.
    """

    def __init__(self, part: Array, dtype: DType) -> None:
        self.lead = part.shape[:-1]
        self.bits = np.ascontiguousarray(part).reshape(-1, part.shape[-1])
        self.shape = self.bits.shape
        self.type = np.dtype(np.float64 if dtype.bits == 64 else np.float32)
        self.brain = dtype.name == "bfloat16"

    def decode(self, bits: Array) -> Array:
        """Give the values of some entries: perhaps their very memory, not to be written to."""
        if not self.brain:
            return bits.astype(self.type, copy=False)
        wide = bits.astype(np.uint32)
        wide <<= np.uint32(16)
        return wide.view(np.float32)

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """Give its rows in blocks, contiguous."""
        rows, n = self.shape
        step = max(BLOCK // n, 1)
        for first in range(0, rows, step):
            these = slice(first, min(first + step, rows))
            yield these, self.decode(self.bits[these])

    def at(self, places: Array | slice) -> Array:
        """Give entries at positions in the group."""
        return self.decode(self.bits.reshape(-1)[places])


def per_row(value: Any, where: Where, rows: int) -> Array:
    """A number, or the numbers of a group's rows, as float64 of shape (rows,)."""
    if isinstance(value, np.ndarray):
        return np.asarray(value[where], np.float64).reshape(-1)
    return np.full(rows, value, np.float64)


class Output:
    """A group of rows of a result, to be filled in any order and then finished.

    Parameters
    ----------
    part : ndarray, shape (..., n)
        Where the result goes; bfloat16 as its bits.
    dtype : DType
        What it holds.
    """

    def __init__(self, part: Array, dtype: DType) -> None:
        self.part = part
        self.dtype = dtype
        direct = part.flags.c_contiguous
        self.flat: Array = part.reshape(-1) if direct else np.empty(part.size, part.dtype)
        self.flat.fill(0)
        self.rows = self.flat.reshape(-1, part.shape[-1])

    def encode(self, values: Array | float) -> Array:
        """Round to the type of the result."""
        if self.dtype.name != "bfloat16":
            return np.asarray(values).astype(self.part.dtype)
        single = np.asarray(values, np.float32)
        bits = single.view(np.uint32)
        rounded = (bits + (np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1)))) >> np.uint32(16)
        quiet = bits >> np.uint32(16) | np.uint32(0x40)
        return np.where(np.isnan(single), quiet, rounded).astype(np.uint16)

    def put(self, places: Array, values: Array | float) -> None:
        """Write values at positions in the group, which are in order."""
        if places.size and places[-1] - places[0] == places.size - 1:
            self.flat[places[0] : places[0] + places.size] = self.encode(values)
        else:
            self.flat[places] = self.encode(values)

    def finish(self) -> None:
        """Put the result where it belongs."""
        if not self.part.flags.c_contiguous:
            self.part[...] = self.flat.reshape(self.part.shape)
