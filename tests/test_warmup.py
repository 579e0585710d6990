"""Kernels compiled ahead: just those that the calls launch, each once, side by side, after all was checked."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import approxtopk as atk
from approxtopk.buffer import Device
from approxtopk.cli import main
from approxtopk.host import threads
from approxtopk.plan import Launch
from approxtopk.runtime import substitute
from approxtopk.runtime.cuda import CudaRuntime

from .backends import tuned
from .fake_cupy import FakeCupy, fake_gpus
from .fakes import Idle, cupy_array
from .frameworks import FRAMEWORKS, rows


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCupy]:
    """CPU arrays of every framework served by the CUDA runtime, on the stand-in for CuPy."""
    fake = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", fake)
    runtime = CudaRuntime()
    with substitute("cpu", runtime), substitute("cuda", runtime):
        yield fake


def launched(cupy: FakeCupy, plans: list[atk.Plan]) -> set[Any]:
    return {(step.kernel, step.defines) for plan in plans for step in plan.steps if isinstance(step, Launch)}


CALLS: dict[str, tuple[Any, int, dict[str, Any]]] = {
    "exact": ((3, 400), 5, {"exact": True}),
    "bucketed": ((3, 400), 9, {"buckets": 32, "k_per_bucket": 1}),
    "first axis": ((400, 3), 9, {"buckets": 32, "k_per_bucket": 1, "axis": 0}),
    "certified": ((2, 400), 9, {"buckets": 32, "k_per_bucket": 1, "certify": True}),
    "ragged": ((3, 400), 5, {"exact": True, "lengths": "int32"}),
    "split": ((2, 70_000), 40, {"exact": True}),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_compiles_nothing_more(cupy: FakeCupy, name: str) -> None:
    shape, k, options = CALLS[name]
    with tuned(chip_entries=0, copy_bytes=0):
        plans = atk.warmup(shape, k, device="cpu", **options)
        compiled = list(cupy.compiled)
        assert compiled and cupy.launches == [] and len(compiled) == len(set(compiled))
        options = dict(options)
        call = atk.top_k if options.pop("exact", False) else atk.approx_top_k
        if "lengths" in options:
            options["lengths"] = np.full(shape[0], 7, np.int32)
        call(np.zeros(shape, np.float32), k, **options)
    assert cupy.compiled == compiled
    assert {kernel for kernel, *_ in cupy.launches} == {kernel for kernel, _ in compiled}
    assert set(compiled) == launched(cupy, plans)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_an_array_stands_for_its_own_call(cupy: FakeCupy, name: str) -> None:
    """JAX's indices are int32, and rows of every other column are read differently."""
    framework = FRAMEWORKS[name]()
    x = framework.make(rows((3, 300), 1), "float32")
    x = x[:, ::2] if name in ("numpy", "torch") else x
    lengths = framework.make(np.array([9, 200, 1]), "int32")
    (plan,) = atk.warmup(x, 5, exact=True, lengths=lengths)
    compiled = list(cupy.compiled)
    assert compiled and cupy.launches == [] and plan.request.index_dtype == framework.default_index
    atk.top_k(x, 5, lengths=lengths)
    assert cupy.compiled == compiled and cupy.launches


def test_a_prepared_call_compiles_nothing_more(cupy: FakeCupy) -> None:
    with tuned(chip_entries=0, copy_bytes=0):
        atk.warmup((2, 70_000), 40, exact=True, device="cpu")
        compiled = list(cupy.compiled)
        prepared = atk.prepare((2, 70_000), 40, exact=True, device="cpu")
        for _ in range(2):
            prepared(np.zeros((2, 70_000), np.float32))
    assert cupy.compiled == compiled


def test_several_of_everything() -> None:
    idle = Idle()
    with substitute("cpu", idle):
        plans = atk.warmup(
            [(range(1, 4), 1000), (7, [500, 2000])], [3, 5], dtype=["float32", np.float16], device=["cpu"], exact=True
        )
    requests = [(p.request.shape, p.request.k, p.request.dtype.name) for p in plans]
    shapes = [(1, 1000), (2, 1000), (3, 1000), (7, 500), (7, 2000)]
    assert requests == [(s, k, t) for s in shapes for k in (3, 5) for t in ("float32", "float16")]
    kernels = {(step.kernel, step.defines) for plan in plans for step in plan.steps}
    assert idle.prepared == len(kernels) < len(plans) and idle.runs == 0
    with substitute("cpu", idle):
        assert atk.warmup(range(5, 7), 3, device="cpu") == [atk.plan(n, 3, device="cpu") for n in (5, 6)]
        assert len(atk.warmup([np.zeros((2, 9)), (2, 9)], range(1, 3))) == 4


