"""CuPy without a GPU: its arrays over host memory, its adapter and the CUDA runtime for real, the emulator as GPU."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import approxtopk as atk
from approxtopk.buffer import Device

from .backends import tuned
from .fake_cupy import FakeCupy, FakeStream, fake_gpus, read
from .fakes import cupy_array
from .frameworks import expected, expected_ragged, rows
from .inputs import make

pytest.importorskip("cupy")

N = 70_000
#: What forces mappings with a workspace, counters in it among others.
SPLIT = {"chip_entries": 0, "copy_bytes": 0}


@pytest.fixture
def gpus() -> Iterator[FakeCupy]:
    with fake_gpus() as fake:
        yield fake


def on_gpu(host: np.ndarray, device: int = 0) -> Any:
    return cupy_array(host, host.shape, host.dtype, device=device)


def test_cupy_description() -> None:
    from approxtopk.adapters import registry

    host = np.zeros(60, np.float32)
    x = cupy_array(host, (3, 4, 5), np.float32)
    adapter = registry.find(x)
    assert (adapter.name, adapter.default_index) == ("cupy", "int64")
    facts = adapter.facts(x[1:, ::-1].transpose(2, 0, 1))
    assert facts.shape == (5, 2, 4) and facts.strides == (1, 20, -5)
    assert facts.pointer == host.ctypes.data + (20 + 15) * 4
    assert (facts.dtype, facts.device) == ("float32", Device("cuda", 0))


def test_results_and_the_order_of_steps(gpus: FakeCupy) -> None:
    reference = rows((5, 300), 1).astype(np.float32)
    values, indices = atk.top_k(on_gpu(reference), 9)
    np.testing.assert_array_equal(read(indices), expected(reference, 9, 1)[1])
    np.testing.assert_array_equal(read(values), expected(reference, 9, 1)[0])
    assert gpus.entered == [0, 0, -1, -1] and gpus.stack() == [0]
    assert {stream for _, _, stream in gpus.launches} == {0}


def test_ragged_rows(gpus: FakeCupy) -> None:
    reference, lengths = rows((5, 300), 1).astype(np.float32), np.array([0, 2, 50, 300, 9], np.uint16)
    starts = np.array([7], np.int32)
    values, indices, exact = atk.approx_top_k(
        on_gpu(reference),
        9,
        recall_target=1,
        starts=cupy_array(starts, (5,), np.int32, (0,)),
        lengths=on_gpu(lengths),
        certify=True,
    )
    best, where = expected_ragged(reference, 9, np.full(5, 7), lengths.astype(int))
    np.testing.assert_array_equal(read(indices), where)
    np.testing.assert_array_equal(read(values), best)
    assert exact.dtype == bool and read(exact).tolist() == [True] * 5


def layouts() -> dict[str, Any]:
    """Arrays made of one of shape (4, 6, 50)."""
    import cupy

    class Own(cupy.ndarray):
        """As a library on top of CuPy may have it."""

    return {
        "fortran": lambda x: cupy_array(x, (50, 6, 4), x.dtype, tuple(s for s in reversed(x.strides))),
        "transposed": lambda x: on_gpu(x).transpose(1, 2, 0),
        "reversed": lambda x: on_gpu(x)[:, ::-1, ::-1],
        "stepped": lambda x: on_gpu(x)[::2, 1::3, ::2],
        "broadcast": lambda x: cupy_array(x, (4, 3, 50), x.dtype, (x.strides[0], 0, x.strides[2])),
        "subclass": lambda x: on_gpu(x).view(Own),
    }


@pytest.mark.parametrize("name", layouts())
def test_layouts_cost_no_copy(gpus: FakeCupy, name: str) -> None:
    import cupy

    host = rows((4, 6, 50), 2).astype(np.float32)
    x = layouts()[name](host)
    if name == "reversed":
        reference = host[:, ::-1, ::-1]
    else:  # the same view of the same memory for NumPy
        first = (x.data.ptr - host.ctypes.data) // 4
        reference = np.lib.stride_tricks.as_strided(host.reshape(-1)[first:], x.shape, x.strides)
    values, indices = atk.top_k(x, 3, axis=-1)
    order = np.argsort(-reference, axis=-1, kind="stable")[..., :3]
    np.testing.assert_array_equal(read(indices), order)
    np.testing.assert_array_equal(read(values), np.take_along_axis(reference, order, -1))
    assert type(values) is type(indices) is cupy.ndarray
    assert len(gpus.allocated) == 2, "results, and nothing else"


def test_misaligned_memory_is_refused(gpus: FakeCupy) -> None:
    host = np.zeros(404, np.uint8)
    with pytest.raises(atk.InvalidArgument, match="multiples of the element's 4 bytes"):
        atk.top_k(cupy_array(host, (100,), np.float32, offset=2), 3)
    with pytest.raises(atk.InvalidArgument, match=r"x has strides \(6,\) in bytes"):
        atk.top_k(cupy_array(host, (50,), np.float32, (6,)), 3)
    assert not gpus.allocated


@pytest.mark.parametrize("pointer", [None, 0, 2], ids=["new", "legacy default", "per-thread default"])
def test_the_current_stream_is_used(gpus: FakeCupy, pointer: int | None) -> None:
    x = make("random", "float32", (2, N)).view(np.float32)
    stream = FakeStream(gpus, ptr=pointer)
    with tuned(**SPLIT), stream:
        got = atk.top_k(on_gpu(x), 40)
    np.testing.assert_array_equal(read(got.indices), atk.top_k(x, 40).indices)
    assert {ptr for *_, ptr in gpus.launches} == {ptr for _, ptr in gpus.filled} == {stream.ptr}
    assert {ptr for _, ptr, _ in gpus.allocated} == {stream.ptr}


def test_a_device_that_is_not_current(gpus: FakeCupy) -> None:
    x = rows((3, 400), 1).astype(np.float32)
    here, there = FakeStream(gpus, 0), FakeStream(gpus, 1)
    with gpus.cuda.Device(1):
        there.__enter__()
    with here:
        got = atk.top_k(on_gpu(x, 1), 5)
        assert gpus.stack() == [0]
    np.testing.assert_array_equal(read(got.indices), expected(x, 5, 1)[1])
    assert got.values.data.device_id == got.indices.data.device_id == 1
    assert {ptr for *_, ptr in gpus.launches} == {there.ptr}
    assert {device for device, *_ in gpus.allocated} == {1}
    compiled = len(gpus.compiled)
    with here:
        atk.top_k(on_gpu(x, 0), 5)
    assert len(gpus.compiled) == 2 * compiled, "a kernel belongs to one device"
    with pytest.raises(atk.DeviceMismatch, match="lengths is on device cuda:0 and x on cuda:1"):
        atk.top_k(on_gpu(x, 1), 5, lengths=on_gpu(np.ones(3, np.int32), 0))


def capture(gpus: FakeCupy, call: Any) -> tuple[Any, Any]:
    """The graph of a call, on a stream of its own, and the call's results."""
    with FakeStream(gpus) as stream:
        stream.begin_capture()
        got = call()
        return stream.end_capture(), got


