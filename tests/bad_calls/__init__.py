"""Tables of bad calls: the error class, the words of the message, and that nothing is launched; none needs pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .case import Case, complaint
from .cupy_cases import cupy_cases
from .dlpack_cases import dlpack_cases
from .jax_cases import jax_cases
from .numpy_cases import numpy_cases
from .plan_cases import plan_cases
from .soft_cases import soft_cases
from .torch_cases import torch_cases

__all__ = ["TABLES", "Case", "complaint", "table"]

TABLES: dict[str, Callable[[], Iterator[Case]]] = {
    "numpy": numpy_cases,
    "torch": torch_cases,
    "jax": jax_cases,
    "cupy": cupy_cases,
    "dlpack": dlpack_cases,
    "plan": plan_cases,
    "soft": soft_cases,
}


def table(framework: str) -> list[Case]:
    """The cases of one adapter; none where its framework is not installed."""
    try:
        return list(TABLES[framework]())
    except ModuleNotFoundError as error:
        if error.name in ("torch", "jax", "cupy", "ml_dtypes"):
            return []
        raise
