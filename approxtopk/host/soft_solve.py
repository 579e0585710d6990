"""Safeguarded Newton for many rows at once: each finds its own root, and none minds what the others do."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .keys import Array, Mask
from .soft_rows import Map

__all__ = ["Piece", "Segments", "power", "root"]

PIECE = 1 << 15
"""Entries evaluated in one go. A row of more is summed piece by piece, others whole: whatever rows are beside it."""

STEPS = 200
"""More than bisection needs from any bracket."""

ULP = 2.0**-52


class Piece(NamedTuple):
    """A part of some segments: whole ones of rows `first` to `last`, or some of one row's."""

    first: int
    last: int
    start: int
    stop: int


class Segments:
    """Values of several rows, one row after the other.

    Parameters
    ----------
    values : ndarray of float, shape (entries,)
        What they are.
    counts : ndarray of int64, shape (rows,)
        How many each row has: at least one.
    piece : int
        How many are evaluated in one go.
    """

    def __init__(self, values: Array, counts: Array, piece: int = PIECE) -> None:
        self.values = values
        self.counts = counts
        self.piece = piece
        self.starts = np.cumsum(counts) - counts
        self.pieces = self._pieces()

    def _pieces(self) -> list[Piece]:
        total = self.values.shape[0]
        if not total:
            return []
        if int(self.counts.max()) <= self.piece:
            firsts = np.unique(np.searchsorted(self.starts, np.arange(0, total, self.piece)))
            edges = [*firsts[firsts < self.counts.size].tolist(), self.counts.size]
            cuts = [*self.starts[edges[:-1]].tolist(), total]
            return [Piece(*edges[i : i + 2], *cuts[i : i + 2]) for i in range(len(edges) - 1)]
        pieces = []
        for row, (begin, count) in enumerate(zip(self.starts.tolist(), self.counts.tolist(), strict=True)):
            for start in range(begin, begin + count, self.piece):
                pieces.append(Piece(row, row + 1, start, min(start + self.piece, begin + count)))
        return pieces

    def spread(self, values: Array, piece: Piece) -> Array:
        """Give each entry of a piece the value of its row."""
        if piece.last - piece.first == 1:
            return values[piece.first : piece.last]
        return np.repeat(values[piece.first : piece.last], self.counts[piece.first : piece.last])

    def totals(self, terms: Callable[[Piece], tuple[Array, ...]], run: Map) -> Array:
        """Sum terms over each row, in float64.

        Parameters
        ----------
        terms : callable
            Of a piece, arrays with an element for each of its entries.

        Returns
        -------
        ndarray, shape (terms, rows)
            A row's sums depend on its own entries alone, to the last bit.
        """

        def sums(piece: Piece) -> list[Array]:
            cuts = self.starts[piece.first : piece.last] - piece.start
            np.maximum(cuts, 0, out=cuts)
            # reduce() would add in another order than reduceat(), which takes each segment by itself.
            return [np.add.reduceat(term, cuts, dtype=np.float64) for term in terms(piece)]

        found = run(sums, self.pieces)
        result = np.zeros((len(found[0]), self.counts.size))
        for piece, parts in zip(self.pieces, found, strict=True):
            for total, part in zip(result, parts, strict=True):
                total[piece.first : piece.last] += part
        return result

    def only(self, rows: Mask) -> Segments:
        """The segments of some of the rows."""
        return Segments(self.values[np.repeat(rows, self.counts)], self.counts[rows], self.piece)


Evaluate = Callable[[Segments, Array, Array], tuple[Array, Array]]


def root(
    segments: Segments, evaluate: Evaluate, start: Array, low: Array, high: Array, noise: Array, tiny: float
) -> Array:
    """Find where each row's function, which falls, is zero.

    Parameters
    ----------
    segments : Segments
        The rows.
    evaluate : callable
        From some of the rows' segments, their numbers and where to look, to values and Newton's steps, of shape
        (rows left,).
    start, low, high : ndarray, shape (rows,)
        Where to begin, and a bracket: the values there are at least and at most zero.
    noise : ndarray, shape (rows,)
        A value within this of zero is as good as zero.
    tiny : float
        A step of this length, or of an ulp, is as good as none.
    """
    result = start.copy()
    rows = np.arange(start.size)
    at, opened = start, np.ones(start.size, bool)
    last = before = 2 * (high - low)
    for _ in range(STEPS):
        value, step = evaluate(segments, rows, at)
        low = np.where(value > 0, at, low)
        high = np.where(value < 0, at, high)
        new = at + step
        inside = (new > low) & (new < high)
        # Newton's step where it stays inside and gets somewhere: half the last but one's length, else bisection.
        close = np.abs(value) <= noise
        short = np.abs(step) <= np.maximum(ULP * np.abs(at), tiny)
        newton = inside & (short | ((2 * np.abs(step) <= before) & ~close))
        found = close | short
        if not newton.all():
            new = np.where(newton, new, np.where(found, at, low + 0.5 * (high - low)))
        length = np.abs(new - at)
        at = np.where(opened, new, at)  # what is found stays, however long it takes others
        opened &= ~found & (length > np.maximum(ULP * np.abs(new), tiny))
        left = int(np.count_nonzero(opened))
        if not left:
            break
        before, last = last, length
        if 2 * left <= rows.size:
            result[rows] = at
            segments = segments.only(opened)
            rows, at, low, high, before, last, noise = (a[opened] for a in (rows, at, low, high, before, last, noise))
            opened = np.ones(left, bool)
    result[rows] = at
    return result


def power(a: float) -> Callable[[Array], tuple[Array, Array]]:
    """Make the function from u in [0, 1] to u^a and u^(a - 1), the latter 0 at u = 0."""
    whole = round(a)
    if whole == 1 and abs(a - 1) < 1e-12:
        return lambda u: (u, np.ceil(u))
    if 2 <= whole <= 8 and abs(a - whole) < 1e-12 * a:  # 1 / (4/3 - 1) is not 3 in binary

        def multiplied(u: Array) -> tuple[Array, Array]:
            below = u
            for _ in range(whole - 2):
                below = below * u
            return below * u, below

        return multiplied

    def general(u: Array) -> tuple[Array, Array]:
        raised = np.sqrt(u) if a == 0.5 else np.power(u, a)
        return raised, raised / np.maximum(u, 1e-300)

    return general
