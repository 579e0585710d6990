"""What ``jax.export`` needs to know of us: how to write down the results' types.

A call is exported as a custom call that JAX gives no guarantee for, which it wants to be told:
``jax.export.export(f, disabled_checks=[jax.export.DisabledSafetyCheck.custom_call("approxtopk")])``. The process that
runs what was exported imports ``approxtopk.adapters.jax`` first.
"""

from __future__ import annotations

from jax import export

from ...call import CertifiedTopK, TopK

__all__ = ["register"]


def register() -> None:
    """Let exported functions return our named tuples."""
    for result in (TopK, CertifiedTopK):
        export.register_namedtuple_serialization(result, serialized_name=f"approxtopk.{result.__name__}")
