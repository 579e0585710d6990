"""Recall as measured on random permutations is what the plan expects, and the plan is a function of the row."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

import approxtopk as atk
from approxtopk.dtypes import DTYPES
from approxtopk.planning.devices import REFERENCES

from .backends import backend_named

SIZES = (100, 4096, 10_000, 65_536, 2**20)
TARGETS = (0.8, 0.95, 0.99, 1.0)


def cells() -> list[tuple[int, int, float]]:
    return [
        (n, k, target)
        for n, target in itertools.product(SIZES, TARGETS)
        for k in sorted({1, 10, 64, n // 100, n // 16, n // 4})
        if 1 <= k <= n // 4
    ]


def trials(n: int, k: int) -> int:
    """Rows per cell: more where a row is short and says little."""
    return max(2, min(200, 4_000_000 // n, 200_000 // k))


def test_measured_recall_reaches_the_plan() -> None:
    rng = np.random.default_rng(2026)
    deviations = []
    for n, k, target in cells():
        plan = atk.plan(n, k, recall_target=target, device="cpu")
        assert plan.expected_recall >= target
        rows = trials(n, k)
        # A permutation per row, so that the k largest are those of at least n - k.
        x = rng.permuted(np.broadcast_to(np.arange(n, dtype=np.float32), (rows, n)), axis=1)
        found = (atk.approx_top_k(x, k, recall_target=target, sorted=False).values >= n - k).mean(axis=1)
        if plan.expected_recall == 1.0:
            assert found.min() == 1.0
            continue
        # Of a row, the variance of the share found is at most that of k independent draws.
        error = math.sqrt(plan.expected_recall * (1 - plan.expected_recall) / (k * rows))
        deviation = (found.mean() - plan.expected_recall) / error
        assert deviation >= -5, (n, k, target, found.mean(), plan.expected_recall)
        deviations.append(deviation)
    assert sum(deviations) / math.sqrt(len(deviations)) >= -3


def test_named_buckets_have_the_recall_of_the_formula() -> None:
    rng = np.random.default_rng(11)
    for n, k, b, kept in ((1000, 50, 60, 1), (1000, 50, 25, 2), (5000, 200, 64, 5), (4097, 128, 128, 1)):
        x = rng.permuted(np.broadcast_to(np.arange(n, dtype=np.float32), (400, n)), axis=1)
        for interleaved in (True, False):
            got = atk.approx_top_k(x, k, buckets=b, k_per_bucket=kept, interleaved=interleaved).values
            expected = atk.expected_recall(n, k, buckets=b, k_per_bucket=kept)
            error = math.sqrt(expected * (1 - expected) / (k * 400))
            assert abs((got >= n - k).mean() - expected) <= 5 * error


def test_the_emulated_gpu_finds_what_the_cpu_finds() -> None:
    rng = np.random.default_rng(3)
    for n, k, target in ((10_000, 64, 0.8), (65_536, 200, 0.95), (65_536, 4096, 0.9)):
        x = rng.standard_normal((2, n)).astype(np.float32)
        here = atk.approx_top_k(x, k, recall_target=target)
        with backend_named("emulated"):
            there = atk.approx_top_k(x, k, recall_target=target)
        np.testing.assert_array_equal(here.indices, there.indices)


@pytest.mark.parametrize("n, k, target", [(5000, 64, 0.95), (2**20, 64, 0.9), (2**20, 2**16, 0.95), (2**17, 10, 1.0)])
def test_the_choice_depends_on_the_row_alone(n: int, k: int, target: float) -> None:
    def choice(shape: Any, **keywords: Any) -> tuple[Any, ...]:
        p = atk.plan(shape, k, recall_target=target, **keywords)
        return p.route, p.buckets, p.k_per_bucket, p.expected_recall

    want = choice(n, device="cpu")
    for shape, axis in (((1, n), -1), ((300, n), 1), ((n, 7), 0), ((3, n, 2), 1)):
        assert choice(shape, axis=axis, device="cpu") == want
        for device in REFERENCES:
            assert choice(shape, axis=axis, device=device) == want
    for dtype, mode, order in itertools.product(DTYPES, ("largest", "smallest"), (True, False)):
        assert choice(n, dtype=dtype, mode=mode, sorted=order, device="sm_90") == want


def test_a_target_of_one_is_exact() -> None:
    x = np.random.default_rng(5).standard_normal((3, 70_000)).astype(np.float32)
    exact, approximate = atk.top_k(x, 100), atk.approx_top_k(x, 100, recall_target=1)
    np.testing.assert_array_equal(exact.indices, approximate.indices)
    assert atk.plan(70_000, 100, recall_target=1, device="cpu").route == "exact"
