"""Every mapping to the machine gives the same answer: forced on small inputs by other tuning numbers."""

from __future__ import annotations

import numpy as np
import pytest

import approxtopk as atk
from approxtopk.plan import Launch

from .backends import backend_named, tuned
from .inputs import KINDS, make
from .test_select import FORMS, check

MAPPINGS = {
    "rows split over blocks": {"split_entries": 64, "row_threads": 32},
    "buckets split over threads and blocks": {"least_steps": 2, "threads": 32},
    "buckets split over threads": {"least_steps": 2, "resident_threads": 8},
    "results ordered by merging": {"tile": 2},
    "results split and merged": {"tile": 4, "split_entries": 64, "row_threads": 32},
    "no queues in registers": {"most_kept": 0},
    "no queues in registers, buckets split": {"most_kept": 0, "split_entries": 16, "row_threads": 32},
    "one lane a thread": {"kept_entries": 1},
    "64-bit positions": {"narrow_entries": 0},
    "64-bit positions, all split": {
        "narrow_entries": 0,
        "split_entries": 64,
        "row_threads": 32,
        "least_steps": 2,
        "threads": 32,
        "tile": 4,
    },
}


@pytest.mark.parametrize("name", MAPPINGS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int64", "uint8"])
def test_a_mapping_does_not_change_the_answer(name: str, dtype: str) -> None:
    with tuned(**MAPPINGS[name]), backend_named("emulated", seed=5) as backend:
        for number, kind in enumerate(KINDS):
            for form in FORMS:
                bits = make(kind, dtype, (2, 303 + number))
                check(backend, bits, dtype, 14, mode=("largest", "smallest")[number % 2], **form)
        bits = make("few", dtype, (3, 90, 4))
        for form in FORMS:
            check(backend, bits, dtype, 11, axis=1, **form)
            check(backend, bits, dtype, 11, axis=1, sorted=False, **form)
        for b, kept, interleaved in ((16, 2, True), (8, 4, False), (2, 16, True), (1, 32, True)):
            form = {"buckets": b, "k_per_bucket": kept, "interleaved": interleaved}
            check(backend, make("few", dtype, (2, 701)), dtype, 32, sorted=False, **form)


def kernels(shape: tuple[int, ...], k: int, **keywords: object) -> tuple[str, ...]:
    return atk.plan(shape, k, device="sm_90", **keywords).kernels


def test_the_mappings_named_above_are_taken() -> None:
    """The names in MAPPINGS are what the planner does with these numbers."""
    bucketed = {"buckets": 16, "k_per_bucket": 3}
    assert kernels((2, 203), 14, exact=True) == ("radix_row",)
    with tuned(split_entries=64, row_threads=32):
        assert kernels((2, 203), 14, exact=True)[-2:] == ("radix_scatter", "order_tiles")
        split = atk.plan((2, 203), 14, device="sm_90", exact=True).steps[-2]
        assert isinstance(split, Launch) and split.grid == 4
    with tuned(least_steps=2, threads=32):
        assert kernels((2, 203), 14, **bucketed) == ("bucket_walk", "bucket_merge", "radix_row")
    with tuned(least_steps=2, resident_threads=8):
        walk = atk.plan((2, 203), 14, device="sm_90", **bucketed).steps[0]
        assert isinstance(walk, Launch) and walk.shared_bytes > 0
    with tuned(tile=2):
        assert kernels((2, 203), 14, exact=True) == ("radix_row", "order_tiles", *("order_merge",) * 3)
    with tuned(most_kept=0):
        assert kernels((2, 203), 14, **bucketed) == ("radix_row", "radix_row")
    with tuned(narrow_entries=0):
        assert all(dict(step.defines)["WIDE"] for step in atk.plan((2, 203), 14, device="sm_90", **bucketed).steps)


def test_one_long_row_fills_the_gpu() -> None:
    for b in (256, 1024, 65536):
        plan = atk.plan(2**24, 256, buckets=b, k_per_bucket=1, device="sm_90")
        walk = plan.steps[0]
        assert isinstance(walk, Launch)
        assert walk.grid * walk.block >= plan.device.multiprocessors * 512
        assert plan.bytes_read == 2**26


def test_one_pass_and_one_launch_when_the_candidates_are_the_answer() -> None:
    plan = atk.plan((128, 2**20), 65536, buckets=32768, k_per_bucket=2, sorted=False, device="sm_90")
    assert plan.kernels == ("bucket_walk",)
    assert (plan.launches, plan.workspace_bytes, plan.zeroed_bytes) == (1, 0, 0)
    assert plan.bytes_read == 128 * 2**20 * 4


def test_launches_and_bytes_are_as_the_plan_says() -> None:
    for shape, k, keywords in (
        ((3, 5000), 20, {}),
        ((1, 70_000), 30, {"buckets": 64, "k_per_bucket": 2}),
        ((1, 70_000), 3000, {"recall_target": 1.0}),
        ((2, 40_000), 9000, {"recall_target": 0.8}),
        ((40, 3000, 5), 20, {"axis": 1, "buckets": 32, "k_per_bucket": 4, "sorted": False}),
    ):
        with backend_named("emulated") as backend:
            assert backend.runtime is not None
            backend.select(make("random", "float32", shape), "float32", k, **keywords)
            plan = atk.plan(shape, k, device=backend.runtime.info, **keywords)
            ran = [kernel for kernel, _ in backend.runtime.launched]
            assert tuple(k for k in ran if k != "zero") == plan.kernels
            assert len(ran) == plan.launches
            read = sum(stats.bytes_loaded for kernel, stats in backend.runtime.launched if kernel == "bucket_walk")
            if plan.route == "bucketed":
                assert read == plan.bytes_read == np.prod(shape) * 4


@pytest.mark.nightly
@pytest.mark.parametrize("backend_name", ["numpy", "emulated"])
def test_more_than_2_to_the_31_entries(backend_name: str) -> None:
    """A row of more than 2**31 - 1 entries, all in one byte of memory: the first k are the answer."""
    with backend_named(backend_name) as backend:
        bits = np.broadcast_to(np.uint8(7), 2**31 + 5)
        got = backend.select(bits, "uint8", 3, buckets=256, k_per_bucket=1)
        np.testing.assert_array_equal(got.indices, [0, 1, 2])
