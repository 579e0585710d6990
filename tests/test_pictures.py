"""The picture of docs/soft.md shows what the functions return."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench import pictures
from bench.pictures import OTHERS, K, curves


def test_shares_by_hand() -> None:
    """With p = 2 an entry t shares 1 with those at 1 and 0.5 until 0.5 drops out, at 1, and then with the one at 1."""
    t = np.array([-1.0, 0.25, 0.625, 1.0, 1.5, 2.0, 3.0])
    masks = curves("mask", t)
    np.testing.assert_allclose(masks["p = 2"][:, 0], [0, 0, 0.25, 0.5, 0.75, 1, 1], atol=1e-12)
    np.testing.assert_array_equal(masks["hard"][:, 0], [0, 0, 0, 1, 1, 1, 1])  # the first of equals
    assert masks["p = 4/3"][3, 0] == masks["p = 4/3"][3, 1 + OTHERS.index(1.0)]
    np.testing.assert_array_equal(masks["p = 4/3"][[0, -1], 0], [0, 1])
    assert ((masks["sigmoid"] > 0) & (masks["sigmoid"] < 1)).all()


def test_shares_sum_to_k_and_rise() -> None:
    t = np.linspace(-1.5, 3.5, 400)
    for mask in curves("mask", t).values():
        np.testing.assert_allclose(mask.sum(axis=1), K, rtol=1e-12)
        assert (np.diff(mask[:, 0]) >= -1e-12).all()
    straight = curves("mask", np.linspace(1.0, 2.0, 11))["p = 2"][:, 0]
    np.testing.assert_allclose(np.diff(straight, 2), 0, atol=1e-12)


def test_magnitudes_by_hand() -> None:
    """With p = 2: (1 - tau) + (t - tau) = tau while both are split, and 2 (t - tau) is left."""
    t = np.array([0.0, 0.5, 0.8, 1.5, 2.0, 3.0, -1.5, -3.0])
    found = curves("magnitude", t)
    np.testing.assert_allclose(found["p = 2"][:, 0], [0, 0, 0.4, 4 / 3, 2, 3, -4 / 3, -3], atol=1e-12)
    np.testing.assert_array_equal(found["hard"][:, 0], [0, 0, 0, 1.5, 2, 3, -1.5, -3])


def test_it_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    [path] = pictures.draw(tmp_path)
    assert path == tmp_path / "soft-top-k.png"
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    assert 900 <= width <= 1100 and 400 <= height <= 600
