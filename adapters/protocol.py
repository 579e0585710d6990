"""What the core asks of an adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ..buffer import Buffer
from ..operator import Operator
from ..plan import Output, Plan
from ..request import IndexDType
from ..runtime.protocol import Runtime

__all__ = ["Adapter", "Deferred"]

#: Takes a call over, unvalidated: operator, x, its other inputs by name, and the arguments of the operator's request.
Deferred = Callable[[Operator, Any, Mapping[str, Any], Mapping[str, Any]], tuple[Any, ...]]


class Adapter(Protocol):
    """One framework's arrays."""

    name: str
    default_index: IndexDType

    def index_dtypes(self) -> tuple[str, ...]:
        """The index types the framework can return as it is configured now."""
        ...

    def deferred(self, x: Any, *others: Any) -> Deferred | None:
        """What takes over a call on these arrays as the user gave it; None, mostly, where it is to be planned now.

        A compiler that traces the call may know neither shapes nor addresses; it leads the arrays to where they are
        met again, and planned for. Of `others`, those that are None are not there.
        """
        ...

    def facts(self, x: Any, name: str = "x") -> Buffer:
        """Describe the argument `name`, the array `x`, without reading its contents or waiting for it.

        ``pointer`` is 0 where the framework hands out addresses only while it runs (JAX).

        Raises
        ------
        InvalidType, UnsupportedDType, DeviceMismatch
            When it is not an array of a kind approxtopk reads (sparse, complex, on another maker's
            device, ...).
        """
        ...

    def run(
        self,
        operator: Operator,
        inputs: Mapping[str, Any],
        facts: Mapping[str, Buffer],
        plan: Plan,
        runtime: Runtime,
        out: Sequence[Any] | None = None,
        workspace: int | None = None,
    ) -> tuple[Any, ...]:
        """Allocate outputs and workspace in the framework, execute `plan` and return its outputs, in its order.

        Parameters
        ----------
        operator : Operator
            What is asked for.
        inputs, facts : mapping
            The arrays by name, ``"x"`` and those of the operator's others that were given, and what `facts` said.
        plan : Plan
            What to run. One without steps has outputs without entries; only ``exact`` may have some: all True.
        runtime : Runtime
            The machine that runs it.
        out : sequence of arrays, optional
            What `check_out` let pass, in place of new outputs.
        workspace : int, optional
            Address of what `reserve` gave, in place of new workspace.

        Raises
        ------
        InvalidArgument
            When a derivative is asked for through `out`.
        """
        ...

    def reserve(self, nbytes: int, x: Any) -> tuple[object, int] | None:
        """Memory to keep from call to call, where `x` is: its owner and its address; None where calls keep none."""
        ...

    def capturing(self, x: Any) -> bool:
        """Whether the current stream, where `x` is, records a graph: memory kept from call to call is not for it."""
        ...

    def check_out(self, array: Any, output: Output, x: Any) -> None:
        """Refuse an array that cannot take a plan's output.

        Raises
        ------
        InvalidArgument
            When its shape, dtype, layout or device is another, or nothing may be written to it.
        """
        ...

    # What the framework's own operations do, with their derivatives.

    def floats(self, x: Any) -> Any:
        """`x`, or where it holds integers, the same as float32."""
        ...

    def per_row(self, array: Any, dtype: str, shape: tuple[int, ...]) -> Any:
        """`array` as `dtype`; and one of shape () broadcast to `shape`."""
        ...

    def keep(self, x: Any, indices: Any, axis: int) -> Any:
        """`x` where `indices` along `axis` point, and 0 elsewhere."""
        ...

    def ones(self, x: Any) -> Any:
        """1 in the place of every entry of `x`."""
        ...