def test_graphs_replay_with_new_inputs(gpus: FakeCupy) -> None:
    host = np.zeros((2, N), np.float32)
    x = on_gpu(host)
    prepared = atk.prepare(x.shape, 40, exact=True, device="cuda")
    out = gpus.empty((2, 40), np.float32), gpus.empty((2, 40), np.int64)
    with tuned(**SPLIT):
        calls: list[Any] = [
            lambda: atk.top_k(x, 40),
            lambda: prepared(x),
            lambda: prepared(x, out=out),
            lambda: atk.approx_top_k(x, 40, buckets=512, k_per_bucket=2, certify=True),
        ]
        for call in calls:
            call()
        graphs = [capture(gpus, call) for call in calls]
        ran = len(gpus.launches)
        for seed in range(3):
            host[:] = make("random", "float32", host.shape, seed).view(np.float32)
            want = atk.top_k(host, 40)
            for graph, got in graphs[:3]:
                graph.launch()
                np.testing.assert_array_equal(read(got.indices), want.indices)
                np.testing.assert_array_equal(read(got.values), want.values)
            graph, got = graphs[3]
            graph.launch()
            want = atk.approx_top_k(host, 40, buckets=512, k_per_bucket=2, certify=True)
            for ours, theirs in zip(got, want, strict=True):
                np.testing.assert_array_equal(read(ours), theirs)
    assert len(gpus.launches) == ran, "replays go through no call"


@pytest.mark.parametrize("given", [False, True], ids=["new", "out"])
def test_a_graphs_workspace_lives_as_long_as_its_results(gpus: FakeCupy, given: bool) -> None:
    x = on_gpu(make("random", "float32", (2, N)).view(np.float32))
    with tuned(**SPLIT):
        prepared = atk.prepare(x.shape, 40, exact=True, device="cuda")
        prepared(x)
        nbytes = prepared.plan.workspace_bytes
        assert nbytes
        base = gpus.empty((1, 2, 40), np.float32), gpus.empty((1, 2, 40), np.int64)
        # Views of memory that is the user's: what counts is the memory.
        out = (base[0][0], base[1][0]) if given else None
        _graph, got = capture(gpus, lambda out=out: prepared(x, out=out))
    (key,) = {key for key in gpus.allocated[2:] if key[1] and key[2] == nbytes}
    gc.collect()
    assert not gpus.free[key], "the pool has it, and would give it to others"
    indices = base[1] if given else got.indices
    del got, base, out
    gc.collect()
    assert not gpus.free[key]
    del indices
    gc.collect()
    assert len(gpus.free[key]) == 1


