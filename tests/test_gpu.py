"""What only a GPU can show: streams, devices, graphs, memory, real sizes. Run with ``-m gpu`` on a GPU machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pytest

import approxtopk as atk
from approxtopk.runtime import substitute
from approxtopk.runtime.cuda import CudaRuntime

from .backends import gpu_present

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not gpu_present(), reason="needs a GPU")]


class Form(NamedTuple):
    """A call, but for its array: `k` of an array of `shape`, by `top_k` or `approx_top_k`."""

    shape: tuple[int, int]
    k: int
    exact: bool
    options: dict[str, Any]

    def __call__(self, x: Any) -> Any:
        return (atk.top_k if self.exact else atk.approx_top_k)(x, self.k, **self.options)


#: Rows in registers, on chip, filtered, split over launches; bucketed, certified.
FORMS = {
    "small rows": Form((2000, 256), 8, True, {}),
    "rows on chip": Form((64, 8192), 1000, True, {}),
    "filtered": Form((4, 2**18), 50, True, {}),
    "split": Form((2, 2**20), 2**17, True, {}),
    "planned": Form((4, 2**18), 50, False, {}),
    "bucketed": Form((2, 2**17), 20, False, {"buckets": 64, "k_per_bucket": 4}),
    "certified": Form((2, 2**17), 20, False, {"buckets": 512, "k_per_bucket": 2, "certify": True, "mode": "smallest"}),
}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Form:
    return FORMS[request.param]


@pytest.fixture
def cold() -> Iterator[CudaRuntime]:
    """A runtime that has no kernels yet."""
    runtime = CudaRuntime()
    with substitute("cuda", runtime):
        yield runtime


def draw(torch: Any, shape: tuple[int, ...], seed: int, device: str = "cuda") -> Any:
    return torch.randn(shape, device=device, generator=torch.Generator(device).manual_seed(seed))


def equal(torch: Any, got: Any, want: Any) -> bool:
    return len(got) == len(want) and all(torch.equal(ours, theirs) for ours, theirs in zip(got, want, strict=True))


@pytest.fixture(scope="module")
def torch() -> Any:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no GPU")
    return torch


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64", "int32", "uint8"])
@pytest.mark.parametrize("shape, k", [((128, 2**20), 64), ((1, 2**24), 1000), ((4096, 4096), 32), ((3, 2**20), 2**17)])
def test_real_sizes_against_torch(torch: Any, dtype: str, shape: tuple[int, int], k: int) -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    x = torch.randn(shape, device="cuda", generator=generator).mul_(60).to(getattr(torch, dtype))
    got = atk.top_k(x, k)
    want = torch.topk(x, k)
    assert torch.equal(got.values, want.values)
    assert torch.equal(torch.gather(x, 1, got.indices), got.values)
    # Equal values stand in order of index.
    ties = got.values[:, 1:] == got.values[:, :-1]
    assert bool((got.indices[:, 1:] > got.indices[:, :-1])[ties].all())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "float64"])
@pytest.mark.parametrize("shape, k", [((32, 2**18), 100), ((1, 2**22), 256), ((2000, 3000), 60)])
def test_the_gpu_finds_what_the_cpu_finds(torch: Any, dtype: str, shape: tuple[int, int], k: int) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).mul_(30).to(getattr(torch, dtype))
    for keywords in ({}, {"recall_target": 0.8}, {"buckets": 256, "k_per_bucket": 4, "interleaved": False}):
        here = atk.approx_top_k(x, k, **keywords)
        there = atk.approx_top_k(x.cuda(), k, **keywords)
        assert torch.equal(there.indices.cpu(), here.indices)
        assert torch.equal(there.values.cpu(), here.values)


def test_the_callers_stream_is_used_and_nothing_waits(torch: Any, form: Form) -> None:
    x = draw(torch, form.shape, 0)
    want = form(x)
    torch.cuda.synchronize()
    y = torch.zeros_like(x)
    for stream in (torch.cuda.Stream(), torch.cuda.default_stream()):
        with torch.cuda.stream(stream):
            form(y)  # so that PyTorch has memory for this stream
        torch.cuda.synchronize()
        y.zero_()
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            torch.cuda._sleep(50_000_000)
            y.copy_(x)
            got = form(y)
            assert not stream.query(), "the call waited for the stream"
        stream.synchronize()
        assert equal(torch, got, want)


def test_nothing_synchronises_as_pytorch_sees_it(torch: Any, form: Form) -> None:
    x = draw(torch, form.shape, 0)
    lengths = torch.full(form.shape[:1], form.shape[1] // 2, device="cuda")
    prepared = atk.prepare(form.shape, form.k, device="cuda")
    for _ in range(2):
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            form(x)
            atk.top_k(x, form.k, lengths=lengths)
            prepared(x)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("own_stream", [False, True], ids=["PyTorch's stream", "a stream of mine"])
def test_a_thousand_replays(torch: Any, form: Form, own_stream: bool) -> None:
    x = draw(torch, form.shape, 0)
    prepared = atk.prepare(form.shape, form.k, exact=form.exact, device="cuda", **form.options)
    for select in (form, prepared):
        select(x)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=torch.cuda.Stream() if own_stream else None):
            got = select(x)
        for seed in range(1000):
            x.copy_(draw(torch, form.shape, seed))
            graph.replay()
            if seed < 10 or seed % 25 == 0:
                assert equal(torch, got, form(x)), seed


def test_a_graph_of_several_calls(torch: Any) -> None:
    """Workspace that one call gives back is the next one's, in the graph as out of it."""
    forms = list(FORMS.values())
    inputs = [draw(torch, form.shape, 0) for form in forms]
    for form, x in zip(forms, inputs, strict=True):
        form(x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = [form(x) for form, x in zip(forms, inputs, strict=True)]
    for seed in range(20):
        for x in inputs:
            x.copy_(draw(torch, tuple(x.shape), seed))
        graph.replay()
        for form, x, got in zip(forms, inputs, results, strict=True):
            assert equal(torch, got, form(x))


@pytest.mark.parametrize("elsewhere", [False, True], ids=["this thread", "another thread"])
def test_warmup_then_capture(torch: Any, form: Form, cold: CudaRuntime, elsewhere: bool) -> None:
    x = draw(torch, form.shape, 0)
    atk.warmup(x, form.k, exact=form.exact, **form.options)
    loaded = len(cold._functions)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    results: list[Any] = []

    def capture() -> None:
        with torch.cuda.graph(graph):
            results.append(form(x))

    if elsewhere:
        thread = threading.Thread(target=capture)
        thread.start()
        thread.join()
    else:
        capture()
    assert len(results) == 1, "the capture failed"
    graph.replay()
    assert equal(torch, results[0], form(x))
    assert len(cold._functions) == loaded, "a kernel was loaded after all"


def test_a_first_call_in_a_capture_works_or_says_what_to_do(torch: Any, cold: CudaRuntime) -> None:
    x = draw(torch, (4, 2**18), 0)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            got = atk.top_k(x, 50)
    except atk.CompileError as error:
        assert "approxtopk.warmup" in str(error)
    else:
        graph.replay()
        assert equal(torch, got, atk.top_k(x, 50))


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_equals_eager(torch: Any, form: Form, mode: str) -> None:
    def model(x: Any) -> Any:
        values, indices, *rest = form(x * 2)
        return values + 1, indices, *rest

    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    compiled = torch.compile(model, mode=mode, fullgraph=True)
    for seed in range(8):
        x = draw(torch, form.shape, seed)
        torch.compiler.cudagraph_mark_step_begin()
        assert equal(torch, compiled(x), model(x))
    assert counters["inductor"]["cudagraph_skips"] == 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_the_workspace_is_what_the_plan_says(torch: Any, form: Form, dtype: str) -> None:
    x = draw(torch, form.shape, 0).mul_(30).to(getattr(torch, dtype))
    (plan,) = atk.warmup(x, form.k, exact=form.exact, **form.options)
    form(x)
    torch.cuda.synchronize()
    before = torch.cuda.memory_stats()
    torch.cuda.reset_peak_memory_stats()
    got = form(x)
    after = torch.cuda.memory_stats()
    pieces = [plan.workspace_bytes, *(array.nbytes for array in got)]
    # What was asked of PyTorch, which itself rounds to 512 bytes, and above 1 MiB gives what it has.
    asked = after["requested_bytes.all.peak"] - before["requested_bytes.all.current"]
    rounded = [-(-piece // 512) * 512 for piece in pieces]
    assert sum(pieces) <= asked <= sum(rounded)
    given = after["allocated_bytes.all.peak"] - before["allocated_bytes.all.current"]
    assert given <= sum(piece if piece <= 2**20 else piece + 2**20 for piece in rounded)


def test_many_streams(torch: Any) -> None:
    forms = list(FORMS.values())
    inputs = [draw(torch, form.shape, 0) for form in forms]
    wanted = [form(x) for form, x in zip(forms, inputs, strict=True)]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in range(32)]
    results = []
    for turn in range(4):
        for number, stream in enumerate(streams):
            which = (number + turn) % len(forms)
            with torch.cuda.stream(stream):
                results.append((which, forms[which](inputs[which])))
    torch.cuda.synchronize()
    for which, got in results:
        assert equal(torch, got, wanted[which])


def test_first_calls_of_many_threads(torch: Any, cold: CudaRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    forms = list(FORMS.values())
    inputs = [draw(torch, form.shape, 0) for form in forms]
    with substitute("cuda", CudaRuntime()):
        wanted = [form(x) for form, x in zip(forms, inputs, strict=True)]
    torch.cuda.synchronize()
    loaded: list[Any] = []
    load = cold._load

    def watched(launch: Any, device: int) -> Any:
        loaded.append((device, launch.kernel, launch.defines))
        return load(launch, device)

    monkeypatch.setattr(cold, "_load", watched)
    start = threading.Barrier(16)

    def work(number: int) -> bool:
        start.wait()
        with torch.cuda.stream(torch.cuda.Stream()):
            for turn in range(20):
                which = (number + turn) % len(forms)
                if not equal(torch, forms[which](inputs[which]), wanted[which]):
                    return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(16)))
    assert len(loaded) == len(set(loaded)) > 3


def test_a_device_that_is_not_current(torch: Any) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    for form in FORMS.values():
        x = draw(torch, form.shape, 0, "cuda:1")
        with torch.cuda.device(0):
            got = form(x)
            assert torch.cuda.current_device() == 0
        assert {array.device for array in got} == {x.device}
        with torch.cuda.device(1):
            assert equal(torch, got, form(x))
        assert equal(torch, [array.cpu() for array in got], form(x.cpu()))


def test_every_framework_on_the_gpu(torch: Any) -> None:
    import cupy

    host = np.random.default_rng(4).standard_normal((6, 50_000)).astype(np.float32)
    want = atk.approx_top_k(host, 30)
    got = atk.approx_top_k(cupy.asarray(host), 30)
    assert isinstance(got.values, cupy.ndarray)
    np.testing.assert_array_equal(got.indices.get(), want.indices)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        got = atk.approx_top_k(cupy.asarray(host), 30)
        stream.synchronize()
    np.testing.assert_array_equal(got.indices.get(), want.indices)
    assert torch.equal(
        atk.approx_top_k(torch.from_numpy(host).cuda(), 30).indices.cpu(), torch.from_numpy(want.indices)
    )


@pytest.fixture(scope="module")
def jax() -> Any:
    jax = pytest.importorskip("jax")
    if jax.default_backend() != "gpu":
        pytest.skip("JAX sees no GPU")
    return jax


def test_jax_eager_and_compiled(jax: Any, form: Form) -> None:
    """On XLA's own stream, behind work that XLA has still to do and before work that needs the answer."""
    host = np.random.default_rng(4).standard_normal(form.shape).astype(np.float32)
    want = form(host)
    x = jax.numpy.asarray(host)

    def busy(x: Any) -> Any:
        square = jax.numpy.ones((4096, 4096))
        for _ in range(8):
            square = square @ square / 4096
        values, indices, *rest = form(x * square[0, 0])
        return values * 1, indices + 0, *rest

    for select in (form, jax.jit(lambda x: form(x)), jax.jit(busy)):
        for _ in range(3):
            for ours, theirs in zip(select(x), want, strict=True):
                np.testing.assert_array_equal(np.asarray(ours), theirs)


def test_jax_many_calls_in_flight(jax: Any) -> None:
    """Nothing is waited for between them; the last answers are as the first."""
    select = jax.jit(lambda x: atk.top_k(x, 50))
    hosts = [np.random.default_rng(seed).standard_normal((4, 2**18)).astype(np.float32) for seed in range(4)]
    results = [select(jax.numpy.asarray(hosts[turn % 4])) for turn in range(200)]
    wanted = [atk.top_k(host, 50).indices for host in hosts]
    for turn, got in enumerate(results):
        np.testing.assert_array_equal(np.asarray(got.indices), wanted[turn % 4])
