"""``enable()``: torch.topk on our kernels, for whoever calls it, and PyTorch's own again afterwards."""

from __future__ import annotations

import doctest
import itertools
import threading
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import approxtopk as atk
from approxtopk.buffer import Device
from approxtopk.planning.devices import REFERENCES
from approxtopk.planning.machines import machine_of
from approxtopk.request import Request

from .backends import gpu_present
from .emulated import EmulatedRuntime, emulated
from .fakes import GPU
from .frameworks import rows
from .interpreter import python

torch = pytest.importorskip("torch")

ours = pytest.importorskip("approxtopk.adapters.torch")
module = import_module("approxtopk.adapters.torch.enable")
earlier = torch.topk  # as `from torch import topk` would have it
K = 5


@pytest.fixture
def machine() -> Iterator[EmulatedRuntime]:
    with emulated() as runtime:
        yield runtime
    ours.disable()


@pytest.fixture(scope="module")
def x() -> Any:
    """Large enough that the plan is faster."""
    return torch.from_numpy(rows((2, 30000), 1).astype(np.float32))


class Router(torch.nn.Module):
    def forward(self, x: Any) -> Any:
        return x.topk(K, dim=-1)


CALLERS = {
    "torch.topk": torch.topk,
    "earlier": earlier,
    "method": lambda x, k: x.topk(k),
    "keywords": lambda x, k: torch.topk(input=x, k=k, dim=1, largest=True, sorted=True),
    "module": lambda x, k: Router()(x),
    "operator": lambda x, k: torch.ops.aten.topk(x, k),
    "parameter": lambda x, k: torch.topk(torch.nn.Parameter(x), k),
    "script": torch.jit.CompilationUnit("def f(x, k: int):\n    return torch.topk(x, k)\n").f,
}


@pytest.mark.parametrize("caller", CALLERS)
def test_every_caller_is_served(caller: str, machine: EmulatedRuntime, x: Any) -> None:
    want = torch.topk(x, K)
    assert not machine.launched
    with ours.enable():
        got = CALLERS[caller](x, K)
        assert machine.launched
    launches = len(machine.launched)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    assert type(torch.topk(x, K)) is type(want) and len(machine.launched) == launches


@pytest.mark.parametrize("options", [*itertools.product((0, 1, -1), (True, False), (True, False))], ids=str)
def test_answers(options: tuple[int, bool, bool], machine: EmulatedRuntime, x: Any) -> None:
    dim, *_ = options
    x = x.t().contiguous() if dim == 0 else x
    want = torch.topk(x, K, *options)
    with ours.enable():
        got = torch.topk(x, K, *options)
    assert machine.launched
    for a, b in zip(got, want, strict=True):
        assert a.stride() == b.stride() and torch.equal(a.sort(dim)[0], b.sort(dim)[0])
    assert not options[2] or torch.equal(got.indices, want.indices)


