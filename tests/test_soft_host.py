"""The NumPy path of soft top-k against the oracle, and against the algorithms in print."""

from __future__ import annotations

import itertools
import sys
import threading
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from approxtopk.dtypes import DTYPES
from approxtopk.errors import InvalidArgument
from approxtopk.host import soft, threads
from approxtopk.soft_reference import dykstra, pav, soft_top_k_mask_by

from .reference_soft import (
    each_row,
    reference_magnitude,
    reference_magnitude_vjp,
    reference_mask,
    reference_mask_vjp,
)
from .test_host import subnormals_flushed

MODULES = [sys.modules[f"approxtopk.host.soft_{name}"] for name in ("rows", "find", "mask", "magnitude", "vjp")]
Array = NDArray[Any]

TYPES = ("float16", "bfloat16", "float32", "float64")
KINDS = ("pnorm", "sigmoid", "laplace")
NORMS = (1.2, 4 / 3, 1.5, 2.0, 3.0, 8.0)
EPS = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}


@pytest.fixture(autouse=True)
def no_warnings() -> Any:
    """Turn what NumPy says of infinities and the like into errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def encode(values: Array, name: str) -> Array:
    """Round to a type: bfloat16 to its bits, by another way than the library's."""
    if name != "bfloat16":
        with np.errstate(over="ignore"):
            return np.asarray(values).astype(name)
    wide = np.asarray(values, np.float32)
    bits = wide.view(np.uint32).astype(np.uint64)
    low, high = bits & 0xFFFF, bits >> np.uint64(16)
    up = (low > 0x8000) | ((low == 0x8000) & (high & np.uint64(1) == 1))
    return np.where(np.isnan(wide), 0x7FC0, high + up).astype(np.uint16)


def decode(values: Array, name: str) -> Array:
    """Give values as float64."""
    if name == "bfloat16":
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
    return values.astype(np.float64)


def real(name: str) -> str:
    return "float64" if name == "float64" else "float32"


def rubbish(shape: tuple[int, ...], name: str) -> Array:
    return np.full(shape, 77, np.uint16 if name == "bfloat16" else name)


def mask(
    x: Array, k: Any, l: Any, kind: str = "pnorm", p: float = 4 / 3, name: str = "float64", axis: int = -1
) -> Array:
    """Call the NumPy path on an array of the type's own."""
    y, before = rubbish(x.shape, name), x.copy()
    soft.soft_mask(x, y, dtype=DTYPES[name], axis=axis, kind=kind, p=p, k=k, l=l)
    assert x.tobytes() == before.tobytes()
    return y


def magnitude(x: Array, k: Any, l: Any, p: float = 4 / 3, name: str = "float64", axis: int = -1) -> tuple[Array, Array]:
    y, tau = rubbish(x.shape, name), rubbish(np.delete(x.shape, axis), real(name))
    soft.soft_magnitude(x, y, tau, np.empty_like(tau), dtype=DTYPES[name], axis=axis, p=p, k=k, l=l)
    return y, tau


def mask_vjp(
    y: Array, g: Array, l: Any, kind: str = "pnorm", p: float = 4 / 3, name: str = "float64", axis: int = -1
) -> tuple[Array, Array, Array]:
    dx = rubbish(y.shape, name)
    dk, dl = (rubbish(np.delete(y.shape, axis), real(name)) for _ in range(2))
    soft.soft_mask_vjp(y, g, dx, dk, dl, dtype=DTYPES[name], axis=axis, kind=kind, p=p, l=l)
    return dx, dk, dl


def magnitude_vjp(
    x: Array, g: Array, tau: Array, l: Any, p: float = 4 / 3, name: str = "float64", axis: int = -1
) -> tuple[Array, Array, Array]:
    dx = rubbish(x.shape, name)
    dk, dl = (rubbish(np.delete(x.shape, axis), real(name)) for _ in range(2))
    soft.soft_magnitude_vjp(x, g, tau, 0.0, dx, dk, dl, dtype=DTYPES[name], axis=axis, p=p, l=l)
    return dx, dk, dl


def drawn(rng: np.random.Generator, shape: Any, law: str, offset: float = 0.0) -> Array:
    x = {
        "normal": rng.standard_normal,
        "cauchy": rng.standard_cauchy,
        "ties": lambda size: np.round(4 * rng.standard_normal(size)) / 4,
    }[law](size=shape)
    return x + offset


