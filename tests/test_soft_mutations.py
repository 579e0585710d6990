"""Bugs planted in the soft kernels on purpose must be caught, as those of test_mutations.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from .emulator import EmulatorError
from .inputs import some
from .soft_calls import FORMS, SMALL, call, drawn
from .test_mutations import plant
from .test_soft_kernel import check_equal_rows, check_magnitude, check_magnitude_vjp, check_mask, check_mask_vjp

#: What to break: the source file's stem, the text and what replaces it.
MUTANTS = {
    "mask: entries above the list forgotten": ("soft_mask", "found.above = block_total(above, soft);", ""),
    "mask: a full list not noticed": ("soft_mask", "if (listed > capacity) return false;", ""),
    "mask: window too narrow below": ("soft_mask", "bound<false>(smallest - l,", "bound<false>(smallest - 0.5 * l,"),
    "mask: window too narrow above": ("soft_mask", "bound<true>(greatest + l,", "bound<true>(greatest,"),
    "mask: the list not read in another thread's part": (
        "soft_mask",
        "        __syncthreads();\n        threshold = solve",
        "        threshold = solve",
    ),
    "mask: the answer read before it is there": (
        "soft_mask",
        "__syncthreads();\n    return soft.answer;",
        "return soft.answer;",
    ),
    "mask: steps to the wrong side": (
        "soft_mask",
        "bracket.go_on(value > 0, newton",
        "bracket.go_on(value < 0, newton",
    ),
    "mask: Newton's steps alone": ("soft_mask", "if (!(next > low && next < high && ", "if (false && !("),
    "mask: infinite entries take nothing": (
        "soft_mask",
        "solve(problem, source, k - infinite,",
        "solve(problem, source, k,",
    ),
    "mask: upper half counted twice": ("soft_mask", "parts.add(is_upper ? -part : part);", "parts.add(part);"),
    "mask: rounding of distances not made good": ("soft_mask", "if (BITS != 64 && size < 64) {", "if (false) {"),
    "mask: the next best not looked for": ("soft_mask", "found.next = Key(soft.most);", "found.next = found.kth;"),
    "mask: as many numbers as are wanted": ("soft_mask", "finite + infinite <= k)", "finite + infinite < k)"),
    "mask: infinite taken for NaN": ("soft_mask", "order > INFINITE_KEY;", "order >= INFINITE_KEY;"),
    "mask: numbers of another row": (
        "soft_mask",
        "const i64 offset = row_offset(batch, array.strides, row);",
        "const i64 offset = i64(row);",
    ),
    "mask: one entry too many written": ("soft_mask", "i + v < length) store(", "i + v <= length) store("),
    "mask: rows side by side not told apart": ("soft_mask", "* u64(inner) + within;", "* u64(inner);"),
    "sums: dropped barrier before reading": (
        "soft_mask",
        "    __syncthreads();\n#pragma unroll\n    for (int i = 0; i < N; ++i) numbers[i] = shared.of[i][0];",
        "#pragma unroll\n    for (int i = 0; i < N; ++i) numbers[i] = shared.of[i][0];",
    ),
    "sums: dropped barrier after reading": (
        "soft_mask",
        "numbers[i] += shared.of[i][w];\n    __syncthreads();",
        "numbers[i] += shared.of[i][w];",
    ),
    "neighbours: dropped barrier": (
        "soft_mask",
        "soft.most = 0;\n    }\n    __syncthreads();",
        "soft.most = 0;\n    }",
    ),
    "magnitude: signs ordered": ("soft_magnitude", "return MAGNITUDE && key < A ?", "return false ?"),
    "magnitude: signs lost": ("soft_magnitude", " | (element & SIGN_BIT))", ")"),
    "magnitude: distances from 0 always": ("soft_magnitude", "if (tau < 0.5 * kth) {", "if (true) {"),
    "magnitude: distances from the K-th always": ("soft_magnitude", "if (tau < 0.5 * kth) {", "if (false) {"),
    "magnitude: r left out": ("soft_magnitude", "narrow(z * problem.l + r)", "narrow(z * problem.l)"),
    "magnitude: the threshold's distance in its place": (
        "soft_magnitude",
        "store(p.tau + row, nearest);",
        "store(p.tau + row, narrow(problem.at));",
    ),
    "magnitude: as many entries as are wanted": ("soft_magnitude", "special.least) <= k)", "special.least) < k)"),
    "magnitude: window too low": ("soft_magnitude", "greatest + l * p.power.root(greatest)", "greatest"),
    "mask derivative: no weights": ("soft_mask_vjp", "cotangent.add(slope * work_of(g))", "cotangent.add(work_of(g))"),
    "mask derivative: ones are active": ("soft_mask_vjp", "< Element(one - 1)", "<= Element(one - 1)"),
    "mask derivative: NaN not noticed": ("soft_mask_vjp", "is_bad |= Element(", "is_bad &= Element("),
    "mask derivative: the mean rounded": ("soft_mask_vjp", "- mean_g) - lost)", "- mean_g))"),
    "mask derivative: strength with the wrong sign": ("soft_mask_vjp", ": -more[0] / l", ": more[0] / l"),
    "magnitude derivative: signs lost": ("soft_magnitude_vjp", "real_bits(g ^ (element & SIGN_BIT))", "real_bits(g)"),
    "magnitude derivative: only slopes": (
        "soft_magnitude_vjp",
        "part.g + part.slope * part.g;",
        "part.slope * part.g;",
    ),
    "magnitude derivative: not in units of tau": ("soft_magnitude_vjp", "sums[0] / tau + sums[1]", "sums[0] + sums[1]"),
    "magnitude derivative: strength without the mean": (
        "soft_magnitude_vjp",
        "more[0] += part.r * change;",
        "more[0] += part.r * part.g;",
    ),
}


def masks() -> None:
    """Rows on chip and not, of few and many that matter; special ones; other strides; other timing."""
    rng = np.random.default_rng(0)
    inf = np.inf
    special = np.array([[1, 2, 3, inf, -inf, 0], [3, -inf, 2, inf, -inf, -inf], [1, 1, 1, 1, 1, 1]], np.float32)
    heaps = drawn("two heaps", (3, 203), rng).astype(np.float32)
    for form in ("p = 4/3", "sigmoid"):
        for k in (1.5, 3.0):
            check_mask(special, k, 0.5, form, call("mask", special, k=k, l=0.5, **FORMS[form]).results["y"])
        k = np.array([80, 20.5, 202.75, 7, 9, 11], np.float32)[::2]
        for l in (1e-3, 1.0, 30.0):
            check_mask(heaps, k, l, form, call("mask", heaps, k=k, l=l, **FORMS[form]).results["y"])
        check_equal_rows(form)
    x = rng.standard_normal((2, 3001)).astype(np.float32)
    for seed in range(4):
        for l, device in ((0.02, None), (0.6, None), (20.0, SMALL)):
            y = call("mask", x, k=300.5, l=l, seed=seed, device=device, p=4 / 3).results["y"]
            check_mask(x, 300.5, l, "p = 4/3", y)
        y = call("mask", heaps, k=80.0, l=1.0, seed=seed, kind="sigmoid").results["y"]
        check_mask(heaps, 80.0, 1.0, "sigmoid", y)
    columns = rng.standard_normal((3, 40, 4)).astype(np.float32)
    y = call("mask", columns, k=5.5, l=0.3, p=4 / 3, axis=1).results["y"]
    check_mask(columns.swapaxes(1, 2), 5.5, 0.3, "p = 4/3", y.swapaxes(1, 2))


def magnitudes() -> None:
    """Strengths great and small, of both signs; rows with zeros."""
    rng = np.random.default_rng(1)
    for dtype in ("float32", "float64"):
        x = rng.standard_normal((3, 203)).astype(dtype)
        x[0, 30:] = 0
        k = np.array([30, 20.5, 7], dtype)
        for l in (1e-5, 0.1, 3000.0):
            check_magnitude(x, k, l, 4 / 3, call("magnitude", x, k=k, l=l, p=4 / 3).results)
    x = rng.standard_normal((1, 3001)).astype(np.float32)
    check_magnitude(x, 1500.5, 0.5, 4 / 3, call("magnitude", x, k=1500.5, l=0.5, p=4 / 3).results)


def mask_derivatives() -> None:
    """Masks with ones and zeros, and a bad one."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, 500)).astype(np.float32)
    g = (rng.standard_normal((2, 500)) + 3000).astype(np.float32)
    for form in ("p = 2", "laplace"):
        y = call("mask", x, k=30.5, l=0.5, **FORMS[form]).results["y"]
        check_mask_vjp(y, g, 0.5, form)
        y[0, 3] = np.nan
        got = call("mask_vjp", y, g=g, l=0.5, **FORMS[form]).results
        assert all(np.isnan(array[0]).all() and not np.isnan(array[1]).any() for array in got.values())


def magnitude_derivatives() -> None:
    """Entries whole, in part and gone."""
    rng = np.random.default_rng(3)
    x, g = (rng.standard_normal((2, 500)).astype(np.float32) for _ in range(2))
    for k, l in ((30.5, 0.5), (200.0, 5.0)):
        tau = call("magnitude", x, k=k, l=l, p=4 / 3).results["tau"]
        check_magnitude_vjp(x, g, tau, l, 4 / 3)


#: What reaches each kernel.
BATTERIES = {
    "soft_mask": masks,
    "soft_magnitude": magnitudes,
    "soft_mask_vjp": mask_derivatives,
    "soft_magnitude_vjp": magnitude_derivatives,
}


@pytest.mark.parametrize("battery", BATTERIES.values())
def test_a_battery_passes_on_the_real_kernels(battery: Callable[[], None]) -> None:
    battery()


@pytest.mark.parametrize("name", some(MUTANTS, 3))
def test_a_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source, right, wrong = MUTANTS[name]
    plant(monkeypatch, source, right, wrong)
    with pytest.raises((AssertionError, EmulatorError)):
        BATTERIES[source]()
