"""Kernels compiled ahead of the calls that need them: before serving, and before a CUDA graph is captured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

from .adapters import registry
from .buffer import Buffer, Device
from .call import add_input
from .errors import InvalidArgument, InvalidType
from .plan import Launch, Plan
from .preview import locate, plan_call
from .request import short, show
from .runtime import serving

__all__ = ["warmup"]


def warmup(
    shape: Any,
    k: Any,
    /,
    *,
    dtype: Any = None,
    exact: bool = False,
    device: Any = None,
    **options: Any,
) -> list[Plan]:
    """Compile and load the kernels of calls to come, so that none of these calls has to.

    A kernel's variant depends on shape, layout, element types, options and GPU, so name those that will be used. A
    plan for each combination is made first, then what all of them need is compiled, each variant once, by several
    threads. CuPy keeps the binaries on disk (``python -m approxtopk info`` says where): in the next process they are
    only loaded. On a CPU there is nothing to compile: arguments are checked, and plans made.

    Parameters
    ----------
    shape : int, tuple, array, or list of these
        Shape of a contiguous array, as for `plan`. An extent may be a range or a list of numbers, each of which is
        meant: ``(range(1, 65), 128256)``. An array stands for its own shape, strides, element type, framework and
        device, and is not read: for rows that are not contiguous, and for JAX, whose indices are of another type.
    k : int, or range or list of int
        Entries to pick along the axis.
    dtype : dtype, or list of dtypes, optional
        As for `plan`, float32 by default; not for arrays.
    exact : bool, default False
        For `top_k` in place of `approx_top_k`.
    device : None, "cpu", "cuda", "cuda:1" and the like, or a list of these
        Not for arrays. None is the current GPU of this thread if there is one, else the CPU; so is "cuda". Other
        GPUs are not touched: name each that the process uses.
    **options
        The keyword arguments of the call, as for `plan`; starts and lengths by dtype, or for an array by arrays.

    Returns
    -------
    list of Plan
        What each call will run: for every shape, k, element type and device, the last of these varying fastest.

    Raises
    ------
    InvalidArgument, InvalidType, UnsupportedDType, DeviceMismatch, BackendMissing
        As `plan` or the call itself would, before anything is compiled.
    CompileError
        When a kernel does not compile.

    Notes
    -----
    A kernel is loaded for one process and GPU: every process warms up for itself. Processes that start together
    compile the same kernels side by side, and each puts whole files into the cache, so the last one stays.

    Examples
    --------
    >>> import approxtopk as atk
    >>> plans = atk.warmup((range(1, 9), 32000), 50, dtype=["float16", "float32"], device="cpu")
    >>> len(plans), plans[0].request.shape
    (16, (1, 32000))
    """
    given_shapes = list(_shapes(shape))
    elements = _each("float32" if dtype is None else dtype)
    places = [_place(one) for one in _each(device)] if any(isinstance(one, tuple) for one in given_shapes) else []
    calls: list[tuple[Plan, Device]] = []
    for given, count in product(given_shapes, _each(k)):
        if isinstance(given, tuple):
            for element, place in product(elements, places):
                info = serving(place).device_info(place)
                calls.append((plan_call("warmup", given, count, element, exact, info, options), place))
        else:
            if dtype is not None or device is not None:
                raise InvalidArgument("dtype or device is given and so is an array, which has its own: leave them away")
            calls.append(_plan_array(given, count, exact, options))
    if not calls:
        raise InvalidArgument("shape, k, dtype or device is empty; allowed is at least one of each")
    work = {
        (place, step.kernel, step.defines): (replace(plan, steps=(step,)), place)
        for plan, place in calls
        for step in plan.steps
        if isinstance(step, Launch)
    }
    if work:
        # Imported late: the NumPy path is not needed for planning. NVRTC compiles in several threads at once, and
        # CuPy lets it.
        from .host import threads

        threads.run(lambda one: serving(one[1]).prepare(*one), work.values(), len(work))
    return [plan for plan, _ in calls]


def _plan_array(x: Any, k: Any, exact: Any, options: dict[str, Any]) -> tuple[Plan, Device]:
    """The plan of a call on `x`, as the call itself would make it, and where."""
    adapter = registry.find(x)
    facts: dict[str, Buffer] = {"x": adapter.facts(x)}
    own = facts["x"]
    bounds = {name: options[name] for name in ("starts", "lengths") if hasattr(options.get(name), "__dlpack__")}
    for name, array in bounds.items():
        add_input(adapter, {}, facts, name, array)
    plan = plan_call(
        "warmup",
        own.shape,
        k,
        own.dtype,
        exact,
        serving(own.device).device_info(own.device),
        {name: value for name, value in options.items() if name not in bounds},
        own.strides,
        default_index=adapter.default_index,
        index_dtypes=adapter.index_dtypes(),
        **{name: (facts[name].dtype, facts[name].shape, facts[name].strides) for name in bounds},
    )
    return plan, own.device


def _shapes(shape: Any) -> Iterator[Any]:
    """Shapes as tuples of int, and arrays."""
    for one in shape if isinstance(shape, list) else [shape]:
        if hasattr(type(one), "__dlpack__"):
            yield one
        elif isinstance(one, tuple):
            yield from product(*map(_each, one))
        elif isinstance(shape, list):
            raise InvalidType(f"shape is a list and holds {show(one)}; allowed are lists of tuples and arrays")
        else:
            yield from product(_each(one))


def _each(argument: Any) -> list[Any]:
    """The values of an argument that may be several."""
    return list(argument) if isinstance(argument, (list, range)) else [argument]


def _place(device: Any) -> Device:
    place = locate(device)
    if place is None:
        came = short(repr(device)) if isinstance(device, str) else show(device)
        wrong = InvalidArgument if isinstance(device, str) else InvalidType
        raise wrong(
            f"device = {came} names no device of this machine, for which kernels could be compiled; allowed are "
            "'cpu', 'cuda', 'cuda:<index>', None and lists of these"
        )
    unnumbered = place.kind == "cuda" and (device is None or str(device) == "cuda")
    return serving(place).current() if unnumbered else place