def room(y: Array, p: float) -> Array:
    """How far a mask of a p-norm may be off, but for rounding: what 2^-46 more or less of u make of it."""
    a, u = 1 / (p - 1), y ** (p - 1)
    return np.clip(u + 2.0**-46, 0, 1) ** a - np.clip(u - 2.0**-46, 0, 1) ** a


LAWS = ("normal", "cauchy", "ties")
SIZES = ((2, 1), (3, 1.5), (5, 4), (5, 0.25), (17, 3), (64, 60.5), (300, 40), (2100, 20.5), (2100, 700))


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("law", LAWS)
def test_mask_agrees_with_the_oracle(name: str, law: str) -> None:
    rng = np.random.default_rng([LAWS.index(law), TYPES.index(name)])
    curves = [("pnorm", p) for p in NORMS] + [("sigmoid", 2.0), ("laplace", 2.0)]
    bound = 1e-12 if name == "float64" else 1e-6
    for (n, k), offset, l in itertools.product(SIZES, (0, 1000)[: 1 if "16" in name else 2], (1e-5, 0.1, 30.0)):
        x = encode(drawn(rng, n, law, offset), name)
        # The oracle takes its time.
        chosen = rng.permutation(8)[: 3 if n < 100 and name in ("float32", "float64") else 1]
        for kind, p in (curves[i] for i in chosen):
            y = decode(mask(x, k, l, kind, p, name), name)
            expected = reference_mask(decode(x, name), k, l, kind, p)
            error = np.abs(y - expected) - (EPS[name] * expected if bound == 1e-6 and name != "float32" else 0)
            if kind == "pnorm" and p > 2:
                error = error - room(expected, p)
            assert error.max() <= bound, (n, k, offset, l, kind, p)
            if name in ("float32", "float64") and not (kind == "pnorm" and p > 2):
                assert abs(y.sum() - k) <= bound * k, (n, k, offset, l, kind, p)


@pytest.mark.parametrize("name", ["float32", "float64"])
@pytest.mark.parametrize(("kind", "p"), [("pnorm", 4 / 3), ("pnorm", 2.0), ("sigmoid", 2.0), ("laplace", 2.0)])
def test_mask_of_wide_rows(name: str, kind: str, p: float) -> None:
    rng = np.random.default_rng(5)
    n = 100_000 if kind == "pnorm" else 10_000
    bound = 1e-12 if name == "float64" else 1e-6
    for law, k, l in (("normal", 100, 0.1), ("cauchy", 64.5, 1.0)):
        x = drawn(rng, n, law).astype(name)
        y = mask(x, k, l, kind, p, name)
        assert np.abs(y - reference_mask(x, k, l, kind, p)).max() <= bound
        assert abs(y.sum(dtype=np.float64) - k) <= bound * k


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("law", LAWS)
def test_magnitude_agrees_with_the_oracle(name: str, law: str) -> None:
    rng = np.random.default_rng([7, LAWS.index(law), TYPES.index(name)])
    bound = 1e-12 if name == "float64" else 1e-6
    for (n, k), offset, l in itertools.product(SIZES[:-1], (0, 1000)[: 1 if "16" in name else 2], (1e-5, 0.1, 30.0)):
        x = encode(drawn(rng, n, law, offset), name)
        for p in rng.permutation(NORMS)[: 2 if n < 100 and name in ("float32", "float64") else 1]:
            y, tau = magnitude(x, k, l, p, name)
            exact = decode(x, name)
            expected, threshold = reference_magnitude(exact, k, l, p)
            # Of the entries' own size; of p = 8 no digit of r is safe where z is nearly 0, as for the mask.
            error = np.abs(decode(y, name) - expected) / np.maximum(np.abs(exact), 1e-30)
            if name in ("float16", "bfloat16"):
                error = error - EPS[name]
            if p > 2:
                share = np.clip(np.abs(expected) / np.maximum(np.abs(exact), 1e-30), 0, 1)
                error = np.where((share > 1e-9) & (share < 1), error, 0) - (1e-3 if p == 8 else 1e-9)
            assert error.max() <= bound, (n, k, offset, l, p)
            if threshold and k % 1:  # of a whole k there may be many
                assert tau == pytest.approx(threshold, rel=max(bound, 1e-11), abs=1e-44), (n, k, offset, l, p)


