"""JAX arrays on CPU and GPU, and drop-ins for ``jax.lax.top_k`` and ``jax.lax.approx_max_k / approx_min_k``.

Importing this lets XLA run selections, also those that ``jax.export`` has written in another process.
"""

from __future__ import annotations

from . import export
from .arrays import ADAPTER
from .drop_in import approx_max_k, approx_min_k, top_k

__all__ = ["ADAPTER", "approx_max_k", "approx_min_k", "top_k"]

export.register()
