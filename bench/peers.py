"""Who answers a selection: approxtopk, and what its users would call instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import approxtopk as atk

from .case import SelectionCase as Case
from .contender import COPY, READ, TORCH_MAX, Call, Contender, Field, any_case, jax_array, jax_wait, tensor

__all__ = ["CPU", "GPU", "OURS", "SELECTION"]


def _whole(case: Case) -> str:
    return "no lengths" if case.ragged else ""


def _whole_floats(case: Case) -> str:
    if case.dtype not in ("float32", "float16", "bfloat16"):
        return f"no {case.dtype}"
    return _whole(case)


# ---- approxtopk -----------------------------------------------------------------------------------------------


def _ours(case: Case, x: Any, lengths: Any) -> Call:
    own = case.options if lengths is None else case.options | {"lengths": lengths}
    if case.exact:
        return lambda: atk.top_k(x, case.k, **own)
    return lambda: atk.approx_top_k(x, case.k, **own)


def _prepared(case: Case, x: Any, lengths: Any) -> Call:
    dtypes = {} if lengths is None else {"lengths": "int32"}
    call = atk.prepare(case.shape, case.k, dtype=case.dtype, exact=case.exact, **case.options, **dtypes)
    given = {} if lengths is None else {"lengths": lengths}
    return lambda: call(x, **given)


OURS = [Contender("approxtopk", (), any_case, _ours), Contender("approxtopk, prepared", (), any_case, _prepared)]


# ---- Peers on a GPU -------------------------------------------------------------------------------------------


def _torch_topk(case: Case, x: Any, lengths: Any) -> Call:
    import torch

    return lambda: torch.topk(x, case.k, sorted=case.sorted)


def _graphcore_serves(case: Case) -> str:
    if case.dtype not in ("float32", "float16", "bfloat16"):
        return f"no {case.dtype}"
    if case.ragged:
        return "no lengths"
    buckets, kept = _pair(case)
    if not buckets:
        return "exact"
    return "" if kept in (1, 2, 4) and case.k % kept == 0 and buckets * kept % case.k == 0 else "no such (b, k_b)"


def _pair(case: Case) -> tuple[int, int]:
    """(b, k_b) that we take; zeros for an exact answer."""
    plan = case.plan("sm_90")
    return plan.buckets or 0, plan.k_per_bucket or 0


def _graphcore(threads: bool) -> Callable[[Case, Any, Any], Call]:
    def prepare(case: Case, x: Any, lengths: Any) -> Call:
        from approx_topk import topk

        buckets, kept = _pair(case)
        times = buckets * kept // case.k
        return lambda: topk(x, case.k, -1, kept, times, True, threads)

    return prepare


def _flashinfer(case: Case, x: Any, lengths: Any) -> Call:
    import flashinfer

    return lambda: flashinfer.top_k(x, case.k, sorted=case.sorted)


def _raft(case: Case, x: Any, lengths: Any) -> Call:
    import cupy
    import torch
    from pylibraft.common import DeviceResources
    from pylibraft.matrix import select_k

    handle = DeviceResources(stream=torch.cuda.current_stream(x.device).cuda_stream)
    view = cupy.from_dlpack(x)
    values = cupy.empty((case.rows, case.k), np.float32)
    indices = cupy.empty((case.rows, case.k), np.int64)
    return lambda: select_k(view, distances=values, indices=indices, select_min=False, handle=handle)


def _raft_serves(case: Case) -> str:
    return f"no {case.dtype}" if case.dtype != "float32" else _whole(case)


def _jax_top_k(case: Case, x: Any, lengths: Any) -> Call:
    import jax

    array, call = jax_array(x), jax.jit(lambda x: jax.lax.top_k(x, case.k))
    return lambda: call(array)


def _jax_approx(case: Case, x: Any, lengths: Any) -> Call:
    import jax

    array = jax_array(x)
    call = jax.jit(lambda x: jax.lax.approx_max_k(x, case.k, recall_target=case.recall))
    return lambda: call(array)


def _approximate(case: Case) -> str:
    return "exact" if case.exact else _whole_floats(case)


def _argpartition(case: Case, x: Any, lengths: Any) -> Call:
    import cupy
    import torch

    view = cupy.from_dlpack(x)
    stream = cupy.cuda.Stream.from_external(torch.cuda.current_stream(x.device))

    def call() -> Any:
        with stream:
            return cupy.argpartition(view, case.n - case.k, axis=-1)[:, -case.k :]

    return call


GPU = [
    Contender("torch.topk", ("torch",), _whole, _torch_topk),
    Contender("graphcore", ("approx_topk",), _graphcore_serves, _graphcore(False)),
    Contender("graphcore, a warp a bucket", ("approx_topk",), _graphcore_serves, _graphcore(True)),
    Contender("FlashInfer", ("flashinfer",), _whole_floats, _flashinfer, False),
    Contender("RAFT [unsorted]", ("pylibraft", "cupy"), _raft_serves, _raft, False),
    Contender("jax.lax.top_k [sorted]", ("jax",), _whole, _jax_top_k, False, jax_wait),
    Contender("jax.lax.approx_max_k [sorted]", ("jax",), _approximate, _jax_approx, False, jax_wait),
    Contender("cupy.argpartition [unsorted]", ("cupy",), _whole, _argpartition, False),
]


# ---- Peers on a CPU -------------------------------------------------------------------------------------------


def _numpy(case: Case, x: Any, lengths: Any) -> Call:
    """Do what NumPy's documentation leads to: argpartition, gather, sort the k (NaN aside)."""

    def call() -> Any:
        some = np.argpartition(x, case.n - case.k, axis=-1)[:, -case.k :]
        values = np.take_along_axis(x, some, axis=-1)
        if not case.sorted:
            return values, some
        order = np.argsort(-values, axis=-1)
        return np.take_along_axis(values, order, axis=-1), np.take_along_axis(some, order, axis=-1)

    return call


def _torch_on_cpu(case: Case, x: Any, lengths: Any) -> Call:
    return _torch_topk(case, tensor(x), lengths)


CPU = [
    Contender("NumPy", (), _whole_floats, _numpy),
    Contender("torch.topk", ("torch",), _whole, _torch_on_cpu),
    Contender("jax.lax.top_k [sorted]", ("jax",), _whole, _jax_top_k, False, jax_wait),
    Contender("jax.lax.approx_max_k [sorted]", ("jax",), _approximate, _jax_approx, False, jax_wait),
]

SELECTION = Field(OURS, [*CPU, COPY], [*GPU, READ, COPY, TORCH_MAX])