@pytest.mark.parametrize("p", NORMS[:4])
def test_magnitude_of_entries_that_hardly_move(p: float) -> None:
    c, l = 1.5, 0.1
    reach = l * c ** (p - 1)
    for gap in (1.5, 1 + 1e-6, 1 + 1e-12, 1.0, 1 - 1e-12, 1 - 1e-6, 0.999, 0.9, 0.5, 1e-3, 1e-9, 0.0):
        for k in (1, 0.999999, 1 - 1e-12, 0.5, 1e-3, 1.5):
            x = np.array([c, gap * reach - c, 0.3])
            expected, _ = reference_magnitude(x, k, l, p)
            np.testing.assert_allclose(magnitude(x, k, l, p)[0], expected, rtol=0, atol=1e-12, err_msg=f"{gap} {k}")


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize(("kind", "p"), [("pnorm", 4 / 3), ("pnorm", 2.0), ("sigmoid", 2.0), ("laplace", 2.0)])
def test_k_and_l_of_each_row(name: str, kind: str, p: float) -> None:
    rng = np.random.default_rng(3)
    for shape in ((4, 3, 40), (2, 3, 5000)):
        x = encode(rng.standard_normal(shape), name)
        k = rng.integers(1, 30, shape[:-1]) + rng.choice([0, 0.5], shape[:-1])
        l = np.exp(rng.uniform(-6, 2, shape[:-1]))
        if real(name) == "float32":
            k, l = k.astype(np.float32), l.astype(np.float32)
        expected = np.stack(each_row(lambda x, k, l: reference_mask(x, k, l, kind, p), decode(x, name), k, l))
        wide = np.repeat(np.repeat(l, 2, -1), 2, 0)[::2, ::2]  # in other strides
        y = mask(x, k, wide, kind, p, name)
        error = np.abs(decode(y, name).reshape(expected.shape) - expected)
        assert error.max() <= (1e-12 if name == "float64" else 1e-6) + (EPS[name] if "16" in name else 0)
        same = mask(x, np.broadcast_to(np.float32(7), shape[:-1]), 0.5, kind, p, name)
        assert same.tobytes() == mask(x, 7, 0.5, kind, p, name).tobytes()
        if kind == "pnorm":
            y, tau = magnitude(x, k, wide, p, name)
            both = each_row(lambda x, k, l: reference_magnitude(x, k, l, p), decode(x, name), k, l)
            error = np.abs(decode(y, name).reshape(expected.shape) - np.stack([one for one, _ in both]))
            error /= np.maximum(np.abs(decode(x, name)).reshape(expected.shape), 1e-30)
            assert error.max() <= (1e-12 if name == "float64" else 1e-6) + (EPS[name] if "16" in name else 0)
            halves = (k % 1 > 0).reshape(-1)
            assert np.allclose(tau.reshape(-1)[halves], np.array([t for _, t in both])[halves], rtol=1e-6)


