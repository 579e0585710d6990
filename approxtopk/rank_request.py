"""A count of ranks as a frozen, framework-free description, validated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from .dtypes import DTYPES
from .errors import InvalidArgument, InvalidType, UnsupportedDType
from .request import IndexDType, choice, index_dtype_of, integer, per_row_integers, show
from .rows import Given, PerRow, RowsRequest, axis_of

__all__ = ["TIES", "RankRequest", "Ties"]

Ties = Literal["optimistic", "pessimistic", "average", "first"]
TIES: tuple[Ties, ...] = get_args(Ties)


@dataclass(frozen=True)
class RankRequest(RowsRequest):
    """Where entries stand in their rows.

    Attributes
    ----------
    operator : str
        ``"rank"``.
    shape, strides, dtype, axis
        As in `RowsRequest`.
    largest : bool
        Whether large values rank first.
    ties : {"optimistic", "pessimistic", "average", "first"} or None
        Which rank of equal entries is wanted; None: not ranks, but the counts that they are made of.
    base : int
        The rank of the first entry.
    index : int, Given or None
        The target of all rows, or an array of targets: of the batch shape, or of x's shape with another extent along
        the axis. None where the targets are given by value.
    value : Given or None
        The targets' values in place of their places: an array of x's type and of the shape that `index` may have.
    lengths : PerRow or None
        How many entries of each row exist.
    count_dtype : {"int32", "int64"}
        Type of counts and ranks; ranks that are averages are floats of this width.
    """

    largest: bool
    ties: Ties | None
    base: int
    index: int | Given | None
    value: Given | None
    lengths: PerRow | None
    count_dtype: IndexDType

    #: Rows begin at 0.
    starts = None

    @property
    def targets_shape(self) -> tuple[int, ...]:
        """Shape of the counts of targets."""
        targets = self.value if self.index is None else self.index
        return targets[1] if isinstance(targets, tuple) else self.batch_shape

    @property
    def m(self) -> int:
        """Targets of a row."""
        shape = self.targets_shape
        return shape[self.axis] if len(shape) == len(self.shape) else 1

    @property
    def others(self) -> dict[str, Given]:
        """The targets and the lengths, where they are arrays."""
        index = self.index if isinstance(self.index, tuple) else None
        arrays = {"index": index, "value": self.value, "lengths": self.per_row(self.lengths)}
        return {name: given for name, given in arrays.items() if given is not None}

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments that `build` makes this of, but for arrays."""
        own = {"axis": self.axis, "mode": "largest" if self.largest else "smallest", "count_dtype": self.count_dtype}
        ranks = {} if self.ties is None else {"ties": self.ties, "base": self.base}
        return own | ranks | ({"index": self.index} if isinstance(self.index, int) else {})

    @property
    def results(self) -> tuple[tuple[str, tuple[int, ...], str], ...]:
        """Ranks of the targets; or entries above each target and equal to it, and how many exist in each row."""
        dtype = str(self.count_dtype)
        if self.ties is not None:
            return (("rank", self.targets_shape, dtype.replace("int", "float") if self.ties == "average" else dtype),)
        counts = [(name, self.targets_shape, dtype) for name in ("greater", "equal")]
        return (*counts, ("valid", self.batch_shape, dtype))

    @property
    def title(self) -> str:
        """The call in one line, for a person."""
        shape = " x ".join(map(str, self.shape))
        what = "counts of ranks" if self.ties is None else f"{self.ties} ranks"
        return (
            f"{what} in {self.dtype.name} [{shape}] along axis {self.axis}: {self.m} targets a row of {self.n}, "
            f"{'largest' if self.largest else 'smallest'} first, {self.results[0][2]}"
        )

    @classmethod
    def build(
        cls,
        name: str,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        dtype: str,
        *,
        index: Any = None,
        value: Given | None = None,
        axis: Any = -1,
        mode: Any = "largest",
        ties: Any = None,
        base: Any = 0,
        lengths: Given | None = None,
        count_dtype: Any = None,
        default_index: IndexDType = "int64",
        index_dtypes: tuple[str, ...] = ("int32", "int64"),
    ) -> RankRequest:
        """Validate the arguments of a call as the user gave them.

        `index` is a number or describes an array, `value` and `lengths` describe arrays. `default_index` and
        `index_dtypes` say what the framework returns when `count_dtype` is None, and what it can return at all.

        Raises
        ------
        InvalidType, InvalidArgument, UnsupportedDType
            Naming the argument, what came and what is allowed.
        """
        element = DTYPES.get(dtype)
        if element is None:
            raise UnsupportedDType(f"x has dtype {dtype}; approxtopk orders {', '.join(DTYPES)}")
        where = axis_of(shape, integer("axis", axis))
        batch = (*shape[:where], *shape[where + 1 :])
        if value is not None and index is not None:
            came = "an array" if isinstance(index, tuple) else show(index)
            raise InvalidType(f"index must be None where value is given, not {came}")
        tied: Any = None if ties is None else choice("ties", ties, TIES)
        if tied == "average" and count_dtype is None:
            count_dtype = index_dtypes[-1]  # of the framework's widest float, to hold all halves
        counts = index_dtype_of(count_dtype, default_index, index_dtypes, shape[where])
        return cls(
            operator=name,
            shape=shape,
            strides=strides,
            dtype=element,
            axis=where,
            largest=choice("mode", mode, ("largest", "smallest")) == "largest",
            ties=tied,
            base=_base(base, shape[where], counts),
            index=_places(index, shape, where) if value is None else None,
            value=None if value is None else _values(value, dtype, shape, where),
            lengths=per_row_integers("lengths", lengths, shape, batch),
            count_dtype=counts,
        )


