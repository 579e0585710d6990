"""The certificate: whether a bucketed answer is the exact one, on every machine."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import approxtopk as atk

from .backends import Backend, backend_named, tuned
from .inputs import KINDS, make
from .test_mappings import MAPPINGS
from .test_select import FORMS, check

BUCKETED = FORMS[1:]


@pytest.mark.parametrize("mode", ["largest", "smallest"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64", "int8", "uint32", "float8_e5m2"])
def test_every_kind_of_input(backend: Backend, dtype: str, mode: str) -> None:
    for kind, form in itertools.product(KINDS, BUCKETED):
        bits = make(kind, dtype, (6, 203))
        check(backend, bits, dtype, 14, mode=mode, certify=True, **form)


def test_both_verdicts_are_met(backend: Backend) -> None:
    bits = make("random", "float32", (40, 300))
    got = backend.select(bits, "float32", 8, buckets=32, k_per_bucket=1, certify=True)
    assert got.exact is not None and 5 < got.exact.sum() < 35


@pytest.mark.parametrize("name", MAPPINGS)
def test_every_mapping(name: str) -> None:
    with tuned(**MAPPINGS[name]), backend_named("emulated", seed=4) as backend:
        for number, form in enumerate(BUCKETED):
            for is_sorted in (True, False):
                bits = make("few" if number % 2 else "random", "float32", (7, 303), seed=number)
                check(backend, bits, "float32", 14, sorted=is_sorted, certify=True, **form)
        bits = make("random", "float32", (9, 640))
        for b, kept in ((32, 1), (16, 2), (2, 16), (1, 32)):
            check(backend, bits, "float32", 32, buckets=b, k_per_bucket=kept, sorted=False, certify=True)


@pytest.mark.parametrize("kept", [1, 2, 3, 4, 5, 15, 16, 17, 30])
def test_every_number_kept(backend: Backend, kept: int) -> None:
    for dtype in ("float32", "float16", "int64"):
        bits = make("any bits", dtype, (5, 650), seed=kept)
        check(backend, bits, dtype, 8 * kept // 2, buckets=8, k_per_bucket=kept, certify=True)
        check(backend, bits, dtype, 8 * kept, buckets=8, k_per_bucket=kept, certify=True, sorted=False)


def test_ties_are_decided_by_the_index(backend: Backend) -> None:
    # The answer has the right values, and is not exact: its equal entries are not the first.
    row = np.zeros((1, 8), np.float32)
    got = backend.select(row.view(np.uint32), "float32", 2, buckets=2, k_per_bucket=1, interleaved=False, certify=True)
    assert got.exact is not None and got.exact.tolist() == [False]
    got = backend.select(row.view(np.uint32), "float32", 2, buckets=2, k_per_bucket=1, certify=True)
    assert got.exact is not None and got.exact.tolist() == [True]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_any_axis_and_ragged_rows(backend: Backend, axis: int) -> None:
    shape = [3, 4, 5]
    shape[axis] = 90
    batch = (*shape[:axis], *shape[axis + 1 :])
    lengths = np.random.default_rng(axis).integers(0, 91, batch)
    for form in BUCKETED:
        bits = make("random", "float32", tuple(shape))
        check(backend, bits, "float32", 11, axis=axis, certify=True, **form)
        check(backend, bits, "float32", 11, axis=axis, certify=True, lengths=lengths, **form)


def test_exact_answers_are_certified(backend: Backend) -> None:
    bits = make("few", "float32", (3, 500))
    for form in ({"recall_target": 1.0}, {"buckets": 4, "k_per_bucket": 9}, {"buckets": 500, "k_per_bucket": 1}):
        got = backend.select(bits, "float32", 9, certify=True, **form)
        assert got.exact is not None and got.exact.all(), form
    got = backend.select(bits, "float32", 0, certify=True)
    assert got.exact is not None and got.exact.shape == (3,) and got.exact.all()
    got = backend.select(bits[:0], "float32", 9, certify=True)
    assert got.exact is not None and got.exact.shape == (0,)


def test_the_share_is_as_planned(backend: Backend) -> None:
    n, k, b, kept = 512, 16, 64, 1
    rows = 400
    bits = np.random.default_rng(0).permuted(np.tile(np.arange(n, dtype=np.uint32), (rows, 1)), axis=1)
    got = backend.select(bits, "uint32", k, buckets=b, k_per_bucket=kept, certify=True)
    share = atk.plan((rows, n), k, buckets=b, k_per_bucket=kept, certify=True).certified_share
    assert share is not None and got.exact is not None
    assert abs(got.exact.mean() - share) < 4 * np.sqrt(share * (1 - share) / rows)


def test_what_comes_back() -> None:
    x = np.arange(12.0).reshape(2, 6)
    result = atk.approx_top_k(x, 2, buckets=3, k_per_bucket=1, certify=True)
    assert isinstance(result, atk.CertifiedTopK)
    assert result.exact.tolist() == [True, True]
    assert isinstance(atk.approx_top_k(x, 2), atk.TopK)
    plan = atk.plan((2, 6), 2, buckets=3, k_per_bucket=1, certify=True)
    assert "certified exact" in str(plan)
    assert atk.plan((2, 6), 2).certified_share is None
