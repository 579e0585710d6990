"""approxtopk: the k best entries of every row, on GPUs and CPUs, from whatever framework holds the array."""

from __future__ import annotations

import os as _os

__version__ = "0.1.0"

_root = _os.path.dirname(_os.path.dirname(_os.path.abspath(__file__)))
if not _os.path.isdir(_os.path.join(_os.path.dirname(__file__), "kernels")) and _os.path.isdir(
    _os.path.join(_root, "kernels")
):
    # In a checkout the subpackages `kernels` and `adapters` stand beside this folder, not in it.
    __path__.append(_root)

from .approx_top_k import approx_top_k
from .call import CertifiedTopK, TopK
from .errors import (
    ApproxTopKError,
    BackendMissing,
    CompileError,
    DeviceMismatch,
    InvalidArgument,
    InvalidType,
    UnsupportedDType,
)
from .hard_top_k import hard_top_k_magnitude, hard_top_k_mask
from .plan import DeviceInfo, Plan, SelectionPlan
from .prepare import Prepared, prepare
from .preview import plan
from .rank import RankCounts, rank, rank_counts
from .recall import expected_recall
from .soft_top_k import SoftGradients, soft_top_k, soft_top_k_mask, soft_top_k_mask_vjp, soft_top_k_vjp
from .top_k import top_k
from .warmup import warmup

__all__ = [
    "ApproxTopKError",
    "BackendMissing",
    "CertifiedTopK",
    "CompileError",
    "DeviceInfo",
    "DeviceMismatch",
    "InvalidArgument",
    "InvalidType",
    "Plan",
    "Prepared",
    "RankCounts",
    "SelectionPlan",
    "SoftGradients",
    "TopK",
    "UnsupportedDType",
    "approx_top_k",
    "expected_recall",
    "hard_top_k_magnitude",
    "hard_top_k_mask",
    "plan",
    "prepare",
    "rank",
    "rank_counts",
    "soft_top_k",
    "soft_top_k_mask",
    "soft_top_k_mask_vjp",
    "soft_top_k_vjp",
    "top_k",
    "warmup",
]
