"""What the core asks of an adapter."""

from __future__ import annotations

from typing import Any, Protocol

from ..buffer import Buffer
from ..operator import Operator
from ..plan import Plan
from ..request import IndexDType
from ..runtime.protocol import Runtime

__all__ = ["Adapter"]


class Adapter(Protocol):
    """One framework's arrays."""

    name: str
    default_index: IndexDType

    def index_dtypes(self) -> tuple[str, ...]:
        """The index types the framework can return as it is configured now."""
        ...

    def facts(self, x: Any) -> Buffer:
        """Describe `x` without reading its contents or waiting for it.

        ``pointer`` is 0 where the framework hands out addresses only while it runs (JAX).

        Raises
        ------
        InvalidType, UnsupportedDType, DeviceMismatch
            When `x` is not an array of a kind approxtopk selects from (sparse, complex, on another maker's
            device, ...).
        """
        ...

    def run(self, operator: Operator, x: Any, facts: Buffer, plan: Plan, runtime: Runtime) -> tuple[Any, ...]:
        """Allocate outputs and workspace in the framework, execute `plan` and return the operator's outputs."""
        ...
