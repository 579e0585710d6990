"""Every mapping to the machine gives the same answer: forced on small inputs by other tuning numbers."""

from __future__ import annotations

import numpy as np
import pytest

import approxtopk as atk
from approxtopk.plan import Launch

from .backends import backend_named, tuned
from .inputs import KINDS, make
from .test_select import FORMS, check, ragged

RADIX = {"small_entries": 0, "chip_entries": 0, "filter_entries": 0}
SPLIT_ROWS = {**RADIX, "split_entries": 64, "row_threads": 32}
SPLIT_BUCKETS = {"least_steps": 1, "threads": 32}

MAPPINGS = {
    "as it begins": {"least_steps": 15},
    "on chip": {"small_entries": 0},
    "radix on chip": RADIX,
    "radix without a copy": {**RADIX, "copy_bytes": 0},
    "rows split over blocks": SPLIT_ROWS,
    "buckets split over threads and blocks": SPLIT_BUCKETS,
    "the same, selected from behind": {**SPLIT_BUCKETS, "fused_bytes": 0},
    "buckets split over threads": {"least_steps": 2, "resident_threads": 8},
    "the same again, selected from behind": {"least_steps": 2, "resident_threads": 8, "fused_bytes": 0},
    "results ordered on chip by radix": {**RADIX, "fused_bytes": 0, "tile": 2},
    "results ordered by merging": {**RADIX, "copy_bytes": 0, "fused_bytes": 0, "tile": 2},
    "results split and merged": {**SPLIT_ROWS, "fused_bytes": 0, "tile": 4},
    "no queues in registers": {**RADIX, "most_kept": 0},
    "no queues in registers, buckets split": {**SPLIT_ROWS, "most_kept": 0, "split_entries": 16},
    "one lane a thread": {"kept_entries": 1},
    "64-bit positions": {"narrow_entries": 0},
    "64-bit positions, radix": {"narrow_entries": 0, **RADIX, "fused_bytes": 0},
    "64-bit positions, all split": {"narrow_entries": 0, **SPLIT_ROWS, **SPLIT_BUCKETS, "fused_bytes": 0, "tile": 4},
}


