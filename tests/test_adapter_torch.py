"""PyTorch: the drop-ins, views and subclasses, and ragged rows under derivatives and vmap."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import approxtopk as atk

from .emulated import emulated
from .frameworks import rows

torch = pytest.importorskip("torch")


@pytest.fixture
def sample() -> Any:
    return torch.from_numpy(rows((4, 6, 32), 2, seed=1).astype(np.float32))


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
@pytest.mark.parametrize("largest", [True, False])
def test_torch_drop_in(dim: int, largest: bool) -> None:
    from approxtopk.adapters.torch import approx_topk, topk

    x = torch.from_numpy(rows((4, 6, 32), dim, seed=2).astype(np.float32)).transpose(0, 1)
    dim = {0: 1, 1: 0}.get(dim, dim)
    theirs = torch.topk(x, 3, dim, largest, True)
    for ours in (topk(x, 3, dim, largest), topk(input=x, k=np.int64(3), dim=dim, largest=largest, sorted=True)):
        assert isinstance(ours, torch.return_types.topk)
        assert torch.equal(ours.values, theirs.values) and torch.equal(ours.indices, theirs.indices)
    ours = approx_topk(x, 3, dim, largest, recall_target=1.0)
    assert torch.equal(ours.values, theirs.values) and torch.equal(ours.indices, theirs.indices)
    assert set(topk(x, 3, dim, largest, sorted=False).indices.flatten().tolist()) == set(
        theirs.indices.flatten().tolist()
    )


def test_torch_drop_in_takes_scalars_and_integer_tensors() -> None:
    from approxtopk.adapters.torch import topk

    x = torch.tensor(3.0)
    for k in (0, 1):
        theirs, ours = torch.topk(x, k), topk(x, k)
        assert torch.equal(ours.values, theirs.values) and torch.equal(ours.indices, theirs.indices)
    assert topk(torch.arange(5), torch.tensor(2)).indices.tolist() == [4, 3]


def test_torch_drop_in_out(sample: Any) -> None:
    from approxtopk.adapters.torch import topk

    theirs = torch.topk(sample, 3)
    for shape in ((0,), theirs.values.shape):
        values, indices = torch.empty(shape), torch.empty(shape, dtype=torch.int64)
        ours = topk(sample, 3, out=(values, indices))
        assert type(ours) is torch.return_types.topk_out is type(torch.topk(sample, 3, out=ours))
        assert ours.values is values and torch.equal(values, theirs.values) and torch.equal(indices, theirs.indices)
    strided = torch.empty(4, 3, 6).transpose(1, 2)
    topk(sample, 3, out=(strided, torch.empty(0, dtype=torch.int64)))
    assert torch.equal(strided, theirs.values)
    with pytest.warns(UserWarning, match="resized"):
        topk(sample, 3, out=(torch.empty(5), torch.empty(0, dtype=torch.int64)))


def test_torch_older_names(sample: Any) -> None:
    from approxtopk.adapters.torch import approx_topk

    want = approx_topk(sample, 4, buckets=8, k_per_bucket=2)
    for given in (
        {"j": 2, "k_mult": 4},
        {"j": 2, "k_mult": 4.0},
        {"k_per_bucket": 2, "k_mult": 4},
        {"j": 2, "buckets": 8},
    ):
        have = approx_topk(sample, 4, **given)
        assert torch.equal(have.values, want.values) and torch.equal(have.indices, want.indices)


def test_torch_views_and_subclasses(sample: Any) -> None:
    negative = torch.view_as_complex(torch.stack([sample, sample], -1)).conj().imag
    assert negative.is_neg()
    values, indices = atk.top_k(negative, 3)
    assert torch.equal(values, torch.topk(negative, 3)[0]) and torch.equal(indices, torch.topk(negative, 3)[1])

    class Mine(torch.Tensor):
        pass

    assert isinstance(atk.top_k(sample.as_subclass(Mine), 3)[0], Mine)
    assert torch.equal(atk.top_k(torch.nn.Parameter(sample), 3)[0], torch.topk(sample, 3)[0])
    with torch.inference_mode():
        assert torch.equal(atk.top_k(sample, 3)[0], torch.topk(sample, 3)[0])


CERTIFIED = {"buckets": 8, "k_per_bucket": 1, "certify": True}


@pytest.fixture(params=[contextlib.nullcontext, emulated], ids=["host", "emulated"])
def machine(request: pytest.FixtureRequest) -> Iterator[None]:
    with request.param():
        yield


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("in_dims", list(itertools.product((0, 1, None), repeat=3))[:-1])
def test_torch_vmap_of_ragged_rows(in_dims: tuple[int | None, ...]) -> None:
    """Every mixture of what is batched, along either axis, is the batch done at once."""
    x = torch.from_numpy(rows((3, 5, 40), 2).astype(np.float32))
    starts, lengths = torch.arange(15).reshape(3, 5) * 2, torch.arange(15).reshape(3, 5).flip(1)
    # The batch is 3 along either axis, so that all can be mixed.
    batched = [a[:, :3] if d is not None else a[0, :3] for a, d in zip((x, starts, lengths), in_dims, strict=True)]
    whole = [
        a if d == 0 else a.transpose(0, 1) if d == 1 else a.expand(3, *a.shape)
        for a, d in zip(batched, in_dims, strict=True)
    ]

    def select(x: Any, starts: Any, lengths: Any) -> Any:
        return (
            *atk.top_k(x, 4, starts=starts, lengths=lengths),
            *atk.approx_top_k(x, 4, starts=starts, lengths=lengths, **CERTIFIED),
        )

    for got, want in zip(torch.vmap(select, in_dims)(*batched), select(*whole), strict=True):
        assert torch.equal(got, want)


@pytest.mark.usefixtures("machine")
def test_torch_derivatives_of_ragged_rows(sample: Any) -> None:
    """Those of the entries that are there; none of padding."""
    import torch.autograd.forward_ad as forward
    from torch.func import grad, hessian, jvp, vmap

    x, lengths = sample[0], torch.tensor([0, 1, 2, 3, 20, 32])

    def ours(x: Any, lengths: Any = lengths) -> Any:
        values, indices = atk.top_k(x, 3, lengths=lengths)
        return (torch.where(indices < 0, 7.0, values) ** 3).sum()

    def theirs(x: Any, lengths: Any = lengths) -> Any:
        there = torch.arange(x.shape[-1]) < lengths[..., None]
        values, _ = torch.topk(torch.where(there, x, -torch.inf), 3)
        return (torch.where(values == -torch.inf, 7.0, values) ** 3).sum()

    leaf = x.clone().requires_grad_()
    values = atk.top_k(leaf, 3, lengths=lengths)[0]
    values.backward(torch.ones_like(values))  # straight through -inf, and still no NaN
    assert leaf.grad.sum(1).tolist() == [0, 1, 2, 3, 3, 3] and leaf.grad[0].count_nonzero() == 0
    leaf.grad = None
    ours(leaf).backward()
    assert torch.equal(leaf.grad, grad(theirs)(x))
    assert torch.equal(grad(ours)(x), grad(theirs)(x))
    assert torch.equal(vmap(grad(ours))(x, lengths), vmap(grad(theirs))(x, lengths))
    assert torch.equal(hessian(lambda x: ours(x, lengths[2]))(x[2]), hessian(lambda x: theirs(x, lengths[2]))(x[2]))
    assert torch.equal(jvp(ours, (x,), (x + 1,))[1], jvp(theirs, (x,), (x + 1,))[1])
    tangents = jvp(lambda x: atk.top_k(x, 3, lengths=lengths)[0], (x,), (torch.ones_like(x),))[1]
    assert tangents.sum(1).tolist() == [0, 1, 2, 3, 3, 3]
    with forward.dual_level():
        dual = forward.make_dual(x, torch.ones_like(x))
        assert torch.equal(forward.unpack_dual(atk.top_k(dual, 3, lengths=lengths)[0]).tangent, tangents)
    certified = atk.approx_top_k(leaf, 3, lengths=lengths, **CERTIFIED)
    assert [t.requires_grad for t in certified] == [True, False, False]


@pytest.mark.usefixtures("machine")
def test_torch_broadcast_and_subclassed_lengths(sample: Any) -> None:
    class Mine(torch.Tensor):
        pass

    one = torch.tensor([5], dtype=torch.uint8)
    want = atk.top_k(sample, 7, lengths=torch.full((4, 6), 5))
    for lengths in (one.expand(4, 6), one.expand(4, 6).as_subclass(Mine), torch.full((6, 4), 5).t()):
        got = atk.top_k(sample, 7, lengths=lengths)
        assert torch.equal(got.values, want.values) and torch.equal(got.indices, want.indices)
    with torch.inference_mode():
        assert torch.equal(atk.top_k(sample, 7, lengths=one.expand(4, 6))[1], want.indices)


@pytest.mark.parametrize("options", [{}, {"mode": "smallest", "index_dtype": "int32"}, {"sorted": False}])
@pytest.mark.parametrize("named", [{}, {"buckets": 8, "k_per_bucket": 2, "interleaved": False}])
def test_one_cache_holds_every_plan(sample: Any, options: dict[str, Any], named: dict[str, Any]) -> None:
    """What is met again below a dispatcher or under vmap is planned as the call is, in the cache that tests clear."""
    from approxtopk.planning.cached import cached_plan, replan

    plan = atk.plan(tuple(sample.shape), 5, device="sm_90", **options, **named)
    r = plan.request
    x = (r.dtype.name, r.shape, r.strides)
    assert replan(r.operator, x, {}, r.arguments, plan.device) == plan
    x = sample.transpose(0, 1)
    want = atk.approx_top_k(x, 5, **options, **named)
    cached_plan.cache_clear()
    got = torch.vmap(lambda row: tuple(atk.approx_top_k(row, 5, **options, **named)))(x)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    assert cached_plan.cache_info().currsize == 1  # of the batch
