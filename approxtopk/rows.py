"""What every call has: an array seen as rows along one axis, beside it other arrays, and the arrays it returns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from .buffer import row_major
from .dtypes import DType
from .errors import InvalidArgument

__all__ = ["Given", "Output", "PerRow", "RowsRequest", "axis_of"]

T = TypeVar("T")

#: An array as an adapter describes it, unvalidated: element type by name, shape, and strides in elements.
Given = tuple[str, tuple[int, ...], tuple[int, ...]]


class PerRow(NamedTuple):
    """An array of one number a row, of the batch shape: the input's without the axis.

    Attributes
    ----------
    dtype : str
        A name from `approxtopk.dtypes.DTYPES`.
    strides : tuple of int
        In elements.
    """

    dtype: str
    strides: tuple[int, ...]


class Output(NamedTuple):
    """An array that a plan writes, C-contiguous.

    Attributes
    ----------
    name : str
        One of the operator's outputs.
    shape, strides : tuple of int
        Strides in elements.
    dtype : str
        A name from `approxtopk.dtypes.DTYPES`, or ``"bool"``.
    """

    name: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class RowsRequest:
    """One valid call of any operator, ready to be planned.

    Attributes
    ----------
    operator : str
        The operator's name.
    shape, strides : tuple of int
        Of the first input, x; strides in elements.
    dtype : DType
        Element type of x.
    axis : int
        The axis along which rows lie, not negative.
    """

    operator: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: DType
    axis: int

    @property
    def n(self) -> int:
        """Length of a row."""
        return self.shape[self.axis]

    @property
    def rows(self) -> int:
        """How many rows: the product of the other axes."""
        return math.prod(self.shape[: self.axis]) * self.inner

    @property
    def inner(self) -> int:
        """Product of the axes behind the one of the rows."""
        return math.prod(self.shape[self.axis + 1 :])

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The input's shape without the axis."""
        return self.without_axis(self.shape)

    def without_axis(self, axes: tuple[T, ...]) -> tuple[T, ...]:
        """What is said of every axis of an array of x's rank, without the one of the rows."""
        return (*axes[: self.axis], *axes[self.axis + 1 :])

    def with_axis(self, extent: int) -> tuple[int, ...]:
        """The input's shape with another extent along the axis."""
        return (*self.shape[: self.axis], extent, *self.shape[self.axis + 1 :])

    @property
    def others(self) -> dict[str, Given]:
        """The other inputs that the call brings, by name, in the operator's order."""
        return {}

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments that the request was built of, but for the other inputs: numbers and strings."""
        raise NotImplementedError

    @property
    def results(self) -> tuple[tuple[str, tuple[int, ...], str], ...]:
        """The arrays that the call returns: name, shape and element type."""
        raise NotImplementedError

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The same, as a plan states them."""
        return tuple(Output(name, shape, row_major(shape), dtype) for name, shape, dtype in self.results)

    @property
    def title(self) -> str:
        """The call in one line, for a person."""
        raise NotImplementedError

    def per_row(self, array: PerRow | None) -> Given | None:
        """How an adapter describes an array of one number a row."""
        return None if array is None else (array.dtype, self.batch_shape, array.strides)


def axis_of(shape: tuple[int, ...], axis: int) -> int:
    """`axis` of an array x of this shape, counted from the front.

    Raises
    ------
    InvalidArgument
        When there is none such.
    """
    if not shape:
        raise InvalidArgument("x has no axes (shape ()); allowed are arrays of at least one axis")
    if not -len(shape) <= axis < len(shape):
        raise InvalidArgument(
            f"axis = {axis} is out of range for x of shape {shape}; allowed are {-len(shape)} to {len(shape) - 1}"
        )
    return axis % len(shape)
