"""Selection from a row that lies in parts: what leaves each part, and how it comes together again.

A row of n entries is cut into consecutive parts [start, stop), of any sizes. Exact selection is the bucketed one with
one bucket that keeps k, so there is one algorithm: a part hands on the best k_b entries of every bucket, or, where it
has no more than b k_b entries, all of them. Parts side by side make a larger part in the same way, and at the end the
best k of what is left of the whole row are the answer, to the bit that of the row in one piece.

Entries that are equal keep the order of their indices all the way: selections break ties by position, so wherever
two entries may meet in a selection, the one of the lower index stands first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .approx_top_k import approx_top_k
from .errors import InvalidArgument
from .planning.choose import choose
from .request import Request
from .top_k import top_k

__all__ = ["Arrays", "Part", "Split"]


class Arrays:
    """What is done with arrays of one framework, along their last axis; this one is NumPy, and CuPy through it."""

    np: Any = np

    def select(self, x: Any, k: int, **options: Any) -> Any:
        """Indices of the best `k`, or of the best of every bucket where options name buckets; see `top_k`."""
        return (approx_top_k if "buckets" in options else top_k)(x, k, **options).indices

    def take(self, x: Any, indices: Any) -> Any:
        """``x[..., indices]``, row by row."""
        return self.np.take_along_axis(x, indices, axis=-1)

    def argsort(self, x: Any) -> Any:
        """What puts integers in ascending order."""
        return self.np.argsort(x, axis=-1)

    def join(self, arrays: Sequence[Any]) -> Any:
        """Arrays one behind the other."""
        return arrays[0] if len(arrays) == 1 else self.np.concatenate(arrays, axis=-1)

    def pad(self, x: Any, count: int, value: int) -> Any:
        """`x` and `count` times `value`."""
        return self.join([x, self.np.full_like(x, value, shape=(*x.shape[:-1], count))])

    def roll(self, x: Any, shift: int) -> Any:
        """`x` turned by `shift` along the last axis but one."""
        return self.np.roll(x, shift, axis=-2)

    def count(self, mask: Any) -> Any:
        """How many are true, in every row."""
        return mask.sum(-1)

    def sortable(self, indices: Any) -> Any:
        """`indices` of a type that holds twice as much."""
        return indices


class Part(NamedTuple):
    """What is left of the entries [start, stop) of every row.

    Attributes
    ----------
    values, indices : array, shape (..., c)
        Entries and where they stand in the row. Of a part with at most b k_b entries all of them, in their order;
        else the k_b that every bucket keeps, one bucket behind the other, equal ones in the order of their indices.
    start, stop : int
        Which entries of the row it speaks for.
    """

    values: Any
    indices: Any
    start: int
    stop: int


@dataclass(frozen=True)
class Split:
    """How every row of `n` entries, in parts, is selected from.

    Attributes
    ----------
    n, k : int
        Entries of the whole row, entries to pick.
    buckets, kept : int
        b and k_b; an exact selection has one bucket, which keeps k.
    mode : str
        ``"largest"`` or ``"smallest"``.
    sorted : bool
        Whether the answer is to be ordered.
    """

    n: int
    k: int
    buckets: int
    kept: int
    mode: str
    sorted: bool

    @staticmethod
    def of(request: Request) -> Split:
        """What a call on the whole row comes to; buckets that can turn no answer away are none.

        Raises
        ------
        InvalidArgument
            When contiguous buckets are asked for.
        """
        if not request.interleaved:
            raise InvalidArgument("interleaved = False is not for rows in parts; allowed is True: bucket i mod b")
        n, k = request.n, request.k
        choice = choose(n, k, request.recall_target, request.buckets, request.k_per_bucket)
        buckets, kept = choice.buckets, choice.k_per_bucket
        if buckets is None or kept is None or kept >= k or kept >= -(-n // buckets):
            buckets, kept = 1, k
        return Split(n, k, buckets, kept, "largest" if request.largest else "smallest", request.sorted)

    @property
    def candidates(self) -> int:
        """How many entries a part hands on at most."""
        return self.buckets * self.kept

    def whole(self, extent: int) -> bool:
        """Whether a part of `extent` entries hands on all of them."""
        return extent <= self.candidates

    def candidates_of(self, arrays: Arrays, x: Any, start: Any) -> tuple[Any, Any]:
        """Select from a part that is not `whole`: what `Part` says of values and indices, these counted in the part.

        `x` is of shape (..., extent); `start` may be known to the device alone, and less than it is by multiples of b.
        """
        if self.buckets == 1:
            indices = arrays.select(x, self.kept, mode=self.mode)
        else:
            b = self.buckets
            indices = arrays.select(x, self.candidates, mode=self.mode, sorted=False, buckets=b, k_per_bucket=self.kept)
            # By bucket of the whole row, then by index; the key is below extent + b.
            where = arrays.sortable(indices)
            key = (where + start) % b * (x.shape[-1] // b + 1) + where // b
            indices = arrays.take(indices, arrays.argsort(key))
        return arrays.take(x, indices), indices

    def merge(self, arrays: Arrays, parts: Sequence[Part]) -> Part:
        """Make one part of consecutive ones."""
        start, stop = parts[0].start, parts[-1].stop
        there = [part for part in parts if part.start < part.stop] or [parts[0]]
        if len(there) == 1:
            return there[0]._replace(start=start, stop=stop)
        if self.buckets > 1 and not self.whole(stop - start):
            return Part(*self._merge_buckets(arrays, there), start, stop)
        values, indices = _join(arrays, there)
        if not self.whole(stop - start):
            best = arrays.select(values, self.kept, mode=self.mode)
            values, indices = arrays.take(values, best), arrays.take(indices, best)
        return Part(values, indices, start, stop)

    def finish(self, arrays: Arrays, parts: Sequence[Part]) -> tuple[Any, Any]:
        """Values and indices of the answer, from parts that make the whole row."""
        if self.buckets == 1:
            values, indices = _join(arrays, parts)
        else:
            part = self.merge(arrays, parts)
            order = arrays.argsort(part.indices)
            values, indices = arrays.take(part.values, order), arrays.take(part.indices, order)
        best = arrays.select(values, self.k, mode=self.mode, sorted=self.sorted)
        return arrays.take(values, best), arrays.take(indices, best)

    def _merge_buckets(self, arrays: Arrays, parts: Sequence[Part]) -> tuple[Any, Any]:
        """The best k_b of every bucket, of which there are as many: the parts together are not whole."""
        values, indices = _join(arrays, [self._by_bucket(arrays, part) for part in parts])
        lengths = None
        if any(part.stop - part.start < self.candidates for part in parts):
            # Padding has index n, so that it ends up behind each bucket's entries, where a row's length leaves it out.
            order = arrays.argsort(indices)
            values, indices = arrays.take(values, order), arrays.take(indices, order)
            lengths = arrays.count(indices < self.n)
        best = arrays.select(values, self.kept, mode=self.mode, lengths=lengths)
        shape = (*values.shape[:-2], self.candidates)
        return arrays.take(values, best).reshape(shape), arrays.take(indices, best).reshape(shape)

    def _by_bucket(self, arrays: Arrays, part: Part) -> Part:
        """`part` as tables of shape (..., b, k_b), padded where it has fewer entries."""
        b, kept = self.buckets, self.kept
        extent = part.stop - part.start
        if not self.whole(extent):
            values, indices = (array.reshape((*array.shape[:-1], b, kept)) for array in part[:2])
        else:
            missing = self.candidates - extent
            padded = (arrays.pad(array, missing, fill) for array, fill in zip(part[:2], (0, self.n), strict=True))
            rounds = (array.reshape((*array.shape[:-1], kept, b)).swapaxes(-1, -2) for array in padded)
            values, indices = (arrays.roll(array, part.start % b) for array in rounds)
        return part._replace(values=values, indices=indices)


def _join(arrays: Arrays, parts: Sequence[Part]) -> tuple[Any, Any]:
    """Values and indices of `parts`, one behind the other."""
    return arrays.join([part.values for part in parts]), arrays.join([part.indices for part in parts])
