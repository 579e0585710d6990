"""expected_recall against enumeration, exact fractions, mpmath and the clock."""

from __future__ import annotations

import itertools
import math
import time
from fractions import Fraction

import mpmath
import numpy as np
import pytest

from approxtopk import recall as recall_module
from approxtopk.errors import InvalidArgument, InvalidType
from approxtopk.recall import expected_recall


def exact_recall(n: int, k: int, b: int, kept: int) -> Fraction:
    """The definition, in fractions."""
    if k == 0:
        return Fraction(1)
    size, longer = divmod(n, b)
    total = Fraction(0)
    for m, buckets in ((size + 1, longer), (size, b - longer)):
        if buckets:
            ways = sum(math.comb(k, x) * math.comb(n - k, m - x) * min(x, kept) for x in range(min(k, m) + 1))
            total += Fraction(buckets * ways, math.comb(n, m))
    return total / k


def mpmath_loss(n: int, k: int, b: int, kept: int) -> mpmath.mpf:
    """1 - recall to 40 digits: log-gamma for one probability, the ratio of neighbours for the others."""
    size, longer = divmod(n, b)
    with mpmath.workdps(60):
        lost = (b - longer) * _bucket_loss(n, k, size, kept)
        if longer:
            lost += longer * _bucket_loss(n, k, size + 1, kept)
        return lost / k


def _bucket_loss(n: int, k: int, m: int, kept: int) -> mpmath.mpf:
    """E(X - kept)+, by the tail on the side of `kept` that is away from the mean."""
    low, high, mean = max(0, k + m - n), min(k, m), mpmath.mpf(k) * m / n
    up = kept >= mean
    total = mpmath.mpf(0)
    x = kept + 1 if up else kept - 1
    if low <= x <= high:

        def log_choose(a: int, c: int) -> mpmath.mpf:
            return mpmath.loggamma(a + 1) - mpmath.loggamma(c + 1) - mpmath.loggamma(a - c + 1)

        p = mpmath.exp(log_choose(k, x) + log_choose(n - k, m - x) - log_choose(n, m))
        while low <= x <= high:
            term = abs(x - kept) * p
            total += term
            if term < total * mpmath.mpf(10) ** -40:
                break
            if up:
                p = p * ((k - x) * (m - x)) / ((x + 1) * (n - k - m + x + 1))
                x += 1
            else:
                p = p * (x * (n - k - m + x)) / ((k - x + 1) * (m - x + 1))
                x -= 1
    return total if up else mean - kept + total


@pytest.mark.parametrize("n", range(1, 9))
def test_enumeration_of_every_subset(n: int) -> None:
    """The formula is what the algorithm does: buckets i mod b, and contiguous runs, over all placements."""
    for k, b, kept in itertools.product(range(1, n + 1), range(1, n + 1), (1, 2, 3)):
        size, longer = divmod(n, b)
        runs = [bucket for bucket in range(b) for _ in range(size + (bucket < longer))]
        for bucket in ([i % b for i in range(n)], runs):
            found = places = 0
            for top in itertools.combinations(range(n), k):
                places += 1
                counts = [0] * b
                for i in top:
                    counts[bucket[i]] += 1
                found += sum(min(count, kept) for count in counts)
            assert expected_recall(n, k, buckets=b, k_per_bucket=kept) == pytest.approx(found / (places * k), abs=1e-15)


