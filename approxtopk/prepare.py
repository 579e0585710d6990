"""Calls planned once, for arrays of one shape: for loops in which every microsecond counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .adapters import registry
from .adapters.protocol import Adapter
from .approx_top_k import OPERATOR as APPROXIMATE
from .buffer import Device
from .call import CertifiedTopK, TopK, add_input
from .errors import DeviceMismatch, InvalidArgument, InvalidType
from .plan import DeviceInfo, Fill, SelectionPlan
from .preview import plan_call
from .request import Request, dtype_name, show
from .runtime import serving
from .top_k import OPERATOR as EXACT

__all__ = ["Prepared", "prepare"]

#: Shape, strides (None where there is no memory to step through) and element type.
_Layout = tuple[tuple[int, ...], tuple[int, ...] | None, str]


def prepare(
    shape: int | tuple[int, ...],
    k: int,
    /,
    *,
    dtype: Any = "float32",
    exact: bool = False,
    device: Any = None,
    **options: Any,
) -> Prepared:
    """Plan `approx_top_k` (or `top_k`) once, for many contiguous arrays of one shape.

    Parameters
    ----------
    shape, k, dtype, exact
        As `plan`.
    device
        As `plan`, but that None leaves it to the arrays that come: each device gets its own plan.
    **options
        As `plan`: the keyword arguments of the call, starts and lengths by their dtype where the calls will bring
        such arrays (JAX makes int32 of NumPy's int64, unless x64 is on). index_dtype=None is the habit of the
        framework whose arrays come.

    Returns
    -------
    Prepared
        A callable, ``prepared(x, starts=, lengths=, out=)``: see `Prepared` for what it asks of its arrays. It saves
        some microseconds a call, and on a GPU the filling of counters: for small arrays in a loop.

    Raises
    ------
    InvalidArgument, InvalidType, UnsupportedDType, BackendMissing
        As `plan`.

    Examples
    --------
    >>> import numpy as np
    >>> import approxtopk as atk
    >>> best = atk.prepare((2, 4), 2, exact=True, device="cpu")
    >>> x = np.array([[1, 9, 3, 7], [8, 2, 6, 4]], np.float32)
    >>> best(x).indices
    array([[1, 3],
           [0, 2]])
    """
    return Prepared(shape, k, dtype, exact, device, options)


class Prepared:
    """A selection from arrays of one shape and element type, planned once. Made by `prepare`.

    Validation and planning are skipped, but for a comparison of x's facts with those planned for. On a GPU the
    workspace is kept from call to call, and counters in it are zeroed once: every run leaves them zero. So a
    `Prepared` must not run concurrently with itself, on several streams or from several threads; make one for each.
    Its workspace belongs to the stream of its first call on a device: before it is dropped, wait for calls on others.
    A call that is captured in a CUDA graph keeps nothing: the graph has its own workspace, filled at every replay.
    Under ``jax.jit``, ``torch.compile``, ``vmap`` and derivatives it works as the call it stands for.

    Attributes
    ----------
    plan : Plan
        What a call runs, from the second on; the first also zeroes the plan's `zeroed_bytes`. (JAX keeps no
        workspace between calls: there every call does.)
    """

    def __init__(self, shape: Any, k: Any, dtype: Any, exact: Any, device: Any, options: dict[str, Any]) -> None:
        self._operator = EXACT if exact else APPROXIMATE
        self._arguments = (shape, k, dtype, exact, device, options)
        # By framework and device: what a call runs first, and what from then on.
        self._plans: dict[tuple[str, Device], tuple[SelectionPlan, SelectionPlan]] = {}
        self._memory: dict[tuple[str, Device], tuple[object, int]] = {}
        self.plan = _without_fills(plan_call("prepare", *self._arguments))
        r = self.plan.request
        self._planned = _planned(r)
        self._layout = self._planned["x"] if len(self._planned) == 1 else None
        # As a user writes the call; index_dtype=None is for the adapter to read.
        self._options = {**r.arguments, "index_dtype": options.get("index_dtype")}

    def __call__(
        self, x: Any, *, starts: Any = None, lengths: Any = None, out: Sequence[Any] | None = None
    ) -> TopK | CertifiedTopK:
        """Select from `x`.

        Parameters
        ----------
        x : array
            Contiguous, of the planned shape and element type, on a device like the planned one.
        starts, lengths : array of int
            Contiguous, of the planned element types; where they were planned, and only there.
        out : sequence of arrays, optional
            To be written in place of new arrays: values, indices and, with certify, exact; contiguous arrays of x's
            framework and device, of the results' shapes and element types, which overlap neither x nor each other.
            Not for JAX, whose arrays are immutable.

        Returns
        -------
        TopK or CertifiedTopK
            As the call that was planned; the arrays of `out` where given.

        Raises
        ------
        InvalidArgument, InvalidType, DeviceMismatch
            When an array is not what was planned for. Nothing has run then.
        """
        adapter = registry.find(x)
        deferred = adapter.deferred(x, starts, lengths)
        if deferred is not None:
            if out is not None:
                raise InvalidArgument(
                    "out is given and x is compiled, traced, mapped or a subclass; allowed is out for plain arrays: "
                    "leave it away"
                )
            given = {n: array for n, array in (("starts", starts), ("lengths", lengths)) if array is not None}
            _check(self._planned, _unplaced(x=x, **given))
            return _result(deferred(self._operator, x, given, dict(self._options)))
        inputs, facts = {"x": x}, {"x": adapter.facts(x)}
        for name, array in (("starts", starts), ("lengths", lengths)):
            if array is not None:
                add_input(adapter, inputs, facts, name, array)
        device = facts["x"].device
        runtime = serving(device)
        key = (adapter.name, device)
        plan, steady = self._plans.get(key) or self._plan_for(adapter, device, runtime.device_info(device))
        if len(facts) > 1 or facts["x"][1:4] != self._layout:
            _check(self._planned, {name: fact[1:4] for name, fact in facts.items()})
        if out is not None:
            out = _targets(adapter, plan, out, x)
        # A graph fills its counters at every replay, in memory of its own: it may outlive this object.
        keeps = plan.workspace_bytes > 0 and not adapter.capturing(x)
        memory = self._memory.pop(key, None) if keeps else None
        workspace = None
        if memory is not None:
            plan, workspace = steady, memory[1]
        elif keeps:
            memory = adapter.reserve(plan.workspace_bytes, x)
            workspace = None if memory is None else memory[1]
        outputs = adapter.run(self._operator, inputs, facts, plan, runtime, out, workspace)
        if memory is not None:
            # Kept only when all went well: of a run that failed half-way the counters are not known.
            self._memory[key] = memory
        return _result(outputs)

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: not the memory, which is this object's own, nor plans for this machine's GPUs."""
        return {**self.__dict__, "_memory": {}, "_plans": {}}

    def __repr__(self) -> str:
        """The plan's first line."""
        return f"<approxtopk.Prepared: {str(self.plan).partition(chr(10))[0]}>"

    def _plan_for(self, adapter: Adapter, device: Device, info: DeviceInfo) -> tuple[SelectionPlan, SelectionPlan]:
        """The plans for arrays of this framework, whose habits decide what index_dtype=None is, on this device."""
        habits: dict[str, Any] = {"default_index": adapter.default_index, "index_dtypes": adapter.index_dtypes()}
        shape, k, dtype, exact, where, options = self._arguments
        where = info if where is None else where
        plan = plan_call("prepare", shape, k, dtype, exact, where, options, **habits)
        if plan.device != info:
            raise DeviceMismatch(
                f'x is on {device} ({info.name}); prepared for is {plan.device.name}: pass device="{device}" to '
                "prepare, or leave it away"
            )
        plans = self._plans[adapter.name, device] = (plan, _without_fills(plan))
        return plans


