"""Calls planned once: the same answers as other calls, with memory kept or given, on every machine."""

from __future__ import annotations

import copy
import ctypes
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from approxtopk.adapters.numpy import ADAPTER

import approxtopk as atk
from approxtopk.buffer import Device
from approxtopk.plan import Fill
from approxtopk.runtime import substitute

from .backends import Backend, tuned
from .emulated import EmulatedRuntime, emulated
from .inputs import make

#: Calls whose plans have counters to zero: a walk and a filter over several blocks a row, and a split radix selection.
COUNTED: tuple[dict[str, Any], ...] = (
    {"buckets": 512, "k_per_bucket": 2, "certify": True},
    {"exact": True},
    {"exact": True, "k": 3000},
)
N = 70_000
#: What forces these mappings, where the planner may take others.
MAPPED = {"chip_entries": 0, "copy_bytes": 0}


@pytest.fixture
def mapped() -> Iterator[None]:
    """Plans with counters."""
    with tuned(**MAPPED):
        yield


def call(form: dict[str, Any]) -> tuple[Any, int, dict[str, Any]]:
    options = dict(form)
    k, exact = options.pop("k", 40), options.pop("exact", False)
    return (atk.top_k if exact else atk.approx_top_k), k, options


def equal(got: Any, want: Any) -> None:
    assert type(got) is type(want)
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


@pytest.mark.parametrize("form", COUNTED, ids=str)
def test_the_same_answers_as_other_calls(backend: Backend, form: dict[str, Any]) -> None:
    if backend.name == "gpu":
        import cupy as xp
    else:
        xp = np
    ordinary, k, options = call(form)
    prepared = atk.prepare((2, N), k, **{name: value for name, value in form.items() if name != "k"}, **device(backend))
    for seed in range(3):
        x = xp.asarray(make("random", "float32", (2, N), seed).view(np.float32))
        got, want = prepared(x), ordinary(x, k, **options)
        assert type(got) is type(want)
        for ours, theirs in zip(got, want, strict=True):
            assert bool((ours == theirs).all()) and ours.dtype == theirs.dtype


def device(backend: Backend) -> dict[str, Any]:
    """Where the arrays will be, as `prepare` takes it."""
    return {"device": backend.runtime.info if backend.runtime is not None else {"gpu": "cuda"}.get(backend.name, "cpu")}


@pytest.mark.parametrize("form", COUNTED, ids=str)
def test_counters_are_zeroed_once(form: dict[str, Any], mapped: None) -> None:
    _, k, _ = call(form)
    with emulated() as runtime:
        prepared = atk.prepare((2, N), k, device=runtime.info, **{n: v for n, v in form.items() if n != "k"})
        assert prepared.plan.zeroed_bytes == 0
        ran = []
        for seed in range(3):
            runtime.launched.clear()
            prepared(make("few", "float32", (2, N), seed).view(np.float32))
            ran.append([kernel for kernel, _ in runtime.launched])
        assert ran[0] == ["fill", *ran[1]] and ran[1] == ran[2] == list(prepared.plan.kernels)
        assert len(ran[1]) == prepared.plan.launches


@pytest.mark.parametrize("form", COUNTED, ids=str)
def test_every_plan_leaves_its_counters_zero(form: dict[str, Any], mapped: None) -> None:
    ordinary, k, options = call(form)

    class Watching(EmulatedRuntime):
        """Remembers the zeroed memory of a call, to look at when its last step is done."""

        def run(self, step: Any, plan: Any, buffers: Any, stream: int) -> None:
            super().run(step, plan, buffers, stream)
            if step is not plan.steps[-1]:
                return
            for fill in (s for s in plan.steps if isinstance(s, Fill)):
                start = buffers[fill.pointer.buffer].pointer + fill.pointer.offset
                assert not any((ctypes.c_ubyte * fill.nbytes).from_address(start))

    with substitute("cpu", Watching()):
        for kind in ("random", "equal", "sorted", "infinity"):
            ordinary(make(kind, "float32", (2, N)).view(np.float32), k, **options)