def test_kernels_that_cannot_be_had_leave_it_to_pytorch(machine: EmulatedRuntime, monkeypatch: Any) -> None:
    def refuse(*arguments: Any) -> None:
        raise atk.CompileError("filter_row does not compile")

    x = torch.arange(60_002.0).reshape(2, 30001)  # of no other test's shape: the answer is remembered
    want = torch.topk(x, K)
    monkeypatch.setattr(machine, "run", refuse)
    with ours.enable():
        with pytest.warns(RuntimeWarning, match=r"stays PyTorch's own for \(2, 30001\): filter_row does not compile"):
            first = torch.topk(x, K)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again = torch.topk(x, K)
    for got in (first, again):
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_what_is_not_served(machine: EmulatedRuntime, x: Any) -> None:
    class Mine(torch.Tensor):
        pass

    misaligned = torch.frombuffer(bytearray(4 * 30000 + 1), dtype=torch.float32, offset=1)
    plain = {
        "small": (x[:, :100], K),
        "0-d": (x[0, 0], 1),
        "k = 0": (x, 0),
        "empty": (x[:0], K),
        "subclass": (x.as_subclass(Mine), K),
        "misaligned": (misaligned, K),
        "meta": (x.to("meta"), K),
    }
    wanted = {name: torch.topk(*arguments) for name, arguments in plain.items()}
    with ours.enable():
        for name, arguments in plain.items():
            for a, b in zip(torch.topk(*arguments), wanted[name], strict=True):
                assert type(a) is type(b) and a.shape == b.shape
                assert a.is_meta or torch.equal(a, b)
        out = (torch.empty(2, K), torch.empty(2, K, dtype=torch.int64))
        assert torch.topk(x, K, out=out).values is out[0]
        for bad, k, says in (
            (x, 30001, "selected index k out of range"),
            (x, -1, "selected index k out of range"),
            (x.bool(), K, "topk does not support bool"),
            (x.to(torch.complex64), K, "topk does not support complex"),
            (x.to_sparse(), K, "SparseCPU"),
        ):
            with pytest.raises(RuntimeError, match=says):
                torch.topk(bad, k)
        with pytest.raises(IndexError, match="Dimension out of range"):
            torch.topk(x, K, 2)
    assert not machine.launched


def test_derivatives_and_transforms_stay_those_of_torch(machine: EmulatedRuntime, x: Any) -> None:
    from torch.func import grad, jvp, vmap

    def objective(x: Any) -> Any:
        return (torch.topk(x, K)[0] ** 3).sum()

    def everything() -> list[Any]:
        leaf = x.clone().requires_grad_()
        values, indices = leaf.topk(K)
        assert type(values.grad_fn).__name__ == "TopkBackward0" and not indices.requires_grad
        values.sum().backward()
        with torch.no_grad():
            quiet = leaf.topk(K)[0]
        with torch.inference_mode():
            inference = leaf.topk(K)[0]
            assert inference.is_inference()
        return [
            leaf.grad,
            quiet,
            inference,
            grad(objective)(x),
            jvp(objective, (x,), (x + 1,))[1],
            vmap(lambda row: torch.topk(row, K)[0])(x),
            vmap(grad(objective))(x),
        ]

    want = everything()
    with ours.enable():
        got = everything()
    assert len(machine.launched) >= 7
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_fake_and_compiled(machine: EmulatedRuntime, x: Any) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    graphs = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    def work(x: Any) -> Any:
        values, indices = torch.topk(x * 2, K)
        return values + 1, indices, x.topk(K, 1, False)[0]

    want = work(x)
    torch._dynamo.reset()
    compiled = torch.compile(work, fullgraph=True, backend=backend)
    lowered = torch.compile(work, fullgraph=True, backend="aot_eager")
    exported = torch.export.export(Router(), (x * 2,))
    for first in (True, False):  # compiled while enabled, and before
        with ours.enable():
            with FakeTensorMode() as mode:
                assert torch.topk(mode.from_tensor(x), K).values.shape == (2, K)
            for function in (compiled, lowered):
                launches = len(machine.launched)
                assert all(torch.equal(a, b) for a, b in zip(function(x), want, strict=True))
                assert len(machine.launched) > launches
            assert torch.equal(exported.module()(x * 2)[1], want[1])
        launches = len(machine.launched)
        assert all(torch.equal(a, b) for a, b in zip(compiled(x), want, strict=True))
        assert len(machine.launched) == launches and len(graphs) == 1, first
    assert {node.target for node in graphs[0].graph.nodes if "topk" in str(node.target)} == {torch.topk, "topk"}


def test_nested_and_undone(machine: EmulatedRuntime, x: Any) -> None:
    def served() -> bool:
        launches = len(machine.launched)
        torch.topk(x, K)
        return len(machine.launched) > launches

    outer = ours.enable()
    with ours.enable() as inner:
        assert served() and "on" in repr(inner)
    assert served() and "off" in repr(inner)
    with pytest.raises(ZeroDivisionError), ours.enable():
        raise ZeroDivisionError
    inner.disable()
    assert served()
    outer.disable()
    outer.disable()
    assert not served()
    with outer:
        assert served()
    assert not served()
    ours.enable()
    with ours.enable():
        ours.disable()
        assert not served()
    assert not served()


