"""``python -m bench host``: that it runs; how long calls may take is looked at where a machine is quiet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from approxtopk.buffer import Device
from approxtopk.runtime import serving
from bench.__main__ import main


@pytest.mark.filterwarnings("ignore")  # of CuPy, about GPUs that are not there
def test_host_costs_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("jax")

    machine = serving(Device("cpu"))
    main(["host", "--quick", "--json", str(tmp_path / "host.json")])
    assert serving(Device("cpu")) is machine
    report = json.loads((tmp_path / "host.json").read_text())
    assert report["versions"]["torch"] and report["host"]["cpu"]
    suites = {suite["suite"].partition(",")[0]: suite for suite in report["host_cost"]}
    assert set(suites) >= {"NumPy", "PyTorch", "JAX"}
    printed = capsys.readouterr().out
    for suite in suites.values():
        for name, timing in suite["us"].items():
            assert name in printed and 0 < timing["minimum"] <= timing["median"]
    assert {suites["PyTorch"]["limits"][name] for name in ("top_k", "prepared")} == {12, 6}
    assert {"torch.topk", "torch.topk, enabled, ours"} < set(suites["PyTorch"]["us"])
    assert 12 in suites["JAX"]["limits"].values() and any("lax.top_k" in name for name in suites["JAX"]["us"])