@pytest.mark.parametrize("n", [1, 2, 5, 9, 12, 37, 60])
def test_fractions(n: int) -> None:
    for k, b in itertools.product(range(n + 1), range(1, n + 1)):
        for kept in {1, 2, 3, max(1, k * n // (b * n)), k + 1}:
            exact = exact_recall(n, k, b, kept)
            got = expected_recall(n, k, buckets=b, k_per_bucket=kept)
            assert abs(Fraction(got) - exact) <= Fraction(1, 10**15), (n, k, b, kept)


SPREAD = [
    (2**20, 64, 640, 1),
    (2**20, 64, 128, 2),
    (2**20, 1024, 2048, 2),
    (2**20, 65536, 45056, 3),
    (2**20, 2**18, 1000, 262),
    (50257, 50, 500, 1),
    (2_650_000, 100, 333, 3),
    (10**9, 10**6, 7, 200_000),
    (10**9, 10**6, 7, 142_857),
    (10**9, 10**6, 7, 142_858),
    (10**9, 10**6, 7, 143_500),
    (10**9, 10**6, 7, 142_000),
    (10**9, 10**6, 10**6, 1),
    (10**9, 10**6, 10**6, 4),
    (10**9, 10**6, 1000, 1000),
    (10**9, 10**6, 1000, 1100),
    (10**9, 5 * 10**8, 1000, 500_500),
    (10**9, 5 * 10**8, 1000, 499_000),
    (10**9, 10**9 - 5, 10**5, 9_999),
    (10**9, 10**9 - 1, 3, 333_333_333),
    (10**9, 2, 691_505_839, 1),
    (10**9, 10**9 // 2, 10**9 // 2 + 1, 1),
    (10**9 + 7, 12_345, 54_321, 2),
    (10**12, 10**9, 10**9, 2),
    (10**12, 10**6, 10**3, 1100),
]


def random_cases(count: int) -> list[tuple[int, int, int, int]]:
    rng = np.random.default_rng(7)
    cases = []
    while len(cases) < count:
        n = int(10 ** rng.uniform(0.5, 9))
        k = int(rng.choice([1, min(2, n), rng.integers(1, n + 1), max(1, int(n ** rng.random()))]))
        b = max(1, int(n ** rng.random()))
        mean = k / b
        if mean < 1e6:  # beyond, the reference takes long
            cases.append((n, k, b, max(1, int(mean + max(0.5, math.sqrt(mean)) * rng.uniform(-3, 9)))))
    return cases


def test_mpmath() -> None:
    """Where 1e-12 is asked for, rounding alone is left."""
    for n, k, b, kept in SPREAD + random_cases(300):
        loss = mpmath_loss(n, k, b, kept)
        got = expected_recall(n, k, buckets=b, k_per_bucket=kept)
        with mpmath.workdps(60):
            assert abs(mpmath.mpf(got) - (1 - loss)) < 1e-15, (n, k, b, kept)


def test_loss_keeps_its_digits() -> None:
    """The loss itself, before 1 - loss rounds: eleven digits, wherever it is a normal number."""
    for n, k, b, kept in SPREAD + random_cases(300):
        m = n // b
        with mpmath.workdps(60):
            loss = _bucket_loss(n, k, m, kept)
            if loss > 1e-250:
                assert abs(recall_module._loss(n, k, m, kept) - loss) < 1e-11 * loss, (n, k, m, kept)


def test_long_sums_and_the_integral_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    for n, k, m in [(10**9, 10**6, 10**9 // 7), (10**10, 5 * 10**9, 10**7), (10**7, 10**5, 10**6)]:
        mean = k * m / n
        deviation = math.sqrt(mean * (1 - k / n) * (1 - m / n))
        for z in (0, 0.01, 0.5, 2, 4, 6, 8):
            a = math.ceil(mean + z * deviation)
            both = []
            for longest in (0, 10**9):
                monkeypatch.setattr(recall_module, "_LONGEST_SUM", longest)
                both.append(recall_module._excess(n, k, m, a))
            assert both[0] == pytest.approx(both[1], rel=1e-11), (n, k, m, z)


def test_edges() -> None:
    def recall(n: int, k: int, b: int, kept: int) -> float:
        return expected_recall(n, k, buckets=b, k_per_bucket=kept)

    assert recall(0, 0, 1, 1) == 1.0
    assert recall(10, 0, 3, 1) == 1.0
    assert recall(1, 1, 1, 1) == 1.0
    assert recall(10, 10, 10, 1) == 1.0
    assert recall(10, 10, 1, 4) == 0.4  # fewer kept than k: the formula stands, the selection would refuse
    assert recall(10**9, 10**9, 3, 333_333_334) == 1.0
    assert recall(10**9, 1, 1, 1) == 1.0
    assert recall(10**9, 77, 5, 77) == 1.0
    assert recall(10**9, 77, 5, 2**62) == 1.0
    assert 0.0 < recall(10**18, 5 * 10**17, 2, 25 * 10**16) < 1.0
    assert recall(10**15, 10**15 - 1, 1, 1) == pytest.approx(1e-15, abs=1e-15)
    scalars = expected_recall(np.int64(64), np.int32(8), buckets=np.uint8(16), k_per_bucket=np.int16(1))
    assert scalars == recall(64, 8, 16, 1)


def test_monotone_in_buckets_and_kept() -> None:
    """The planner's bisection rests on it."""
    for n, k in [(1000, 37), (997, 500), (64, 64)]:
        table = np.array(
            [[expected_recall(n, k, buckets=b, k_per_bucket=kept) for b in range(1, n + 1)] for kept in range(1, 8)]
        )
        assert (np.diff(table, axis=0) >= -1e-15).all()
        assert (np.diff(table, axis=1) >= -1e-15).all()


@pytest.mark.parametrize(
    "n, k, b, kept", [(50_257, 50, 500, 1), (2**16, 1024, 1000, 2), (10_007, 2_000, 96, 24), (4_096, 4_096, 100, 30)]
)
def test_simulation(n: int, k: int, b: int, kept: int) -> None:
    rng = np.random.default_rng(n)
    shares = []
    for _ in range(300):
        counts = np.bincount(rng.permutation(n)[:k] % b, minlength=b)
        shares.append(np.minimum(counts, kept).sum() / k)
    error = np.std(shares, ddof=1) / math.sqrt(len(shares))
    expected = expected_recall(n, k, buckets=b, k_per_bucket=kept)
    assert abs(np.mean(shares) - expected) <= 5 * error + 1e-12


def test_fast() -> None:
    """Milliseconds at n = 10^9, k = 10^6 (well under one where this was written)."""
    for b, kept in [(7, 200_000), (7, 142_858), (10**6, 1), (10**6, 3), (1000, 1000), (10**9, 1)]:
        best = math.inf
        for _ in range(3):
            start = time.perf_counter()
            expected_recall(10**9, 10**6, buckets=b, k_per_bucket=kept)
            best = min(best, time.perf_counter() - start)
        assert best < 0.05, (b, kept, best)


@pytest.mark.parametrize("name", ["n", "k", "buckets", "k_per_bucket"])
@pytest.mark.parametrize("value", [True, np.True_, 1.0, "4", None, [4], np.array(4), np.array([4]), 4j])
def test_wrong_types(name: str, value: object) -> None:
    arguments: dict[str, object] = {"n": 100, "k": 8, "buckets": 16, "k_per_bucket": 1, name: value}
    with pytest.raises(InvalidType, match=f"^{name} must be an integer"):
        expected_recall(**arguments)


@pytest.mark.parametrize(
    "n, k, b, kept, message",
    [
        (-1, 0, 1, 1, r"n = -1 .*at least 0"),
        (10, -1, 1, 1, r"k = -1 .*0 to n = 10"),
        (10, 11, 1, 1, r"k = 11 .*0 to n = 10"),
        (10, 3, 0, 1, r"buckets = 0 .*1 to 10"),
        (10, 3, 11, 1, r"buckets = 11 .*1 to 10"),
        (0, 0, 2, 1, r"buckets = 2 .*1 to 1 for n = 0"),
        (10, 3, 5, 0, r"k_per_bucket = 0 .*at least 1"),
        (10, 3, 5, -2, r"k_per_bucket = -2 .*at least 1"),
    ],
)
def test_wrong_values(n: int, k: int, b: int, kept: int, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        expected_recall(n, k, buckets=b, k_per_bucket=kept)
