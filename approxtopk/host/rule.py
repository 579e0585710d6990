"""What is to be picked from a row of n, and the bucket rule on a list of candidates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .keys import Array
from .rank import costs_of

__all__ = ["Rule", "crowded_out"]


@dataclass(frozen=True)
class Rule:
    """One row's selection: the best k, or the best k of what the buckets keep.

    Attributes
    ----------
    n, k : int
        Length of a row, entries to pick.
    buckets, kept : int
        b and k_b; ``buckets == 0`` means exact.
    interleaved : bool
        Whether element i is in bucket i mod b, or in contiguous runs.
    """

    n: int
    k: int
    buckets: int = 0
    kept: int = 0
    interleaved: bool = True

    @staticmethod
    def of(n: int, k: int, buckets: int | None, kept: int | None, interleaved: bool) -> Rule:
        """Make the rule a call asks for; buckets that can turn no answer away are no buckets."""
        if buckets is None or kept is None or kept >= k or kept >= -(-n // buckets):
            return Rule(n, k)
        return Rule(n, k, buckets, kept, interleaved)

    def bucket(self, index: Array) -> Array:
        """Buckets of the elements at `index`."""
        if self.interleaved:
            return index % self.buckets
        length, longer = divmod(self.n, self.buckets)
        edge = longer * (length + 1)
        return np.where(index < edge, index // (length + 1), longer + (index - edge) // length)

    def start(self, bucket: Array) -> Array:
        """First element of contiguous buckets; ``start(buckets) == n``."""
        length, longer = divmod(self.n, self.buckets)
        return bucket * length + np.minimum(bucket, longer)

    @property
    def candidates(self) -> int:
        """How many entries the buckets keep."""
        length, longer = divmod(self.n, self.buckets)
        return longer * min(self.kept, length + 1) + (self.buckets - longer) * min(self.kept, length)

    @cached_property
    def passing(self) -> float:
        """How many of a row's best elements hold k that the buckets keep, about, if they lie in random order."""
        if not self.buckets:
            return self.k
        low, high = 0.0, float(self.n)
        while high - low > 0.5:
            middle = (low + high) / 2
            if self._kept_of(middle) < self.k:
                low = middle
            else:
                high = middle
        return high

    def _kept_of(self, count: float) -> float:
        """How many of `count` elements in random order the buckets keep: b E min(X, k_b), X Poisson."""
        mean = count / self.buckets
        term = at_most = math.exp(-mean)  # P(X <= j), from j = 0
        total = 1 - at_most
        for j in range(1, min(self.kept, int(mean + 10 * math.sqrt(mean) + 20))):
            term *= mean / j
            at_most += term
            total += 1 - at_most
        return self.buckets * total


def crowded_out(bucket: Array, pile: Array, kept: int, buckets: int) -> Array | None:
    """Find the candidates that their bucket does not keep.

    Parameters
    ----------
    bucket : ndarray, shape (m,)
        Of each candidate.
    pile : ndarray, shape (planes, m)
        The candidates. Among those of one bucket and cost, the first come first.
    kept : int
        How many a bucket keeps.
    buckets : int
        All buckets are below this.

    Returns
    -------
    ndarray of int or None
        Positions in `bucket`; None if all are kept.
    """
    # Buckets with no more than `kept` candidates, usually nearly all, need no ranking. Where buckets are many
    # beside the candidates, several share a counter: then some are ranked in vain.
    counter = bucket if buckets <= 8 * bucket.size + 4096 else bucket % (8 * bucket.size + 4096)
    crowded = np.flatnonzero((np.bincount(counter) > kept)[counter])
    if not crowded.size:
        return None
    group = bucket[crowded]
    cost = costs_of(pile[:, crowded])
    if len(pile) == 2 or buckets > 1 << 31:
        order = np.lexsort((cost, group))  # stable
    else:
        order = np.argsort(group << 32 | cost.view(np.int64), kind="stable")
    group = group[order]
    first = np.flatnonzero(np.concatenate(([True], group[1:] != group[:-1])))
    rank = np.arange(group.size) - np.repeat(first, np.diff(np.append(first, group.size)))
    out: Array = crowded[order[rank >= kept]]
    return out if out.size else None