def test_outside_a_graph_the_workspace_goes_back_at_once(gpus: FakeCupy) -> None:
    x = on_gpu(make("random", "float32", (2, N)).view(np.float32))
    with tuned(**SPLIT):
        got = atk.top_k(x, 40)
        nbytes = atk.plan(x.shape, 40, exact=True, device="cuda").workspace_bytes
        assert len(gpus.free[0, 0, nbytes]) == 1
        assert sum(size for *_, size in gpus.allocated) == nbytes + got.values.nbytes + got.indices.nbytes


def test_a_first_call_in_a_capture_says_what_to_do(gpus: FakeCupy) -> None:
    x = on_gpu(rows((3, 400), 1).astype(np.float32))
    with pytest.raises(atk.CompileError, match=r"while a graph is captured .*approxtopk\.warmup, before"):
        capture(gpus, lambda: atk.top_k(x, 5))
    gpus.streams.clear()
    atk.warmup(x, 5, exact=True)
    graph, got = capture(gpus, lambda: atk.top_k(x, 5))
    graph.launch()
    assert read(got.indices).shape == (3, 5)


def test_out_is_written_in_place(gpus: FakeCupy) -> None:
    x = rows((4, 500), 1).astype(np.float32)
    prepared = atk.prepare(x.shape, 9, exact=True, device="cuda")
    out = gpus.empty((4, 9), np.float32), gpus.empty((4, 9), np.int64)
    got = prepared(on_gpu(x), out=out)
    assert got.values is out[0] and got.indices is out[1]
    np.testing.assert_array_equal(read(out[1]), expected(x, 9, 1)[1])
    elsewhere = cupy_array(np.empty((4, 9), np.int64), (4, 9), np.int64, device=1)
    with pytest.raises(atk.InvalidArgument, match="device 1"):
        prepared(on_gpu(x), out=(out[0], elsewhere))


def test_dlpack_arrays_of_a_gpu(gpus: FakeCupy) -> None:
    """What other libraries export comes back as CuPy's, ordered after the producer by the stream it was told."""
    from .fakes import Foreign

    class Watched(Foreign):
        told: Any = None

        def __dlpack__(self, *, stream: Any = None, **new: Any) -> object:
            self.told = stream
            return super().__dlpack__(stream=stream, **new)

    host = rows((3, 400), 1).astype(np.float32)
    x = Watched(host, device_type=2, device_id=1)
    values, indices = atk.top_k(x, 5)
    np.testing.assert_array_equal(read(indices), expected(host, 5, 1)[1])
    assert x.told == 1 and x.deleted == 1 and values.data.device_id == 1
    with FakeStream(gpus) as stream:
        mine = Watched(host, device_type=2)
        atk.top_k(mine, 5)
        assert mine.told == stream.ptr == gpus.launches[-1][2]


def test_soft_top_k_and_ranks(gpus: FakeCupy) -> None:
    import cupy

    x = np.random.default_rng(0).standard_normal((4, 300)).astype(np.float32)
    g, l = np.ascontiguousarray(x[::-1]), np.array([0.5, 1.0, 2.0, 0.1], np.float32)
    for vjp in (atk.soft_top_k_mask_vjp, atk.soft_top_k_vjp):
        result, pullback = vjp(on_gpu(x), 7.5, l=on_gpu(l))
        want, plain = vjp(x, 7.5, l=l)
        assert type(result) is cupy.ndarray and result.dtype == np.float32
        for ours, theirs in zip((result, *pullback(on_gpu(g))), (want, *plain(g)), strict=True):
            np.testing.assert_allclose(read(ours), theirs, rtol=1e-5, atol=1e-5)
    index = np.array([3, 299, 0, 17])
    for ours, theirs in zip(atk.rank_counts(on_gpu(x), on_gpu(index)), atk.rank_counts(x, index), strict=True):
        assert type(ours) is cupy.ndarray
        np.testing.assert_array_equal(read(ours), theirs)
    with pytest.raises(atk.InvalidType, match="l must be a CuPy array, as x is"):
        atk.soft_top_k_mask(on_gpu(x), 3, l=l)
