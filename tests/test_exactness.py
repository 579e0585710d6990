"""exact_share against integers, long decimals, simulation and the clock."""

from __future__ import annotations

import decimal
import itertools
import math
import time
from collections import deque
from decimal import Decimal
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest

from approxtopk.exactness import exact_share
from approxtopk.recall import recall_of


def product(a: list[Any], b: list[Any]) -> list[Any]:
    result = [0 * a[0]] * (len(a) + len(b) - 1)
    for (i, x), (j, y) in itertools.product(enumerate(a), enumerate(b)):
        result[i + j] += x * y
    return result


def ways_by_products(n: int, k: int, b: int, kept: int) -> int:
    """Placements of the k best with no bucket above `kept`: one bucket's polynomial after the other."""
    size, longer = divmod(n, b)
    ways = [1]
    for m in [size + 1] * longer + [size] * (b - longer):
        ways = product(ways, [math.comb(m, j) for j in range(min(kept, m) + 1)])[: k + 1]
    return ways[k] if k < len(ways) else 0


def ways_by_recurrence(n: int, k: int, b: int, kept: int, one: Any = 1) -> Any:
    """The same for many buckets: P = A^s B^t is the power series for which P' A B = P (s A' B + t A B').

    In whole numbers; from `one` = Decimal(1), rounded, with cancellation, for k beyond them.
    """
    size, longer = divmod(n, b)
    below, above = ([one * math.comb(m, j) for j in range(min(kept, m) + 1)] for m in (size, size + 1))
    if not longer:
        above = [one]
    slopes = [[j * a[j] for j in range(1, len(a))] or [0 * one] for a in (below, above)]
    divisor = product(below, above)
    right = [0 * one] * (len(divisor) - 1)
    for count, term in (b - longer, product(slopes[0], above)), (longer, product(below, slopes[1])):
        for i, x in enumerate(term[: len(right)]):
            right[i] += count * x
    pairs = [(right[j - 1] + j * divisor[j], divisor[j]) for j in range(1, len(divisor))]
    last = deque([one], maxlen=len(pairs))
    for i in range(1, k + 1):
        total = sum((x - i * y) * c for (x, y), c in zip(pairs, last, strict=False))
        last.appendleft(total // i if isinstance(one, int) else total / i)
    return last[0]


def share_in_decimals(n: int, k: int, b: int, kept: int, digits: int) -> mpmath.mpf:
    context = decimal.Context(prec=digits, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)
    with decimal.localcontext(context), mpmath.workdps(40):
        ways = ways_by_recurrence(n, k, b, kept, Decimal(1))
        exponent = ways.adjusted()
        log_ways = mpmath.log(mpmath.mpf(str(ways.scaleb(-exponent)))) + exponent * mpmath.log(10)
        log_all = mpmath.loggamma(n + 1) - mpmath.loggamma(k + 1) - mpmath.loggamma(n - k + 1)
        return mpmath.exp(log_ways - log_all)


def close(got: float, exact: Any) -> bool:
    return bool(abs(got - exact) <= min(2e-13, 1e-12 * exact))


@pytest.mark.parametrize("n", [*range(8), 11, 16])
def test_every_small_case(n: int) -> None:
    for k, b in itertools.product(range(n + 1), range(1, max(n, 1) + 1)):
        for kept in range(1, k + 2):
            exact = Fraction(ways_by_products(n, k, b, kept), math.comb(n, k))
            got = exact_share(n, k, b, kept)
            assert close(got, float(exact)), (n, k, b, kept)
            if exact in (0, 1):
                assert got == exact


def test_references_agree() -> None:
    for case in [(40, 17, 9, 3), (41, 8, 8, 2), (45, 20, 9, 3)]:
        exact = ways_by_products(*case)
        assert ways_by_recurrence(*case) == exact > 0
        assert share_in_decimals(*case, 60) == pytest.approx(exact / math.comb(*case[:2]), rel=1e-15)


def random_cases(count: int) -> list[tuple[int, int, int, int]]:
    rng = np.random.default_rng(5)
    cases: list[tuple[int, int, int, int]] = []
    while len(cases) < count:
        n, k = int(10 ** rng.uniform(1, 4)), int(10 ** rng.uniform(0.3, 2.5))
        b = int(10 ** rng.uniform(0.3, 2.7))
        if k < n and b < n:
            mean = k / b
            kept = max(1, int(mean + rng.uniform(-0.5, 5) * max(0.7, math.sqrt(mean))))
            if b * kept >= k and kept < min(k, -(-n // b)):
                cases.append((n, k, b, kept))
    return cases


def test_whole_numbers() -> None:
    """Both transforms, both forms of the other factors, every bucket full or nearly, nearly all entries best."""
    special = [(4000, 200, 40, 5), (4000, 200, 50, 4), (4000, 199, 50, 4), (4010, 199, 50, 4), (900, 890, 7, 128)]
    special += [(900, 300, 299, 2), (900, 450, 449, 1), (901, 450, 451, 1), (10_000, 700, 3, 240)]
    special += [(10_000, 300, 399, 4), (10_000, 300, 400, 4), (10_000, 300, 5_000, 1), (10_000, 300, 9_999, 1)]
    for case in special + random_cases(150):
        exact = Fraction(ways_by_recurrence(*case), math.comb(*case[:2]))
        got = exact_share(*case)
        if exact > 1e-260:
            assert close(got, float(exact)), case
        else:
            assert got <= 2e-260


@pytest.mark.parametrize(
    "case",
    [
        (2**20, 64, 640, 1),
        (2**20, 1024, 2048, 4),
        (10**6 + 3, 1024, 2048, 4),
        (2**40, 2**16, 2**15, 6),  # 1e-67
        (2**40, 2**16, 2**15, 9),
        (2**40, 2**16, 2**15, 14),
        (10**12, 2**13, 2**14 - 1, 4),
        (10**12, 1000, 5 * 10**11, 1),
        (10**12, 10**5, 10**5 - 3, 7),
    ],
)
def test_decimals(case: tuple[int, int, int, int]) -> None:
    assert close(exact_share(*case), share_in_decimals(*case, 60))


@pytest.mark.parametrize("kept", [50_000, 50_001, 50_020, 50_200, 50_600, 51_500])
def test_two_buckets(kept: int) -> None:
    """One bucket's number is hypergeometric; many kept, and a characteristic function that falls slowly."""
    n, k = 10**9 + 1, 10**5
    m, x = n // 2, k - kept
    with mpmath.workdps(40):

        def log_choose(a: int, c: int) -> mpmath.mpf:
            return mpmath.loggamma(a + 1) - mpmath.loggamma(c + 1) - mpmath.loggamma(a - c + 1)

        p = mpmath.exp(log_choose(m, x) + log_choose(n - m, k - x) - log_choose(n, k))
        total = mpmath.mpf(0)
        for j in range(x, kept + 1):
            total += p
            p = p * ((m - j) * (k - j)) / ((j + 1) * (n - m - k + j + 1))
        assert close(exact_share(n, k, 2, kept), total)


def test_limits() -> None:
    assert exact_share(0, 0, 1, 1) == 1.0
    assert exact_share(10**9, 0, 7, 1) == 1.0
    assert exact_share(10**12, 77, 5, 77) == 1.0
    assert exact_share(10**12, 10**6, 10**12, 1) == 1.0  # buckets of one entry
    assert exact_share(10**9, 10**9, 3, 333_333_334) == 1.0
    assert exact_share(10**9, 10**9, 3, 333_333_333) == 0.0
    assert exact_share(10**9, 77, 5, 2**70) == 1.0
    assert exact_share(10**9, 77, 5, 15) == 0.0  # 75 are kept
    assert exact_share(10**9, 2, 1, 1) == 0.0
    assert exact_share(10**12, 2, 10**6, 1) == pytest.approx(1 - (10**6 - 1) / (10**12 - 1), abs=1e-15)
    assert exact_share(10**12, 10**6, 10**6 + 1, 1) == 0.0  # below the smallest double
    assert exact_share(2_000_000, 10**6 + 1, 10**6, 2) == 1.0
    assert type(exact_share(1000, 50, 60, 2)) is float


def test_monotone_in_kept_and_below_recall() -> None:
    for n, k, b in [(10**6, 1000, 700), (997, 500, 32), (10**9, 10**5, 130), (10**9, 10**5, 3), (64, 60, 10)]:
        start = k // b
        root = math.isqrt(start + 1)
        steps = range(max(1, start - 1), start + 20 + 8 * root, 1 + root // 20)
        shares = [exact_share(n, k, b, kept) for kept in steps]
        assert (np.diff(shares) >= -4e-13).all()
        assert shares[-1] > 0.999
        assert all(share <= recall_of(n, k, b, kept) for share, kept in zip(shares, steps, strict=True))


@pytest.mark.parametrize("n, k, b, kept", [(50_257, 50, 500, 1), (2**16, 1024, 1000, 5), (10_007, 2_000, 96, 33)])
def test_simulation(n: int, k: int, b: int, kept: int) -> None:
    rng = np.random.default_rng(n)
    runs, found = 2000, 0
    for _ in range(runs):
        found += bool((np.bincount(rng.choice(n, k, replace=False) % b, minlength=b) <= kept).all())
    expected = exact_share(n, k, b, kept)
    assert 0.02 < expected < 0.98
    assert abs(found / runs - expected) <= 4 * math.sqrt(expected * (1 - expected) / runs)


@pytest.mark.parametrize(
    "case",
    [
        (10**12, 2**16, 2**15, 9),
        (10**12, 10**6, 10**6, 9),
        (10**12 + 7, 10**6, 10**6 - 3, 2),
        (10**12, 10**6, 5 * 10**11, 1),
        (10**12 + 7, 10**6, 399, 2_700),
        (10**12 + 7, 10**6, 401, 2_700),
        (10**12 + 7, 10**6, 2, 500_100),
        (2**20, 2**18, 1000, 300),
    ],
)
def test_fast(case: tuple[int, int, int, int]) -> None:
    """At most some 4 ms where this was written, 0.2 ms at the usual sizes."""
    best = math.inf
    for _ in range(5):
        start = time.perf_counter()
        exact_share.__wrapped__(*case)
        best = min(best, time.perf_counter() - start)
    assert best < 0.05