SPECIAL = (
    ([1.0, np.nan, 2.0, 3.0], 2, 0.1),
    ([1.0, 2.0, 3.0, 4.0], 2, 0.0),
    ([1.0, 2.0, 3.0, 4.0], 2, -1.0),
    ([1.0, 2.0, 3.0, 4.0], 2, np.inf),
    ([1.0, 2.0, 3.0, 4.0], 2, np.nan),
    ([1.0, 2.0, 3.0, 4.0], np.nan, 0.1),
    ([1.0, np.nan, 3.0, 4.0], 0, 0.1),
    ([1.0, np.nan, 3.0, 4.0], 4, 0.1),
    ([1.0, 2.0, np.inf, 4.0], 0, 0.1),
    ([1.0, 2.0, 3.0, 4.0], -2.5, 0.1),
    ([1.0, -np.inf, 3.0, 4.0], 4, 0.1),
    ([1.0, -np.inf, np.inf, 4.0], 7, 0.1),
    ([1.0, 2.0, 3.0, 4.0], np.inf, 0.1),
    ([1.0, -np.inf, -np.inf, 4.0], 2, 0.1),
    ([1.0, -np.inf, -np.inf, 4.0], 3, 30.0),
    ([1.0, -np.inf, -np.inf, 4.0], 2.5, 30.0),
    ([1.0, -np.inf, -np.inf, 4.0], 1.75, 30.0),
    ([-np.inf, -np.inf, -np.inf, -np.inf], 1.5, 0.1),
    ([np.inf, 1.0, np.inf, 2.0], 1, 0.1),
    ([np.inf, 1.0, np.inf, 2.0], 1.5, 0.1),
    ([np.inf, 1.0, np.inf, 2.0], 2, 0.1),
    ([np.inf, 1.0, np.inf, 2.0], 2.5, 3.0),
    ([np.inf, -np.inf, 1.0, 2.0], 1.25, 3.0),
    ([np.inf, -np.inf, np.inf, -np.inf], 2, 0.1),
    ([np.inf, -np.inf, np.inf, -np.inf], 2.5, 0.1),
    ([0.0, -0.0, 0.0, 0.0], 1, 0.1),
    ([0.0, -0.0, 3.0, 0.0], 1, 0.1),
    ([0.0, -0.0, 3.0, 0.0], 2, 0.1),
    ([0.0, 2.0, -3.0, 0.0], 2, 0.1),
    ([0.0, 2.0, -3.0, 0.0], 1.5, 30.0),
    ([5.0, 5.0, 5.0, 5.0], 1, 1e-5),
    ([5.0, 5.0, 5.0, 5.0], 2.5, 1e-30),
    ([1.0, 2.0, 3.0, 4.0], 1.5, 1e30),
    ([65504.0, -65504.0, 65504.0, 1.0], 1, 0.5),
)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_special_cases(name: str, kind: str) -> None:
    x = np.array([row for row, _, _ in SPECIAL])
    k, l = (np.array([case[i] for case in SPECIAL], real(name)) for i in (1, 2))
    x = encode(x, name)
    expected = np.stack(each_row(lambda x, k, l: reference_mask(x, k, l, kind), decode(x, name), k, l))
    bound = (1e-12 if name == "float64" else 1e-6) + (EPS[name] if "16" in name else 0)
    together = decode(mask(x, k, l, kind, name=name), name)
    for i, case in enumerate(SPECIAL):
        np.testing.assert_allclose(together[i], expected[i], rtol=0, atol=bound, err_msg=str(case))
        alone = decode(mask(x[i], float(k[i]), float(l[i]), kind, name=name), name)
        np.testing.assert_array_equal(alone, together[i], err_msg=str(case))


@pytest.mark.parametrize("name", TYPES)
def test_special_cases_of_the_magnitude(name: str) -> None:
    x = np.array([row for row, _, _ in SPECIAL])
    k, l = (np.array([case[i] for case in SPECIAL], real(name)) for i in (1, 2))
    x = encode(x, name)
    exact = decode(x, name)
    expected = each_row(reference_magnitude, exact, k, l)
    y, tau = magnitude(x, k, l, name=name)
    bound = (1e-12 if name == "float64" else 1e-6) + (EPS[name] if "16" in name else 0)
    g = encode(np.ones(x.shape), name)
    dx, dk, dl = magnitude_vjp(x, g, tau, l, name=name)
    for i, case in enumerate(SPECIAL):
        np.testing.assert_allclose(decode(y[i], name), expected[i][0], rtol=bound, atol=0, err_msg=str(case))
        if expected[i][1] in (0, np.inf) or np.isnan(expected[i][1]):
            np.testing.assert_array_equal(tau[i], expected[i][1], err_msg=str(case))
        same, threshold = magnitude(x[i], float(k[i]), float(l[i]), name=name)
        assert same.tobytes() == y[i].tobytes()
        assert threshold.tobytes() == tau[i].tobytes()
        # Derivatives are NaN where the row is, and nowhere else.
        assert (np.isnan([*decode(dx[i], name), dk[i], dl[i]]) == np.isnan(tau[i])).all(), case
        if tau[i] == 0:
            np.testing.assert_array_equal(decode(dx[i], name), exact[i] != 0)
        if np.isinf(tau[i]):
            np.testing.assert_array_equal(decode(dx[i], name), 0)


@pytest.mark.parametrize("name", ["float32", "float64"])
@pytest.mark.parametrize("n", [100, 5000])
def test_rows_do_not_touch_each_other(name: str, n: int) -> None:
    rng = np.random.default_rng(11)
    x = rng.standard_normal((60, n)).astype(name)
    g = rng.standard_normal(x.shape).astype(name)
    bad = x.copy()
    rows = np.arange(0, 60, 7)
    bad[rows, rng.integers(0, n, rows.size)] = [np.nan, np.inf, -np.inf] * 3
    rest = np.delete(np.arange(60), rows)
    for kind in KINDS:
        y, spoilt = mask(x, 9, 0.3, kind, name=name), mask(bad, 9, 0.3, kind, name=name)
        assert y[rest].tobytes() == spoilt[rest].tobytes()
        assert (np.isnan(spoilt) == np.isnan(bad).any(axis=1)[:, None]).all()
        derived, others = mask_vjp(y, g, 0.3, kind, name=name), mask_vjp(spoilt, g, 0.3, kind, name=name)
        for one, other in zip(derived, others, strict=True):
            assert one[rest].tobytes() == other[rest].tobytes()
            assert (np.isnan(other.reshape(60, -1)) == np.isnan(bad).any(axis=1)[:, None]).all()
    (y, tau), (spoilt, thresholds) = magnitude(x, 9, 0.3, name=name), magnitude(bad, 9, 0.3, name=name)
    assert y[rest].tobytes() == spoilt[rest].tobytes()
    assert tau[rest].tobytes() == thresholds[rest].tobytes()
    assert (np.isnan(spoilt) == np.isnan(bad).any(axis=1)[:, None]).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["float32", "float64"])
