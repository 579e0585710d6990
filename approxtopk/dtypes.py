"""The element types approxtopk orders, by name, and how their bits are ordered."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["DTYPES", "DType"]


class DType(NamedTuple):
    """One element type, framework-free.

    Attributes
    ----------
    name : str
        The name every framework shares, e.g. ``"float32"``.
    bits : int
        Width of one element in bits: 8, 16, 32 or 64.
    kind : {"f", "i", "u"}
        Floating point (sign and magnitude), signed (two's complement) or unsigned.
    largest_number : int
        Floats only: the magnitude bits of the largest value that is not NaN (infinity where the type has
        one). Greater magnitudes are NaNs. 0 for integers.
    """

    name: str
    bits: int
    kind: Literal["f", "i", "u"]
    largest_number: int = 0

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self.bits // 8


DTYPES: dict[str, DType] = {
    d.name: d
    for d in (
        *(DType(f"int{bits}", bits, "i") for bits in (8, 16, 32, 64)),
        *(DType(f"uint{bits}", bits, "u") for bits in (8, 16, 32, 64)),
        DType("float16", 16, "f", 0x7C00),
        DType("bfloat16", 16, "f", 0x7F80),
        DType("float32", 32, "f", 0x7F800000),
        DType("float64", 64, "f", 0x7FF0000000000000),
        DType("float8_e4m3fn", 8, "f", 0x7E),
        DType("float8_e5m2", 8, "f", 0x7C),
    )
}
