"""Exact top-k."""

from __future__ import annotations

from typing import Any

from .call import TopK, call
from .operator import Operator

__all__ = ["top_k"]

OPERATOR = Operator(
    name="top_k", inputs=("x", "starts", "lengths"), outputs=("values", "indices"), derivative="gather", counts=True
)


def top_k(
    x: Any,
    k: int,
    /,
    *,
    axis: int = -1,
    mode: str = "largest",
    sorted: bool = True,
    index_dtype: Any = None,
    starts: Any = None,
    lengths: Any = None,
) -> TopK:
    """Pick the k best entries of every row, exactly.

    Parameters
    ----------
    x : array
        A NumPy, CuPy or JAX array, a PyTorch tensor, or any object that speaks DLPack; of at least one axis, any
        strides. Element types: float16, bfloat16, float32, float64, int8 to int64, uint8 to uint64,
        float8_e4m3fn, float8_e5m2.
    k : int
        Entries to pick, from 0 to the axis' length.
    axis : int, default -1
        The axis to select along. One that is not last costs no copy.
    mode : {"largest", "smallest"}, default "largest"
        Which end is best.
    sorted : bool, default True
        Best first; otherwise the same set in an order that is fixed for a given plan and unspecified.
    index_dtype : {"int32", "int64"} or None, default None
        None is the framework's habit: int64 in PyTorch, CuPy and NumPy, int32 in JAX.
    starts, lengths : array of int or None, default None
        For ragged rows: one number for every row (x's shape without the axis), of x's framework and on its device,
        any integer type and strides. Of each row only the entries in [start, start + length) exist, as far as the
        axis has them; without starts rows begin at 0, without lengths they reach to the end. The contents are
        never checked: what lies outside of the axis does not exist, and a negative length is 0.

    Returns
    -------
    TopK
        ``(values, indices)``: arrays of x's framework, on its device, of x's shape with k in place of the
        axis' length; ``values`` bit-equal to x at ``indices``. A ragged row of fewer than k entries is filled up
        with index -1 and the value -inf (for "smallest" +inf; where the type has no infinity, its least or
        greatest number), behind the entries if sorted. Indices count along the axis, not from the start.

    Raises
    ------
    InvalidArgument
        k, axis, mode or index_dtype has a value that is not allowed, starts or lengths another shape than one
        number a row, or x is on a GPU and has more than 2**31 - 1 rows.
    InvalidType
        x is no array, starts or lengths none of x's framework, or an argument has the wrong type.
    UnsupportedDType
        x's element type has no order here (bool, complex, object, string, ...), or starts or lengths are not
        integers.
    DeviceMismatch
        x is on a device that approxtopk does not serve, or starts or lengths on another than x.
    BackendMissing
        x is on a GPU and CuPy is not installed.

    Notes
    -----
    One total order everywhere: -inf < finite < +inf < NaN; all NaNs equal, -0 and +0 equal; equal entries rank
    by lower index first, in both modes. ``mode="smallest"`` reverses the values' order only, and puts NaN last.

    Examples
    --------
    >>> import numpy as np
    >>> import approxtopk as atk
    >>> values, indices = atk.top_k(np.array([3.0, 1.0, 4.0, 1.0, 5.0]), 2)
    >>> values, indices
    (array([5., 4.]), array([4, 2]))
    >>> atk.top_k(np.array([[3, 1, 4], [1, 5, 9]]), 2, lengths=np.array([3, 1])).indices
    array([[ 2,  0],
           [ 0, -1]])
    """
    options = {"axis": axis, "mode": mode, "sorted": sorted, "index_dtype": index_dtype}
    return TopK(*call(OPERATOR, x, k, starts=starts, lengths=lengths, **options))