def test_off_by_default_and_nothing_left() -> None:
    """In a program of one thread the dispatcher's table is what it was; no warning is given either."""
    told = python(
        f"""
        import sys, warnings
        import torch
        def table():
            return torch._C._dispatch_dump_table("aten::topk"), torch.topk, torch.Tensor.topk
        before = table()
        from approxtopk.adapters.torch import disable, enable
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from tests.fakes import Idle
        from approxtopk.runtime import substitute
        x = torch.zeros(2, 30000)
        assert table() == before
        with enable():
            assert table() == before  # no GPU
        with substitute("cpu", Idle()) as runtime:
            torch.topk(x, 5)
            assert runtime.runs == 0
            for _ in range(3):
                with enable() as first:
                    second = enable()
                    assert table()[0] != before[0] and table()[1:] == before[1:]
                    torch.topk(x, 5)
                second.disable()
                assert table() == before
            assert runtime.runs == 3
            enable()
        disable()
        assert table() == before
        assert torch.topk(torch.arange(4.0), 2).indices.tolist() == [3, 2]
        print("clean")
        """,
        "-W",
        "error",
    )
    assert told == "clean\n"


def test_threads_that_call_while_others_switch(machine: EmulatedRuntime) -> None:
    y = torch.from_numpy(rows((4, 64), 1).astype(np.float32))
    want = torch.topk(y, 3)
    stop, wrong, calls = threading.Event(), [], [0]

    def work() -> None:
        while not stop.is_set():
            if not all(torch.equal(a, b) for a, b in zip(torch.topk(y, 3), want, strict=True)):
                wrong.append(1)
            calls[0] += 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    libraries = []
    for _ in range(2000):
        with ours.enable():
            libraries.append(dict(module._libraries))
    stop.set()
    for thread in threads:
        thread.join()
    assert calls[0] and not wrong
    assert all(kept == libraries[0] for kept in libraries)  # registered once: to change it would not be safe


