"""What is measured, as pure data: the shape and type of the rows, and what is asked of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np

import approxtopk as atk
from approxtopk.buffer import row_major
from approxtopk.dtypes import DTYPES
from approxtopk.plan import DeviceInfo, Plan, SelectionPlan
from approxtopk.planning.cached import plan_for
from approxtopk.request import Request

from .inputs import element, rows_of

__all__ = ["Case", "RankCase", "SelectionCase", "SoftCase", "case_of"]

Array = np.ndarray[Any, Any]


class Case:
    """A matrix of `rows` times `n`, and what is asked of every row.

    Attributes
    ----------
    family : str
        Name of the operators that answer it.
    rows, n : int
    dtype : str
    inputs : str
        What fills the rows: a name of `bench.inputs`.
    """

    family: ClassVar[str]
    rows: int
    n: int
    dtype: str
    inputs: str

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.n

    @property
    def nbytes(self) -> int:
        """Of the rows."""
        return self.rows * self.n * DTYPES[self.dtype].itemsize

    @property
    def nbytes_read(self) -> int:
        """Of all that has to be read, once for each time that it is."""
        return self.nbytes

    @property
    def nbytes_written(self) -> int:
        """Of the results."""
        raise NotImplementedError

    def other(self, seed: int = 0) -> Array | None:
        """The array that a call takes beside the rows, where it does."""
        return None

    def plans(self, device: Any) -> list[Plan]:
        """What runs, in order."""
        raise NotImplementedError

    def facts(self, device: Any) -> dict[str, Any]:
        """What a result tells of the plans."""
        plans = self.plans(device)
        return {
            "kernels": [name for plan in plans for name in plan.kernels],
            "launches": sum(plan.launches for plan in plans),
            "workspace_bytes": max(plan.workspace_bytes for plan in plans),
        }

    def asdict(self) -> dict[str, Any]:
        """As a result has it; `case_of` makes a case of that again."""
        return {"family": self.family, **asdict(self)}  # type: ignore[call-overload]

    def smaller(self, most: int) -> Case:
        """Much the same of at most about `most` entries, for a machine that is slow."""
        raise NotImplementedError

    def _words(self) -> list[str]:
        """What ends the name of a case."""
        return [] if self.inputs == "normal" else [self.inputs]


@dataclass(frozen=True)
class SelectionCase(Case):
    """The k best of every row.

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
    """

    family: ClassVar[str] = "selection"
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
            *self._words(),
            *(["ragged"] if self.ragged else []),
        ]
        return ", ".join(words)

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

    def other(self, seed: int = 0) -> Array | None:
        """How many entries the rows of a ragged case have: from half of them to all, k at least."""
        if not self.ragged:
            return None
        least = max(self.k, self.n // 2)
        return np.random.default_rng([seed, 1]).integers(least, self.n, self.rows, np.int32, endpoint=True)

    def plan(self, device: Any) -> SelectionPlan:
        own = self.options | ({"lengths": "int32"} if self.ragged else {})
        return atk.plan(self.shape, self.k, dtype=self.dtype, exact=self.exact, device=device, **own)

    def plans(self, device: Any) -> list[Plan]:
        return [self.plan(device)]

    def facts(self, device: Any) -> dict[str, Any]:
        plan = self.plan(device)
        names = ("route", "buckets", "k_per_bucket", "expected_recall")
        return {name: getattr(plan, name) for name in names} | super().facts(device)

    def asdict(self) -> dict[str, Any]:
        return asdict(self)  # older than the other families

    def smaller(self, most: int) -> SelectionCase:
        n = max(min(self.n, most), 2)
        k = max(1, min(self.k, n, round(self.k * n / self.n) if self.k * 16 > self.n else self.k, most // 8))
        own = replace(self, rows=max(1, min(self.rows, most // n, 4)), n=n, k=k)
        if self.buckets is None or self.k_per_bucket is None:
            return own
        kept = min(self.k_per_bucket, k)
        buckets = min(max(-(-k // kept), self.buckets * n // self.n), n)
        return replace(own, buckets=buckets, k_per_bucket=kept, k=min(k, buckets * kept))


@dataclass(frozen=True)
class SoftCase(Case):
    """A soft top-k of every row.

    Attributes
    ----------
    k, l, p, kind
        As in `approxtopk.soft_top_k_mask`.
    magnitude : bool
        Whether entries are kept by their magnitude, in place of a mask.
    training : bool
        Whether the derivative by the rows is wanted too: forward and backward.
    """

    family: ClassVar[str] = "soft"
    rows: int
    n: int
    k: int
    dtype: str = "float32"
    l: float = 0.1
    p: float = 4 / 3
    kind: str = "pnorm"
    magnitude: bool = False
    training: bool = False
    inputs: str = "normal"

    def __str__(self) -> str:
        norm = "p = 4/3" if self.p == 4 / 3 else f"p = {self.p:g}"
        words = [
            f"{self.rows} x {self.n} {self.dtype}",
            f"k = {self.k}",
            norm if self.kind == "pnorm" else self.kind,
            f"l = {self.l:g}",
            *(["magnitude"] if self.magnitude else []),
            *(["training"] if self.training else []),
            *self._words(),
        ]
        return ", ".join(words)

    @property
    def nbytes_read(self) -> int:
        """Of the rows; in training of the cotangent too, and of the mask or, once more, the rows."""
        return self.nbytes * (3 if self.training else 1)

    @property
    def nbytes_written(self) -> int:
        return self.nbytes * (2 if self.training else 1)

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of the call."""
        return {"l": self.l, "p": self.p, "kind": self.kind}

    def other(self, seed: int = 0) -> Array | None:
        """The cotangent, where it is wanted."""
        return rows_of("normal", self.rows, self.n, seed + 1, element(self.dtype)) if self.training else None

    def plans(self, device: Any) -> list[Plan]:
        name = "soft_top_k_magnitude" if self.magnitude else "soft_top_k_mask"
        dense, own = row_major(self.shape), {**self.options, "p": float(self.p)}
        info = _info(device)
        plans = [plan_for(name, self.shape, dense, self.dtype, info, {"k": float(self.k), **own})]
        if self.training:
            given: dict[str, Any] = {"g": (self.dtype, self.shape, dense)}
            if self.magnitude:
                given["tau"] = ("float64" if self.dtype == "float64" else "float32", (self.rows,), (1,))
            plans.append(plan_for(f"{name}_vjp", self.shape, dense, self.dtype, info, own | given))
        return plans

    def smaller(self, most: int) -> SoftCase:
        n = max(min(self.n, most), 2)
        return replace(self, rows=max(1, min(self.rows, most // n, 4)), n=n, k=max(1, min(self.k, n // 4)))


@dataclass(frozen=True)
class RankCase(Case):
    """Where `targets` entries of every row stand in it."""

    family: ClassVar[str] = "rank"
    rows: int
    n: int
    dtype: str = "float32"
    targets: int = 1
    inputs: str = "normal"

    def __str__(self) -> str:
        words = [
            f"{self.rows} x {self.n} {self.dtype}",
            f"{self.targets} targets a row" if self.targets > 1 else "one target a row",
            *self._words(),
        ]
        return ", ".join(words)

    @property
    def nbytes_written(self) -> int:
        """Of both counts of targets, and of one for each row, as 64-bit integers."""
        return 8 * self.rows * (2 * self.targets + 1)

    @property
    def index_shape(self) -> tuple[int, ...]:
        return (self.rows,) if self.targets == 1 else (self.rows, self.targets)

    def other(self, seed: int = 0) -> Array | None:
        """The targets, by index."""
        return np.random.default_rng([seed, 2]).integers(0, self.n, self.index_shape)

    def plans(self, device: Any) -> list[Plan]:
        index = ("int64", self.index_shape, row_major(self.index_shape))
        return [plan_for("rank", self.shape, row_major(self.shape), self.dtype, _info(device), {"index": index})]

    def smaller(self, most: int) -> RankCase:
        n = max(min(self.n, most), 2)
        return replace(self, rows=max(1, min(self.rows, most // n, 4)), n=n, targets=min(self.targets, n // 8 or 1))


def case_of(told: dict[str, Any]) -> Case:
    """The case that `Case.asdict` told of."""
    families = {family.family: family for family in (SelectionCase, SoftCase, RankCase)}
    fields = {"family": "selection", **told}
    return families[fields.pop("family")](**fields)


def _info(device: Any) -> DeviceInfo:
    return atk.plan(1, 1, device=device).device