def _base(base: Any, n: int, counts: IndexDType) -> int:
    """The rank of the first of `n` entries, such that the last one's is a number of that type."""
    first, most = integer("base", base), 2**30
    if counts == "int32":
        most = min(most, 2**31 - n)
    if not -(2**30) <= first <= most:
        raise InvalidArgument(f"base = {first} is out of range; allowed are {-(2**30)} to {most}")
    return first


def _places(index: Any, shape: tuple[int, ...], axis: int) -> int | Given:
    """The target of all rows, or the array of targets that `index` describes."""
    if isinstance(index, tuple):
        if index[0] not in DTYPES or DTYPES[index[0]].kind == "f":
            raise UnsupportedDType(
                f"index has dtype {index[0]}; allowed are integers, int8 to int64 and uint8 to uint64"
            )
        return _targets("index", index, shape, axis)
    target = integer("index", index)
    # A negative number would be the end in NumPy and no entry here.
    if not 0 <= target < shape[axis]:
        raise InvalidArgument(f"index = {target} is out of range; allowed are 0 to {shape[axis] - 1}")
    return target


def _values(value: Given, dtype: str, shape: tuple[int, ...], axis: int) -> Given:
    """The array of targets that `value` describes."""
    if value[0] != dtype:
        raise UnsupportedDType(f"value has dtype {value[0]}; allowed is x's own, {dtype}")
    return _targets("value", value, shape, axis)


def _targets(name: str, array: Given, shape: tuple[int, ...], axis: int) -> Given:
    """An array of one target a row, or of several."""
    extents = array[1]
    batch = (*shape[:axis], *shape[axis + 1 :])
    several = len(extents) == len(shape) and (*extents[:axis], *extents[axis + 1 :]) == batch
    if extents != batch and not several:
        wide = (*shape[:axis], "m", *shape[axis + 1 :])
        raise InvalidArgument(
            f"{name} has shape {extents}; allowed for x of shape {shape} are {batch}, one target a row, and "
            f"({', '.join(map(str, wide))}), m of them"
        )
    return array
