"""Rows in parts, by the mathematics that every framework's sharded form shares, against the oracle."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from approxtopk import InvalidArgument
from approxtopk.dtypes import DTYPES
from approxtopk.request import Request
from approxtopk.sharded import Arrays, Part, Split

from .backends import Backend
from .reference import reference_top_k

ARRAYS = Arrays()


def request(n: int, k: int, **options: object) -> Request:
    return Request.build("approx_top_k", (n,), (1,), "float32", k, **options)  # type: ignore[arg-type]


def part(split: Split, x: np.ndarray, start: int, stop: int) -> Part:
    rows = x[:, start:stop]
    if split.whole(stop - start):
        return Part(rows, np.broadcast_to(np.arange(start, stop), rows.shape), start, stop)
    values, indices = split.candidates_of(ARRAYS, rows, start)
    return Part(values, indices + start, start, stop)


def elements(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Many ties; and worst entries, which padding must not stand in for."""
    x = rng.integers(-2, 3, shape).astype(np.float32)
    for bits in (0xFF800000, 0x7F800000, 0x7FC00000, 0xFFC00001, 0x80000000):
        x.view(np.uint32)[rng.random(shape) < 0.1] = bits
    return x


def trial(rng: np.random.Generator, most: int) -> None:
    """A row cut anywhere, its parts merged in any tree."""
    n = int(rng.integers(1, most))
    b, kept = int(rng.integers(1, n + 1)), int(rng.integers(1, 4))
    k = int(rng.integers(0, min(n, b * kept) + 1))
    mode = str(rng.choice(["largest", "smallest"]))
    split = Split.of(request(n, k, buckets=b, k_per_bucket=kept, mode=mode))
    x = elements((2, n), rng)
    edges = [0, *np.sort(rng.integers(0, n + 1, rng.integers(0, 6))).tolist(), n]
    parts = [part(split, x, *edge) for edge in itertools.pairwise(edges)]
    for left in parts:
        assert left.values.shape == left.indices.shape == (2, min(left.stop - left.start, split.candidates))
    while len(parts) > 3:
        at = int(rng.integers(0, len(parts) - 1))
        parts[at : at + 2] = [split.merge(ARRAYS, parts[at : at + 2])]
    values, indices = split.finish(ARRAYS, parts)
    how = {"largest": mode == "largest", "buckets": b, "k_per_bucket": kept}
    want = reference_top_k(x.view(np.uint32), DTYPES["float32"], k, **how)  # type: ignore[arg-type]
    np.testing.assert_array_equal(indices, want[0], err_msg=f"{edges}, {split}")
    np.testing.assert_array_equal(values.view(np.uint32), want[1])


@pytest.mark.parametrize("seed", range(4))
def test_parts_make_the_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(150):
        trial(rng, 70)


def test_parts_on_every_machine(backend: Backend) -> None:
    if backend.name == "gpu":
        pytest.skip("NumPy's arrays are not on it")
    rng = np.random.default_rng(9)
    for _ in range(8):
        trial(rng, 60)


def test_worst_entries_are_not_mistaken_for_padding() -> None:
    """Short parts of -inf alone between long ones: each index once, the lowest first."""
    x = np.full((1, 50), -np.inf, np.float32)
    split = Split.of(request(50, 12, buckets=6, k_per_bucket=2))
    parts = [part(split, x, *edge) for edge in ((0, 5), (5, 25), (25, 25), (25, 32), (32, 33), (33, 50))]
    assert split.finish(ARRAYS, parts)[1].tolist() == [list(range(12))]
    worst = np.full((1, 50), np.nan, np.float32)
    split = Split.of(request(50, 12, buckets=6, k_per_bucket=2, mode="smallest"))
    parts = [part(split, worst, *edge) for edge in ((0, 5), (5, 25), (25, 32), (32, 50))]
    assert split.finish(ARRAYS, parts)[1].tolist() == [list(range(12))]


@pytest.mark.parametrize("options", [{}, {"buckets": 4, "k_per_bucket": 2}, {"buckets": 3, "k_per_bucket": 3}])
def test_indices_beyond_32_bits(options: dict[str, int]) -> None:
    """Parts that speak for 2**32 entries each, as if all but the first 40 were worse than any here."""
    x = np.random.default_rng(3).permutation(120).astype(np.float32)[None]
    split = Split.of(request(3 << 32, 5, **options))
    parts = []
    for start in (0, 1 << 32, 2 << 32):
        rows = x[:, (start >> 32) * 40 :][:, :40]
        values, indices = split.candidates_of(ARRAYS, rows, start)
        # A device may know no more of where its part begins than which bucket that is.
        np.testing.assert_array_equal(split.candidates_of(ARRAYS, rows, start % split.buckets)[1], indices)
        parts.append(Part(values, indices + start, start, start + (1 << 32)))
    small = reference_top_k(x.view(np.uint32), DTYPES["float32"], 5, **options)[0]  # type: ignore[arg-type]
    values, indices = split.finish(ARRAYS, [split.merge(ARRAYS, parts[:2]), parts[2]])
    np.testing.assert_array_equal(indices, (small // 40 << 32) + small % 40)
    np.testing.assert_array_equal(values, np.take_along_axis(x, small, -1))


def test_what_a_call_comes_to() -> None:
    """Exact selections, and buckets that turn nothing away, keep k in one bucket: k travel, not b k_b."""
    assert (Split.of(request(1000, 7)).buckets, Split.of(request(1000, 7)).candidates) == (1, 7)
    for b, kept in ((10, 7), (500, 2), (1000, 1)):
        assert Split.of(request(1000, 7, buckets=b, k_per_bucket=kept)).candidates == 7
    chosen = Split.of(request(40_000, 20, recall_target=0.9))
    assert chosen.buckets > 1 and chosen.candidates < 1000
    with pytest.raises(InvalidArgument, match="interleaved = False is not for rows in parts; allowed is True"):
        Split.of(request(1000, 7, interleaved=False))
