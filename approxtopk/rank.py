"""Ranks of given entries in their rows, by counting, without a temporary of their size."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from .adapters import registry
from .call import apply
from .operator import Operator
from .rank_request import TIES, Ties
from .request import choice

__all__ = ["RankCounts", "rank", "rank_counts"]

_RANK = Operator(
    "rank", ("x", "index", "value", "lengths"), ("rank", "greater", "equal", "valid"), derivative=None, counts=True
)


class RankCounts(NamedTuple):
    """What the rank of an entry is made of.

    Attributes
    ----------
    greater : array of int32 or int64
        For every target: entries of its row that rank above its value.
    equal : array of the same type
        Entries that equal it, itself included where it is an entry.
    valid : array of the same type
        For every row: entries that exist.
    """

    greater: Any
    equal: Any
    valid: Any


def rank_counts(x: Any, index: Any = None, /, *, value: Any = None, axis: int = -1, lengths: Any = None) -> RankCounts:
    """Count, for given entries, how many of their row are greater and how many are equal.

    Parameters
    ----------
    x : array
        A NumPy, CuPy or JAX array, a PyTorch tensor, or any object that speaks DLPack; of at least one axis, any
        strides and any of the element types of `top_k`.
    index : int or array of int
        The targets, by their places along the axis, from 0: one for all rows; one for every row (x's shape without the
        axis); or several (x's shape with another extent along the axis). Arrays are of x's framework and on its
        device, of any integer type. They are never checked: a target that does not exist gets -1.
    value : array or None, default None
        In place of `index`, the targets' values, in x's type: an array of the shapes that `index` may have. They need
        not be in the row.
    axis : int, default -1
        The axis along which rows lie.
    lengths : array of int or None, default None
        How many entries of each row exist (x's shape without the axis), as in `top_k`.

    Returns
    -------
    RankCounts
        ``(greater, equal, valid)``: counts of the shape of `index` (of x's shape without the axis where it is one
        number), and of the rows; int32 in JAX, else int64.

    Raises
    ------
    InvalidArgument
        index is a number that is out of range, an array of another shape, or lengths is; or axis is out of range.
    InvalidType
        x is no array, index neither an integer nor an array of x's framework, index and value are both given, or an
        argument has the wrong type.
    UnsupportedDType
        x's element type has no order here, index or lengths are not integers, or value is not of x's type.
    DeviceMismatch
        x is on a device that approxtopk does not serve, or another array on another than x.
    BackendMissing
        x is on a GPU and CuPy is not installed.

    Notes
    -----
    The order is `top_k`'s: NaN ranks above all numbers, NaNs are equal, and so are -0 and +0. On a GPU each row is read
    once, for all of its targets.

    Counts by `value` add over the parts of rows that are sharded, as vocabularies of language models are: docs/rank.md
    has the recipe.

    Examples
    --------
    >>> import numpy as np
    >>> import approxtopk as atk
    >>> logits = np.array([[0.5, 2.0, 2.0, -1.0], [3.0, 0.0, 1.0, 3.0]])
    >>> greater, equal, valid = atk.rank_counts(logits, np.array([2, 1]))
    >>> greater, equal, valid
    (array([0, 3]), array([2, 1]), array([4, 4]))
    """
    return RankCounts(*_apply(x, index, value, lengths, {"axis": axis}))


def rank(
    x: Any,
    index: Any,
    /,
    *,
    ties: Ties = "optimistic",
    base: int = 0,
    mode: Literal["largest", "smallest"] = "largest",
    axis: int = -1,
    lengths: Any = None,
) -> Any:
    """Tell where given entries stand in their rows.

    Parameters
    ----------
    x, index, axis, lengths
        As in `rank_counts`.
    ties : {"optimistic", "pessimistic", "average", "first"}, default "optimistic"
        The rank of an entry among its equals: the best of theirs, the worst, the mean of both, or by lower index, as a
        stable sort has it and `top_k` does.
    base : int, default 0
        The rank of the first entry; 1 for ranks as they are spoken of (mean reciprocal rank, hits at k).
    mode : {"largest", "smallest"}, default "largest"
        Which end ranks first. As in `top_k`, NaN comes first of the largest and last of the smallest.

    Returns
    -------
    array
        Of x's framework and device, and of the shape of `index` (of x's shape without the axis where it is one
        number): int32 in JAX, else int64; for "average" float64 (in JAX without x64 float32). A target that does not
        exist gets -1, whatever the base.

    Raises
    ------
    InvalidArgument, InvalidType, UnsupportedDType, DeviceMismatch, BackendMissing
        As `rank_counts`; and when ties, base or mode is not one of those.

    Examples
    --------
    >>> import numpy as np
    >>> import approxtopk as atk
    >>> logits = np.array([[0.5, 2.0, 2.0, -1.0]])
    >>> atk.rank(logits, np.array([[2, 0, 3]]), ties="first", base=1)
    array([[2, 3, 4]])
    >>> atk.rank(logits, 2, ties="average")
    array([0.5])
    """
    options = {"axis": axis, "mode": mode, "ties": choice("ties", ties, TIES), "base": base}
    (ranks,) = _apply(x, index, None, lengths, options)
    return ranks


def _apply(x: Any, index: Any, value: Any, lengths: Any, options: dict[str, Any]) -> tuple[Any, ...]:
    others = {"value": value, "lengths": lengths}
    if registry.is_array(index):
        others = {"index": index, **others}
    else:
        options["index"] = index
    return apply(_RANK, x, others, options)