def _without_fills(plan: SelectionPlan) -> SelectionPlan:
    """The plan for workspace whose counters are zero already."""
    steps = tuple(s for s in plan.steps if not isinstance(s, Fill) or s.pointer.buffer != "workspace")
    return replace(plan, steps=steps)


def _result(outputs: tuple[Any, ...]) -> TopK | CertifiedTopK:
    return TopK(*outputs) if len(outputs) == 2 else CertifiedTopK(*outputs)


def _planned(r: Request) -> dict[str, _Layout]:
    """What a plan's arrays look like."""
    planned: dict[str, _Layout] = {"x": (r.shape, r.strides, r.dtype.name)}
    return planned | {name: (shape, strides, dtype) for name, (dtype, shape, strides) in r.others.items()}


def _unplaced(**arrays: Any) -> dict[str, _Layout]:
    """What arrays look like that may have no memory, and so no strides that matter."""
    return {
        name: (tuple(array.shape), None, dtype_name(name, array.dtype, "", InvalidArgument))
        for name, array in arrays.items()
    }


def _check(planned: dict[str, _Layout], given: dict[str, _Layout]) -> None:
    """Refuse arrays that the plan is not for."""
    if given.keys() != planned.keys():
        raise InvalidArgument(
            f"the call brings {', '.join(given)}; prepared for are {', '.join(planned)}: "
            "pass these, or prepare for those"
        )
    for name, (shape, strides, dtype) in planned.items():
        extents, steps, kind = given[name]
        # The stride along an axis of one entry says nothing.
        same = steps is None or all(
            extent < 2 or stride == other for extent, stride, other in zip(shape, steps, strides or (), strict=False)
        )
        if extents != shape or kind != dtype or not same:
            layout = "" if same or extents != shape else f", not contiguous (strides {steps})"
            raise InvalidArgument(
                f"{name} is {kind} of shape {extents}{layout}; prepared for is a contiguous array of "
                f"{dtype} and shape {shape}"
            )


def _targets(adapter: Adapter, plan: SelectionPlan, out: Any, x: Any) -> Sequence[Any]:
    """The arrays of `out`, which fit the plan's outputs."""
    names = [output.name for output in plan.outputs]
    if not isinstance(out, (tuple, list)) or len(out) != len(names):
        came = f"{len(out)} arrays" if isinstance(out, (tuple, list)) else show(out)
        wrong = InvalidArgument if isinstance(out, (tuple, list)) else InvalidType
        raise wrong(f"out must be a tuple of the arrays {', '.join(names)}, not {came}")
    for number, (array, output) in enumerate(zip(out, plan.outputs, strict=True)):
        if type(array) is not type(x):
            registry.check(f"out[{number}]", array, adapter, advise=False)
        adapter.check_out(array, output, x)
    return out
