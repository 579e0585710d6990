"""torch.func, forward mode, second derivatives, autocast, tracing, modes and subclasses, on either machine.

Exact selection from distinct entries has the values, indices and derivatives of ``torch.topk`` under all of them.
"""

from __future__ import annotations

import contextlib
import copy
import io
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import approxtopk as atk

from .emulated import emulated
from .frameworks import objective, rows

torch = pytest.importorskip("torch")
from torch.func import (  # noqa: E402 (PyTorch first)
    functionalize,
    grad,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    vjp,
    vmap,
)

CERTIFIED = {"buckets": 8, "k_per_bucket": 1, "certify": True}


@pytest.fixture(params=[contextlib.nullcontext, emulated], ids=["host", "emulated"], autouse=True)
def machine(request: pytest.FixtureRequest) -> Iterator[None]:
    """The CPU by NumPy, and the kernels in the emulator, which serves the registrations that CUDA tensors use."""
    with request.param():
        yield


@pytest.fixture
def x() -> Any:
    return torch.from_numpy(rows((4, 6, 32), 2, seed=1).astype(np.float32))


def same(ours: Any, theirs: Any) -> None:
    ours, theirs = ([a] if isinstance(a, torch.Tensor) else a for a in (ours, theirs))
    assert len(ours) == len(theirs)
    for have, want in zip(ours, theirs, strict=True):
        assert have.dtype == want.dtype and torch.equal(have, want)


def best(x: Any) -> Any:
    return atk.top_k(x, 3)[0]


def their_best(x: Any) -> Any:
    return torch.topk(x, 3)[0]


def gradient(f: Any, x: Any) -> Any:
    leaf = x.clone().requires_grad_()
    f(leaf).backward()
    return leaf.grad


def test_torch_func(x: Any) -> None:
    ours, theirs = objective(atk.top_k), objective(torch.topk)
    row, cotangent = x[0, 0], torch.tensor(2.0)
    same(grad(ours)(x), grad(theirs)(x))
    same(vjp(ours, x)[1](cotangent), vjp(theirs, x)[1](cotangent))
    same(jvp(best, (x,), (x + 1,)), jvp(their_best, (x,), (x + 1,)))
    same(jacrev(best)(row), jacrev(their_best)(row))
    same(jacfwd(best)(row), jacfwd(their_best)(row))
    same(hessian(ours)(row), hessian(theirs)(row))
    same(vmap(grad(ours))(x), vmap(grad(theirs))(x))
    same(vmap(hessian(ours))(x[0, :2]), vmap(hessian(theirs))(x[0, :2]))
    same(grad(lambda x: vmap(ours)(x).sum())(x), grad(lambda x: vmap(theirs)(x).sum())(x))
    same(functionalize(lambda x: tuple(atk.top_k(x, 3)))(x), torch.topk(x, 3))


def test_vmap(x: Any) -> None:
    for in_dims in (0, 1, -1):
        for out_dims in (0, -1):
            for axis in (0, -1):
                same(
                    vmap(lambda x, a=axis: tuple(atk.top_k(x, 2, axis=a)), in_dims, out_dims)(distinct()),
                    vmap(lambda x, a=axis: tuple(torch.topk(x, 2, a)), in_dims, out_dims)(distinct()),
                )
    same(vmap(vmap(best))(x), their_best(x))
    same(vmap(vmap(best, 1), 0)(x.transpose(1, 2)), vmap(vmap(their_best, 1), 0)(x.transpose(1, 2)))
    same(vmap(best, chunk_size=3)(x), their_best(x))
    same(vmap(best)(x.to(torch.uint8)), their_best(x.to(torch.uint8)))


def distinct() -> Any:
    """Distinct along every axis."""
    return torch.from_numpy(rows((4 * 6 * 32,), 0).astype(np.float32)).reshape(4, 6, 32)


