"""A soft top-k, or its derivative, as a frozen, framework-free description, validated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from .dtypes import DTYPES
from .errors import InvalidArgument, InvalidType, UnsupportedDType
from .request import choice, integer, real_number
from .rows import Given, PerRow, RowsRequest, axis_of

__all__ = ["KINDS", "REALS", "SoftRequest", "real_of"]

#: What an entry's distance from the threshold is turned into.
KINDS = ("pnorm", "sigmoid", "laplace")
#: Element types that are computed with.
REALS = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class SoftRequest(RowsRequest):
    """One valid soft top-k of rows, or its derivative.

    Attributes
    ----------
    operator : str
        One of `OPERATORS`.
    shape, strides, dtype, axis
        As in `RowsRequest`; dtype one of `REALS`.
    kind : {"pnorm", "sigmoid", "laplace"}
        What distances from the threshold are turned into.
    p : float
        The norm of kind "pnorm", above 1.
    k : float, PerRow or None
        The sum of a row's mask, in the type `real`; None where the derivative has no use for it.
    l : float or PerRow
        The strength of the regularisation, above 0.
    g : tuple of int or None
        Strides of the cotangent, which has x's shape and type; derivatives only.
    tau, rest : PerRow or None
        The threshold that the magnitude operator returned, and what its type could not tell of it: their sum, in
        float64, is the threshold. Its derivative only.
    """

    kind: Literal["pnorm", "sigmoid", "laplace"]
    p: float
    k: float | PerRow | None
    l: float | PerRow
    g: tuple[int, ...] | None
    tau: PerRow | None
    rest: PerRow | None

    #: All entries exist.
    starts = None
    lengths = None

    OPERATORS: ClassVar[tuple[str, ...]] = (
        "soft_top_k_mask",
        "soft_top_k_magnitude",
        "soft_top_k_mask_vjp",
        "soft_top_k_magnitude_vjp",
    )

    @property
    def real(self) -> str:
        """The type of k, l, tau and their cotangents."""
        return real_of(self.dtype.name)

    @property
    def others(self) -> dict[str, Given]:
        """The arrays beside x."""
        cotangent = None if self.g is None else (self.dtype.name, self.shape, self.g)
        arrays = {"g": cotangent, "tau": self.per_row(self.tau), "rest": self.per_row(self.rest)}
        arrays |= {n: self.per_row(a) for n, a in (("k", self.k), ("l", self.l)) if isinstance(a, PerRow)}
        return {name: given for name, given in arrays.items() if given is not None}

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments that `build` makes this of, but for arrays."""
        own = {"kind": self.kind, "p": self.p, "axis": self.axis}
        return own | {name: a for name, a in (("k", self.k), ("l", self.l)) if isinstance(a, float)}

    @property
    def results(self) -> tuple[tuple[str, tuple[int, ...], str], ...]:
        """The mask, or x made sparse and the threshold in two parts; or the cotangents of x, k and l."""
        if self.g is not None:
            rows = [(name, self.batch_shape, self.real) for name in ("dk", "dl")]
            return (("dx", self.shape, self.dtype.name), *rows)
        parts = ("tau", "rest") if self.operator == "soft_top_k_magnitude" else ()
        return (("y", self.shape, self.dtype.name), *((name, self.batch_shape, self.real) for name in parts))

    @property
    def title(self) -> str:
        """The call in one line, for a person."""
        shape = " x ".join(map(str, self.shape))
        kind = f"p = {self.p:.6g}" if self.kind == "pnorm" else self.kind
        given = (("k", self.k), ("l", self.l))
        numbers = ", ".join(f"{n} = {'one a row' if isinstance(a, PerRow) else a}" for n, a in given if a is not None)
        return f"{self.operator} of {self.dtype.name} [{shape}] along axis {self.axis}: {kind}, {numbers}"

    @classmethod
    def build(
        cls,
        name: str,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        dtype: str,
        *,
        k: Any = None,
        l: Any = 0.1,
        p: Any = 4 / 3,
        kind: Any = "pnorm",
        axis: Any = -1,
        g: Given | None = None,
        tau: Given | None = None,
        rest: Given | None = None,
    ) -> SoftRequest:
        """Validate the arguments of a call as the user gave them.

        k and l are numbers, or describe arrays: element type, shape and strides; g, tau and rest do.

        Raises
        ------
        InvalidType, InvalidArgument, UnsupportedDType
            Naming the argument, what came and what is allowed.
        """
        if dtype not in REALS:
            raise UnsupportedDType(f"x has dtype {dtype}; allowed are {', '.join(REALS)}, and integers as float32")
        where = axis_of(shape, integer("axis", axis))
        batch = (*shape[:where], *shape[where + 1 :])
        norm = real_number("p", p, "a real number above 1")
        if not 1 < norm < math.inf:
            raise InvalidArgument(f"p = {norm} is out of range; allowed are finite numbers above 1")
        strength = _number("l", l, real_of(dtype), shape, batch)
        if isinstance(strength, float) and not 0 < strength < math.inf:
            raise InvalidArgument(f"l = {strength} is out of range; allowed are finite numbers above 0")
        # Derivatives have no use for k.
        count = None if name.endswith("_vjp") else _number("k", k, real_of(dtype), shape, batch)
        if isinstance(count, float) and not 0 <= count < math.inf:
            raise InvalidArgument(f"k = {count} is out of range; allowed are finite numbers from 0 on")
        return cls(
            operator=name,
            shape=shape,
            strides=strides,
            dtype=DTYPES[dtype],
            axis=where,
            kind=choice("kind", kind, KINDS),  # type: ignore[arg-type]
            p=norm,
            k=count,
            l=strength,
            g=None if g is None else _cotangent(g, dtype, shape),
            tau=None if tau is None else _per_row("tau", tau, real_of(dtype), shape, batch),
            rest=None if rest is None else _per_row("rest", rest, real_of(dtype), shape, batch),
        )


def real_of(dtype: str) -> str:
    """The type that rows of `dtype` are computed in, as far as a caller sees it."""
    return "float64" if dtype == "float64" else "float32"


def _number(name: str, value: Any, real: str, x: tuple[int, ...], batch: tuple[int, ...]) -> float | PerRow:
    """A number, or the array of one a row that `value` describes."""
    if isinstance(value, tuple):
        return _per_row(name, value, real, x, batch)
    return real_number(name, value, "a real number, or an array of one for every row")


def _per_row(name: str, array: Given, real: str, x: tuple[int, ...], batch: tuple[int, ...]) -> PerRow:
    dtype, shape, strides = array
    if dtype != real:
        raise UnsupportedDType(f"{name} has dtype {dtype}; allowed is {real}")
    if shape != batch:
        raise InvalidArgument(
            f"{name} has shape {shape}; allowed is {batch}, one number for every row of x of shape {x}, or ()"
        )
    return PerRow(dtype, strides)


def _cotangent(array: Given, dtype: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if not isinstance(array, tuple) or array[0] != dtype or array[1] != shape:
        raise InvalidType(f"g must be an array of {dtype} and shape {shape}, as the result is, not {array[:2]}")
    return array[2]
