"""An array as the core sees it: an address and a shape, whatever framework owns the memory."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple

__all__ = ["Buffer", "Device", "row_major"]


class Device(NamedTuple):
    """Where memory lives: ``Device("cpu", 0)`` or ``Device("cuda", 1)``."""

    kind: Literal["cpu", "cuda"]
    index: int = 0  # type: ignore[assignment]  # tuple.index gives way to the name every framework uses

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"


class Buffer(NamedTuple):
    """Memory owned by somebody else, for the length of one call.

    Attributes
    ----------
    pointer : int
        Address of the first element (0 for an empty array).
    shape : tuple of int
        Extent of every axis.
    strides : tuple of int
        Step of every axis in elements, not bytes; may be zero or negative.
    dtype : str
        A name from `approxtopk.dtypes.DTYPES`.
    device : Device
        Where `pointer` is valid.
    """

    pointer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    device: Device


@lru_cache(maxsize=4096)
def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides, in elements, of a C-contiguous array of `shape`."""
    strides = [1] * len(shape)
    for i in range(len(shape) - 2, -1, -1):
        strides[i] = strides[i + 1] * max(shape[i + 1], 1)
    return tuple(strides)
