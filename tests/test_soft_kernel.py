"""The soft kernels in the emulator against the oracle, below the public functions."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from approxtopk.buffer import row_major
from approxtopk.errors import InvalidArgument
from approxtopk.plan import HostCall
from approxtopk.planning.devices import REFERENCES
from approxtopk.planning.soft import plan_soft, ways
from approxtopk.soft_request import SoftRequest

from .backends import tuned
from .reference_soft import (
    each_row,
    reference_magnitude,
    reference_magnitude_vjp,
    reference_mask,
    reference_mask_vjp,
)
from .soft_calls import FORMS, REALS, SMALL, call, decoded, drawn, encoded, space

LAWS = ("normal", "offset", "heavy", "ties", "two heaps")
STRENGTHS = (1e-5, 1e-3, 0.1, 1.0, 30.0)
SIZES = (2, 3, 40, 300)
MASKS = tuple(FORMS)
NORMS = tuple(form for form in FORMS if form.startswith("p"))
MOST = {"float16": 1e-6, "bfloat16": 1e-6, "float32": 1e-6, "float64": 1e-12}


def shares(n: int) -> tuple[float, ...]:
    """Values of k, whole and not, near the ends and between."""
    return tuple(k for k in (0.3, 1, 1.000001, n / 2, 0.37 * n, n - 1, n - 1e-3) if k < n)


def grid(n: int, dtype: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, each with a k and an l of its own: one launch for all."""
    rng = np.random.default_rng([n, seed, REALS.index(dtype)])
    cases = list(itertools.product(LAWS, STRENGTHS, shares(n)))
    if n > 10:
        # The oracle takes its time.
        cases = cases[seed % 4 :: 4]
    x = np.stack([drawn(law, n, rng) for law, _, _ in cases])
    k, l = (np.array([case[at] for case in cases]) for at in (2, 1))
    return encoded(x, dtype), encoded(k, real(dtype)), encoded(l, real(dtype))


def real(dtype: str) -> str:
    return "float64" if dtype == "float64" else "float32"


def slack(wanted: np.ndarray, p: float) -> np.ndarray:
    """What a mask may be off by where its curve is steep: 2^-46 more or less of u."""
    a, u = 1 / (p - 1), wanted ** (p - 1)
    return np.clip(u + 2.0**-46, 0, 1) ** a - np.clip(u - 2.0**-46, 0, 1) ** a


# ---- The mask ------------------------------------------------------------------------------------------------


def check_mask(x: np.ndarray, k: Any, l: Any, form: str, got: np.ndarray) -> None:
    kind, p = FORMS[form].get("kind", "pnorm"), FORMS[form].get("p", 2.0)
    dtype = x.dtype.name
    lead = x.shape[:-1]
    k, l = (np.broadcast_to(np.asarray(number, np.float64), lead) for number in (k, l))
    wanted = np.stack(each_row(lambda x, k, l: reference_mask(x, k, l, kind, p), decoded(x), k, l)).reshape(x.shape)
    allowed = MOST[dtype] + space(dtype, wanted)
    if p > 2:
        allowed = allowed + slack(wanted, p)
    error = np.abs(decoded(got) - wanted)
    assert (error <= allowed).all(), (form, np.nanmax(error), np.argwhere(~(error <= allowed))[0], k, l)
    if np.isfinite(wanted).all() and p <= 2 and dtype in ("float32", "float64"):
        total, most = wanted.sum(-1), MOST[dtype]
        assert (np.abs(decoded(got).sum(-1) - total) <= most * np.maximum(total, 1e-30)).all(), form


