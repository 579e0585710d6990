"""Expected recall of a bucketed selection: pure mathematics, exact to rounding.

A bucket of m of the row's n entries holds X of the true top k, X hypergeometric, and returns min(X, k_b) of
them. What is computed is the expected loss E[(X - k_b)+], a sum of positive terms, so that 1 - recall keeps
its relative accuracy however close to 1 the recall is. Python's integers carry every difference that would
cancel (n k_b against k m); no array library is used.
"""

from __future__ import annotations

import math
from typing import Any

from .errors import InvalidArgument
from .request import integer

__all__ = ["expected_recall", "recall_of"]


def expected_recall(n: Any, k: Any, *, buckets: Any, k_per_bucket: Any) -> float:
    r"""Expected share of the true top k that a bucketed selection returns.

    With n entries in random order, b = `buckets` of m = ceil(n/b) or floor(n/b) entries each, and the best
    k_b = `k_per_bucket` kept of every bucket,

    .. math:: R = \frac{1}{k} \sum_{\text{buckets}} \mathrm{E}\,\min(X_m, k_b), \qquad
              P(X_m = x) = \binom{k}{x} \binom{n-k}{m-x} \Big/ \binom{n}{m}.

    This is the expectation itself, not a bound.

    Parameters
    ----------
    n : int
        Length of the row, at least 0.
    k : int
        Entries wanted, 0 <= k <= n.
    buckets : int
        Number of buckets b, 1 <= b <= max(n, 1); n mod b of them hold one entry more than the others.
    k_per_bucket : int
        Entries kept of every bucket, k_b >= 1. Unlike in a selection, b * k_b may be less than k: recall is
        then at most b * k_b / k.

    Returns
    -------
    float
        In [0, 1], accurate to about 1e-15; 1.0 for k = 0, and exactly 1.0 when k_b >= min(k, ceil(n/b)).

    Raises
    ------
    InvalidType, InvalidArgument
        Naming the argument, what came and what is allowed.

    References
    ----------
    Key et al. 2024, "Approximate Top-k for Increased Parallelism", arXiv:2412.04358;
    Samaga et al. 2025, "Faster Approx. Top-K: Harnessing the Full Power of Two Stages", arXiv:2506.04165;
    Chern et al. 2022, "TPU-KNN: K Nearest Neighbor Search at Peak FLOP/s", arXiv:2206.14286 (k_b = 1).

    Examples
    --------
    >>> import approxtopk as atk
    >>> round(atk.expected_recall(2**20, 64, buckets=640, k_per_bucket=1), 6)
    0.952361
    >>> atk.expected_recall(10, 3, buckets=5, k_per_bucket=2)  # no bucket has more than two entries
    1.0
    """
    n, k = integer("n", n), integer("k", k)
    b, kept = integer("buckets", buckets), integer("k_per_bucket", k_per_bucket)
    if n < 0:
        raise InvalidArgument(f"n = {n} is out of range; it must be at least 0")
    if not 0 <= k <= n:
        raise InvalidArgument(f"k = {k} is out of range; allowed are 0 to n = {n}")
    if not 1 <= b <= max(n, 1):
        raise InvalidArgument(f"buckets = {b} is out of range; allowed are 1 to {max(n, 1)} for n = {n}")
    if kept < 1:
        raise InvalidArgument(f"k_per_bucket = {kept} is out of range; it must be at least 1")
    return recall_of(n, k, b, kept)


def recall_of(n: int, k: int, b: int, kept: int) -> float:
    """`expected_recall` of arguments known to be valid.

    It does not decrease in `kept`, nor in `b`: with g(m) = E min(X_m, k_b), concave in m and 0 at 0, and g drawn
    linearly between whole m, the kept part is b g(n/b), and g(y) / y does not increase. The search for
    buckets relies on it.
    """
    if k == 0:
        return 1.0
    size, longer = divmod(n, b)
    lost = 0.0
    if longer:
        lost = longer * _loss(n, k, size + 1, kept)
    lost += (b - longer) * _loss(n, k, size, kept)
    return min(1.0, max(0.0, 1.0 - lost / k))


def _loss(n: int, k: int, m: int, kept: int) -> float:
    """E[(X - kept)+] for one bucket of m entries."""
    if kept * n >= k * m:
        return _excess(n, k, m, kept)
    # Below the mean the other tail is the small one: (X - a)+ = X - a + (a - X)+, and a - X = Y - (m - a)
    # for the bucket's Y = m - X entries that are not among the top k.
    return (k * m - kept * n) / n + _excess(n, n - k, m, m - kept)


# Terms a sum may have before the integral replaces it: a quarter of a millisecond, and wide enough (a
# standard deviation above 100) for the integral to have all its digits.
_LONGEST_SUM = 1000


