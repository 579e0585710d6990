"""Soft top-k as PyTorch differentiates, maps, compiles and exports it."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest

import approxtopk as atk

from .emulated import emulated

torch = pytest.importorskip("torch")

MACHINES = (contextlib.nullcontext, emulated)
FORMS: dict[str, dict[str, Any]] = {
    "p = 2": {"p": 2},
    "p = 4/3": {"p": 4 / 3},
    "p = 3": {"p": 3.0},
    "sigmoid": {"kind": "sigmoid"},
    "laplace": {"kind": "laplace"},
}
FUNCTIONS = {"mask": atk.soft_top_k_mask, "magnitude": atk.soft_top_k}


def sample(*shape: int, seed: int = 0) -> Any:
    """float64, without two entries so close to each other that a difference would meet a kink."""
    rng = np.random.default_rng(seed)
    x = rng.permuted(np.linspace(-3.3, 3.1, int(np.prod(shape)))).reshape(shape)
    return torch.from_numpy(x)


def inputs(rows: int = 3, n: int = 7) -> tuple[Any, Any, Any]:
    """x, k and l, each to be differentiated."""
    k = torch.linspace(1.3, 2.6, rows, dtype=torch.float64)
    l = torch.linspace(0.8, 1.9, rows, dtype=torch.float64)
    return tuple(t.requires_grad_() for t in (sample(rows, n), k, l))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_of_both_orders(name: str, form: str) -> None:
    def call(x: Any, k: Any, l: Any) -> Any:
        return FUNCTIONS[name](x, k, l=l, **FORMS[form])

    for machine in MACHINES:
        with machine():
            assert torch.autograd.gradcheck(call, inputs(), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(call, inputs())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_kernel_and_formula_agree(name: str, form: str) -> None:
    """Backward runs the operator that is the derivative, torch.func its formula."""
    x, k, l = (t.detach().float() for t in inputs(4, 40))
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))

    def loss(x: Any, k: Any, l: Any) -> Any:
        return (FUNCTIONS[name](x, k, l=l, **FORMS[form]) * weights).sum()

    want = torch.func.grad(loss, argnums=(0, 1, 2))(x, k, l)
    for machine in MACHINES:
        leaves = [t.clone().requires_grad_() for t in (x, k, l)]
        with machine():
            loss(*leaves).backward()
        for leaf, gradient in zip(leaves, want, strict=True):
            torch.testing.assert_close(leaf.grad, gradient, rtol=2e-5, atol=2e-6)


def test_torch_func() -> None:
    x, k, l = (t.detach() for t in inputs())

    def call(x: Any, k: Any, l: Any) -> Any:
        return atk.soft_top_k_mask(x, k, l=l)

    def row(x: Any, k: Any, l: Any) -> Any:
        return atk.soft_top_k_mask(x, k, l=l)

    f = torch.func
    torch.testing.assert_close(torch.vmap(row)(x, k, l), call(x, k, l))
    torch.testing.assert_close(torch.vmap(row, in_dims=(1, 0, 0))(x.T, k, l), call(x, k, l))
    jacobian = f.jacrev(call)(x, k, l)
    torch.testing.assert_close(f.jacfwd(call)(x, k, l), jacobian)
    each = torch.vmap(f.jacrev(row))(x, k, l)
    torch.testing.assert_close(torch.stack([jacobian[i, :, i] for i in range(3)]), each)
    hessian = f.hessian(lambda x: (call(x, k, l) ** 2).sum())(x)
    again = f.jacrev(f.jacrev(lambda x: (call(x, k, l) ** 2).sum()))(x)
    torch.testing.assert_close(hessian, again)
    _, tangent = f.jvp(lambda k: call(x, k, l), (k,), (torch.ones_like(k),))
    torch.testing.assert_close(tangent.sum(1), torch.ones_like(k))  # the shares sum to k


def test_the_mask_alone_is_kept() -> None:
    x = torch.randn(4, 1000, requires_grad=True)
    kept: list[Any] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = atk.soft_top_k_mask(x * 1.0, 10, l=torch.full((4,), 0.2))
    big = [t for t in kept if t.numel() > 4]
    assert len(big) == 1 and torch.equal(big[0], y)


def test_numbers_and_arrays_that_need_no_gradient() -> None:
    x = sample(3, 9).float()
    for k, l in ((2, 0.5), (torch.tensor(2), torch.tensor(0.5)), (torch.tensor([2, 2, 2]), 0.5)):
        y = atk.soft_top_k_mask(x.requires_grad_(), k, l=l)
        torch.testing.assert_close(y.detach(), torch.from_numpy(atk.soft_top_k_mask(x.detach().numpy(), 2, l=0.5)))
        assert torch.autograd.grad(y[:, 0].sum(), x)[0].isfinite().all()
    k = torch.tensor(2.5, requires_grad=True)
    (gradient,) = torch.autograd.grad(atk.soft_top_k_mask(x.detach(), k, l=2.0).sum(), k)
    torch.testing.assert_close(gradient, torch.tensor(3.0))  # one for every row
    with torch.no_grad():
        assert not atk.soft_top_k_mask(x, 2).requires_grad
    assert not atk.hard_top_k_mask(x, 2).requires_grad
    assert torch.equal(torch.autograd.grad(atk.hard_top_k_magnitude(x, 2).sum(), x)[0], atk.hard_top_k_mask(x.abs(), 2))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_types(dtype: str) -> None:
    x = sample(4, 50).to(getattr(torch, dtype)).requires_grad_()
    for function in FUNCTIONS.values():
        y = function(x, 5, l=1.0)
        assert y.dtype == x.dtype
        want = function(x.detach().double(), 5, l=1.0)
        torch.testing.assert_close(y.double(), want, rtol=2**-8, atol=1e-6)
        (g,) = torch.autograd.grad(y[:, :25].sum(), x)
        exact = x.detach().double().requires_grad_()
        (want,) = torch.autograd.grad(function(exact, 5, l=1.0)[:, :25].sum(), exact)
        assert g.dtype == x.dtype
        torch.testing.assert_close(g.double(), want, rtol=0.1, atol=0.02)


@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_graph(name: str, dynamic: bool | None) -> None:
    def loss(x: Any, k: Any, strength: Any, l: float) -> Any:
        y = FUNCTIONS[name](x * 1.5, k, l=strength) + FUNCTIONS[name](x, 2, l=l, kind="sigmoid", axis=0)
        return (y * torch.arange(x.shape[-1])).sum()

    torch._dynamo.reset()
    call = torch.compile(loss, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for n, k, l in ((9, 2, 0.7), (9, 2, 0.7), (12, 3, 0.9), (15, 4, 1.2), (11, 5, 0.8), (10, 2.5, 1.1)):
        for machine in MACHINES:
            x = sample(4, n).requires_grad_()
            strength = torch.full((4,), l, dtype=torch.float64).requires_grad_()
            want = torch.autograd.grad(loss(x, k, strength, l), (x, strength))
            # What is one size and then another becomes any; an int and a float are two graphs.
            once = isinstance(k, int) and n not in ((9,) if dynamic else (9, 12))
            with machine(), torch._dynamo.config.patch(error_on_recompile=once):
                got = torch.autograd.grad(call(x, k, strength, l), (x, strength))
            torch.testing.assert_close(got, want)


def test_export() -> None:
    class Router(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return atk.soft_top_k_mask(x, 2, l=0.5) * x, atk.rank(x, x.argmax(-1), ties="first")

    x = sample(4, 9)
    program = torch.export.export(Router(), (x,), dynamic_shapes={"x": {0: torch.export.Dim("rows")}})
    memory = io.BytesIO()
    torch.export.save(program, memory)
    memory.seek(0)
    run = torch.export.load(memory).module()
    for machine in MACHINES:
        with machine():
            for rows in (4, 6):
                for got, want in zip(run(sample(rows, 9)), Router()(sample(rows, 9)), strict=True):
                    torch.testing.assert_close(got, want)


def test_opcheck() -> None:
    x, l = sample(3, 8), torch.full((3,), 0.5, dtype=torch.float64)
    keys = ["kind", "k", "p", "axis"]
    arguments = (x, [l], ["l"], "soft_top_k_mask", ["pnorm"], [1], keys, 2.5, 2.0)
    for machine in MACHINES:
        with machine():
            torch.library.opcheck(torch.ops.approxtopk.run.default, arguments)
    index = (x, [torch.tensor([1, 2, 3])], ["index"], "rank", ["largest"], [1], ["mode", "axis"])
    torch.library.opcheck(torch.ops.approxtopk.run.default, index)


@pytest.mark.parametrize("ties", ["optimistic", "pessimistic", "average", "first"])
def test_ranks_compiled_and_mapped(ties: Any) -> None:
    torch._dynamo.reset()
    x = sample(4, 60).round()
    index = torch.randint(60, (4, 3), generator=torch.Generator().manual_seed(0))

    def call(x: torch.Tensor, index: torch.Tensor, base: int = 1) -> Any:
        return atk.rank(x, index, ties=ties, base=base)

    for machine in MACHINES:
        with machine():
            compiled = torch.compile(call, backend="aot_eager", fullgraph=True, dynamic=True)
            for rows, base in ((4, 1), (3, 2), (4, -5)):
                want = torch.from_numpy(atk.rank(x[:rows].numpy(), index[:rows].numpy(), ties=ties, base=base))
                torch.testing.assert_close(compiled(x[:rows], index[:rows], base), want, rtol=0, atol=0)
            want = torch.from_numpy(atk.rank(x.numpy(), index.numpy(), ties=ties, base=1))
            torch.testing.assert_close(torch.func.vmap(call)(x, index), want, rtol=0, atol=0)


def test_errors_in_a_compiled_function_are_ours() -> None:
    torch._dynamo.reset()
    call = torch.compile(lambda x, p: atk.soft_top_k_mask(x, 2, p=p), backend="eager")
    with pytest.raises(atk.InvalidArgument, match=r"p = 0.5 is out of range"):
        call(sample(3, 4), 0.5)


def test_training_finds_the_sparse_code() -> None:
    """A mask that is learned end to end: which three of twelve columns make the target."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 12, generator=generator)
    target = x[:, [1, 4, 9]].sum(1)
    scores = torch.zeros(12, requires_grad=True)
    optimiser = torch.optim.Adam([scores], lr=0.05)
    for _ in range(150):
        loss = ((x * atk.soft_top_k_mask(scores, 3, l=1.0)).sum(1) - target).pow(2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert sorted(atk.top_k(scores.detach(), 3).indices.tolist()) == [1, 4, 9]
    assert loss.item() < 1e-3
