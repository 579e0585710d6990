"""Selection in NumPy, for arrays in CPU memory."""

from __future__ import annotations

from .select import select

__all__ = ["select"]
