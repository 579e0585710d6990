"""The bench commands: every suite runs, on the CPU and in the emulator, and what is rendered comes from files."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import approxtopk as atk
from approxtopk.dtypes import DTYPES
from bench import recall, report, run
from bench.__main__ import main
from bench.case import Case, RankCase, SelectionCase, SoftCase, case_of
from bench.clock import Once, interleaved
from bench.inputs import KINDS, make
from bench.peers import CPU, GPU, OURS
from bench.run import FIELDS
from bench.suites import SUITES

from .emulated import emulated
from .reference import assert_same_set, reference_top_k
from .reference_rank import reference_ranks
from .reference_soft import reference_magnitude, reference_magnitude_vjp, reference_mask, reference_mask_vjp

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
    with emulated() as machine:
        for case in cases:
            machine.launched.clear()
            ours = FIELDS[case.family].ours
            result = run.measure(case, Emulated(), 0.0, ours)
            assert set(result["us"]) == {contender.name for contender in ours}
            ran = {name for name, _ in machine.launched} - {"fill"}
            assert ran == set(result["plan"]["kernels"])
            assert result["inputs"] == 2 and case_of(json.loads(json.dumps(result["case"]))) == case
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


@pytest.mark.parametrize("suite", ["quick", "indexer", "k-proportional", "soft", "rank"])
def test_what_times_a_gpu_runs(suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On tensors of the emulated GPU, with a stand-in for PyTorch's events and graphs."""
    pytest.importorskip("jax")
    torch = pytest.importorskip("torch")
    for name in ("Event", "CUDAGraph", "graph"):
        monkeypatch.setattr(torch.cuda, name, getattr(Recorded, name))
    for name in ("Stream", "set_stream", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, Recorded.nothing)
    monkeypatch.setattr(run, "_LONG", float("inf"))
    cases = distinct(suite)
    with emulated():
        place = run.Gpu("cpu")
        monkeypatch.setattr(place, "copies", lambda case: 2)
        for case in cases[:: max(1, len(cases) // 4)]:
            everyone = place.contenders(FIELDS[case.family])
            here = [peer for peer in everyone if "cupy" not in peer.needs and "compile" not in peer.name]
            result = run.measure(case, place, 0.0, here)
            json.dumps(result)
            answering = [peer for peer in here if not peer.missing(case)]
            assert {"approxtopk", *(["torch.topk"] if suite == "quick" else [])} <= {peer.name for peer in answering}
            for peer in answering:
                ways = set(result["us"].get(peer.name, {}))
                assert ways == ({"eager", "graph", "warm"} if peer.capturable else {"eager", "warm"}), peer.name


def check(case: Case) -> None:
    """Every way to call us answers a case as the oracle does."""
    other = case.other()
    for contender in FIELDS[case.family].ours:
        x = make(case)
        found = contender.prepare(case, x, other)()
        {"selection": check_selection, "soft": check_soft, "rank": check_rank}[case.family](case, x, other, found)


def check_selection(case: SelectionCase, x: Any, limits: Any, found: Any) -> None:
    dtype = DTYPES[case.dtype]
    plan = case.plan("cpu")
    indices, values = reference_top_k(
        x.view(f"uint{dtype.bits}"), dtype, case.k, buckets=plan.buckets, k_per_bucket=plan.k_per_bucket, lengths=limits
    )
    assert found.indices.dtype == case.index and found.values.dtype == x.dtype
    got = found.indices, found.values.view(values.dtype)
    assert_same_set(got, (indices, values))
    if case.sorted:
        np.testing.assert_array_equal(got[0], indices)


def check_soft(case: SoftCase, x: Any, g: Any, found: Any) -> None:
    """Results within rounding of their type; derivatives within that of what they are computed from."""
    y, dx = found if case.training else (found, None)
    rounding = {"float32": 1e-6, "bfloat16": 2.0**-8}[case.dtype]
    for row in range(case.rows):
        numbers, k, l = x[row].astype(np.float64), float(case.k), case.l
        largest = np.abs(numbers).max() if case.magnitude else 1.0
        if case.magnitude:
            want, tau = reference_magnitude(numbers, k, l, case.p)
        else:
            want = reference_mask(numbers, k, l, case.kind, case.p)
        np.testing.assert_allclose(y[row].astype(np.float64), want, rtol=0, atol=rounding * largest)
        if dx is None:
            continue
        cotangent = g[row].astype(np.float64)
        if case.magnitude:
            slopes, _, _ = reference_magnitude_vjp(numbers, cotangent, tau, l, case.p)
        else:
            slopes, _, _ = reference_mask_vjp(numbers, cotangent, k, l, case.kind, case.p)
        if case.magnitude or case.dtype == "float32":
            scale = np.abs(slopes).max(initial=1.0)
            np.testing.assert_allclose(dx[row].astype(np.float64), slopes, rtol=0, atol=max(1e-4, rounding) * scale)
        else:  # by a mask that is rounded, so that its slopes are of another one
            assert abs(dx[row].astype(np.float64).sum()) <= 0.05 * np.abs(slopes).sum()


def check_rank(case: RankCase, x: Any, index: Any, found: Any) -> None:
    dtype = DTYPES[case.dtype]
    greater, equal, _, valid = reference_ranks(x.view(f"uint{dtype.bits}"), dtype, index)
    if isinstance(found, tuple):
        for got, want in zip(found, (greater, equal, valid), strict=True):
            np.testing.assert_array_equal(got, want)
    else:
        np.testing.assert_array_equal(found, greater)


@pytest.mark.parametrize("case", [SelectionCase(3, 500, 7), SoftCase(3, 500, 7, p=2.0), RankCase(3, 500)], ids=str)
def test_all_contenders_of_a_cpu_are_timed(case: Case) -> None:
    everyone = [*FIELDS[case.family].ours, *FIELDS[case.family].cpu]
    result = run.measure(case, run.Cpu(), 0.05)
    names = {contender.name for contender in everyone if not contender.missing(case)}
    assert names == set(result["us"])
    assert all(t["low"] <= t["median"] <= t["high"] for ways in result["us"].values() for t in ways.values())
    assert set(result["absent"]) == {contender.name for contender in everyone} - names
    json.dumps(result)


def test_contenders_that_take_long_make_one_call_in_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    class Counting(Once):
        def prepare(self, calls: Any, way: str, wait: Any = None) -> Any:
            made.append(len(calls))
            return super().prepare(calls, way, wait)

    slow = CPU[0]._replace(name="slow", prepare=lambda case, x, other: lambda: time.sleep(0.01))
    monkeypatch.setattr(run, "_LONG", 0.005)
    place = run.Cpu(Counting())
    monkeypatch.setattr(place, "copies", lambda case: 3)
    result = run.measure(SelectionCase(3, 500, 7), place, 0.0, [slow, OURS[0]])
    assert made == [1, 3, 3] and list(result["us"]["slow"]) == ["eager"]


def test_all_contenders_of_a_selection_agree() -> None:
    case = SelectionCase(3, 500, 7)
    x = make(case)
    want = atk.top_k(x, 7).values
    for contender in (*OURS, *CPU):
        if not contender.missing(case):
            np.testing.assert_array_equal(np.asarray(contender.prepare(case, x, None)()[0]), want, contender.name)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("form", [{}, {"p": 2.0}, {"kind": "sigmoid"}, {"magnitude": True}], ids=str)
def test_all_contenders_of_a_soft_selection_agree(form: dict[str, Any], training: bool) -> None:
    """As far as their iterations reach: those by hand in 20 steps, entmax in 30."""
    case = SoftCase(5, 400, 9, training=training, **form)
    x, g = make(case), case.other()
    field = FIELDS["soft"]
    check_soft(case, x, g, want := field.ours[0].prepare(case, x, g)())
    found = [
        peer for peer in field.cpu if not peer.missing(case) and "hard" not in peer.name and peer.name[:4] != "copy"
    ]
    peers = 1 if form != {"p": 2.0} or training else 2 + bool(find_spec("entmax"))
    assert len(found) >= peers
    for peer in found:
        got = peer.prepare(case, x, g)()
        for one, other in zip(got, want, strict=True) if training else [(got, want)]:
            error = np.abs(np.asarray(one) - other).max()
            assert error <= (1e-3 if "bisection" in peer.name else 2e-5) * max(1, np.abs(other).max()), peer.name


@pytest.mark.parametrize("targets", [1, 20])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_contenders_of_a_rank_agree(dtype: str, targets: int) -> None:
    case = RankCase(5, 700, dtype, targets, inputs="ties")
    x, index = make(case), case.other()
    field = FIELDS["rank"]
    check_rank(case, x, index, want := field.ours[0].prepare(case, x, index)())
    first = reference_ranks(x.view(f"uint{DTYPES[dtype].bits}"), DTYPES[dtype], index)
    for peer in field.cpu:
        if not peer.missing(case) and peer.name not in ("copy", "the same, torch.compile"):
            got = peer.prepare(case, x, index)()
            if "argsort" in peer.name:
                np.testing.assert_array_equal(got, first[0] + first[2])
            elif "greater only" in peer.name:
                np.testing.assert_array_equal(got, want.greater)
            else:
                np.testing.assert_array_equal(got[0], want.greater)
                np.testing.assert_array_equal(got[1], want.equal)


def test_absent_peers_say_so() -> None:
    said = {contender.name: contender.missing(SelectionCase(2, 100, 5)) for contender in GPU}
    assert said["RAFT [unsorted]"] == "pylibraft not installed"
    assert said["FlashInfer"] == "flashinfer not installed"


def test_a_peer_that_fails_is_reported_and_the_others_are_timed() -> None:
    def broken(case: Case, x: Any, limits: Any) -> Any:
        raise ImportError("planted\nand more")

    def fails(case: Case, x: Any, limits: Any) -> Any:
        return lambda: broken(case, x, limits)

    peers = [CPU[0]._replace(name="early", prepare=broken), CPU[0]._replace(name="late", prepare=fails)]
    result = run.measure(SelectionCase(3, 500, 7), run.Cpu(Once()), 0.0, [*peers, CPU[0]])
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
    x = make(SelectionCase(3, 1000, 5, inputs=kind))
    assert x.shape == (3, 1000) and x.dtype == np.float32 and x.flags.c_contiguous
    np.testing.assert_array_equal(x, make(SelectionCase(3, 1000, 5, inputs=kind)))
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


def test_a_training_is_written_and_rendered(tmp_path: Path) -> None:
    for name in ("torch", "sklearn", "matplotlib"):
        pytest.importorskip(name)
    path = tmp_path / "router.json"
    main(["router", "--seeds", "1", "--epochs", "1", "--json", str(path)])
    main(["report", str(path), "--out", str(tmp_path)])
    text = (tmp_path / "router.md").read_text()
    assert "| soft | " in text and "| hard | " in text and "(load " in text


def test_pictures_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    main(["pictures", "--out", str(tmp_path)])
    assert [path.read_bytes()[:4] for path in tmp_path.iterdir()] == [b"\x89PNG"]


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
