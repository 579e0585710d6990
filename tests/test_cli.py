"""``python -m approxtopk demo | info | plan``."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import approxtopk as atk
from approxtopk.cli import main
from approxtopk.demo import digits

from .backends import gpu_present


def missing(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let packages look as if they were not installed."""
    for name in names:
        for loaded in [module for module in sys.modules if module.startswith(f"{name}.")]:
            monkeypatch.setitem(sys.modules, loaded, None)
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize(
    "arguments, shape, k, options",
    [
        ("1048576 64", 2**20, 64, {}),
        ("128x1048576 64 --recall 0.8", (128, 2**20), 64, {"recall_target": 0.8}),
        ("16,4096 8 --exact --device cpu", (16, 4096), 8, {"exact": True, "device": "cpu"}),
        (
            "3x5000x7 9 --axis 1 --mode smallest --dtype float16 --device sm_80 --unsorted --index-dtype int32",
            (3, 5000, 7),
            9,
            {
                "axis": 1,
                "mode": "smallest",
                "dtype": "float16",
                "device": "sm_80",
                "sorted": False,
                "index_dtype": "int32",
            },
        ),
        (
            "5000 9 --buckets 9 --k-per-bucket 2 --contiguous",
            5000,
            9,
            {"buckets": 9, "k_per_bucket": 2, "interleaved": False},
        ),
        (
            "4x5000 9 --certify --starts uint8 --lengths int64 --device sm_90",
            (4, 5000),
            9,
            {"certify": True, "starts": "uint8", "lengths": "int64", "device": "sm_90"},
        ),
        ("0 0", 0, 0, {}),
    ],
)
def test_plan(capsys: pytest.CaptureFixture[str], arguments: str, shape: Any, k: int, options: dict[str, Any]) -> None:
    assert main(["plan", *arguments.split()]) == 0
    assert capsys.readouterr().out == f"{atk.plan(shape, k, **options)}\n"


@pytest.mark.parametrize(
    "arguments, says",
    [
        ("10 11", "k = 11"),
        ("10 -1", "k = -1"),
        ("10 3 --recall 1.5", "recall_target = 1.5"),
        ("10 3 --mode biggest", "'biggest'"),
        ("10 3 --dtype complex64", "complex64"),
        ("10 3 --lengths float32", "lengths"),
        ("10 3 --device sm_1", "'sm_1'"),
        ("10 3 --axis 1", "axis"),
        ("10 3 --index-dtype int8", "int8"),
        ("100 5 --buckets 4 --k-per-bucket 1", "k = 5"),
        ("100 5 --exact --buckets 4", "'buckets'"),
        ("100 5 --device cuda:99", "cuda" if gpu_present() else "CuPy"),
    ],
)
def test_bad_plans_are_told_in_one_line(capsys: pytest.CaptureFixture[str], arguments: str, says: str) -> None:
    assert main(["plan", *arguments.split()]) == 2
    out, error = capsys.readouterr()
    assert not out
    assert error.startswith("approxtopk: error: ") and error.count("\n") == 1
    assert says in error


