"""The README's commands, examples and figures are true."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import approxtopk as atk

from .examples import BLOCK, run_page

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^(\w+):\n\n" + BLOCK, README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("framework, example", EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_example(framework: str, example: str) -> None:
    run_page(framework, example)


def test_every_framework_has_an_example() -> None:
    assert list(dict.fromkeys(name for name, _ in EXAMPLES)) == ["NumPy", "PyTorch", "JAX", "CuPy"]
    assert README.count("```pycon") == len(EXAMPLES)


@pytest.mark.parametrize("k", [64, 1024])
def test_recall_table(k: int) -> None:
    [table] = re.findall(rf"^\| k = {k}: b k_b / k \|(.*?)\n\n", README, re.MULTILINE | re.DOTALL)
    head, _, *rows = table.splitlines()
    kept = [int(cell) for cell in re.findall(r"k_b = (\d+)", head)]
    assert kept == [1, 2, 4, 8]
    assert [int(row.split("|")[1]) for row in rows] == [1, 2, 4, 8]
    for row in rows:
        times, *cells = (cell.strip() for cell in row.strip("|").split("|"))
        for k_b, cell in zip(kept, cells, strict=True):
            recall = atk.expected_recall(2**20, k, buckets=int(times) * k // k_b, k_per_bucket=k_b)
            assert cell == f"{recall:.4f}".removeprefix("0"), (times, k_b)


def test_older_names() -> None:
    torch = pytest.importorskip("torch")
    from approxtopk.adapters.torch import approx_topk

    calls = re.findall(r"`approx_topk\(x, 64, (.*?)\)`", README)
    x = torch.randn(3, 5000, generator=torch.Generator().manual_seed(0))
    older, ours = (eval(f"approx_topk(x, 64, {rest})", {"approx_topk": approx_topk, "x": x}) for rest in calls)
    assert torch.equal(older.values, ours.values)
    assert torch.equal(older.indices, ours.indices)


@pytest.mark.parametrize("word, end", [("demo", "python -m approxtopk demo\n"), ("pytest", "python -m pytest -n 2\n")])
def test_set_up_commands(word: str, end: str) -> None:
    """CI runs what this prints: each is one block of one line, so that it can be copied whole."""
    script = ROOT / ".ci" / "readme.py"
    done = subprocess.run(
        [sys.executable, str(script), str(ROOT / "README.md"), word], capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith(end)
    assert done.stdout.count("\n") == 1
    assert done.stdout in README
    assert f"readme {word}" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