def test_vmap_over_bounds(x: Any) -> None:
    starts, lengths = torch.arange(24).reshape(4, 6), torch.arange(24).reshape(4, 6).flip(1)
    want = atk.approx_top_k(x, 3, starts=starts, lengths=lengths, **CERTIFIED)

    def select(x: Any, starts: Any, lengths: Any) -> Any:
        return tuple(atk.approx_top_k(x, 3, starts=starts, lengths=lengths, **CERTIFIED))

    same(vmap(vmap(select))(x, starts, lengths), want)
    same(vmap(select, chunk_size=3)(x, starts, lengths), want)
    same(vmap(vmap(select), (0, 1, 1))(x, starts.t(), lengths.t()), want)
    row = vmap(lambda length: tuple(atk.top_k(x[0, 0], 3, lengths=length)))(lengths.flatten())
    same(row, atk.top_k(x[0, 0].expand(24, 32), 3, lengths=lengths.flatten()))
    values = vmap(grad(lambda x, n: torch.where((v := atk.top_k(x, 3, lengths=n)).indices < 0, 0, v.values).sum()))
    assert values(x[0], torch.tensor([0, 1, 2, 3, 4, 32])).sum(1).tolist() == [0, 1, 2, 3, 3, 3]


def test_a_row_has_one_answer() -> None:
    """Alone, in a batch, along another axis, mapped, prepared and through the operator of graphs."""
    x, k = torch.from_numpy(rows((5, 20_000), 1).astype(np.float32)), 40
    plan = atk.plan(tuple(x.shape), k, recall_target=0.8)
    assert plan.route == "bucketed" and plan.expected_recall < 0.99

    def select(x: Any, axis: int = -1) -> Any:
        return tuple(atk.approx_top_k(x, k, axis=axis, recall_target=0.8))

    want = select(x)
    assert not torch.equal(want[1], torch.topk(x, k).indices)
    same([torch.stack(each) for each in zip(*map(select, x), strict=True)], want)
    same([array.t() for array in select(x.t().contiguous(), 0)], want)
    same(vmap(select)(x), want)
    same(vmap(select, 1)(x.t().contiguous()), want)
    same(vmap(vmap(select))(x[None].expand(2, -1, -1)), [a.expand(2, -1, -1) for a in want])
    same(atk.prepare(tuple(x.shape), k, recall_target=0.8)(x), want)
    same(torch.ops.approxtopk.select(x, None, None, "approx_top_k", k, recall_target=0.8), want)


def test_forward_mode(x: Any) -> None:
    import torch.autograd.forward_ad as forward

    with forward.dual_level():
        dual = forward.make_dual(x, x + 1)
        same(forward.unpack_dual(best(dual)), forward.unpack_dual(their_best(dual)))
        values = atk.approx_top_k(dual, 3, recall_target=1).values
        same(forward.unpack_dual(values).tangent, forward.unpack_dual(their_best(dual)).tangent)
        assert forward.unpack_dual(atk.top_k(dual, 3).indices).tangent is None


def test_every_derivative_by_finite_differences(x: Any) -> None:
    leaf = x[0, :2, :12].double().requires_grad_()
    lengths = torch.tensor([2, 12])

    def ragged(x: Any) -> Any:
        values, indices, _ = atk.approx_top_k(x, 3, lengths=lengths, **CERTIFIED)
        return torch.where(indices < 0, 0, values) ** 2

    for f in (lambda x: best(x) ** 2, ragged):
        assert torch.autograd.gradcheck(f, leaf, check_forward_ad=True, check_batched_grad=True)
        assert torch.autograd.gradgradcheck(f, leaf)


def test_no_grad_and_inference_mode(x: Any) -> None:
    leaf = x.clone().requires_grad_()
    assert best(leaf).requires_grad and not atk.top_k(leaf, 3).indices.requires_grad
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            ours, theirs = atk.top_k(leaf, 3), torch.topk(leaf, 3)
            same(ours, theirs)
            assert [a.is_inference() for a in ours] == [a.is_inference() for a in theirs]
            assert not ours.values.requires_grad
    assert not best(x.to(torch.float8_e5m2).requires_grad_()).requires_grad  # it has no gather
    with torch.inference_mode():
        inner = x * 1
    same(atk.top_k(inner, 3), torch.topk(inner, 3))


