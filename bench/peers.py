"""Who answers a case: approxtopk, what its users would call instead, and the bounds.

Every contender comes in the configuration that is best for the case; one that is absent says why in a plain word.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

import approxtopk as atk

from .case import Case

__all__ = ["BOUNDS", "CPU", "GPU", "OURS", "Contender"]

Call = Callable[[], Any]


class Contender(NamedTuple):
    """One way to answer a case.

    Attributes
    ----------
    name : str
        As in tables; what is returned besides what was asked (sorted, or int32) stands in brackets.
    needs : tuple of str
        Packages.
    serves : callable
        Case -> why it cannot be answered; "" where it can.
    prepare : callable
        (case, input, lengths or None) -> the call. Inputs are PyTorch tensors on a GPU, NumPy arrays on a CPU.
    capturable : bool
        Whether the call can be captured in a CUDA graph.
    wait : callable or None
        What waits for a result, where work is queued that CUDA events on PyTorch's stream do not see.
    """

    name: str
    needs: tuple[str, ...]
    serves: Callable[[Case], str]
    prepare: Callable[[Case, Any, Any], Call]
    capturable: bool = True
    wait: Callable[[Any], object] | None = None

    def missing(self, case: Case) -> str:
        """Why it cannot answer `case` here; "" where it can."""
        absent = [name for name in self.needs if find_spec(name) is None]
        return f"{', '.join(absent)} not installed" if absent else self.serves(case)


def _any(case: Case) -> str:
    return ""


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


OURS = [Contender("approxtopk", (), _any, _ours), Contender("approxtopk, prepared", (), _any, _prepared)]


# ---- Bounds ---------------------------------------------------------------------------------------------------

# One reading of the input and nothing else: the sum keeps the compiler from leaving it away.
_READ = r"""
extern "C" __global__ void read(const uint4* x, unsigned long long words, unsigned* out) {
    unsigned sum = 0;
    const unsigned long long stride = (unsigned long long)gridDim.x * blockDim.x;
    unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    for (; i + 3 * stride < words; i += 4 * stride) {
        const uint4 a = x[i], b = x[i + stride], c = x[i + 2 * stride], d = x[i + 3 * stride];
        sum += (a.x ^ a.y ^ a.z ^ a.w) + (b.x ^ b.y ^ b.z ^ b.w) + (c.x ^ c.y ^ c.z ^ c.w) + (d.x ^ d.y ^ d.z ^ d.w);
    }
    for (; i < words; i += stride) { const uint4 a = x[i]; sum += a.x ^ a.y ^ a.z ^ a.w; }
    if (sum == 0x5bd1e995u) *out = sum;
}
"""


def _read(case: Case, x: Any, lengths: Any) -> Call:
    import cupy
    import torch

    kernel = cupy.RawKernel(_READ, "read", backend="nvrtc")
    kernel.compile()
    out = torch.empty(1, dtype=torch.int32, device=x.device)
    blocks = 8 * torch.cuda.get_device_properties(x.device).multi_processor_count

    class Stream(NamedTuple):
        ptr: int

    def call() -> None:
        stream: Any = Stream(torch.cuda.current_stream(x.device).cuda_stream)
        kernel((blocks,), (256,), (x.data_ptr(), np.uint64(case.nbytes // 16), out.data_ptr()), stream=stream)

    return call


def _copy(case: Case, x: Any, lengths: Any) -> Call:
    other = x.clone() if hasattr(x, "clone") else x.copy()
    return lambda: other.copy_(x) if hasattr(other, "copy_") else np.copyto(other, x)


def _torch_max(case: Case, x: Any, lengths: Any) -> Call:
    return lambda: x.max(dim=-1)


BOUNDS = [
    Contender("read", ("torch", "cupy"), _any, _read),
    Contender("copy", (), _any, _copy),
    Contender("torch.max", ("torch",), _any, _torch_max),
]


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


def _jax_wait(result: Any) -> object:
    import jax

    return jax.block_until_ready(result)


def _jax_array(x: Any) -> Any:
    import jax

    return jax.device_put(x, jax.devices("cpu")[0]) if isinstance(x, np.ndarray) else jax.dlpack.from_dlpack(x)


def _jax_top_k(case: Case, x: Any, lengths: Any) -> Call:
    import jax

    array, call = _jax_array(x), jax.jit(lambda x: jax.lax.top_k(x, case.k))
    return lambda: call(array)


def _jax_approx(case: Case, x: Any, lengths: Any) -> Call:
    import jax

    array = _jax_array(x)
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
    Contender("jax.lax.top_k [sorted]", ("jax",), _whole, _jax_top_k, False, _jax_wait),
    Contender("jax.lax.approx_max_k [sorted]", ("jax",), _approximate, _jax_approx, False, _jax_wait),
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
    import torch

    return _torch_topk(case, torch.from_numpy(x), lengths)


CPU = [
    Contender("NumPy", (), _whole_floats, _numpy),
    Contender("torch.topk", ("torch",), _whole, _torch_on_cpu),
    Contender("jax.lax.top_k [sorted]", ("jax",), _whole, _jax_top_k, False, _jax_wait),
    Contender("jax.lax.approx_max_k [sorted]", ("jax",), _approximate, _jax_approx, False, _jax_wait),
]
