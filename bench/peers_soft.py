"""Who answers a soft top-k: approxtopk, and what its users write or call instead.

A call gives the mask (or the entries kept by magnitude), and in training that and the derivative by the rows. bfloat16
is computed in float32 by all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import approxtopk as atk

from .case import SoftCase
from .contender import COPY, READ, Call, Contender, Field, any_case, jax_array, jax_wait, tensor

__all__ = ["SOFT"]

#: Halvings: what users write by hand, and what entmax needs for an error of 1e-6 where a row spans 1000 l.
_BY_HAND, _ENTMAX = 20, 30
#: Entries of a case that pools of adjacent violators are found for, one by one, and the strength, which says how many
#: of them share: half a minute's work is above.
_POOLED, _WEAK = 2**18, 0.1


def _ours(case: SoftCase, x: Any, g: Any) -> Call:
    if not isinstance(x, np.ndarray):
        function = atk.soft_top_k if case.magnitude else atk.soft_top_k_mask
        return _by_autograd(case, x, g, lambda x: function(x, case.k, **case.options))
    if not case.training:
        function = atk.soft_top_k if case.magnitude else atk.soft_top_k_mask
        return lambda: function(x, case.k, **case.options)
    forward = atk.soft_top_k_vjp if case.magnitude else atk.soft_top_k_mask_vjp

    def call() -> Any:
        y, pullback = forward(x, case.k, **case.options)
        return y, pullback(g).dx

    return call


def _by_autograd(case: SoftCase, x: Any, g: Any, function: Callable[[Any], Any]) -> Call:
    """A call of a function of tensors, with its derivative in training."""
    import torch

    x = tensor(x)
    if not case.training:

        def forward() -> Any:
            with torch.no_grad():
                return function(x)

        return forward
    g, x = tensor(g), x.detach().requires_grad_()

    def call() -> Any:
        y = function(x)
        return y.detach(), torch.autograd.grad(y, x, g)[0]

    return call


# ---- Peers ----------------------------------------------------------------------------------------------------


def _bisection(case: SoftCase, x: Any, g: Any) -> Call:
    """Halve an interval of thresholds; in training by one step of Newton's, which has the derivative of the root."""
    import torch

    a = 1 / (case.p - 1)
    # Powers are slow, and users know their own.
    power = {1: lambda u: u, 3: lambda u: u * u * u}.get(round(a, 9), lambda u: u**a)

    def shares(s: Any, tau: Any) -> Any:
        u = (s - tau) / case.l
        if case.kind == "sigmoid":
            return torch.sigmoid(u)
        return (power(u.clamp(min=0)) / tau).clamp(max=1) if case.magnitude else power(u.clamp(0, 1))

    def function(x: Any) -> Any:
        x = x.float()
        s = x.abs() if case.magnitude else x
        with torch.no_grad():
            high = s.amax(1, keepdim=True)
            if case.magnitude:
                low = torch.full_like(high, torch.finfo(high.dtype).tiny)
            else:
                reach = case.l * (20 if case.kind == "sigmoid" else 1)
                low, high = s.amin(1, keepdim=True) - reach, high + reach
            for _ in range(_BY_HAND):
                tau = (low + high) / 2
                enough = shares(s, tau).sum(1, keepdim=True) >= case.k
                low, high = torch.where(enough, tau, low), torch.where(enough, high, tau)
        tau = low
        if case.training:
            tau = tau.detach().requires_grad_()
            (slope,) = torch.autograd.grad(shares(s.detach(), tau).sum(), tau)
            tau = tau.detach()
            # 0 where nothing is split.
            tau = tau - (shares(s, tau).sum(1, keepdim=True) - case.k) / torch.where(slope < 0, slope, -1.0)
        if not case.magnitude:
            return shares(s, tau)
        z = (s - tau).clamp(min=0)
        r = power(z / case.l)
        return torch.where(r >= tau, x, x.sign() * (z + r))

    return _by_autograd(case, x, g, lambda x: function(x).to(x.dtype))


def _bisection_serves(case: SoftCase) -> str:
    return "" if case.kind in ("pnorm", "sigmoid") else f"no {case.kind}"


def _entmax(case: SoftCase, x: Any, g: Any) -> Call:
    from entmax import budget_bisect

    def function(x: Any) -> Any:
        return budget_bisect(x.float() / case.l, budget=case.k, dim=-1, n_iter=_ENTMAX).to(x.dtype)

    return _by_autograd(case, x, g, function)


def _entmax_serves(case: SoftCase) -> str:
    if case.magnitude:
        return "masks only"
    return "" if case.kind == "pnorm" and case.p == 2 else "p = 2 only"


def _pav(case: SoftCase, x: Any, g: Any) -> Call:
    """Do as the published code does, in NumPy for its numba: sort, pool row by row, under JAX by a host callback."""
    import jax

    from approxtopk.soft_reference import pav

    def on_the_host(x: Any) -> Any:
        return pav(np.asarray(x), case.k, case.l, case.p).astype(x.dtype)

    array = jax_array(x)
    call = jax.jit(lambda x: jax.pure_callback(on_the_host, jax.ShapeDtypeStruct(x.shape, x.dtype), x))
    return lambda: call(array)


def _pav_serves(case: SoftCase) -> str:
    if case.magnitude or case.kind != "pnorm":
        return "masks of a norm only"
    if case.training:
        return "no derivative here"
    return "" if case.rows * case.n <= _POOLED and case.l <= _WEAK else "takes too long"


def _hard(case: SoftCase, x: Any, g: Any) -> Call:
    import torch

    def function(x: Any) -> Any:
        indices = torch.topk(x.abs() if case.magnitude else x, case.k, sorted=False).indices
        # Of a mask the derivative is 0: that of x times the mask, as users write it.
        kept = x.gather(1, indices) if case.magnitude or case.training else torch.ones_like(indices, dtype=x.dtype)
        return torch.zeros_like(x).scatter(1, indices, kept)

    return _by_autograd(case, x, g, function)


def _moved(case: SoftCase, x: Any, g: Any) -> Call:
    """Read and write what must be: in training a result from the rows, and one from two arrays of their size."""
    import torch

    x, g = tensor(x), tensor(g)
    y, dx = x.clone(), x.clone()

    def call() -> Any:
        y.copy_(x)
        return torch.mul(g, y, out=dx)

    return call


def _forward_only(case: SoftCase) -> str:
    return "training" if case.training else ""


def _training_only(case: SoftCase) -> str:
    return "" if case.training else "forward only"


_PEERS = [
    Contender(f"PyTorch, bisection in {_BY_HAND} steps", ("torch",), _bisection_serves, _bisection),
    Contender(f"entmax, budget in {_ENTMAX} steps", ("torch", "entmax"), _entmax_serves, _entmax),
    Contender("PAV in NumPy, through a host callback", ("jax",), _pav_serves, _pav, False, jax_wait),
    Contender("torch.topk, scatter [hard]", ("torch",), any_case, _hard),
    COPY._replace(serves=_forward_only),
    Contender("copy, product", ("torch",), _training_only, _moved),
]

SOFT = Field([Contender("approxtopk", (), any_case, _ours)], _PEERS, [*_PEERS, READ])