def test_a_row_alone_is_the_row_in_a_batch(name: str, kind: str) -> None:
    rng = np.random.default_rng(13)
    for n, k in ((33, 4), (3000, 30), (1000, 400.5), (20_000, 50)):
        x = np.concatenate([rng.standard_normal((5, n)), rng.standard_cauchy((4, n)), np.zeros((1, n))]).astype(name)
        g = rng.standard_normal(x.shape).astype(name)
        for l in (0.05, 20.0):
            y = mask(x, k, l, kind, name=name)
            dx, dk, dl = mask_vjp(y, g, l, kind, name=name)
            for i in range(len(x)):
                assert y[i].tobytes() == mask(x[i], k, l, kind, name=name).tobytes()
                alone = mask_vjp(y[i], g[i], l, kind, name=name)
                assert [a.tobytes() for a in alone] == [a[i].tobytes() for a in (dx, dk, dl)]
            varied = np.full(len(x), k, np.float64)
            varied[::2] += 3
            assert y[1::2].tobytes() == mask(x, varied, l, kind, name=name)[1::2].tobytes()
            if kind == "pnorm":
                y, tau = magnitude(x, k, l, name=name)
                dx, dk, dl = magnitude_vjp(x, g, tau, l, name=name)
                for i in range(len(x)):
                    assert [a[i].tobytes() for a in (y, tau)] == [a.tobytes() for a in magnitude(x[i], k, l, name=name)]
                    alone = magnitude_vjp(x[i], g[i], tau[i], l, name=name)
                    assert [a.tobytes() for a in alone] == [a[i].tobytes() for a in (dx, dk, dl)]


@pytest.mark.parametrize("name", TYPES)
def test_strides_and_axes(name: str) -> None:
    rng = np.random.default_rng(17)
    x, g = (encode(rng.standard_normal((3, 50, 4)), name) for _ in range(2))
    k = rng.integers(1, 20, (3, 4)).astype(np.float64)
    # In memory of its own, rows together.
    xs, gs = (np.ascontiguousarray(np.moveaxis(a, 1, -1)) for a in (x, g))
    for kind in KINDS:
        y = mask(xs, k, 0.4, kind, name=name)
        assert np.moveaxis(mask(x, k, 0.4, kind, name=name, axis=1), 1, -1).tobytes() == y.tobytes()
        wide = np.zeros((6, 100, 8), x.dtype)
        wide[::2, ::-2, 1::2] = x
        out = np.zeros_like(wide)
        soft.soft_mask(
            wide[::2, ::-2, 1::2], out[1::2, 1::2, ::2], dtype=DTYPES[name], axis=-2, kind=kind, p=4 / 3, k=k, l=0.4
        )
        assert np.moveaxis(out[1::2, 1::2, ::2], 1, -1).tobytes() == y.tobytes()
        assert not out[::2].any()
        here = mask_vjp(np.moveaxis(y, -1, 1), g, 0.4, kind, name=name, axis=1)
        for one, other in zip(here, mask_vjp(y, gs, 0.4, kind, name=name), strict=True):
            assert (np.moveaxis(one, 1, -1) if one.ndim == 3 else one).tobytes() == other.tobytes()
    y, tau = magnitude(xs, k, 0.4, name=name)
    moved, thresholds = magnitude(x, k, 0.4, name=name, axis=1)
    assert np.moveaxis(moved, 1, -1).tobytes() == y.tobytes()
    assert thresholds.tobytes() == tau.tobytes()
    here = magnitude_vjp(x, g, tau, 0.4, name=name, axis=1)
    for one, other in zip(here, magnitude_vjp(xs, gs, tau, 0.4, name=name), strict=True):
        assert (np.moveaxis(one, 1, -1) if one.ndim == 3 else one).tobytes() == other.tobytes()
    # The first axis of a matrix.
    x = encode(rng.standard_normal((60, 7)), name)
    assert (
        mask(x, 5, 0.1, name=name, axis=0).T.tobytes() == mask(np.ascontiguousarray(x.T), 5, 0.1, name=name).tobytes()
    )


