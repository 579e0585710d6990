"""The choice of route and (b, k_b): reaches the target, is cheap, pure and quick."""

from __future__ import annotations

import inspect
import itertools
import math
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest

from approxtopk.planning import choose as planning
from approxtopk.planning.choose import EXACT, Choice, choose, exact_cost, modelled_cost
from approxtopk.recall import expected_recall

TARGETS = (0.01, 0.5, 0.8, 0.9, 0.95, 0.99, 0.999, 1 - 1e-6, 1 - 1e-14)


def sizes() -> Iterator[tuple[int, int]]:
    """Pairs n, k: n to 2^30, k from 1 to n / 2, round and not."""
    for n in (1, 2, 7, 100, 512, 2048, 2049, 5000, 50_257, 65_536, 2**17, 2**20, 2_650_000, 2**24, 2**30):
        for k in sorted({0, 1, 2, 8, 50, 64, 1000, 4096, math.isqrt(n), n // 100, n // 16, n // 4, n // 2}):
            if k <= n:
                yield n, k


def recall(n: int, k: int, choice: Choice) -> float:
    return expected_recall(n, k, buckets=choice.buckets, k_per_bucket=choice.k_per_bucket)


def test_reaches_the_target() -> None:
    for n, k in sizes():
        for target in TARGETS:
            choice = choose(n, k, target)
            if choice.route == "exact":
                assert choice == EXACT
                continue
            b, kept = choice.buckets, choice.k_per_bucket
            assert b is not None and kept is not None
            assert choice.expected_recall == recall(n, k, choice) >= target
            assert b % 128 == 0 and k <= b * kept <= n / 4
            assert modelled_cost(n, b, kept) < exact_cost(n, k)


def test_target_one_is_exact() -> None:
    for n, k in sizes():
        assert choose(n, k, 1.0) == EXACT
    assert choose(2**20, 64, 1.0, buckets=512) == EXACT
    assert choose(2**20, 64, 1.0, k_per_bucket=2) == EXACT


def test_both_named_are_used_as_they_are() -> None:
    for target in (0.01, 0.95, 1.0):
        for n, k, b, kept in [(100, 10, 5, 2), (2**20, 64, 64, 1), (10, 0, 10, 7), (0, 0, 1, 1), (64, 8, 1, 10**9)]:
            choice = choose(n, k, target, b, kept)
            assert choice == ("bucketed", b, kept, expected_recall(n, k, buckets=b, k_per_bucket=kept))


def test_small_rows_and_large_shares_are_exact() -> None:
    for n in (0, 1, 64, 512, 2048):
        for k in {0, min(1, n), n // 8, n}:
            assert choose(n, k, 0.5) == EXACT
    assert choose(2**20, 0, 0.95) == EXACT
    assert choose(2**20, 2**19, 0.5) == EXACT
    assert choose(2**20, 2**20, 0.01) == EXACT


def test_only_buckets_named() -> None:
    """The least k_b: one less either misses the target or keeps fewer than k."""
    for n, k in sizes():
        for b in {1, 3, 128, 1000, n // 3, n}:
            if not 1 <= b <= n:
                continue
            for target in (0.5, 0.95, 0.999, 1 - 1e-14):
                choice = choose(n, k, target, buckets=b)
                kept = choice.k_per_bucket
                assert choice.route == "bucketed" and choice.buckets == b and kept is not None
                assert b * kept >= k and choice.expected_recall == recall(n, k, choice) >= target
                assert kept <= max(1, min(k, -(-n // b)))
                if kept > 1 and b * (kept - 1) >= k:
                    less = expected_recall(n, k, buckets=b, k_per_bucket=kept - 1)
                    assert less < 1.0 and less < target + 1e-12


def test_only_k_per_bucket_named() -> None:
    """The least b of the grid, or n."""
    grid = [planning._grid(i) for i in range(200)]
    for n, k in sizes():
        if n == 0:
            continue
        for kept in (1, 2, 5, 33, 10**4, 10**12):
            for target in (0.5, 0.95, 0.999):
                choice = choose(n, k, target, k_per_bucket=kept)
                b = choice.buckets
                assert choice.route == "bucketed" and choice.k_per_bucket == kept and b is not None
                assert b * kept >= k and choice.expected_recall == recall(n, k, choice) >= target
                assert b in grid or b == n
                before = max((g for g in grid if g < b), default=0)
                if before and before * kept >= k:
                    less = expected_recall(n, k, buckets=before, k_per_bucket=kept)
                    assert less < 1.0 and less < target + 1e-12
    assert choose(0, 0, 0.5, k_per_bucket=3) == ("bucketed", 1, 3, 1.0)


def test_cheapest_of_all_on_the_grid() -> None:
    """The pruned search finds what a plain one finds."""
    for n, k in [(4096, 64), (50_257, 50), (2**17, 2048), (2**20, 64), (2**20, 1024), (2**20, 65_536), (2**24, 4096)]:
        for target in (0.8, 0.95, 0.99):
            best, least = EXACT, exact_cost(n, k)
            for kept in planning.KEPT:
                for b in map(planning._grid, range(7, 200)):
                    if b * kept > n / 4:
                        break
                    got = expected_recall(n, k, buckets=b, k_per_bucket=kept)
                    if b * kept >= k and got >= target:
                        if modelled_cost(n, b, kept) < least:
                            best, least = Choice("bucketed", b, kept, got), modelled_cost(n, b, kept)
                        break
            assert choose(n, k, target) == best


def test_known_shapes() -> None:
    """Choices that people will meet; a change of the cost model shows here."""
    assert choose(2**20, 64, 0.95)[:3] == ("bucketed", 640, 1)
    assert choose(50_257, 50, 0.95)[:3] == ("bucketed", 128, 2)
    assert choose(2**17, 64, 0.95)[:3] == ("bucketed", 128, 2)
    assert choose(2**20, 1024, 0.95)[:3] == ("bucketed", 1664, 2)
    assert choose(2**20, 65_536, 0.95)[:3] == ("bucketed", 28_672, 4)
    assert choose(2**24, 64, 0.95)[:3] == ("bucketed", 640, 1)
    # Where the exact answer is as cheap, it is given.
    assert choose(4096, 64, 0.95) == choose(65_536, 1024, 0.95) == choose(2**17, 2048, 0.95) == EXACT


def test_a_stricter_target_never_costs_less() -> None:
    for n, k in sizes():
        choices = [choose(n, k, target) for target in TARGETS]
        costs = [
            exact_cost(n, k) if c.buckets is None else modelled_cost(n, c.buckets, c.k_per_bucket) for c in choices
        ]
        assert costs == sorted(costs)
        kept = [choose(n, k, target, buckets=max(1, n // 50)).k_per_bucket for target in TARGETS]
        assert kept == sorted(kept)
        buckets = [choose(n, k, target, k_per_bucket=3).buckets for target in TARGETS]
        assert buckets == sorted(buckets)


def test_coinciding_recall_is_not_left_to_the_last_digit() -> None:
    """Recall for n = 4, k = 2, b = 2 is 5/6 in exact arithmetic; a target of 5/6 takes the next that is above."""
    assert expected_recall(4, 2, buckets=2, k_per_bucket=1) == pytest.approx(5 / 6)
    assert choose(4, 2, 5 / 6, k_per_bucket=1).buckets == 4
    assert choose(4, 2, 5 / 6 - 1e-9, k_per_bucket=1).buckets == 2


def test_grid() -> None:
    grid = [planning._grid(i) for i in range(300)]
    assert grid[:16] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 384, 512, 640, 768, 896, 1024, 1152]
    assert grid == sorted(set(grid))
    assert all(b % 128 == 0 for b in grid[7:])
    assert all(after <= before * 9 / 8 for before, after in itertools.pairwise(grid[14:]))
    for i, b in enumerate(grid):
        assert planning._position(b) == i
        if i:
            assert planning._position(grid[i - 1] + 1) == i


def test_insert_share_is_the_sum_it_stands_for() -> None:
    for kept in (1, 2, 4, 8):
        for steps in (1, 8, 64, 256):
            q = np.minimum(1.0, kept / np.arange(1, steps + 1))
            assert planning.insert_share(kept, steps) == pytest.approx(np.mean(1 - (1 - q) ** 32), rel=0.05)


def test_pure() -> None:
    """Nothing but n, k, the target and the names enters; order of calls, cache and process do not matter."""
    assert list(inspect.signature(choose).parameters) == ["n", "k", "recall_target", "buckets", "k_per_bucket"]
    cases = [(n, k, target) for n, k in sizes() for target in (0.8, 0.95, 0.99)]
    first = [choose(*case) for case in cases]
    choose.cache_clear()
    planning.insert_share.cache_clear()
    assert [choose(*case) for case in reversed(cases)][::-1] == first
    source = f"from approxtopk.planning.choose import choose; print([tuple(choose(*c)) for c in {cases!r}])"
    other = subprocess.run([sys.executable, "-O", "-c", source], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str([tuple(c) for c in first])


def test_fast() -> None:
    """Planning is on the path of a first call: about 1 ms or less uncached, here with room for a busy machine."""
    for n in (4096, 2**20, 10**9 + 7, 10**10):
        for k in (1, 64, n // 1000, n // 16, n // 3):
            for target in (0.8, 0.95, 0.999):
                best = math.inf
                for _ in range(3):
                    choose.cache_clear()
                    start = time.perf_counter()
                    choose(n, k, target)
                    best = min(best, time.perf_counter() - start)
                assert best < 0.03, (n, k, target, best)


@pytest.mark.parametrize("n, k", [(50_257, 50), (2**17, 8), (2**17, 64), (2**18, 256), (2**20, 1024)])
@pytest.mark.parametrize("target", [0.8, 0.95])
def test_measured_recall(n: int, k: int, target: float) -> None:
    """What the chosen pair finds on random permutations is what it promised, within five standard errors."""
    choice = choose(n, k, target)
    assert choice.buckets is not None and choice.k_per_bucket is not None
    rng = np.random.default_rng(n + k)
    top = np.stack([rng.permutation(n)[:k] for _ in range(150)])
    rows = np.arange(len(top))[:, None] * choice.buckets
    counts = np.bincount((top % choice.buckets + rows).ravel(), minlength=len(top) * choice.buckets)
    shares = np.minimum(counts, choice.k_per_bucket).reshape(len(top), -1).sum(1) / k
    error = shares.std(ddof=1) / math.sqrt(len(shares))
    assert abs(shares.mean() - choice.expected_recall) <= 5 * error + 1e-12
    assert shares.mean() >= target - 5 * error
