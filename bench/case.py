"""One selection to measure: shape, type, what is asked for, and of what."""

from __future__ import annotations

from typing import Any, NamedTuple

import approxtopk as atk
from approxtopk.buffer import row_major
from approxtopk.dtypes import DTYPES
from approxtopk.plan import Plan
from approxtopk.request import Request

__all__ = ["Case"]


class Case(NamedTuple):
    """A matrix of `rows` times `n` and the k best of every row.

    Attributes
    ----------
    recall : float
        The recall target; 1 is exact.
    buckets, k_per_bucket : int or None
        Named (b, k_b), in place of the target.
    index : str
        Element type of the indices asked for.
    ragged : bool
        Whether rows have lengths, from n / 2 to n.
    inputs : str
        What fills the rows: a name of `bench.inputs`.
    """

    rows: int
    n: int
    k: int
    dtype: str = "float32"
    recall: float = 1.0
    sorted: bool = True
    index: str = "int64"
    inputs: str = "normal"
    buckets: int | None = None
    k_per_bucket: int | None = None
    ragged: bool = False

    def __str__(self) -> str:
        if self.buckets is not None:
            how = f"b = {self.buckets}, k_b = {self.k_per_bucket}"
        else:
            how = "exact" if self.recall == 1 else f"recall {self.recall:g}"
        words = [
            f"{self.rows} x {self.n} {self.dtype}",
            f"k = {self.k}",
            how,
            *([] if self.sorted else ["unsorted"]),
            *([] if self.index == "int64" else [self.index]),
            *([] if self.inputs == "normal" else [self.inputs]),
            *(["ragged"] if self.ragged else []),
        ]
        return ", ".join(words)

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.n

    @property
    def nbytes(self) -> int:
        """Of the input."""
        return self.rows * self.n * DTYPES[self.dtype].itemsize

    @property
    def nbytes_written(self) -> int:
        """Of values and indices."""
        return self.rows * self.k * (DTYPES[self.dtype].itemsize + int(self.index[3:]) // 8)

    @property
    def exact(self) -> bool:
        return self.recall == 1 and self.buckets is None

    @property
    def request(self) -> Request:
        name = "top_k" if self.exact else "approx_top_k"
        return Request.build(
            name, self.shape, row_major(self.shape), self.dtype, self.k, sorted=self.sorted, recall_target=self.recall,
            buckets=self.buckets, k_per_bucket=self.k_per_bucket, index_dtype=self.index,
            lengths=("int32", (self.rows,), (1,)) if self.ragged else None,
        )  # fmt: skip

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of the call, but for lengths."""
        own: dict[str, Any] = {"sorted": self.sorted, "index_dtype": self.index}
        if not self.exact:
            own |= {"recall_target": self.recall, "buckets": self.buckets, "k_per_bucket": self.k_per_bucket}
        return own

    def plan(self, device: Any) -> Plan:
        own = self.options | ({"lengths": "int32"} if self.ragged else {})
        return atk.plan(self.shape, self.k, dtype=self.dtype, exact=self.exact, device=device, **own)

    def smaller(self, most: int) -> Case:
        """Much the same selection from at most about `most` entries, for a machine that is slow."""
        n = max(min(self.n, most), 2)
        k = max(1, min(self.k, n, round(self.k * n / self.n) if self.k * 16 > self.n else self.k, most // 8))
        own = self._replace(rows=max(1, min(self.rows, most // n, 4)), n=n, k=k)
        if self.buckets is None or self.k_per_bucket is None:
            return own
        kept = min(self.k_per_bucket, k)
        buckets = min(max(-(-k // kept), self.buckets * n // self.n), n)
        return own._replace(buckets=buckets, k_per_bucket=kept, k=min(k, buckets * kept))