def _excess(n: int, k: int, m: int, a: int) -> float:
    """E[(X - a)+] for X hypergeometric (n entries, k marked, m drawn) and a at or above its mean."""
    top = min(k, m)
    if a >= top:
        return 0.0
    above = (a * n - k * m) / n
    variance = m / n * k * ((n - k) / n) * ((n - m) / max(n - 1, 1))
    # Beyond this distance the probability has fallen by exp(-40): like a Gaussian, or like exp(-t / decay).
    decay = variance / max(above, math.sqrt(variance))
    reach = 9.0 * min(decay * 5.0, math.sqrt(variance))
    if reach > _LONGEST_SUM:
        return _excess_integral(n, k, m, a, decay, reach)
    rest = n - k - m + 1
    x = a + 1
    p = _probability(n, k, m, x)
    total, weight = 0.0, 1
    while p > 1e-290:  # nothing is left below; subnormal products would stop falling
        term = weight * p
        total += term
        ratio = (k - x) * (m - x) / ((x + 1) * (rest + x))
        p *= ratio
        x += 1
        weight += 1
        # From here on the terms fall faster than geometrically; at x = top the ratio is 0.
        fall = ratio * weight / (weight - 1)
        if fall < 1.0 and term * fall <= 2.0**-56 * total * (1.0 - fall):
            break
    return total


def _excess_integral(n: int, k: int, m: int, a: int, decay: float, reach: float) -> float:
    """`_excess` where the sum is long, so the distribution smooth, in constant time.

    Euler and Maclaurin for f(t) = t p(a + t), from t = 0:
    sum f = integral of f - p(a) / 12 + p''(a) / 240 - ...; the next term is below 1e-11 of the sum where this
    is used, below 1e-15 of it near the mean. The integral by the double-exponential rule
    t = decay exp(u - exp(-u)).
    """
    step = 1.0 / 8.0
    integral = 0.0
    for i in range(-24, 100):
        u = i * step
        fold = math.exp(-u)
        t = decay * math.exp(u - fold)
        if t > reach:
            break
        integral += t * _probability(n, k, m, a, t) * t * (1.0 + fold)
    before, here, after = (_probability(n, k, m, a + d) for d in (-1, 0, 1))
    return integral * step - here / 12.0 + (before - 2.0 * here + after) / 240.0


def _probability(n: int, k: int, m: int, x: int, t: float = 0.0) -> float:
    """P(X = x + t), continued smoothly to real t, for 0 < k < n, 0 < m < n and x within the support.

    Loader's saddle-point form for the 2 x 2 table of marked and drawn: every factorial by Stirling, whose
    leading parts join to sum(O log(O / E)) over the four cells, O the count and E its expectation. As every
    O - E is the same +-d, known exactly, each cell's share is non-negative and nothing cancels.
    """
    d = (n * x - k * m) / n + t
    rest = n - k - m
    cells = (x + t, rest + x + t, k - x - t, m - x - t)
    # Expectations from the margins, not as O - d: a small one would lose its digits.
    deviance = _deviance(cells[0], k * m / n, d) + _deviance(cells[1], (n - k) * (n - m) / n, d)
    deviance += _deviance(cells[2], k * (n - m) / n, -d) + _deviance(cells[3], (n - k) * m / n, -d)
    error = _stirling_error(k) + _stirling_error(n - k) + _stirling_error(m) + _stirling_error(n - m)
    error -= _stirling_error(n)
    scale = 1.0 / (2.0 * math.pi)
    for cell, margin in zip(cells, (k, n - k, m, (n - m) / n), strict=True):
        error -= _stirling_error(cell)
        scale *= margin / (cell or 1.0 / (2.0 * math.pi))  # 0! = 1 has no factor sqrt(2 pi N)
    return math.sqrt(scale) * math.exp(error - deviance)


def _deviance(observed: float, expected: float, d: float) -> float:
    """O log(O / E) - d, at least 0; d = O - E, given too because it is known more exactly."""
    if observed == 0.0:
        return expected
    if abs(d) > 0.1 * (observed + expected):
        return observed * math.log(observed / expected) - d
    # log(O / E) = 2 artanh(v), v = d / (O + E); the leading terms of the difference are taken by hand.
    v = d / (observed + expected)
    square = v * v
    total, power, i = d * v, 2.0 * observed * v, 1
    while True:
        power *= square
        i += 2
        larger = total + power / i
        if larger == total:
            return total
        total = larger


# log(N!) minus Stirling's formula, for the N whose series would not reach full accuracy.
_SMALL_ERRORS = [0.0] + [
    math.log(math.factorial(i) / (i / math.e) ** i / math.sqrt(2.0 * math.pi * i)) for i in range(1, 16)
]


def _stirling_error(count: float) -> float:
    """log(N!) - log(sqrt(2 pi N) (N / e)^N), for whole N or N >= 16; 0 for N = 0."""
    if count < 16:
        return _SMALL_ERRORS[int(count)]
    r = 1.0 / count
    s = r * r
    return r * (1 / 12 - s * (1 / 360 - s * (1 / 1260 - s * (1 / 1680 - s * (1 / 1188 - s * 691 / 360360)))))
