"""Bugs planted in the kernels on purpose must make the suite fail: a test of the tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from . import emulated
from .backends import backend_named, tuned
from .emulator import EmulatorError
from .inputs import make
from .test_filter import ONE_BLOCK, ROW, SPLIT, aligned, run, sampled_entries
from .test_select import check

#: What to break: the source file's stem, the line's text and what replaces it.
MUTANTS = {
    "walk: dropped barrier before merging": (
        "bucket_walk",
        "        __syncthreads();\n        if (step_thread < half) {",
        "        if (step_thread < half) {",
    ),
    "walk: dropped barrier after merging": (
        "bucket_walk",
        "            }\n        }\n        __syncthreads();\n    }\n}",
        "            }\n        }\n    }\n}",
    ),
    "walk: last step lost": ("bucket_walk", "step < end && step <= full_end", "step < end && step < full_end"),
    "walk: one entry too many": ("bucket_walk", "flat >= 0 && flat < length", "flat >= 0 && flat <= length"),
    "walk: first lanes lost": ("bucket_walk", "flat >= 0 && flat < length", "flat > 0 && flat < length"),
    "walk: later of equal entries kept": ("bucket_walk", "return a.key > b.key; }", "return a.key >= b.key; }"),
    "walk: slots taken for full": ("bucket_walk", "int to_fill = KEEP + (VECTOR > 1 ? 1 : 0)", "int to_fill = 0"),
    "walk: lost remainder of contiguous buckets": (
        "bucket_walk",
        "Index(size + (bucket < longer ? 1 : 0))",
        "Index(size)",
    ),
    "merge: higher of equal indices kept": ("bucket_merge", "a.index < b.index", "a.index > b.index"),
    "keys: -0 below +0": ("radix_row", "((u & ~SIGN) ^ negative) - negative", "(u & ~SIGN) ^ negative"),
    "keys: NaNs ordered by payload": ("radix_row", "key < NAN_KEY ? key : NAN_KEY", "key"),
    "radix: dropped barrier after zeroing": (
        "radix_row",
        "scratch.histogram[bin] = 0;\n    __syncthreads();",
        "scratch.histogram[bin] = 0;",
    ),
    "radix: dropped barrier before reading sums": (
        "radix_row",
        "shared[warp] = sum;\n    __syncthreads();",
        "shared[warp] = sum;",
    ),
    "radix: one too many above the cut": ("radix_row", "cut.need <= above + mine", "cut.need < above + mine"),
    "radix: ties taken from the end": ("radix_row", "maybes < cut.need)) {", "maybes >= cut.need)) {"),
    "radix: a tile's end lost": ("radix_histogram", "end = source.positions;", "end = source.positions - VECTOR;"),
    "radix: counts of earlier blocks ignored": (
        "radix_scatter",
        "earlier < part.partition",
        "earlier + 1 < part.partition",
    ),
    "filter: too many ties taken": ("filter_row", "0, 0, k - above, 0}", "0, 0, k, 0}"),
    "filter: too few survivors not noticed": (
        "filter_row",
        "kept < k || kept > u64(p.capacity)",
        "kept > u64(p.capacity)",
    ),
    "filter: the row's end not read": (
        "filter_row",
        "entry >= 0 && entry < length",
        "entry >= 0 && entry < length - 1",
    ),
    "filter: list entered at the wrong place": (
        "filter_split",
        "row * u64(p.capacity) + base + slot, filter",
        "row * u64(p.capacity) + slot, filter",
    ),
    "filter: counter not shared with the other blocks": (
        "filter_finish",
        "filter.above = load(p.counts + row * 2 + 1);",
        "filter.above = 0;",
    ),
    "sort: comparison reversed at one distance": ("radix_row", "(low & run) == 0", "(low & distance) == 0"),
    "order: dropped barrier after loading": (
        "order_merge",
        "second(from_second + i - firsts);\n    __syncthreads();",
        "second(from_second + i - firsts);",
    ),
    "order: equal entries of the second run first": (
        "order_merge",
        "if (better(second(diagonal - 1 - middle), first(middle))) high = middle;",
        "if (!better(first(middle), second(diagonal - middle))) high = middle;",
    ),
}


def battery() -> None:
    """A few selections that between them reach every kernel."""
    for seed in range(3):
        with backend_named("emulated", seed) as backend:
            for kind, mode in itertools.product(("few", "nan", "zeros", "random"), ("largest", "smallest")):
                wide, odd = make(kind, "float32", (2, 640), seed), make(kind, "float32", (2, 331), seed)
                check(backend, odd, "float32", 30, mode=mode, exact=True)
                check(backend, odd, "float32", 14, mode=mode, buckets=32, k_per_bucket=2)
                check(backend, odd, "float32", 14, mode=mode, buckets=7, k_per_bucket=2, interleaved=False)
                with tuned(least_steps=2, threads=32, split_entries=64, row_threads=32, tile=16):
                    check(backend, wide, "float32", 60, mode=mode, buckets=32, k_per_bucket=2)
                    check(backend, odd, "float32", 90, mode=mode, exact=True)


def filtered() -> None:
    """Rows long enough for the filter, among them ones that mislead its sample and ones of many ties."""
    for seed, multiprocessors in itertools.product(range(2), (ONE_BLOCK, SPLIT)):
        rng = np.random.default_rng(seed)
        ordinary = rng.standard_normal(ROW).astype(np.float32)
        last = np.arange(ROW, dtype=np.float32)
        misleading = ordinary.copy()
        misleading[sampled_entries(ROW, 30, multiprocessors)] += 1e3
        masked = np.where(rng.random(ROW) < 1e-3, 1.0, -np.inf).astype(np.float32)
        for row in (ordinary, last, misleading, masked):
            run(aligned(row), "float32", 30, multiprocessors)


def test_the_battery_passes_on_the_real_kernels() -> None:
    battery()
    filtered()


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source, right, wrong = MUTANTS[name]
    real: Callable[[str], str] = emulated.joined
    assert right in real(source), "the kernel has changed: plant this bug anew"

    def joined(stem: str) -> str:
        return real(stem).replace(right, wrong) if stem == source else real(stem)

    monkeypatch.setattr(emulated, "joined", joined)
    with pytest.raises((AssertionError, EmulatorError)):
        (filtered if source.startswith("filter") else battery)()