@pytest.mark.parametrize("arguments", ["", "plan", "plan 10", "plan 10x x", "plan 3-4 1", "plan 10 2.5", "fly"])
def test_what_cannot_be_read(capsys: pytest.CaptureFixture[str], arguments: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments.split())
    assert stop.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_as_a_module() -> None:
    command = [sys.executable, "-m", "approxtopk", "plan", "128x1048576", "64", "--device", "sm_90"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "route            bucketed" in done.stdout
    done = subprocess.run([*command[:-1], "sm_1"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def info(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What ``info`` prints, by its first column; "missing" is all lines from that one on."""
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    lines, _, wanted = out.partition("\nmissing ")
    return {**{line[:14].strip(): line[15:] for line in lines.splitlines()}, "missing": wanted}


def test_info_with_all_that_is_here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = pytest.importorskip("cupy")
    monkeypatch.setenv("CUPY_CACHE_DIR", "/somewhere/else")
    found = info(capsys)
    assert found["approxtopk"].startswith(atk.__version__)
    assert found["NumPy"] == np.__version__
    assert found["CuPy"].startswith(cupy.__version__)
    assert found["kernel cache"].startswith("/somewhere/else ")
    assert re.match(r"\d+\.\d+$", found["NVRTC"]) or "does not load" in found["NVRTC"]
    for name, module in (("PyTorch", "torch"), ("JAX", "jax")):
        if module in sys.modules:
            assert found[name].startswith(sys.modules[module].__version__)
    if gpu_present():
        assert "sm_" in found["GPUs"]
    else:
        assert found["GPUs"].startswith("none: ")
        assert "an NVIDIA GPU" in found["missing"]


def test_info_with_numpy_alone(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch, "torch", "jax", "cupy", "sklearn", "tqdm")
    found = info(capsys)
    assert found["PyTorch"] == found["JAX"] == found["CuPy"] == "not installed"
    assert found["GPUs"] == "unknown without CuPy"
    for extra in ("[torch]", "[jax]", "[cuda1", "[demo]"):
        assert f'pip install "approxtopk{extra}' in found["missing"]


def test_info_with_a_broken_package(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "jax.py").write_text("raise OSError('libfoo.so: not found\\nand more')")
    missing(monkeypatch, "jax")
    monkeypatch.delitem(sys.modules, "jax")
    monkeypatch.syspath_prepend(tmp_path)
    assert info(capsys)["JAX"] == "installed, but does not import: libfoo.so: not found"


@pytest.mark.parametrize("bar", [True, False], ids=["tqdm", "no tqdm"])
def test_demo(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, bar: bool) -> None:
    pytest.importorskip("sklearn")
    if not bar:
        missing(monkeypatch, "tqdm")
    assert main(["demo", "-k", "10", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    rows = re.findall(r"^(\S.*?)  +(exact|b = .*?)  +([\d.]+) ms +([\d.]+) +([\d.]+) +([\d.]+)%$", out, re.MULTILINE)
    assert [row[0] for row in rows] == ["exact", "recall 0.95", "named", "named", "named"]
    choice = atk.plan((1797, 16173), 10)
    assert rows[1][1] == ("exact" if choice.route == "exact" else f"b = {choice.buckets}, k_b = {choice.k_per_bucket}")
    _, _, _, recall, predicted, same = rows[0]
    assert (float(recall), float(predicted)) == (1, 1)
    assert float(same) > 95
    for _, _, _, recall, predicted, _ in rows[1:]:
        # 17,970 neighbours sought: a standard error is at most 0.004.
        assert abs(float(recall) - float(predicted)) < 0.02


def test_demo_searches_what_it_says() -> None:
    pytest.importorskip("sklearn")
    base = digits()
    assert base.similarity.shape == (1797, 9 * 1797)
    assert base.similarity.dtype == np.float32
    assert (np.isneginf(base.similarity).sum(axis=1) == 9).all()  # an image is not its own neighbour
    assert base.similarity.max() <= 1 + 1e-5
    assert (np.bincount(base.entry_label) == 9 * np.bincount(base.label)).all()


@pytest.mark.parametrize("k", ["0", "1797", "-3"])
def test_demo_allows_as_many_neighbours_as_there_are(capsys: pytest.CaptureFixture[str], k: str) -> None:
    assert main(["demo", "-k", k]) == 2
    assert f"k = {k} is out of range" in capsys.readouterr().err


def test_demo_without_scikit_learn(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch, "sklearn")
    assert main(["demo"]) == 2
    out, error = capsys.readouterr()
    assert not out and error.count("\n") == 1
    assert 'pip install "approxtopk[demo]"' in error


@pytest.mark.skipif(gpu_present(), reason="there is a GPU")
def test_demo_on_a_gpu_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--device", "cuda"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
