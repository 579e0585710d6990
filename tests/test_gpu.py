"""What only a GPU can show: streams, devices, graphs, memory, real sizes. Run with ``-m gpu`` on a GPU machine."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import approxtopk as atk

from .backends import gpu_present

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not gpu_present(), reason="needs a GPU")]


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


def test_the_callers_stream_is_used_and_nothing_waits(torch: Any) -> None:
    x = torch.randn(64, 2**18, device="cuda")
    want = atk.top_k(x, 50)
    torch.cuda.synchronize()
    y = torch.empty_like(x)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        y.copy_(x)
        got = atk.top_k(y, 50)
        assert not stream.query(), "the call waited for the stream"
    stream.synchronize()
    assert torch.equal(got.indices, want.indices)


def test_captured_in_a_graph_and_replayed(torch: Any) -> None:
    for call, keywords in (
        (atk.top_k, {}),
        (atk.approx_top_k, {}),
        (atk.approx_top_k, {"buckets": 64, "k_per_bucket": 4}),
    ):
        x = torch.randn(2, 2**17, device="cuda")
        call(x, 20, **keywords)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            got = call(x, 20, **keywords)
        for seed in range(50):
            x.copy_(torch.randn(x.shape, device="cuda", generator=torch.Generator("cuda").manual_seed(seed)))
            graph.replay()
            assert torch.equal(got.indices, call(x, 20, **keywords).indices)


def test_the_workspace_is_what_the_plan_says(torch: Any) -> None:
    x = torch.randn(8, 2**18, device="cuda")
    k = 3000
    atk.top_k(x, k)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    got = atk.top_k(x, k)
    used = torch.cuda.max_memory_allocated() - before
    plan = atk.plan(x.shape, k, exact=True, device="cuda")
    result = got.values.nbytes + got.indices.nbytes
    assert used <= plan.workspace_bytes + result + 4 * 512, (used, plan.workspace_bytes, result)


def test_many_threads_and_streams(torch: Any) -> None:
    shapes = [((3, 5000), 7), ((1, 100_000), 64), ((200, 700), 20), ((5, 40_000), 3000)]
    arrays = [torch.randn(shape, device="cuda") for shape, _ in shapes]
    wanted = [torch.topk(x, k).values for x, (_, k) in zip(arrays, shapes, strict=True)]
    torch.cuda.synchronize()
    start = threading.Barrier(16)

    def work(number: int) -> bool:
        start.wait()
        with torch.cuda.stream(torch.cuda.Stream()):
            for turn in range(20):
                which = (number + turn) % len(shapes)
                values, _ = atk.top_k(arrays[which], shapes[which][1])
                if not torch.equal(values, wanted[which]):
                    return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(16)))


def test_a_device_that_is_not_current(torch: Any) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    x = torch.randn(4, 10_000, device="cuda:1")
    with torch.cuda.device(0):
        got = atk.top_k(x, 9)
        assert torch.cuda.current_device() == 0
    assert got.values.device == x.device
    assert torch.equal(got.values, torch.topk(x, 9).values)


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
    jax = pytest.importorskip("jax")
    if jax.default_backend() != "gpu":
        pytest.skip("JAX sees no GPU")
    for call in (lambda x: atk.approx_top_k(x, 30).indices, jax.jit(lambda x: atk.approx_top_k(x, 30).indices)):
        np.testing.assert_array_equal(np.asarray(call(jax.numpy.asarray(host))), want.indices)