def test_kernels_are_compiled_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "width", lambda: 4)
    together = threading.Barrier(4, timeout=20)

    class Slow(Idle):
        def prepare(self, plan: Any, device: Any) -> None:
            assert len(plan.steps) == 1
            super().prepare(plan, device)
            together.wait()

    with substitute("cpu", Slow()) as machine:
        atk.warmup((4, 1000), 3, dtype=["float32", "float16", "int8", "int64"], exact=True, device="cpu")
        assert machine.prepared == 4


WRONG: dict[str, tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = {
    "k of one shape": (([(2, 50), (2, 5)], 9), {}, atk.InvalidArgument, "k = 9 is out of range"),
    "dtype of one": (((2, 50), 3), {"dtype": ["float32", "complex64"]}, atk.UnsupportedDType, "complex64"),
    "an option": (((2, 50), 3), {"bucket": 3}, atk.InvalidType, "warmup got an unexpected keyword argument 'bucket'"),
    "no shape": (([], 3), {}, atk.InvalidArgument, "is empty"),
    "an empty range": (((range(4, 2), 50), 3), {}, atk.InvalidArgument, "is empty"),
    "a list of numbers": (([2, 50], 3), {}, atk.InvalidType, r"shape is a list and holds 2 \(int\)"),
    "a string": (("2x50", 3), {}, atk.InvalidType, "shape must be an integer .*'2x50'"),
    "reference GPU": (((2, 50), 3), {"device": "sm_90"}, atk.InvalidArgument, "device = 'sm_90' names no device"),
    "no device": (((2, 50), 3), {"device": 3.5}, atk.InvalidType, r"device = 3.5 \(float\) names no device"),
    "dtype of an array": ((np.zeros((2, 50)), 3), {"dtype": "float32"}, atk.InvalidArgument, "so is an array"),
    "device of an array": ((np.zeros((2, 50)), 3), {"device": "cpu"}, atk.InvalidArgument, "so is an array"),
    "lengths of a shape": (((2, 50), 3), {"lengths": np.ones(2, int)}, atk.InvalidType, "lengths must be a dtype"),
    "lengths of another": ((np.zeros((2, 50)), 3), {"lengths": np.ones(3, int)}, atk.InvalidArgument, r"shape \(3,\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_come_before_anything_is_compiled(name: str) -> None:
    arguments, options, error, message = WRONG[name]
    idle = Idle()
    if not isinstance(arguments[0], np.ndarray):
        options = {"device": "cpu", **options}
    with substitute("cpu", idle), pytest.raises(error, match=message):
        atk.warmup(*arguments, **options)
    assert idle.prepared == 0


def test_on_a_cpu_there_is_nothing_to_compile() -> None:
    (plan,) = atk.warmup((3, 400), 5, device="cpu")
    assert plan == atk.plan((3, 400), 5, device="cpu")
    with pytest.raises(atk.InvalidArgument, match="k = 401"):
        atk.warmup((3, 400), 401, device="cpu")


def test_arrays_of_a_cpu_start_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["approxtopk.warmup"], "locate", lambda device: 1 / 0)
    assert len(atk.warmup(np.zeros((3, 400)), 5)) == 1


def test_the_current_gpu_unless_named() -> None:
    with fake_gpus() as gpus:
        with gpus.cuda.Device(1):
            for device in (None, "cuda"):
                atk.warmup((3, 400), 5, exact=True, device=device)
            compiled = list(gpus.compiled)
            assert compiled
        x = rows((3, 400), 1).astype(np.float32)
        atk.top_k(cupy_array(x, x.shape, x.dtype, device=1), 5)
        assert gpus.compiled == compiled, "device 1 was warm"
        atk.warmup((3, 400), 5, exact=True, device=["cuda:0", "cuda:1"])
        assert gpus.compiled == 2 * compiled, "device 0 was not"
        atk.top_k(cupy_array(x, x.shape, x.dtype), 5)
        assert gpus.compiled == 2 * compiled
        with pytest.raises(atk.DeviceMismatch, match="cuda:2 does not exist; there are 2"):
            atk.warmup((3, 400), 6, exact=True, device=["cuda:0", "cuda:2"])
        assert gpus.compiled == 2 * compiled
        assert CudaRuntime().current() == Device("cuda", 0)


def test_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["warmup", "1-3x1000", "5", "--dtype", "float16,int8", "--device", "cpu", "--exact"]) == 0
    assert capsys.readouterr().out == "6 calls on cpu: nothing to compile\n"
    idle = Idle()
    with substitute("cpu", idle):
        assert main(["warmup", "2,1000", "5", "--device", "cpu", "--exact"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("1 call on reference H200: 1 kernel ready in ") and idle.prepared == 1
    assert main(["warmup", "3-1x1000", "5", "--device", "cpu"]) == 2
    assert "is empty" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["warmup", "1-x1000", "5"])
    assert "'1-x1000' is no shape" in capsys.readouterr().err
