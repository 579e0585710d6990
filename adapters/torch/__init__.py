"""PyTorch tensors on CPU and CUDA, and drop-ins for ``torch.topk``."""

from __future__ import annotations

from .arrays import ADAPTER
from .drop_in import approx_topk, topk
from .enable import Enabled, disable, enable

__all__ = ["ADAPTER", "Enabled", "approx_topk", "disable", "enable", "topk"]