def test_nothing_to_do() -> None:
    for shape in ((0, 5), (5, 0), (0,)):
        x = np.zeros(shape)
        assert mask(x, 2, 0.1).shape == shape
        y, tau = magnitude(x, 2, 0.1)
        assert y.shape == shape
        assert (tau == 0).all()
        assert all((a == 0).all() for a in mask_vjp(x, x, 0.1)[1:])
        assert all((a == 0).all() for a in magnitude_vjp(x, x, tau, 0.1)[1:])
    assert (magnitude(np.zeros((2, 0)), np.array([0.0, np.nan]), 0.1)[1] == [np.inf, np.nan]).tolist() == [True, False]


def test_ties_share_equally() -> None:
    for kind, p in (*(("pnorm", p) for p in NORMS), ("sigmoid", 2.0), ("laplace", 2.0)):
        for name in ("float32", "float64"):
            x = np.array([3.0, 1.0, 1.0, 1.0, -4.0], name)
            y = mask(x, 2, 0.05, kind, p, name)
            assert len(set(y[1:4].tolist())) == 1
            tolerance = 1e-12 if name == "float64" else 1e-6
            np.testing.assert_allclose(y, [1, 1 / 3, 1 / 3, 1 / 3, 0], rtol=0, atol=tolerance)
    y, _ = magnitude(np.array([-2.0, 2.0, 2.0, 0.5]), 2, 0.1)
    assert y[0] == -y[1] == -y[2]
    assert 0 < y[1] < 2


def test_published_examples() -> None:
    x = np.array([-5.0, -2.0, 3.0, 1.0])
    for name in ("float32", "float64"):
        values = x.astype(name)
        for p in (4 / 3, 2.0):
            np.testing.assert_allclose(mask(values, 2, 1e-2, p=p, name=name), [0, 0, 1, 1], atol=1e-4)
            np.testing.assert_allclose(magnitude(values, 2, 1e-2, p, name)[0], [-5, 0, 3, 0], atol=1e-4)


@pytest.mark.parametrize(("kind", "p"), [*(("pnorm", p) for p in NORMS[:-1]), ("sigmoid", 2.0), ("laplace", 2.0)])
def test_mask_derivatives(kind: str, p: float) -> None:
    rng = np.random.default_rng(19)
    for n, k, l in ((40, 5, 0.3), (40, 5.5, 2.0), (400, 390.25, 0.5), (3000, 60, 0.1)):
        x, g = rng.standard_normal((2, n))
        y = mask(x, k, l, kind, p)
        dx, dk, dl = mask_vjp(y, g, l, kind, p)
        expected = reference_mask_vjp(x, g, k, l, kind, p)
        np.testing.assert_allclose(dx, expected[0], rtol=1e-6, atol=1e-10 * np.abs(dx).max())
        np.testing.assert_allclose([dk, dl], expected[1:], rtol=1e-9, atol=1e-11)
        for name in ("float16", "bfloat16", "float32"):
            rounded, gradient = encode(y, name), encode(g, name)
            single = mask_vjp(rounded, gradient, l, kind, p, name)
            # Of the rounded mask, which is what there is.
            double = mask_vjp(decode(rounded, name), decode(gradient, name), l, kind, p)
            error = np.abs(decode(single[0], name) - double[0]).max() / np.abs(double[0]).max()
            assert error <= 2e-6 + EPS[name]
            np.testing.assert_allclose(single[1:], double[1:], rtol=2e-5, atol=1e-5)
        if n == 40 and k == 5.5:
            difference(lambda x, k, l: reference_mask(x, k, l, kind, p) @ g, x, k, l, (dx, dk, dl))  # noqa: B023


