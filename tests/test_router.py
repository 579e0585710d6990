"""The training example of docs/soft.md runs, learns, and says what it promises."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from bench import router  # noqa: E402


def test_a_short_run() -> None:
    before, threads, told = torch.get_rng_state(), torch.get_num_threads(), []
    found = router.run(seed=3, epochs=3, seeds=1, tell=told.append)
    assert torch.equal(torch.get_rng_state(), before) and torch.get_num_threads() == threads
    assert (found["seed"], found["epochs"], found["seeds"], found["experts"], found["k"]) == (3, 3, 1, 16, 2)
    results = found["results"]
    assert [(one["units"], one["way"]) for one in results] == [(u, w) for u in router.UNITS for w in router.WAYS]
    assert len(told) == 1 + len(results)
    for one in results:
        assert one["train"][0] > one["train"][-1] > 0 and len(one["train"]) == 3
        assert one["loss"] < 2.3 and 0.2 < one["accuracy"] <= 1  # chance is 2.3 and 0.1
        assert len(one["share"]) == 16 and sum(one["share"]) == pytest.approx(1)
        assert one["idle"] == one["share"].count(0.0) <= 14
    assert router.run(seed=3, epochs=3, seeds=1, tell=told.append)["results"] == results


def test_both_ways_start_alike() -> None:
    """In the first step they differ in the mask and in nothing else."""
    x, l = torch.rand(5, 64), router.START
    torch.manual_seed(0)
    model = router.Experts(2)
    for way in router.WAYS:
        logits, mask = model(x, way, l)
        assert logits.shape == (5, 10)
        torch.testing.assert_close(mask.sum(-1), torch.full((5,), 2.0))
    # Soft becomes hard.
    torch.testing.assert_close(model(x, "soft", 1e-6), model(x, "hard", l))