def test_checkpoint(x: Any) -> None:
    from torch.utils.checkpoint import checkpoint

    want = gradient(lambda x: their_best(x / 8).exp().sum(), x)
    for reentrant in (False, True):
        got = gradient(
            lambda x, r=reentrant: checkpoint(lambda x: best(x / 8).exp(), x, use_reentrant=r).sum(),  # type: ignore
            x,
        )
        same(got, want)


def test_autocast_leaves_the_type_alone(x: Any) -> None:
    weight = torch.eye(32)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            low = x @ weight
            assert low.dtype == dtype
            for given in (x, low):
                same(atk.top_k(given, 3), torch.topk(given, 3))
                same(gradient(lambda x: best(x).sum(), given), gradient(lambda x: their_best(x).sum(), given))


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_make_fx(x: Any, mode: str) -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    lengths = torch.arange(24).reshape(4, 6)

    def work(x: Any, lengths: Any) -> Any:
        return (*atk.approx_top_k(x, 3, lengths=lengths, **CERTIFIED), *atk.top_k(x, x.shape[-1] // 4, axis=2))

    graph = make_fx(work, tracing_mode=mode)(x, lengths)
    same(graph(-x, lengths.flip(0)), work(-x, lengths.flip(0)))
    if mode == "symbolic":
        y, lengths = x[:2, :3, :20].contiguous(), lengths[:2, :3].contiguous()
        same(graph(y, lengths), work(y, lengths))
    derivative = make_fx(grad(objective(atk.top_k)), tracing_mode=mode)(x)
    same(derivative(-x), grad(objective(torch.topk))(-x))


def test_fake_tensors() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        x = torch.empty(4, 100, device="cuda")
        values, indices, exact = atk.approx_top_k(
            x, 5, lengths=torch.empty(4, dtype=torch.int8, device="cuda"), **CERTIFIED
        )
        assert values.shape == indices.shape == (4, 5) and exact.shape == (4,)
        assert {a.device.type for a in (values, indices, exact)} == {"cuda"}
        assert (values.dtype, indices.dtype, exact.dtype) == (torch.float32, torch.int64, torch.bool)
        assert best(torch.empty(4, 100, requires_grad=True)).requires_grad
        with pytest.raises(atk.InvalidArgument, match="k = 101 is out of range; allowed are 0 to 100"):
            atk.top_k(x, 101)
        with pytest.raises(atk.DeviceMismatch, match="lengths is on device cpu and x on cuda:0"):
            atk.top_k(x, 3, lengths=torch.empty(4, dtype=torch.int8))
        assert atk.prepare((4, 100), 5, device="cpu")(torch.empty(4, 100)).values.shape == (4, 5)
        with pytest.raises(atk.InvalidArgument, match="prepared for is a contiguous array"):
            atk.prepare((4, 100), 5, device="cpu")(torch.empty(4, 99))


@pytest.mark.filterwarnings("ignore")
def test_jit_trace(x: Any) -> None:
    class Module(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return (*atk.approx_top_k(x, 3, **CERTIFIED), *atk.top_k(x, 2, axis=0, mode="smallest"))

    traced = torch.jit.trace(Module(), (x,))
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    loaded = torch.jit.load(file)
    for y in (-x, x[:3, :2, :20].contiguous()):
        same(traced(y), Module()(y))
        same(loaded(y), Module()(y))


class Wrapper(torch.Tensor):
    """A tensor that holds another and has no memory itself."""

    @staticmethod
    def __new__(cls, inner: Any) -> Any:
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=inner.device
        )

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from torch.utils._pytree import tree_map_only

        args, kwargs = tree_map_only(Wrapper, lambda w: w.inner, (args, kwargs or {}))
        return tree_map_only(torch.Tensor, Wrapper, function(*args, **kwargs))


def test_wrapper_subclasses(x: Any) -> None:
    ours, theirs = atk.top_k(Wrapper(x), 3), torch.topk(x, 3)
    assert all(type(a) is Wrapper for a in ours)
    same([a.inner for a in ours], theirs)
    lengths = torch.arange(24).reshape(4, 6)
    want = atk.approx_top_k(x, 3, lengths=lengths, **CERTIFIED)
    for given in ((Wrapper(x), Wrapper(lengths)), (x, Wrapper(lengths)), (Wrapper(x), lengths)):
        got = atk.approx_top_k(given[0], 3, lengths=given[1], **CERTIFIED)
        same([a.inner if isinstance(a, Wrapper) else a for a in got], want)


def test_modules_are_copied_and_pickled(x: Any) -> None:
    holder = Holder()
    same(holder(x), torch.topk(x, 3))
    held = atk.prepare((2, 70_000), 9, buckets=512, k_per_bucket=1)
    wide = torch.from_numpy(rows((2, 70_000), 1).astype(np.float32))
    same(held(wide), atk.approx_top_k(wide, 9, buckets=512, k_per_bucket=1))
    for again in (copy.deepcopy, lambda given: pickle.loads(pickle.dumps(given))):
        same(again(holder)(x), torch.topk(x, 3))
        other = again(held)
        assert not other._memory  # the workspace, and its address, are the original's
        same(other(wide), held(wide))


def test_sharded_tensors_are_refused(tmp_path: Any) -> None:
    import torch.distributed as dist
    from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        x = distribute_tensor(torch.randn(4, 40), init_device_mesh("cpu", (1,)), [Shard(0)])
        with pytest.raises(atk.InvalidType, match=r"x is a DTensor; allowed are tensors of one rank: pass x.to_local"):
            atk.top_k(x, 3)
        same(atk.top_k(x.to_local(), 3), torch.topk(x.to_local(), 3))
    finally:
        dist.destroy_process_group()


class Holder(torch.nn.Module):
    """A module that keeps a prepared call, and the memory of its last one."""

    def __init__(self) -> None:
        super().__init__()
        self.select = atk.prepare((4, 6, 32), 3, exact=True)

    def forward(self, x: Any) -> Any:
        return self.select(x)


def test_another_thread_that_compiles_changes_nothing(x: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's flag of it is one for all threads."""
    monkeypatch.setattr(torch.compiler, "_is_compiling_flag", True)
    assert torch.compiler.is_compiling()
    out = torch.empty(4, 6, 3), torch.empty(4, 6, 3, dtype=torch.int64)
    assert atk.prepare((4, 6, 32), 3, exact=True)(x, out=out).values is out[0]
    same(out, torch.topk(x, 3))


def test_errors_are_the_callers(x: Any) -> None:
    """Under a transform too they tell of the array that the function sees."""
    for transform in (vmap, grad, lambda f: vmap(grad(f))):
        with pytest.raises(atk.InvalidArgument, match="k = 99 is out of range; allowed are 0 to 32"):
            transform(lambda row: atk.top_k(row, 99)[0].sum())(x[0])
    with pytest.raises(atk.InvalidArgument, match=r"lengths has shape \(6,\); allowed is \(\), one number"):
        vmap(lambda row: atk.top_k(row, 3, lengths=torch.arange(6))[0])(x[0])
    with pytest.raises(atk.InvalidType, match="lengths must be a PyTorch tensor"):
        vmap(lambda row: atk.top_k(row, 3, lengths=np.int64(3))[0])(x[0])
    with pytest.raises(atk.InvalidArgument, match="out is given and x is compiled, traced, mapped"):
        vmap(lambda row: atk.prepare(32, 3)(row, out=(row, row)))(x[0])
