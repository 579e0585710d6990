"""PyTorch tensors on CPU and CUDA, and drop-ins for ``torch.topk``."""

from __future__ import annotations

from typing import Any

import torch

from ...approx_top_k import approx_top_k
from ...top_k import top_k
from .arrays import ADAPTER
from .drop_in import approx_topk, topk

__all__ = ["ADAPTER", "allow_in_graph", "approx_topk", "topk"]


def allow_in_graph() -> None:
    """Let ``torch.compile`` take `approxtopk.top_k`, `approxtopk.approx_top_k` and the drop-ins into its graphs.

    Call it once, before compiling; without it they break the graph, which ``fullgraph=True`` refuses. It is not done
    on import because it imports PyTorch's compiler, which takes a second. Graphs hold for one shape of the input.
    """
    compiler: Any = torch.compiler  # untyped
    for function in (approx_top_k, top_k, approx_topk, topk):
        compiler.allow_in_graph(function)
