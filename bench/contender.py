"""One way to answer a case, and the bounds of memory that all are held against.

Every contender comes in the configuration that is best for the case; one that is absent says why in a plain word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from .case import Case

__all__ = ["COPY", "READ", "TORCH_MAX", "Call", "Contender", "Field", "any_case", "jax_array", "jax_wait", "tensor"]

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
        (case, rows, the array beside them or None) -> the call. They are PyTorch tensors on a GPU, NumPy arrays on a
        CPU.
    capturable : bool
        Whether the call can be captured in a CUDA graph.
    wait : callable or None
        What waits for a result, where work is queued that CUDA events on PyTorch's stream do not see.
    """

    name: str
    needs: tuple[str, ...]
    serves: Callable[[Any], str]
    prepare: Callable[[Any, Any, Any], Call]
    capturable: bool = True
    wait: Callable[[Any], object] | None = None

    def missing(self, case: Case) -> str:
        """Why it cannot answer `case` here; "" where it can."""
        absent = [name for name in self.needs if find_spec(name) is None]
        return f"{', '.join(absent)} not installed" if absent else self.serves(case)


class Field(NamedTuple):
    """All who answer the cases of a family.

    Attributes
    ----------
    ours : sequence of Contender
        approxtopk, which must not fail.
    cpu, gpu : sequence of Contender
        What users would call instead there, and the bounds.
    """

    ours: Sequence[Contender]
    cpu: Sequence[Contender]
    gpu: Sequence[Contender]


def any_case(case: Case) -> str:
    return ""


def tensor(x: Any) -> Any:
    """A NumPy array as a PyTorch tensor, of bfloat16 and float8 too; a tensor as it is."""
    if not isinstance(x, np.ndarray):
        return x
    import torch

    return torch.from_numpy(x.view(f"int{8 * x.itemsize}")).view(getattr(torch, x.dtype.name))


def jax_array(x: Any) -> Any:
    import jax

    return jax.device_put(x, jax.devices("cpu")[0]) if isinstance(x, np.ndarray) else jax.dlpack.from_dlpack(x)


def jax_wait(result: Any) -> object:
    import jax

    return jax.block_until_ready(result)


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


def _read(case: Case, x: Any, other: Any) -> Call:
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


def _copy(case: Case, x: Any, other: Any) -> Call:
    target = x.clone() if hasattr(x, "clone") else x.copy()
    return lambda: target.copy_(x) if hasattr(target, "copy_") else np.copyto(target, x)


def _torch_max(case: Case, x: Any, other: Any) -> Call:
    return lambda: x.max(dim=-1)


READ = Contender("read", ("torch", "cupy"), any_case, _read)
COPY = Contender("copy", (), any_case, _copy)
TORCH_MAX = Contender("torch.max", ("torch",), any_case, _torch_max)
