"""The bench commands: every suite runs, on the CPU and in the emulator, and what is rendered comes from files."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import approxtopk as atk
from approxtopk.dtypes import DTYPES
from bench import recall, report, run
from bench.__main__ import main
from bench.case import Case
from bench.clock import Once, interleaved
from bench.inputs import KINDS, lengths, make
from bench.peers import CPU, GPU, OURS
from bench.suites import SUITES

from .emulated import emulated
from .reference import assert_same_set, reference_top_k

ENTRIES = 600


class Emulated(run.Cpu):
    """Cases on the emulated GPU, which has no clock."""

    def __init__(self) -> None:
        super().__init__(Once())

    def copies(self, case: Case) -> int:
        return 2


def distinct(suite: str) -> list[Case]:
    """The cases of a suite, made small; each once."""
    return list(dict.fromkeys(case.smaller(ENTRIES) for case in SUITES[suite]()))


@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_runs_in_the_emulator(suite: str) -> None:
    cases = distinct(suite)
    run_emulated(cases[:: max(1, len(cases) // 8)])


@pytest.mark.nightly
@pytest.mark.parametrize("suite", SUITES)
def test_every_case_runs_in_the_emulator(suite: str) -> None:
    run_emulated(distinct(suite))


def run_emulated(cases: list[Case]) -> None:
    with emulated():
        for case in cases:
            result = run.measure(case, Emulated(), 0.0, OURS)
            assert set(result["us"]) == {"approxtopk", "approxtopk, prepared"}
            assert result["inputs"] == 2
            check(case)


class Recorded:
    """In place of ``torch.cuda``: events that read the wall clock, and graphs that call again what was called."""

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at = time.perf_counter()

        def synchronize(self) -> None:
            pass

        def elapsed_time(self, end: Any) -> float:
            return float(end.at - self.at) * 1e3

    class CUDAGraph:
        def replay(self) -> None:
            self.replays = getattr(self, "replays", 0) + 1

    @staticmethod
    @contextmanager
    def graph(graph: Any, stream: Any) -> Iterator[None]:
        yield

    @staticmethod
    def nothing(*arguments: Any) -> None:
        pass


@pytest.mark.parametrize("suite", ["quick", "indexer", "k-proportional"])
def test_what_times_a_gpu_runs(suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On tensors of the emulated GPU, with a stand-in for PyTorch's events and graphs."""
    torch = pytest.importorskip("torch")
    for name in ("Event", "CUDAGraph", "graph"):
        monkeypatch.setattr(torch.cuda, name, getattr(Recorded, name))
    for name in ("Stream", "set_stream", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, Recorded.nothing)
    cases = distinct(suite)
    with emulated():
        place = run.Gpu("cpu")
        monkeypatch.setattr(place, "copies", lambda case: 2)
        here = [peer for peer in place.contenders() if "cupy" not in peer.needs]
        for case in cases[:: max(1, len(cases) // 4)]:
            result = run.measure(case, place, 0.0, here)
            for name in ("approxtopk", "approxtopk, prepared", "copy", *([] if case.ragged else ["torch.topk"])):
                assert set(result["us"][name]) == {"eager", "graph", "warm"}, name
            json.dumps(result)
            assert ("jax.lax.top_k [sorted]" in result["us"]) == (not case.ragged)


def check(case: Case) -> None:
    """Both ways to call us answer a case as the oracle does."""
    x, limits, dtype = make(case), lengths(case) if case.ragged else None, DTYPES[case.dtype]
    plan = case.plan("cpu")
    indices, values = reference_top_k(
        x.view(f"uint{dtype.bits}"), dtype, case.k, buckets=plan.buckets, k_per_bucket=plan.k_per_bucket, lengths=limits
    )
    for contender in OURS:
        found = contender.prepare(case, x, limits)()
        assert found.indices.dtype == case.index and found.values.dtype == x.dtype
        got = found.indices, found.values.view(values.dtype)
        assert_same_set(got, (indices, values))
        if case.sorted:
            np.testing.assert_array_equal(got[0], indices)


def test_all_contenders_of_a_cpu_are_timed() -> None:
    case = Case(3, 500, 7)
    result = run.measure(case, run.Cpu(), 0.05)
    names = {contender.name for contender in (*OURS, *CPU) if not contender.missing(case)}
    assert names <= set(result["us"])
    assert all(t["low"] <= t["median"] <= t["high"] for ways in result["us"].values() for t in ways.values())
    assert result["absent"]["jax.lax.approx_max_k [sorted]"] == "exact"
    json.dumps(result)


def test_all_contenders_of_a_cpu_agree() -> None:
    case = Case(3, 500, 7)
    x = make(case)
    want = atk.top_k(x, 7).values
    for contender in (*OURS, *CPU):
        if not contender.missing(case):
            np.testing.assert_array_equal(np.asarray(contender.prepare(case, x, None)()[0]), want, contender.name)


def test_absent_peers_say_so() -> None:
    said = {contender.name: contender.missing(Case(2, 100, 5)) for contender in GPU}
    assert said["RAFT [unsorted]"] == "pylibraft not installed"
    assert said["FlashInfer"] == "flashinfer not installed"


def test_a_peer_that_fails_is_reported_and_the_others_are_timed() -> None:
    def broken(case: Case, x: Any, limits: Any) -> Any:
        raise ImportError("planted\nand more")

    def fails(case: Case, x: Any, limits: Any) -> Any:
        return lambda: broken(case, x, limits)

    peers = [CPU[0]._replace(name="early", prepare=broken), CPU[0]._replace(name="late", prepare=fails)]
    result = run.measure(Case(3, 500, 7), run.Cpu(Once()), 0.0, [*peers, CPU[0]])
    assert list(result["us"]) == ["NumPy"]
    assert result["absent"] == {"early": "ImportError: planted", "late/eager": "ImportError: planted"}


def test_rounds_are_interleaved() -> None:
    order: list[str] = []
    rounds: dict[str, Any] = {name: (Once(), lambda name=name: order.append(name), 1) for name in "ab"}
    times = interleaved({name: (Recording(call), call, 1) for name, (_, call, _) in rounds.items()}, 0.0, least=3)
    assert order == ["a", "b"] * 3
    assert times["a"]["repeats"] == 3


class Recording(Once):
    def __init__(self, call: Any) -> None:
        self._call = call

    def seconds(self, round: Any, calls: int) -> float:
        self._call()
        return 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_inputs(kind: str) -> None:
    x = make(Case(3, 1000, 5, inputs=kind))
    assert x.shape == (3, 1000) and x.dtype == np.float32 and x.flags.c_contiguous
    np.testing.assert_array_equal(x, make(Case(3, 1000, 5, inputs=kind)))
    if kind in ("sorted", "reversed"):
        assert (np.diff(x if kind == "sorted" else x[:, ::-1]) >= 0).all()


def test_measured_recall_is_the_predicted_one() -> None:
    rows = list(recall.shuffled(2**11, every=7))
    assert len(rows) > 8
    for row in rows:
        # Where nothing was lost the spread is 0, though one entry might have been.
        assert abs(row["measured"] - row["predicted"]) <= 5 * (row["error"] + 1 / (row["rows"] * row["k"])), row


def test_a_small_run_is_written_and_rendered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "small.json"
    main(["run", "cpu", "--device", "cpu", "--only", "1 x 1024", "--seconds", "0.2", "--json", str(path)])
    assert "NumPy" in capsys.readouterr().out
    found = json.loads(path.read_text())
    assert found["command"].startswith("python -m bench") and found["versions"]["numpy"] == np.__version__
    main(["report", str(path), "--out", str(tmp_path)])
    text = (tmp_path / "small.md").read_text()
    assert "| 1 x 1024 float32, k = 8, exact | exact |" in text
    assert "![small-time](small-time.png)" in text
    assert (tmp_path / "small-time.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_is_rendered_without_its_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        main(["report", str(tmp_path / "absent.json"), "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())


RESULTS = [report.load(path) for path in sorted(report.RESULTS.glob("*.json"))]


def test_committed_results_are_rendered_as_committed() -> None:
    paths = sorted(report.RESULTS.glob("*.json"))
    for path, result in zip(paths, RESULTS, strict=True):
        assert report.tables(result) in path.with_suffix(".md").read_text(encoding="utf-8")
        pictures = report.RESULTS.glob(f"{path.stem}-*.png")
        assert f"({path.stem}-" not in path.with_suffix(".md").read_text() or list(pictures)


def test_committed_recall_is_within_half_a_point_of_the_predicted_one() -> None:
    rows = [row for result in RESULTS for row in result.get("shuffled", [])]
    assert len(rows) > 50
    for row in rows:
        assert abs(row["measured"] - row["predicted"]) <= 0.005, row
