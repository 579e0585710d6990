"""Approximate top-k by bucketing."""

from __future__ import annotations

from typing import Any, Literal, overload

from .call import CertifiedTopK, TopK, call
from .operator import Operator

__all__ = ["approx_top_k"]

OPERATOR = Operator(
    name="approx_top_k",
    inputs=("x", "starts", "lengths"),
    outputs=("values", "indices", "exact"),
    derivative="gather",
    counts=True,
)


@overload
def approx_top_k(
    x: Any,
    k: int,
    /,
    *,
    axis: int = ...,
    mode: str = ...,
    sorted: bool = ...,
    recall_target: float = ...,
    buckets: int | None = ...,
    k_per_bucket: int | None = ...,
    interleaved: bool = ...,
    certify: Literal[False] = ...,
    index_dtype: Any = ...,
    starts: Any = ...,
    lengths: Any = ...,
) -> TopK: ...
@overload
def approx_top_k(
    x: Any,
    k: int,
    /,
    *,
    axis: int = ...,
    mode: str = ...,
    sorted: bool = ...,
    recall_target: float = ...,
    buckets: int | None = ...,
    k_per_bucket: int | None = ...,
    interleaved: bool = ...,
    certify: Literal[True],
    index_dtype: Any = ...,
    starts: Any = ...,
    lengths: Any = ...,
) -> CertifiedTopK: ...
def approx_top_k(
    x: Any,
    k: int,
    /,
    *,
    axis: int = -1,
    mode: str = "largest",
    sorted: bool = True,
    recall_target: float = 0.95,
    buckets: int | None = None,
    k_per_bucket: int | None = None,
    interleaved: bool = True,
    certify: bool = False,
    index_dtype: Any = None,
    starts: Any = None,
    lengths: Any = None,
) -> TopK | CertifiedTopK:
    """Pick the k best entries of every row, up to an expected recall, by bucketing.

    The axis is split into b buckets, the best k_b of each are kept, and of those the best k are returned
    (Key et al. 2024, arXiv 2412.04358; generalised by Samaga et al. 2025, arXiv 2506.04165, after Chern et al.
    2022, arXiv 2206.14286).

    Parameters
    ----------
    x : array
        As in `top_k`.
    k : int
        Entries to pick, from 0 to the axis' length.
    axis, mode, sorted, index_dtype, starts, lengths
        As in `top_k`. The buckets of a ragged row partition the entries it has: entry i is in bucket
        (i - start) mod b. (b, k_b) are chosen for rows of the axis' length; for the same buckets recall is no
        lower in a shorter row.
    recall_target : float, default 0.95
        The share of the true top k to return in expectation over random orders of the row, in (0, 1]. From it,
        n and k alone are chosen the route and (b, k_b): a row gets the same answer alone, in a batch, on a CPU
        or on any GPU. The exact route is taken where it is as cheap, as in short rows; 1 means exact.
        ``plan(...)`` says what was chosen.
    buckets : int or None
        b, from 1 to n. With `k_per_bucket` named too, recall_target is not used; otherwise it chooses the other.
    k_per_bucket : int or None
        k_b, at least 1; b * k_b must be at least k.
    interleaved : bool, default True
        Entry i of the axis is in bucket i mod b; otherwise buckets are contiguous runs, whose first n mod b are
        one longer. Use interleaved (the default) when neighbours are alike, as they often are.
    certify : bool, default False
        Also tell of every row whether its answer is the exact one, from the best entry that each bucket
        rejected. ``plan(..., certify=True).certified_share`` is the share of rows to expect it of.

    Returns
    -------
    TopK or CertifiedTopK
        ``(values, indices)``, as in `top_k`; with certify ``(values, indices, exact)``, exact a bool for every row.

    Raises
    ------
    InvalidArgument, InvalidType, UnsupportedDType, DeviceMismatch, BackendMissing
        As `top_k`; also for recall_target, buckets, k_per_bucket and certify.

    See Also
    --------
    top_k : The exact selection, with the order and tie rules.
    plan : What a call will run.
    expected_recall : Recall of a given (b, k_b).

    Examples
    --------
    >>> import numpy as np
    >>> import approxtopk as atk
    >>> x = np.array([9, 1, 8, 2, 7, 3, 6, 4])
    >>> atk.approx_top_k(x, 2, buckets=2, k_per_bucket=1)  # buckets 9 8 7 6 and 1 2 3 4
    TopK(values=array([9, 4]), indices=array([0, 7]))
    >>> rows = np.array([[9, 1, 8, 2, 7, 3, 6, 4], [1, 2, 3, 4, 5, 6, 7, 8]])
    >>> atk.approx_top_k(rows, 2, buckets=2, k_per_bucket=1, certify=True).exact  # 9 8, not 9 4
    array([False,  True])
    """
    outputs = call(
        OPERATOR,
        x,
        k,
        axis=axis,
        mode=mode,
        sorted=sorted,
        recall_target=recall_target,
        buckets=buckets,
        k_per_bucket=k_per_bucket,
        interleaved=interleaved,
        certify=certify,
        index_dtype=index_dtype,
        starts=starts,
        lengths=lengths,
    )
    return TopK(*outputs) if len(outputs) == 2 else CertifiedTopK(*outputs)