@pytest.mark.parametrize("p", NORMS[:-1])
def test_magnitude_derivatives(p: float) -> None:
    rng = np.random.default_rng(23)
    for n, k, l in ((40, 5.5, 0.3), (40, 5.25, 20.0), (400, 390.25, 0.5), (3000, 60, 0.1)):
        x, g = rng.standard_normal((2, n))
        _, tau = magnitude(x, k, l, p)
        dx, dk, dl = magnitude_vjp(x, g, tau, l, p)
        expected = reference_magnitude_vjp(x, g, float(tau), l, p)
        np.testing.assert_allclose(dx, expected[0], rtol=1e-9, atol=1e-12 * np.abs(dx).max())
        np.testing.assert_allclose([dk, dl], expected[1:], rtol=1e-9, atol=1e-12)
        for name in ("float16", "bfloat16", "float32"):
            rounded, gradient = encode(x, name), encode(g, name)
            _, tau = magnitude(rounded, k, l, p, name)
            single = magnitude_vjp(rounded, gradient, tau, l, p, name)
            exact = reference_magnitude_vjp(decode(rounded, name), decode(gradient, name), float(tau), l, p)
            assert np.abs(decode(single[0], name) - exact[0]).max() / np.abs(exact[0]).max() <= 2e-6 + EPS[name]
            np.testing.assert_allclose(single[1:], exact[1:], rtol=1e-5, atol=1e-6)
        if n == 40:
            difference(lambda x, k, l: reference_magnitude(x, k, l, p)[0] @ g, x, k, l, (dx, dk, dl))  # noqa: B023