def test_releases_without_get_kernel(machine: EmulatedRuntime, x: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    original = module._original("CPU")
    monkeypatch.delattr(torch.library, "get_kernel")
    fallback = module._original("CPU")
    assert fallback is not original
    monkeypatch.setattr(module, "_libraries", {})
    y = x[:, :100].t()
    want = torch.topk(y, K, 0)
    with ours.enable():
        got = torch.topk(y, K, 0)
        assert all(torch.equal(a, b) and a.stride() == b.stride() for a, b in zip(got, want, strict=True))
        with pytest.raises(RuntimeError, match="selected index k out of range"):
            torch.topk(y, 101, 0)
        assert torch.topk(x, K).indices.shape == (2, K) and machine.launched


def test_without_cupy_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from approxtopk.runtime import serving

    def missing(device: Device) -> Any:
        if device.kind == "cuda":
            raise atk.BackendMissing("no CuPy")
        return serving(device)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(module, "serving", missing)
    with pytest.raises(atk.BackendMissing):
        ours.enable()
    assert not module._enabled


def faster(n_rows: int, n: int, k: int, dtype: str = "float32", architecture: str = "sm_90", **options: Any) -> bool:
    options = {"dim": -1, "largest": True, "sorted": True, **options}
    device, info = Device("cuda", 0), REFERENCES[architecture]
    return module._faster((n_rows, n), (n, 1), dtype, k, **options, device=device, info=info) is not None


def test_decisions() -> None:
    for n_rows, n, k in ((1, 2**20, 64), (32, 50257, 50), (128, 2**20, 64), (4096, 2**15, 64), (8192, 4096, 8)):
        for architecture in REFERENCES:
            assert faster(n_rows, n, k, architecture=architecture), (n_rows, n, k, architecture)
    assert faster(65536, 64, 2)
    assert not faster(1, 1000, 10) and not faster(64, 64, 2) and not faster(1024, 128, 8)
    assert not faster(256, 2**16, 2**14, "float16", sorted=False)
    assert not faster(1, 8192, 8)  # only if the GPU is kept busy
    assert not faster(1, 2**15, 2**13, "float64")  # only if it is waited for
    cpu = atk.DeviceInfo("cpu", "cpu", 1, 0)
    assert module._faster((128, 2**20), (2**20, 1), "float32", 64, -1, True, True, Device("cpu"), cpu) is None


@pytest.mark.parametrize("architecture", ["sm_70", "sm_90"])
def test_the_least_that_is_looked_at(architecture: str) -> None:
    """Below it no plan is faster, so that nothing is lost by not asking."""
    least = module._LEAST_ENTRIES
    for n in (16, 64, 256, 1024, least - 1):
        for dtype, k, is_sorted in itertools.product(("int8", "float32", "float64"), (1, 8, 1024), (True, False)):
            if k <= n:
                for n_rows in {1, (least - 1) // n}:
                    assert not faster(n_rows, n, k, dtype, architecture, sorted=is_sorted), (n_rows, n, k, dtype)
    assert faster(1, 2 * least, 1, "float64", architecture)


def test_the_model_of_torch() -> None:
    from approxtopk.adapters.torch import aten_cost

    machine = machine_of(GPU)

    def cost(n_rows: int, n: int, k: int = 8, dtype: str = "float32", **options: Any) -> tuple[float, float]:
        strides = options.pop("strides", (n, 1))
        return aten_cost.seconds(Request.build("top_k", (n_rows, n), strides, dtype, k, **options), machine)

    # One launch of one block a row with its sort; nine and three for each byte where rows are split.
    assert cost(1, 19999)[1] == pytest.approx(aten_cost.HOST + 2 * aten_cost.HOST_LAUNCH)
    assert cost(1, 20000)[1] == pytest.approx(aten_cost.HOST + 22 * aten_cost.HOST_LAUNCH)
    assert cost(1, 20000, dtype="float16", sorted=False)[1] == pytest.approx(
        aten_cost.HOST + 15 * aten_cost.HOST_LAUNCH
    )
    for n_rows, n in ((1, 512), (1, 2**20), (4096, 512), (128, 2**17)):
        assert cost(n_rows, n)[0] <= cost(n_rows, 2 * n)[0] and cost(n_rows, n)[0] <= cost(2 * n_rows, n)[0]
        assert cost(n_rows, n, sorted=False)[0] < cost(n_rows, n)[0]
        assert cost(n_rows, n, strides=(1, n_rows))[0] > cost(n_rows, n)[0] or n_rows == 1
        # Never below one reading of the input.
        assert cost(n_rows, n, 64)[0] > n_rows * n * 4 / machine.bandwidth
    # PyTorch's newer kernel is taken to be there.
    assert cost(256, 2048, 32)[0] < 0.5 * cost(256, 2048, 33)[0]


@pytest.mark.gpu
@pytest.mark.skipif(not gpu_present(), reason="needs a GPU")
def test_on_a_gpu() -> None:
    x = torch.from_numpy(rows((64, 2**17), 1).astype(np.float32)).cuda()
    want = torch.topk(x, K)
    with ours.enable():
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):  # first met here: PyTorch's own
            captured = torch.topk(x, K)
        for got in (torch.topk(x, K), x.topk(K)):
            assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
        again = torch.cuda.CUDAGraph()
        with torch.cuda.graph(again):
            ours_captured = torch.topk(x, K)
    graph.replay()
    again.replay()
    torch.cuda.synchronize()
    assert torch.equal(captured.indices, want.indices) and torch.equal(ours_captured.indices, want.indices)


@pytest.mark.parametrize("name", ["enable", "topk"])
def test_examples(name: str) -> None:
    [test] = doctest.DocTestFinder(recurse=False).find(getattr(ours, name), name, globs={})
    said: list[str] = []
    results = doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert results.attempted and not results.failed, "".join(said)
