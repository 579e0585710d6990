"""A selection as a frozen, framework-free description, validated; and what validation of other calls shares."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import numpy as np

from .dtypes import DTYPES
from .errors import ApproxTopKError, InvalidArgument, InvalidType, UnsupportedDType
from .rows import Given, PerRow, RowsRequest, axis_of

__all__ = [
    "IndexDType",
    "Request",
    "choice",
    "dtype_name",
    "flag",
    "index_dtype_of",
    "integer",
    "per_row_integers",
    "real_number",
    "short",
    "show",
]

IndexDType = Literal["int32", "int64"]


@dataclass(frozen=True)
class Request(RowsRequest):
    """One valid selection, ready to be planned.

    Attributes
    ----------
    operator : str
        ``"top_k"`` or ``"approx_top_k"``.
    shape, strides : tuple of int
        Of the input; strides in elements.
    dtype : DType
        Element type of the input and of the returned values.
    axis : int
        The axis selected along, not negative.
    k : int
        Entries to pick per row, 0 <= k <= n.
    largest, sorted : bool
        Direction, and whether the result is ordered.
    recall_target : float
        In (0, 1]; 1.0 for an exact call.
    buckets, k_per_bucket : int or None
        Those the caller named.
    interleaved : bool
        Element i is in bucket i mod b (True), or in contiguous runs.
    certify : bool
        Whether each row's answer is to be told exact or not.
    index_dtype : {"int32", "int64"}
        Type of the returned indices.
    starts, lengths : PerRow or None
        Arrays that say which entries of each row exist: length of them from start on, as far as there are such.
        Without starts rows begin at 0, without lengths they reach to the end.
    """

    k: int
    largest: bool
    sorted: bool
    recall_target: float
    buckets: int | None
    k_per_bucket: int | None
    interleaved: bool
    certify: bool
    index_dtype: IndexDType
    starts: PerRow | None
    lengths: PerRow | None

    @property
    def ragged(self) -> bool:
        """Whether a row may be shorter than n."""
        return self.starts is not None or self.lengths is not None

    @property
    def padding(self) -> int:
        """Bits of the value that stands where a row has no entry left: the worst there is, but for NaN."""
        sign = 1 << (self.dtype.bits - 1)
        if self.dtype.kind == "f":
            return self.dtype.largest_number | (sign if self.largest else 0)
        least = sign if self.dtype.kind == "i" else 0
        return least if self.largest else least ^ (2 * sign - 1)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The input's shape with k in place of n."""
        return self.with_axis(self.k)

    @property
    def others(self) -> dict[str, Given]:
        """Starts and lengths, where there are such."""
        described = (("starts", self.per_row(self.starts)), ("lengths", self.per_row(self.lengths)))
        return {name: given for name, given in described if given is not None}

    @property
    def results(self) -> tuple[tuple[str, tuple[int, ...], str], ...]:
        """Values, indices and, where asked for, whether each row's answer is exact."""
        shape = self.output_shape
        arrays = (("values", shape, self.dtype.name), ("indices", shape, str(self.index_dtype)))
        return (*arrays, ("exact", self.batch_shape, "bool")) if self.certify else arrays

    @property
    def title(self) -> str:
        """The call in one line, for a person."""
        shape = " x ".join(map(str, self.shape))
        order = "sorted" if self.sorted else "unsorted"
        return (
            f"{self.operator} of {self.dtype.name} [{shape}] along axis {self.axis}: the {self.k} "
            f"{'largest' if self.largest else 'smallest'} of {self.n}, {order}, {self.index_dtype} indices"
            + (f", ragged by {' and '.join(self.others)}" if self.ragged else "")
        )

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments that `build` makes this of, but for starts and lengths."""
        return {
            "k": self.k,
            "axis": self.axis,
            "mode": "largest" if self.largest else "smallest",
            "sorted": self.sorted,
            "recall_target": self.recall_target,
            "buckets": self.buckets,
            "k_per_bucket": self.k_per_bucket,
            "interleaved": self.interleaved,
            "certify": self.certify,
            "index_dtype": self.index_dtype,
        }

    @classmethod
    def build(
        cls,
        name: str,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        dtype: str,
        k: Any,
        *,
        axis: Any = -1,
        mode: Any = "largest",
        sorted: Any = True,
        recall_target: Any = 1.0,
        buckets: Any = None,
        k_per_bucket: Any = None,
        interleaved: Any = True,
        certify: Any = False,
        index_dtype: Any = None,
        starts: Given | None = None,
        lengths: Given | None = None,
        default_index: IndexDType = "int64",
        index_dtypes: tuple[str, ...] = ("int32", "int64"),
    ) -> Request:
        """Validate the arguments of a call as the user gave them.

        `starts` and `lengths` describe arrays: dtype, shape and strides. `default_index` and `index_dtypes` say what
        the framework returns when `index_dtype` is None, and what it can return at all.

        Raises
        ------
        InvalidType, InvalidArgument, UnsupportedDType
            Naming the argument, what came and what is allowed.
        """
        element = DTYPES.get(dtype)
        if element is None:
            raise UnsupportedDType(f"x has dtype {dtype}; approxtopk orders {', '.join(DTYPES)}")
        where = axis_of(shape, integer("axis", axis))
        n = shape[where]
        count = integer("k", k)
        if not 0 <= count <= n:
            raise InvalidArgument(f"k = {count} is out of range; allowed are 0 to {n}, the length of axis {where}")
        largest = choice("mode", mode, ("largest", "smallest")) == "largest"
        target = _recall("recall_target", recall_target)
        b = None if buckets is None else integer("buckets", buckets)
        if b is not None and not 1 <= b <= max(n, 1):
            raise InvalidArgument(f"buckets = {b} is out of range; allowed are 1 to {max(n, 1)} for an axis of {n}")
        kept = None if k_per_bucket is None else integer("k_per_bucket", k_per_bucket)
        if kept is not None and kept < 1:
            raise InvalidArgument(f"k_per_bucket = {kept} is out of range; it must be at least 1")
        if b is not None and kept is not None and b * kept < count:
            raise InvalidArgument(
                f"buckets * k_per_bucket = {b} * {kept} = {b * kept} is less than k = {count}: "
                "the buckets must keep at least k entries"
            )
        batch = (*shape[:where], *shape[where + 1 :])
        return cls(
            operator=name,
            shape=shape,
            strides=strides,
            dtype=element,
            axis=where,
            k=count,
            largest=largest,
            sorted=flag("sorted", sorted),
            recall_target=target,
            buckets=b,
            k_per_bucket=kept,
            interleaved=flag("interleaved", interleaved),
            certify=flag("certify", certify),
            index_dtype=index_dtype_of(index_dtype, default_index, index_dtypes, n),
            starts=per_row_integers("starts", starts, shape, batch),
            lengths=per_row_integers("lengths", lengths, shape, batch),
        )


def show(value: object) -> str:
    """What came, short enough for an error message: the type, and the value where it is a plain one."""
    kind = type(value).__name__
    if not isinstance(value, (str, int, float, complex, np.generic, type(None))):
        return kind
    text = repr(value) if not isinstance(value, int) or abs(value) < 2**64 else hex(value)
    return f"{short(text)} ({kind})"


def short(text: str, most: int = 80) -> str:
    """`text`, cut where it is too long for an error message."""
    return text if len(text) <= most else text[: most - 3] + "..."


def integer(name: str, value: Any) -> int:
    """`value` as an int, by ``operator.index``; bools and arrays are refused.

    A number that only PyTorch's compiler knows stays what it is.

    Raises
    ------
    InvalidType
        When `value` is not an integer.
    InvalidArgument
        When it does not fit 64 bits.
    """
    kind = type(value)
    if kind is int:
        return _in_64_bits(name, value)
    if kind.__name__ == "SymInt" and kind.__module__ == "torch":
        return value  # type: ignore[no-any-return]  # it stands for an int
    # A 0-d array would have to be read, on a GPU by synchronising; NumPy's scalars carry no __dlpack__.
    if not isinstance(value, (bool, np.bool_)) and not hasattr(type(value), "__dlpack__"):
        try:
            number = operator.index(value)
        except TypeError:
            pass
        else:
            return _in_64_bits(name, number)
    raise InvalidType(f"{name} must be an integer (not a bool, a float or an array), not {show(value)}")


def flag(name: str, value: Any) -> bool:
    """`value`, True or False.

    Raises
    ------
    InvalidType
        When it is another object.
    """
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise InvalidType(f"{name} must be True or False, not {show(value)}")


def choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """`value`, one of the strings `allowed`.

    Raises
    ------
    InvalidType, InvalidArgument
        When it is no string, or another.
    """
    words = " or ".join(map(repr, allowed)) if len(allowed) < 3 else ", ".join(map(repr, allowed))
    if not isinstance(value, str):
        raise InvalidType(f"{name} must be the string {words}, not {show(value)}")
    if value not in allowed:
        raise InvalidArgument(f"{name} = {short(repr(value))} is unknown; allowed are {words.replace(' or ', ' and ')}")
    return value


def real_number(name: str, value: Any, allowed: str) -> float:
    """`value` as a float; `allowed` tells in an error what it may be.

    A number that only PyTorch's compiler knows stays what it is.

    Raises
    ------
    InvalidType
        When it is no real number, or a bool.
    """
    kind = type(value)
    if kind.__name__ in ("SymInt", "SymFloat") and kind.__module__ == "torch":
        return value  # type: ignore[no-any-return]  # it stands for a number
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise InvalidType(f"{name} must be {allowed}, not {show(value)}")
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _in_64_bits(name: str, value: int) -> int:
    """`value`, unless it is so large that Python refuses to print it in an error message."""
    if -(2**63) <= value < 2**63:
        return value
    raise InvalidArgument(f"{name} = {show(value)} is out of range; allowed are 64-bit integers at most")


def _recall(name: str, value: Any) -> float:
    target = real_number(name, value, "a real number in (0, 1]")
    if not 0.0 < target <= 1.0:
        raise InvalidArgument(f"{name} = {target!r} is out of range; allowed is 0 < {name} <= 1 (1 means exact)")
    return target


def per_row_integers(name: str, array: Given | None, x: tuple[int, ...], batch: tuple[int, ...]) -> PerRow | None:
    """The array of one integer a row that `array` describes, of an x of that shape.

    Raises
    ------
    UnsupportedDType, InvalidArgument
        When it has another element type or shape.
    """
    if array is None:
        return None
    dtype, shape, strides = array
    if dtype not in DTYPES or DTYPES[dtype].kind == "f":
        raise UnsupportedDType(f"{name} has dtype {dtype}; allowed are integers, int8 to int64 and uint8 to uint64")
    if shape != batch:
        raise InvalidArgument(
            f"{name} has shape {shape}; allowed is {batch}, one number for every row of x of shape {x}"
        )
    return PerRow(dtype, strides)


def index_dtype_of(value: Any, default: IndexDType, allowed: tuple[str, ...], n: int) -> IndexDType:
    """`index_dtype` by name; NumPy's, JAX's and PyTorch's own dtype objects are taken too."""
    choices = "it must be int32, int64 or None"
    name = default if value is None else dtype_name("index_dtype", value, choices, InvalidArgument)
    if name not in ("int32", "int64"):
        raise InvalidArgument(f"index_dtype = {short(name)} is not allowed; {choices}")
    if name not in allowed:
        raise InvalidArgument(
            f"index_dtype = {name} is not available: JAX runs without x64; allowed is {', '.join(allowed)} "
            '(or jax.config.update("jax_enable_x64", True))'
        )
    if name == "int32" and n > 2**31 - 1:
        raise InvalidArgument(f"index_dtype = int32 cannot count an axis of {n}; allowed is int64 above 2**31 - 1")
    return "int32" if name == "int32" else "int64"


def dtype_name(argument: str, value: Any, choices: str, error: type[ApproxTopKError]) -> str:
    """The name of a dtype: NumPy's, JAX's, ml_dtypes' or PyTorch's own object, or any spelling that NumPy reads.

    `choices` tells what is allowed, and `error` is what a dtype that there is not raises.

    Raises
    ------
    InvalidType
        When `value` is no dtype: instances (``numpy.int32(7)``), bytes, tuples.
    """
    kind = type(value)
    if kind.__module__ == "torch" and kind.__name__ == "dtype":
        return str(value).removeprefix("torch.")
    if not isinstance(value, (str, type, np.dtype)):
        raise InvalidType(f"{argument} must be a dtype or the name of one, not {show(value)}; {choices}")
    if isinstance(value, str) and value in DTYPES:
        return value  # those of ml_dtypes too, which NumPy may not have met yet
    try:
        dtype = np.dtype(value)
    except Exception:  # TypeError mostly; ValueError and SyntaxError too
        raise error(f"{argument} = {short(repr(value))} is unknown; {choices}") from None
    if not dtype.isnative:
        raise error(f"{argument} = {short(str(dtype))} is in the other byte order, not this machine's own; {choices}")
    return str(dtype.name)