def difference(function: Any, x: Array, k: float, l: float, derivatives: tuple[Array, Array, Array]) -> None:
    """Compare derivatives with differences."""
    h = 1e-6
    dx, dk, dl = derivatives
    moving = np.flatnonzero(dx)[:6]
    found = []
    for i in moving:
        step = np.zeros(x.size)
        step[i] = h
        found.append((function(x + step, k, l) - function(x - step, k, l)) / (2 * h))
    np.testing.assert_allclose(found, dx[moving], rtol=1e-5, atol=1e-6)
    assert (function(x, k + h, l) - function(x, k - h, l)) / (2 * h) == pytest.approx(float(dk), rel=1e-5, abs=1e-6)
    assert (function(x, k, l + h) - function(x, k, l - h)) / (2 * h) == pytest.approx(float(dl), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_derivatives_are_never_nan_unless_the_mask_is(name: str) -> None:
    tiny = np.finfo(name).smallest_normal
    y = np.array(
        [[0, 1, 0, 1], [tiny, tiny * 4, 1, 0], [1 - EPS[name], 1, 1, 0], [0.5, 0.5, 0.5, 0.5], [0, 0, np.nan, 1]]
    ).astype(name)
    for kind, p in (*(("pnorm", p) for p in NORMS), ("sigmoid", 2.0), ("laplace", 2.0)):
        for l in (1e-5, 0.1, 30.0):
            g = np.where((y == 0) | (y == 1), np.nan, np.arange(4) + 1).astype(name)
            found = mask_vjp(y, g, l, kind, p, name)
            assert all(np.isfinite(a[:4]).all() and np.isnan(a[4]).all() for a in found)
            assert all((a[0] == 0).all() for a in found)
    dx, dk, _ = mask_vjp(y[3], np.arange(4).astype(name), 0.5, "pnorm", 2.0, name)
    np.testing.assert_allclose(dx, [-3, -1, 1, 3])
    assert dk == 1.5


def test_methods_in_print_agree() -> None:
    rng = np.random.default_rng(29)
    for n, k, l in ((2, 1, 0.1), (30, 4, 0.3), (30, 4.5, 3.0), (30, 26, 1.0), (30, 5, 30.0), (200, 20.5, 1e-3)):
        for law in LAWS:
            x = drawn(rng, n, law)
            for p in NORMS:
                np.testing.assert_allclose(pav(x, k, l, p), mask(x, k, l, p=p), rtol=0, atol=1e-9)
                if p in (4 / 3, 2.0) or (p == 1.5 and l == 0.3):
                    found = dykstra(x, k, l, p)
                    assert np.abs(found - mask(x, k, l, p=p)).max() <= 1e-3, (n, k, l, law, p)
                    assert found.sum() == pytest.approx(k, abs=1e-9)
    # Few iterations are not enough where many share.
    x = rng.standard_normal(500)
    assert np.abs(dykstra(x, 50, 30.0, 2.0, iterations=100) - mask(x, 50, 30.0, p=2.0)).max() > 0.05


def test_methods_take_axes_and_refuse_the_rest() -> None:
    rng = np.random.default_rng(31)
    x = rng.standard_normal((3, 12, 2))
    k, l = rng.uniform(1, 9, (3, 2)), rng.uniform(0.1, 1, (3, 2))
    expected = mask(x, k, l, axis=1)
    np.testing.assert_allclose(soft_top_k_mask_by("pav", x, k, l, axis=1), expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(soft_top_k_mask_by("dykstra", x, k, l, axis=1), expected, rtol=0, atol=1e-3)
    np.testing.assert_array_equal(pav(x[0, :, 0], -1, 0.1), 0)
    np.testing.assert_array_equal(dykstra(x[0, :, 0], 99, 0.1), 1)
    for method, values, strength, p in (
        ("sort", x, 0.1, 2), ("pav", x, 0.0, 2), ("pav", x, 0.1, 1), ("dykstra", np.full((2, 2), np.inf), 0.1, 2),
    ):  # fmt: skip
        with pytest.raises(InvalidArgument):
            soft_top_k_mask_by(method, values, 1, strength, p)
    with pytest.raises(InvalidArgument, match="k must not be NaN"):
        pav(x, np.nan, 0.1)


def test_a_long_row_shared_by_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(37)
    n = 300_000
    for name in ("float32", "bfloat16"):
        x = encode(rng.standard_normal((1, n)), name)
        g = encode(rng.standard_normal((1, n)), name)
        for k, l, kind in ((64, 0.1, "pnorm"), (150_000, 5.0, "pnorm"), (1000, 0.1, "sigmoid")):
            found = []
            for width in (1, 2, 5):
                monkeypatch.setattr(threads, "width", lambda width=width: width)
                y = mask(x, k, l, kind, name=name)
                parts = [y, *mask_vjp(y, g, l, kind, name=name)]
                if kind == "pnorm":
                    out, tau = magnitude(x, k, l, name=name)
                    parts += [out, tau, *magnitude_vjp(x, g, tau, l, name=name)]
                found.append([part.tobytes() for part in parts])
            assert found[0] == found[1] == found[2]
            if name == "float32":
                assert abs(y.sum(dtype=np.float64) - k) <= 1e-6 * k


def test_blocks_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(41)
    x = rng.standard_normal((50, 700)).astype(np.float32)
    g = rng.standard_normal((50, 700)).astype(np.float32)

    def everything() -> list[bytes]:
        parts: list[Array] = []
        for kind, k, l in (("pnorm", 9, 0.2), ("pnorm", 300.5, 4.0), ("laplace", 9, 0.2)):
            y = mask(x, k, l, kind, name="float32")
            parts += [y, *mask_vjp(y, g, l, kind, name="float32")]
            out, tau = magnitude(x, k, l, name="float32")
            parts += [out, tau, *magnitude_vjp(x, g, tau, l, name="float32")]
        return [part.tobytes() for part in parts]

    expected = everything()
    monkeypatch.setattr(MODULES[0], "ALONE", 100)
    for block, group in ((700, 1 << 21), (2000, 7000), (1 << 17, 700)):
        monkeypatch.setattr(MODULES[0], "GROUP", group)
        for module in MODULES:
            monkeypatch.setattr(module, "BLOCK", block)
        assert everything() == expected


@pytest.mark.parametrize(("name", "scale"), [("float16", 4e-7), ("bfloat16", 1e-30), ("float32", 1e-30)])
def test_with_subnormals_flushed_to_zero(name: str, scale: float) -> None:
    # Of float16 they are large enough to matter, of the others not.
    rng = np.random.default_rng(47)
    x, g = (encode(scale * rng.standard_normal((4, 3000)), name) for _ in range(2))

    def everything() -> list[bytes]:
        parts: list[Array] = []
        for kind in KINDS:
            y = mask(x, 20, scale, kind, name=name)
            parts += [y, *mask_vjp(y, g, scale, kind, name=name)]
        out, tau = magnitude(x, 20, 0.3, 2.0, name)
        parts += [out, tau, *magnitude_vjp(x, g, tau, 0.3, 2.0, name)]
        return [part.tobytes() for part in parts]

    expected = everything()
    with subnormals_flushed():
        assert everything() == expected


def test_calls_side_by_side() -> None:
    rng = np.random.default_rng(43)
    x = rng.standard_normal((64, 4096)).astype(np.float32)
    expected = mask(x, 64, 0.1, name="float32").tobytes()
    same: list[bool] = []

    def call() -> None:
        same.extend(mask(x, 64, 0.1, name="float32").tobytes() == expected for _ in range(3))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert same == [True] * 12