@pytest.mark.parametrize("name", MAPPINGS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int64", "uint8"])
def test_a_mapping_does_not_change_the_answer(name: str, dtype: str) -> None:
    rng = np.random.default_rng(5)
    with tuned(**MAPPINGS[name]), backend_named("emulated", seed=5) as backend:
        for number, kind in enumerate(KINDS):
            for form in FORMS:
                bits = make(kind, dtype, (2, 303 + number))
                extra: dict[str, object] = {} if number % 2 else ragged(rng, (2,), bits.shape[1])
                if "buckets" in form:
                    extra["certify"] = number % 3 > 0
                check(backend, bits, dtype, 14, mode=("largest", "smallest")[number % 2], **form, **extra)
        bits = make("few", dtype, (3, 90, 4))
        for form in FORMS:
            check(backend, bits, dtype, 11, axis=1, **form)
            check(backend, bits, dtype, 11, axis=1, sorted=False, **form, **ragged(rng, (3, 4), 90))
        for b, kept, interleaved in ((16, 2, True), (8, 4, False), (2, 16, True), (1, 32, True)):
            form = {"buckets": b, "k_per_bucket": kept, "interleaved": interleaved}
            for certify in (False, True):
                check(backend, make("few", dtype, (2, 701)), dtype, 32, sorted=False, certify=certify, **form)


def launches(shape: tuple[int, ...], k: int, **keywords: object) -> tuple[Launch, ...]:
    steps = atk.plan(shape, k, device="sm_90", **keywords).steps
    return tuple(step for step in steps if isinstance(step, Launch))


def kernels(shape: tuple[int, ...], k: int, **keywords: object) -> tuple[str, ...]:
    return tuple(launch.kernel for launch in launches(shape, k, **keywords))


def test_the_mappings_named_above_are_taken() -> None:
    """The names in MAPPINGS are what the planner does with these numbers."""
    exact = {"exact": True}
    bucketed = {"buckets": 16, "k_per_bucket": 3}
    of_two = {"shape": (2, 203), "k": 14}
    with tuned(**MAPPINGS["as it begins"]):
        assert kernels(**of_two, **exact) == ("warp_row",)
        assert kernels(**of_two, **bucketed) == ("bucket_row",)
        assert kernels(**of_two, **bucketed, certify=True) == ("bucket_row",)
    with tuned(**MAPPINGS["on chip"]):
        (chip,) = launches(**of_two, **exact)
        assert chip.kernel == "filter_row" and dict(chip.defines)["SOURCE"] == 3
    with tuned(**RADIX):
        (radix,) = launches(**of_two, **exact)
        assert radix.kernel == "radix_row" and dict(radix.defines)["SOURCE"] == 3
    with tuned(**MAPPINGS["radix without a copy"]):
        (radix,) = launches(**of_two, **exact)
        assert radix.kernel == "radix_row" and dict(radix.defines)["SOURCE"] == 0
    with tuned(**SPLIT_ROWS):
        *_, split, order = launches(**of_two, **exact)
        assert (split.kernel, split.grid, order.kernel) == ("radix_scatter", 4, "order_tiles")
    with tuned(**SPLIT_BUCKETS):
        (walk,) = launches(**of_two, **bucketed)
        assert walk.kernel == "bucket_row" and walk.grid > 2
    with tuned(**SPLIT_BUCKETS, fused_bytes=0):
        assert kernels(**of_two, **bucketed) == ("bucket_walk", "bucket_merge", "radix_row")
        assert kernels(**of_two, **bucketed, certify=True)[-1] == "certify"
    for numbers in ({}, {"fused_bytes": 0}):
        with tuned(least_steps=2, resident_threads=8, **numbers):
            walk = launches(**of_two, **bucketed)[0]
            assert walk.shared_bytes > 0 and walk.grid <= 2
    with tuned(**MAPPINGS["results ordered by merging"]):
        assert kernels(**of_two, **exact) == ("radix_row", "order_tiles", *("order_merge",) * 3)
        assert kernels(**of_two, **bucketed)[-1] == "order_merge"
    with tuned(**RADIX, most_kept=0):
        assert kernels(**of_two, **bucketed) == ("radix_row", "radix_row")
        assert "bucket_guard" in kernels(**of_two, **bucketed, certify=True)
    with tuned(narrow_entries=0):
        assert all(dict(launch.defines)["WIDE"] for launch in launches(**of_two, **bucketed))


def test_candidates_that_do_not_fit_a_block_are_selected_from_behind() -> None:
    for numbers in ({}, {"resident_threads": 512}):
        with tuned(**numbers):
            assert kernels((4, 2**20), 1000, buckets=2**16, k_per_bucket=1)[0] == "bucket_walk"
            assert kernels((4, 2**20), 10, buckets=2**10, k_per_bucket=1) == ("bucket_row",)


def test_one_long_row_fills_the_gpu() -> None:
    for b in (256, 1024, 65536):
        plan = atk.plan(2**24, 256, buckets=b, k_per_bucket=1, device="sm_90")
        walk = next(step for step in plan.steps if isinstance(step, Launch))
        assert walk.grid * walk.block >= plan.device.multiprocessors * 256
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
            assert tuple(k for k in ran if k != "fill") == plan.kernels
            assert len(ran) == plan.launches
            read = sum(
                stats.bytes_loaded
                for kernel, stats in backend.runtime.launched
                if kernel in ("bucket_walk", "bucket_row")
            )
            if plan.kernels[0] == "bucket_walk":
                assert read == plan.bytes_read == np.prod(shape) * 4


@pytest.mark.nightly
@pytest.mark.parametrize("backend_name", ["numpy", "emulated"])
def test_more_than_2_to_the_31_entries(backend_name: str) -> None:
    """A row of more than 2**31 - 1 entries, all in one byte of memory: the first k are the answer."""
    with backend_named(backend_name) as backend:
        bits = np.broadcast_to(np.uint8(7), 2**31 + 5)
        got = backend.select(bits, "uint8", 3, buckets=256, k_per_bucket=1)
        np.testing.assert_array_equal(got.indices, [0, 1, 2])