@pytest.mark.parametrize("form", MASKS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_masks_over_the_grid(dtype: str, form: str) -> None:
    for n in SIZES:
        x, k, l = grid(n, dtype, MASKS.index(form))
        check_mask(x, k, l, form, call("mask", x, k=k, l=l, **FORMS[form]).results["y"])


@pytest.mark.parametrize("form", MASKS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_masks_of_narrow_types(dtype: str, form: str) -> None:
    x, k, l = grid(100, dtype, MASKS.index(form))
    check_mask(x, k, l, form, call("mask", x, k=k, l=l, **FORMS[form]).results["y"])


def check_equal_rows(form: str) -> None:
    """All as far from the threshold as any, where float32 distances are coarse, and wrong alike."""
    k = (10 ** np.random.default_rng(0).uniform(-3, 3.6, 20)).astype(np.float32)
    y = call("mask", np.full((20, 5000), 3, np.float32), k=k, l=1.0, **FORMS[form]).results["y"]
    assert (np.abs(decoded(y).sum(1) - k) <= 2.5e-7 * k).all()


@pytest.mark.parametrize("form", MASKS)
def test_equal_rows_have_their_sum(form: str) -> None:
    check_equal_rows(form)


@pytest.mark.parametrize("form", MASKS)
def test_masks_of_rows_that_are_not_on_chip(form: str) -> None:
    rng = np.random.default_rng(5)
    for dtype, n, law in zip(REALS, (9001, 9001, 5001, 3001), ("normal", "ties", "normal", "ties"), strict=True):
        x = encoded(drawn(law, (1, n), rng), dtype)
        # Few entries matter; more than can be listed.
        for k, l in ((60.5, 0.05), (1000.0, 20.0)):
            ran = call("mask", x, k=k, l=l, device=SMALL, **FORMS[form])
            assert dict(ran.plan.steps[0].defines)["SOURCE"] == 0
            check_mask(x, k, l, form, ran.results["y"])


@pytest.mark.parametrize("form", ["p = 4/3", "sigmoid", "laplace"])
@pytest.mark.parametrize(("n", "k"), [(100_000, 100.0), (100_000, 40_000.5), (300_000, 1000.0)])
def test_masks_of_long_rows(n: int, k: float, form: str) -> None:
    x = np.random.default_rng(n).standard_normal((1, n)).astype(np.float32)
    check_mask(x, k, 0.1, form, call("mask", x, k=k, l=0.1, **FORMS[form]).results["y"])


# ---- Of magnitudes -------------------------------------------------------------------------------------------


def check_magnitude(x: np.ndarray, k: Any, l: Any, p: float, ran: dict[str, np.ndarray]) -> None:
    dtype = x.dtype.name
    k, l = (np.broadcast_to(np.asarray(number, np.float64), x.shape[:-1]) for number in (k, l))
    rows = each_row(lambda x, k, l: reference_magnitude(x, k, l, p), decoded(x), k, l)
    wanted = np.stack([y for y, _ in rows]).reshape(x.shape)
    tau = np.array([tau for _, tau in rows]).reshape(x.shape[:-1])
    got = decoded(ran["y"])
    with np.errstate(invalid="ignore"):
        error = np.where(got == wanted, 0, np.abs(got - wanted))
        allowed = MOST[dtype] * np.abs(decoded(x)) + space(dtype, wanted)
    if p > 2:
        # Where r is steep.
        allowed = allowed + np.where(
            decoded(x) != 0, (2.0**-46 * np.abs(decoded(x)) / l[..., None]) ** (1 / (p - 1)), 0
        )
    assert (np.isnan(got) == np.isnan(wanted)).all()
    good = (error <= allowed) | np.isnan(wanted)
    assert good.all(), (p, error.max(), np.argwhere(~good)[0], k, l)
    bound = 1e-6 if real(dtype) == "float32" else 1e-12
    same = (ran["tau"] == tau) | (np.isnan(ran["tau"]) & np.isnan(tau))
    with np.errstate(invalid="ignore"):
        # Of a power with a steep beginning the threshold is found less well.
        near = np.abs(ran["tau"] - tau) <= (bound if p <= 2 else 1e-5) * tau + 1e-45
    assert (same | near).all(), (ran["tau"], tau)


@pytest.mark.parametrize("form", NORMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_magnitudes_over_the_grid(dtype: str, form: str) -> None:
    for n in SIZES:
        x, k, l = grid(n, dtype, MASKS.index(form))
        check_magnitude(x, k, l, FORMS[form]["p"], call("magnitude", x, k=k, l=l, **FORMS[form]).results)


@pytest.mark.parametrize("dtype", REALS)
def test_magnitudes_of_all_types_on_chip_and_not(dtype: str) -> None:
    rng = np.random.default_rng(8)
    for law, (k, l) in itertools.product(("normal", "ties"), ((60.5, 0.05), (700.0, 20.0))):
        x = encoded(drawn(law, (2, 3001), rng), dtype)
        for form, device in (("p = 4/3", None), ("p = 2", SMALL)):
            ran = call("magnitude", x, k=k, l=l, device=device, **FORMS[form])
            check_magnitude(x, k, l, FORMS[form]["p"], ran.results)


def test_magnitudes_of_a_long_row() -> None:
    x = np.random.default_rng(2).standard_normal((1, 100_000)).astype(np.float32)
    check_magnitude(x, 300.0, 0.1, 4 / 3, call("magnitude", x, k=300.0, l=0.1, p=4 / 3).results)


# ---- Rows as they come ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["p = 4/3", "laplace"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_any_axis_and_strides(dtype: str, form: str) -> None:
    rng = np.random.default_rng(1)
    whole = encoded(rng.standard_normal((4, 6, 5, 40)), dtype)
    views = {
        "last axis": (whole, 3),
        "first axis": (whole.transpose(3, 0, 1, 2), 0),
        "between": (whole.transpose(0, 3, 1, 2), 1),
        "every other": (whole[:, ::2, :, 1::3], 3),
        "backwards": (whole[::-1, :, ::-1, ::-1], 3),
        "moved": (whole[..., 3:], 3),
        "one for all": (np.broadcast_to(whole[:1, :, :1], whole.shape), 3),
        "dimensions that do not merge": (whole[:, :4, 1:], 3),
    }
    for name, (x, axis) in views.items():
        batch = (*x.shape[:axis], *x.shape[axis + 1 :])
        k = np.broadcast_to(np.arange(1, 1 + batch[-1], dtype=np.float32) * 1.5, batch)
        l = (0.1 + rng.random(batch).astype(np.float32)).transpose(2, 1, 0).copy().transpose(2, 1, 0)
        y = call("mask", x, k=k, l=l, axis=axis, **FORMS[form]).results["y"]
        assert y.shape == x.shape, name
        check_mask(np.moveaxis(x, axis, -1), k, l, form, np.moveaxis(y, axis, -1))


def test_general_kernels() -> None:
    rng = np.random.default_rng(4)
    x = rng.standard_normal((3, 500)).astype(np.float32)
    g = rng.standard_normal(x.shape).astype(np.float32)
    with tuned(narrow_entries=0):
        for form, device in itertools.product(("p = 4/3", "sigmoid"), (None, SMALL)):
            ran = call("mask", x, k=20.5, l=0.3, device=device, **FORMS[form])
            assert dict(ran.plan.steps[0].defines)["WIDE"] == 1
            check_mask(x, 20.5, 0.3, form, ran.results["y"])
            check_mask_vjp(ran.results["y"], g, 0.3, form)
        ran = call("magnitude", x, k=20.5, l=0.3, p=2.0)
        check_magnitude(x, 20.5, 0.3, 2.0, ran.results)
        check_magnitude_vjp(x, g, ran.results["tau"], 0.3, 2.0)


@pytest.mark.parametrize("operator", ["mask", "magnitude"])
@pytest.mark.parametrize("dtype", REALS)
def test_special_rows(dtype: str, operator: str) -> None:
    inf, nan = np.inf, np.nan
    rows = [
        [1, 2, nan, inf, -inf, 0],
        [inf, inf, inf, 1, 2, 3],
        [inf, -inf, -inf, -inf, -inf, -inf],
        [inf, -inf, 3, -inf, 2, 1],
        [-inf, -inf, -inf, -inf, 2, 1],
        [-inf] * 6,
        [inf] * 6,
        [0, -0.0, 0, -0.0, 0, 0],
        [0, -1, 0, 2, 0, 0],
        [1, 1, 1, 1, 1, 1],
        [3, -3, 3, -3, 1, -1],
    ]
    counts = [-1, -0.0, 0, 0.5, 1, 1.5, 2, 3, 5, 5.5, 6, 7, inf, nan]
    strengths = [0.5, 0, -1, inf, nan]
    cases = [(row, k, 0.5) for row in rows for k in counts] + [(rows[4], 2, l) for l in strengths]
    x = encoded([row for row, _, _ in cases], dtype)
    k, l = (encoded([case[at] for case in cases], real(dtype)) for at in (1, 2))
    if operator == "magnitude":
        check_magnitude(x, k, l, 4 / 3, call(operator, x, k=k, l=l, p=4 / 3).results)
        return
    for form in ("p = 4/3", "p = 4", "sigmoid", "laplace"):
        got = call(operator, x, k=k, l=l, **FORMS[form]).results["y"]
        bad = np.isnan(decoded(x)).any(1) | np.isnan(k) | ~((l > 0) & (l < inf))
        assert np.isnan(decoded(got[bad])).all() and not np.isnan(decoded(got[~bad])).any()
        check_mask(x[~bad], k[~bad], l[~bad], form, got[~bad])


def test_masked_scores_are_no_burden() -> None:
    """Infinite entries far more than numbers, as in a masked attention, and as many numbers as are wanted."""
    rng = np.random.default_rng(6)
    x = np.full((4, 3000), -np.inf, np.float32)
    for row, count in enumerate((3, 10, 11, 200)):
        x[row, rng.permutation(3000)[:count]] = rng.standard_normal(count)
    for form in MASKS:
        check_mask(x, 10.0, 0.2, form, call("mask", x, k=10.0, l=0.2, **FORMS[form]).results["y"])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_subnormals_count(dtype: str) -> None:
    least = 2.0**-149 if dtype == "float32" else 2.0**-24
    x = encoded(least * np.arange(-20, 20)[None], dtype)
    if dtype == "float32":
        # The curve's own numbers: an l of a normal size would see no difference.
        l = encoded([np.float64(1e-42)], "float32")
        check_mask(x, 7.5, l, "p = 4/3", call("mask", x, k=7.5, l=l, p=4 / 3).results["y"])
    check_magnitude(x, 7.5, 0.1, 2.0, call("magnitude", x, k=7.5, l=0.1, p=2.0).results)


@pytest.mark.parametrize("form", MASKS)
def test_a_row_is_the_same_alone_and_in_a_batch(form: str) -> None:
    """Bit for bit, whatever its address: rows of odd length begin anywhere."""
    rng = np.random.default_rng(7)
    for dtype, n, l in (("float32", 203, 0.1), ("bfloat16", 203, 3.0), ("float64", 2501, 30.0)):
        x = encoded(rng.standard_normal((9, n)), dtype)
        g = encoded(rng.standard_normal((9, n)), dtype)
        for device in (None, SMALL):
            batch = call("mask", x, k=20.5, l=l, device=device, **FORMS[form]).results["y"]
            pulled = call("mask_vjp", batch, g=g, l=l, device=device, **FORMS[form]).results
            for row in (0, 3, 8):
                y = call("mask", x[row : row + 1].copy(), k=20.5, l=l, device=device, **FORMS[form]).results["y"]
                assert y.tobytes() == batch[row].tobytes()
                alone = call("mask_vjp", y, g=g[row : row + 1].copy(), l=l, device=device, **FORMS[form]).results
                assert all(alone[name].tobytes() == pulled[name][row].tobytes() for name in alone)


@pytest.mark.parametrize("form", ["p = 4/3", "p = 1.5", "laplace"])
def test_timing_changes_nothing(form: str) -> None:
    rng = np.random.default_rng(9)
    x, g = (rng.standard_normal((2, 1500)).astype(np.float32) for _ in range(2))
    # Few entries near the threshold, and more than one warp takes on; all of them in sums over the block.
    for l, device in ((0.05, None), (1.0, None), (30.0, SMALL)):
        found = set()
        for seed in range(6):
            y = call("mask", x, k=100.5, l=l, seed=seed, device=device, **FORMS[form]).results["y"]
            pulled = call("mask_vjp", y, g=g, l=l, seed=seed, **FORMS[form]).results
            found.add((y.tobytes(), *(array.tobytes() for array in pulled.values())))
            if "p" in FORMS[form]:
                sparse = call("magnitude", x, k=100.5, l=l, seed=seed, device=device, **FORMS[form]).results
                pulled = call("magnitude_vjp", x, g=g, tau=sparse["tau"], l=l, seed=seed, **FORMS[form]).results
                found.add(tuple(array.tobytes() for array in (*sparse.values(), *pulled.values())))
        assert len(found) == (2 if "p" in FORMS[form] else 1)


# ---- Derivatives ---------------------------------------------------------------------------------------------


def mask_vjp_by_definition(
    y: np.ndarray, g: np.ndarray, l: float, form: str
) -> tuple[np.ndarray, float, float, float, float]:
    """The derivatives as they are stated in terms of the result, of one row, in extended precision.

    And the greatest of d g, and of g, in which what is left of them is rounded.
    """
    y, g = y.astype(np.longdouble), g.astype(np.longdouble)
    active = (y > 0) & (y < 1)
    y, given, dx = y[active], g[active], np.zeros(active.size)
    if not y.size:
        return dx, 0.0, 0.0, 0.0, 0.0
    kind, p = FORMS[form].get("kind", "pnorm"), FORMS[form].get("p", 2.0)
    if kind == "pnorm":
        p = np.longdouble(4) / 3 if p == 4 / 3 else np.longdouble(p)
        d, u = y ** (2 - p) / (p - 1), y ** (p - 1)
    elif kind == "sigmoid":
        d, u = y * (1 - y), np.log(y / (1 - y))
    else:
        d, u = np.minimum(y, 1 - y), np.where(y < 0.5, np.log(2 * y), -np.log(2 * (1 - y)))
    mean, middle = (d * given).sum() / d.sum(), (d * u).sum() / d.sum()
    dx[active] = d * (given - mean) / l
    dl = float(-(d * given * (u - middle)).sum() / l)
    return dx, float(mean), dl, float(np.abs(d * given).max() / l), float(np.abs(given).max())


def check_mask_vjp(y: np.ndarray, g: np.ndarray, l: float, form: str) -> None:
    dtype = y.dtype.name
    got = call("mask_vjp", y, g=g, l=l, **FORMS[form]).results
    bound = 1e-6 if real(dtype) == "float32" else 1e-12
    for row in np.ndindex(y.shape[:-1]):
        dx, dk, dl, most, greatest = mask_vjp_by_definition(decoded(y[row]), decoded(g[row]), l, form)
        error = np.abs(decoded(got["dx"][row]) - dx)
        assert (error <= bound * (np.abs(dx).max() + 0.01 * most) + space(dtype, dx)).all(), (form, error.max(), most)
        assert abs(got["dk"][row] - dk) <= bound * greatest
        # Distances of up to 100 times l.
        assert abs(got["dl"][row] - dl) <= bound * (100 * np.abs(dx).sum() + most), (form, dl)


@pytest.mark.parametrize("form", MASKS)
@pytest.mark.parametrize("dtype", REALS)
def test_mask_derivatives(dtype: str, form: str) -> None:
    rng = np.random.default_rng(3)
    for n, k, l in ((2, 1.3, 0.5), (64, 20.25, 0.05), (1500, 300.5, 1.0), (1500, 30.5, 20.0)):
        x = encoded(rng.standard_normal((2, n)), dtype)
        y = call("mask", x, k=k, l=l, **FORMS[form]).results["y"]
        g = encoded(rng.standard_normal((2, n)) + 3, dtype)
        check_mask_vjp(y, g, l, form)
        if dtype != "float64" or FORMS[form].get("p", 2) > 2:
            continue
        # Not only as stated, but the derivatives of the mask.
        got = call("mask_vjp", y, g=g, l=l, **FORMS[form]).results
        kind, p = FORMS[form].get("kind", "pnorm"), FORMS[form].get("p", 2.0)
        for row in range(2):
            dx, dk, dl = reference_mask_vjp(x[row], g[row], k, l, kind, p)
            assert np.abs(got["dx"][row] - dx).max() <= 1e-9 * np.abs(dx).max()
            assert abs(got["dk"][row] - dk) <= 1e-9 and abs(got["dl"][row] - dl) <= 1e-8 * (abs(dl) + np.abs(dx).sum())


def test_mask_derivatives_are_never_nan_without_cause() -> None:
    tiny = {"float16": 2.0**-24, "bfloat16": 2.0**-133, "float32": 2.0**-149, "float64": 2.0**-1074}
    for dtype, form in itertools.product(REALS, MASKS):
        y = encoded([[0, 1, 0, 1, 1], [tiny[dtype], 1, 0, 0, 0], [tiny[dtype], 0.5, 0.5, 0, -0.0]], dtype)
        g = encoded([[np.nan] * 5, [1, np.nan, np.inf, 0, -np.inf], [1, 2, 3, np.nan, np.nan]], dtype)
        for l in (1e-30, 0.1, 1e30):
            got = call("mask_vjp", y, g=g, l=l, **FORMS[form]).results
            assert not any(np.isnan(decoded(array)).any() for array in got.values()), (dtype, form, l)
            assert (decoded(got["dx"][0]) == 0).all() and got["dk"][0] == 0 and got["dl"][0] == 0
        bad = call(
            "mask_vjp", encoded([[np.nan] * 3, [0.5, 0.5, 1]], dtype), g=np.ones_like(g[:2, :3]), l=0.1, **FORMS[form]
        )
        assert all(np.isnan(decoded(array[0])).all() for array in bad.results.values())


def check_magnitude_vjp(x: np.ndarray, g: np.ndarray, tau: np.ndarray, l: float, p: float) -> None:
    dtype = x.dtype.name
    got = call("magnitude_vjp", x, g=g, tau=tau, l=l, p=p).results
    bound = 2e-6 if real(dtype) == "float32" else 1e-10
    for row in range(x.shape[0]):
        dx, dk, dl = reference_magnitude_vjp(decoded(x[row]), decoded(g[row]), float(tau[row]), l, p)
        scale = np.abs(dx).max() + 1
        assert (np.abs(decoded(got["dx"][row]) - dx) <= bound * scale + space(dtype, dx)).all()
        assert abs(got["dk"][row] - dk) <= bound * (abs(dk) + 1)
        assert abs(got["dl"][row] - dl) <= bound * (abs(dl) + 1)


@pytest.mark.parametrize("dtype", REALS)
def test_magnitude_derivatives(dtype: str) -> None:
    rng = np.random.default_rng(3)
    for form, (n, k, l) in itertools.product(NORMS, ((2, 1.3, 0.5), (64, 20.25, 0.05), (1500, 300.5, 1.0))):
        x, g = (encoded(rng.standard_normal((3, n)), dtype) for _ in range(2))
        x[2, 0] = np.inf
        tau = call("magnitude", x, k=k, l=l, **FORMS[form]).results["tau"]
        check_magnitude_vjp(x, g, tau, l, FORMS[form]["p"])


def test_magnitude_derivatives_of_special_rows() -> None:
    x = np.array([[1, -2, 0, np.inf], [1, -2, 0, 3], [1, -2, 0, 3], [np.nan, 1, 2, 3]], np.float32)
    g = np.array([[5, 6, np.nan, 8]] * 4, np.float32)
    tau = np.array([np.inf, 0, 3, np.nan], np.float32)
    got = call("magnitude_vjp", x, g=g, tau=tau, l=0.1, p=4 / 3).results
    assert got["dx"][:3].tolist() == [[0, 0, 0, 0], [5, 6, 0, 8], [0, 0, 0, 0]]
    assert got["dk"][:3].tolist() == got["dl"][:3].tolist() == [0, 0, 0]
    assert all(np.isnan(array[3]).all() for array in got.values())


def test_cotangents_of_any_strides() -> None:
    rng = np.random.default_rng(10)
    x = rng.standard_normal((4, 60, 3)).astype(np.float32)
    ran = call("magnitude", x, k=9.5, l=0.2, p=2.0, axis=1)
    y = call("mask", x, k=9.5, l=0.2, p=2.0, axis=1).results["y"]
    g = rng.standard_normal((60, 3, 8)).astype(np.float32).transpose(2, 0, 1)[::2]
    for strided in (g, np.broadcast_to(g[:1, :1, :1], x.shape)):
        straight = strided.copy()
        for operator, array, more in (("mask_vjp", y, {}), ("magnitude_vjp", x, {"tau": ran.results["tau"]})):
            one, other = (call(operator, array, g=g, l=0.2, p=2.0, axis=1, **more) for g in (strided, straight))
            assert all(one.results[name].tobytes() == other.results[name].tobytes() for name in one.results)


# ---- What it costs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize("form", ["p = 4/3", "laplace"])
def test_a_row_on_chip_is_read_once(dtype: str, form: str) -> None:
    x = encoded(np.random.default_rng(0).standard_normal((3, 5000)), dtype)
    ran = call("mask", x, k=50.5, l=0.1, **FORMS[form])
    assert ran.stats.bytes_loaded == x.nbytes == ran.plan.bytes_read
    assert ran.stats.bytes_stored == x.nbytes
    if form == "laplace":
        return
    ran = call("magnitude", x, k=50.5, l=0.1, p=4 / 3)
    assert ran.stats.bytes_loaded == x.nbytes == ran.plan.bytes_read


def test_a_long_row_is_read_three_times() -> None:
    x = np.random.default_rng(0).standard_normal((1, 70_000)).astype(np.float32)
    for operator in ("mask", "magnitude"):
        ran = call(operator, x, k=50.5, l=0.1, p=4 / 3)
        assert ran.stats.bytes_loaded == 3 * x.nbytes == ran.plan.bytes_read


def test_only_cotangents_of_active_entries_are_read() -> None:
    x, g = (np.random.default_rng(seed).standard_normal((2, 5000)).astype(np.float32) for seed in range(2))
    y = call("mask", x, k=50.5, l=0.1, p=4 / 3).results["y"]
    active = int(((y > 0) & (y < 1)).sum())
    assert 0 < active < 1000
    loaded = call("mask_vjp", y, g=g, l=0.1, p=4 / 3).stats.bytes_loaded
    assert loaded == 2 * (y.nbytes + 4 * active)


# ---- Plans ---------------------------------------------------------------------------------------------------


def request(operator: str, shape: tuple[int, ...], dtype: str = "float32", **arguments: Any) -> SoftRequest:
    return SoftRequest.build(f"soft_top_k_{operator}", shape, row_major(shape), dtype, **{"k": 8.0, **arguments})


def test_plans_are_one_launch_without_workspace() -> None:
    for operator, n, device in itertools.product(("mask", "magnitude"), (1, 4096, 10**7, 2**32), REFERENCES.values()):
        plan = plan_soft(request(operator, (3, n)), device)
        assert plan.kernels == (f"soft_{operator}",)
        assert plan.workspace_bytes == 0
        assert plan.steps[0].shared_bytes <= device.shared_bytes
        assert plan.steps[0].grid == 3
        assert dict(plan.steps[0].defines)["SOURCE"] == (3 if n <= 4096 else 0)


def test_how_a_row_is_shared_out_does_not_depend_on_the_others() -> None:
    for operator, n, dtype in itertools.product(("mask", "magnitude"), (7, 3000, 10**6), REALS):
        plans = [plan_soft(request(operator, (rows, n), dtype), REFERENCES["sm_90"]) for rows in (1, 50, 10**6)]
        steps = [(step.defines, step.block, step.shared_bytes) for plan in plans for step in plan.steps]
        assert len(set(steps)) == 1


def test_plans_for_the_cpu_and_of_nothing() -> None:
    cpu = REFERENCES["sm_90"].__class__("cpu", "cpu", 1, 0)
    assert plan_soft(request("mask", (3, 50)), cpu).steps == (HostCall("host.soft"),)
    for device in (cpu, REFERENCES["sm_90"]):
        assert plan_soft(request("mask", (3, 0)), device).steps == ()
        assert plan_soft(request("magnitude", (0, 3)), device).steps == ()
        # Rows without entries have a threshold.
        assert len(plan_soft(request("magnitude", (3, 0)), device).steps) == 1
    with pytest.raises(InvalidArgument, match="blocks"):
        plan_soft(request("mask", (2**31, 3)), REFERENCES["sm_90"])


def test_rows_without_entries() -> None:
    x = np.zeros((3, 0), np.float32)
    k = np.array([0, 1, 2], np.float32)
    tau = call("magnitude", x, k=k, l=0.1, p=2.0).results["tau"]
    assert tau.tolist() == [np.inf, 0, 0]
    for operator, more in (("mask_vjp", {}), ("magnitude_vjp", {"tau": tau})):
        got = call(operator, x, g=x, l=0.1, p=2.0, **more).results
        assert got["dk"].tolist() == got["dl"].tolist() == [0, 0, 0]


def test_modelled_times_grow_with_the_work() -> None:
    def seconds(operator: str, *shape: int, **arguments: Any) -> float:
        return sum(next(ways(request(operator, shape, **arguments), REFERENCES["sm_90"])).seconds)

    assert seconds("mask", 8192, 1000) < seconds("mask", 8192, 8000) < seconds("mask", 8192, 80_000)
    assert seconds("mask", 100, 8000) < seconds("mask", 10_000, 8000)
    assert seconds("mask", 8192, 8000) < seconds("mask", 8192, 8000, kind="sigmoid")