def test_a_failed_call_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, mapped: None) -> None:
    x = make("random", "float32", (2, N)).view(np.float32)
    with emulated() as runtime:
        prepared = atk.prepare(x.shape, 40, exact=True, device=runtime.info)
        prepared(x)
        with monkeypatch.context() as patch:
            patch.setattr(runtime, "run", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                prepared(x)
        runtime.launched.clear()
        equal(prepared(x), atk.top_k(x, 40))
        assert runtime.launched[0][0] == "fill"


def test_ragged_rows(backend: Backend) -> None:
    if backend.name == "gpu":
        pytest.skip("arrays of NumPy's")
    x = make("random", "float32", (4, 500)).view(np.float32)
    lengths = np.array([500, 3, 77, 0], np.int32)
    prepared = atk.prepare(x.shape, 9, exact=True, lengths="int32", **device(backend))
    equal(prepared(x, lengths=lengths), atk.top_k(x, 9, lengths=lengths))
    with pytest.raises(atk.InvalidArgument, match="the call brings x; prepared for are x, lengths"):
        prepared(x)
    with pytest.raises(atk.InvalidArgument, match="lengths is int64 of shape"):
        prepared(x, lengths=lengths.astype(np.int64))


def test_out(backend: Backend) -> None:
    if backend.name == "gpu":
        pytest.skip("arrays of NumPy's")
    x = make("random", "float32", (4, 500)).view(np.float32)
    prepared = atk.prepare(x.shape, 9, buckets=32, k_per_bucket=1, certify=True, **device(backend))
    out = (np.empty((4, 9), np.float32), np.empty((4, 9), np.int64), np.empty(4, np.bool_))
    got = prepared(x, out=out)
    assert all(ours is given for ours, given in zip(got, out, strict=True))
    equal(got, atk.approx_top_k(x, 9, buckets=32, k_per_bucket=1, certify=True))


def test_out_of_tensors() -> None:
    import torch

    x = torch.randn(3, 200)
    prepared = atk.prepare(x.shape, 5, exact=True, device="cpu")
    out = (torch.empty(3, 5), torch.empty(3, 5, dtype=torch.int64))
    assert prepared(x, out=out).values is out[0]
    want = torch.topk(x, 5)
    assert torch.equal(out[0], want.values) and torch.equal(out[1], want.indices)
    saved = (torch.ones(3, 5, requires_grad=True) * out[0]).sum()
    prepared(x, out=out)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        saved.backward()
    x.requires_grad_()
    with pytest.raises(atk.InvalidArgument, match="out is given and x is being differentiated"):
        prepared(x, out=out)
    prepared(x).values.sum().backward()
    assert x.grad is not None and x.grad.sum() == 15
    with torch.no_grad():
        prepared(x, out=out)


def test_jax_arrays() -> None:
    import jax.numpy as jnp

    x = jnp.asarray(make("random", "float32", (3, 200)).view(np.float32))
    prepared = atk.prepare(x.shape, 5, device="cpu")
    for _ in range(2):
        equal(prepared(x), atk.approx_top_k(x, 5))
    assert prepared(x).indices.dtype == jnp.int32
    with pytest.raises(atk.InvalidArgument, match="immutable"):
        prepared(x, out=(x, x))
    with pytest.raises(atk.InvalidArgument, match="index_dtype = int64 is not available"):
        atk.prepare(x.shape, 5, device="cpu", index_dtype="int64")(x)


GOOD = (np.empty((4, 9), np.float32), np.empty((4, 9), np.int64))

BAD_CALLS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "shape": ({"x": np.zeros((4, 501), np.float32)}, atk.InvalidArgument, r"x is float32 of shape \(4, 501\)"),
    "dtype": ({"x": np.zeros((4, 500))}, atk.InvalidArgument, "x is float64 of shape"),
    "strides": ({"x": np.zeros((4, 1000), np.float32)[:, ::2]}, atk.InvalidArgument, r"not contiguous \(strides"),
    "starts": ({"starts": np.zeros(4, np.int32)}, atk.InvalidArgument, "the call brings x, starts"),
    "out: none": ({"out": ()}, atk.InvalidArgument, "out must be a tuple of the arrays values, indices, not 0"),
    "out: an array": ({"out": GOOD[0]}, atk.InvalidType, "not ndarray"),
    "out: shape": (
        {"out": (GOOD[0][:3], GOOD[1])},
        atk.InvalidArgument,
        r"array \(float32, shape \(3, 9\)\) for values",
    ),
    "out: dtype": (
        {"out": (GOOD[0], GOOD[1].astype(np.int32))},
        atk.InvalidArgument,
        r"\(int32, .* for indices",
    ),
    "out: strides": ({"out": (np.empty((9, 4), np.float32).T, GOOD[1])}, atk.InvalidArgument, "not contiguous"),
    "out: framework": (
        {"out": (1, GOOD[1])},
        atk.InvalidType,
        r"out\[0\] must be a NumPy .*\)$",
    ),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls(name: str) -> None:
    arguments, error, message = BAD_CALLS[name]
    prepared = atk.prepare((4, 500), 9, exact=True, device="cpu")
    arguments = {"x": np.zeros((4, 500), np.float32), **arguments}
    with pytest.raises(error, match=message):
        prepared(arguments.pop("x"), **arguments)


def test_a_read_only_out_is_refused() -> None:
    values = np.empty((4, 9), np.float32)
    values.flags.writeable = False
    with pytest.raises(atk.InvalidArgument, match="read-only"):
        atk.prepare((4, 500), 9, exact=True, device="cpu")(np.zeros((4, 500), np.float32), out=(values, GOOD[1]))


def test_the_device_is_that_of_the_arrays() -> None:
    x = make("random", "float32", (4, 500)).view(np.float32)
    prepared = atk.prepare(x.shape, 9, exact=True)
    equal(prepared(x), atk.top_k(x, 9))
    with emulated() as runtime:
        prepared = atk.prepare(x.shape, 9, exact=True)
        equal(prepared(x), atk.top_k(x, 9))
        assert runtime.launched
    assert repr(prepared).startswith("<approxtopk.Prepared: top_k of float32 [4 x 500] along axis 1: the 9 largest")


def test_a_graph_has_memory_of_its_own(monkeypatch: pytest.MonkeyPatch, mapped: None) -> None:
    x = make("random", "float32", (2, N)).view(np.float32)
    with emulated() as runtime:
        prepared = atk.prepare(x.shape, 40, exact=True)
        for recording in (True, False, True, False):
            monkeypatch.setattr(ADAPTER, "capturing", lambda _, now=recording: now)
            before = dict(prepared._memory)
            runtime.launched.clear()
            got = prepared(x)
            filled = runtime.launched[0][0] == "fill"
            equal(got, atk.top_k(x, 40))
            assert filled == (recording or not before)
            assert not recording or prepared._memory == before


def test_another_device() -> None:
    with emulated() as runtime:
        prepared = atk.prepare((4, 500), 9, exact=True, device="sm_80")
        with pytest.raises(atk.DeviceMismatch, match="prepared for is reference A100"):
            prepared(np.zeros((4, 500), np.float32))
        assert not runtime.launched
    with pytest.raises(atk.InvalidType, match="prepare got an unexpected keyword argument 'bucket'"):
        atk.prepare((4, 500), 9, bucket=3)


def test_other_mappings_work_prepared() -> None:
    x = make("few", "float32", (2, 640)).view(np.float32)
    with tuned(least_steps=2, threads=32, split_entries=64, row_threads=32), emulated() as runtime:
        for k, options in ((60, {"buckets": 32, "k_per_bucket": 2}), (90, {"exact": True})):
            prepared = atk.prepare(x.shape, k, device=runtime.info, **options)
            ordinary = atk.top_k if "exact" in options else atk.approx_top_k
            want = ordinary(x, k, **{n: v for n, v in options.items() if n != "exact"})
            for _ in range(2):
                equal(prepared(x), want)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda prepared: pickle.loads(pickle.dumps(prepared))])
def test_copies_plan_for_the_machine_they_are_on(again: Callable[[Any], Any], mapped: None) -> None:
    """They also have memory of their own."""
    x = make("random", "float32", (2, N)).view(np.float32)
    want = atk.top_k(x, 40)
    with emulated():
        prepared = atk.prepare(x.shape, 40, exact=True)
        prepared(x)
        other = again(prepared)
        assert prepared._memory and not other._memory
    with emulated(multiprocessors=8) as runtime:
        equal(other(x), want)
        assert {plan.device for plans in other._plans.values() for plan in plans} == {runtime.info}


def test_memory_is_kept_by_framework_and_device(mapped: None) -> None:
    x = make("random", "float32", (2, N)).view(np.float32)
    with emulated() as runtime:
        prepared = atk.prepare(x.shape, 40, exact=True, device=runtime.info)
        prepared(x)
        assert list(prepared._memory) == [("numpy", Device("cpu"))]
