"""``enable()``: ``torch.topk`` itself runs on our exact kernels, on GPUs, where they should be faster.

The operator ``aten::topk`` gets another kernel for CUDA tensors, by the public ``torch.library``, as PyTorch's own
overrides do. So every caller is reached: ``torch.topk``, ``Tensor.topk``, a ``topk`` imported before, TorchScript, C++
and compiled graphs, in which ``aten.topk`` stays what it is; and derivatives, vmap, fake tensors and subclasses stay
PyTorch's, above it. Replacing the attributes ``torch.topk`` and ``Tensor.topk`` would miss most of these callers, and
confuse those who compare functions; a ``TorchFunctionMode`` holds for one thread and makes every operator slower.

What was registered while other threads call the operator cannot be taken away safely: PyTorch changes its table without
a lock (a stress test crashes after some 100,000 changes). So the kernel is registered once and a switch decides; when
the last user has switched it off it is taken away only where no other Python thread runs, and otherwise stays and
passes calls on to PyTorch's own, for about 2 us each.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from functools import lru_cache
from types import TracebackType
from typing import Any

import torch

from ...buffer import Device
from ...errors import ApproxTopKError, BackendMissing, CompileError
from ...plan import DeviceInfo, Plan
from ...planning.cached import make_plan
from ...planning.machines import machine_of
from ...planning.select import mappings
from ...planning.select import seconds as planned_seconds
from ...runtime import serving
from . import aten_cost
from .memory import describe, run_plan

__all__ = ["Enabled", "disable", "enable"]

#: On the host: our call until its first launch, and each launch. Estimates for the machines that hold GPUs.
_HOST, _HOST_LAUNCH = 10e-6, 2e-6
#: Inputs of fewer entries never win by the model (held in a test), and should cost as little as they can.
_LEAST_ENTRIES = 2048
#: How much faster the model must find us: it is a model.
_MARGIN = 0.8
_PLAIN = (torch.Tensor, torch.nn.Parameter)

_lock = threading.Lock()
_enabled: set[Enabled] = set()
_libraries: dict[str, Any] = {}


class Enabled:
    """What `enable` returns: how to undo it."""

    def disable(self) -> None:
        """Undo this one `enable`, however often it was entered; the second time there is nothing to do."""
        with _lock:
            _enabled.discard(self)
            _take_away()

    def __enter__(self) -> Enabled:
        with _lock:
            _add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disable()

    def __repr__(self) -> str:
        return f"<approxtopk.adapters.torch.Enabled: {'on' if self in _enabled else 'off'}>"


def enable() -> Enabled:
    """Let ``torch.topk`` and ``Tensor.topk`` of CUDA tensors run on our exact kernels where they should be faster.

    It holds for all threads and every caller, compiled graphs too, from now on until it is undone: by ``disable()``
    of what is returned, at the end of a ``with enable():``, or by `disable`. Several may be open at once. In a program
    of several threads call it once, before they start.

    Results are those of ``torch.topk`` but for ties, which go to the lower index. PyTorch's own kernels still serve
    what is not on a GPU, small inputs, ``out=``, tensor subclasses, element types that we do not order, k out of
    range, 0-d tensors, and shapes first met while a CUDA graph is being captured.

    Which is faster is modelled, not measured: ours by the plan's cost model, PyTorch's by
    `approxtopk.adapters.torch.aten_cost`, each with its time on the host, and ours has to win clearly, whether the GPU
    is waited for or kept busy. It is decided once for every shape, strides, element type, k and device.

    Returns
    -------
    Enabled
        With a method ``disable()``, and a context manager.

    Raises
    ------
    BackendMissing
        When PyTorch has a GPU and CuPy, which compiles our kernels, is not installed.

    Examples
    --------
    >>> import torch
    >>> from approxtopk.adapters.torch import enable
    >>> with enable():  # on a machine without a GPU nothing changes
    ...     torch.topk(torch.tensor([3.0, 1.0, 4.0]), 2).indices
    tensor([2, 0])
    """
    token = Enabled()
    with _lock:
        _add(token)
    return token


def disable() -> None:
    """Undo every `enable` that is still open."""
    with _lock:
        _enabled.clear()
        _take_away()


def _add(token: Enabled) -> None:
    for key in _keys():
        if key not in _libraries:
            _libraries[key] = _register(key)
    _enabled.add(token)


def _take_away() -> None:
    if not _enabled and threading.active_count() == 1:
        _libraries.clear()  # what a Library registered goes with it


def _keys() -> list[str]:
    """The dispatcher's keys of the kinds of device that a GPU serves: in the tests an emulated one serves the CPU's."""
    devices = {"CPU": Device("cpu")}
    if torch.cuda.is_available() and getattr(torch.version, "hip", None) is None:
        devices["CUDA"] = Device("cuda")
    return [key for key, device in devices.items() if _is_gpu(serving(device).device_info(device))]


def _is_gpu(info: DeviceInfo) -> bool:
    return info.architecture.startswith("sm_")


def _register(key: str) -> Any:
    original = _original(key)

    def topk(keys: Any, x: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
        if _enabled:
            answer = _select(x, k, dim, largest, sorted)
            if answer is not None:
                return answer
        return original(keys, x, k, dim, largest, sorted)

    registry: Any = torch.library
    library = registry.Library("aten", "IMPL")
    with warnings.catch_warnings():
        # To override a kernel is what this is for.
        warnings.filterwarnings("ignore", message="(?s).*Overriding a previously registered kernel")
        library.impl("topk", topk, key, with_keyset=True)
    return library


def _original(key: str) -> Callable[..., Any]:
    """PyTorch's own kernel, or what was put in its place before, called with the dispatcher's keys first."""
    get_kernel = getattr(torch.library, "get_kernel", None)
    if get_kernel is not None:
        kernel: Callable[..., Any] = get_kernel("aten::topk", key).call_boxed
        return kernel
    return _by_out


def _by_out(keys: Any, x: Any, k: int, dim: int, largest: bool, sorted: bool) -> Any:
    """In older releases: the operator with ``out=``, which is another one, not overridden, and does the same."""
    values, indices = x.new_empty(0), x.new_empty(0, dtype=torch.int64)
    return torch.ops.aten.topk.values(x, k, dim, largest, sorted, values=values, indices=indices)


def _select(x: torch.Tensor, k: int, dim: int, largest: bool, sorted: bool) -> tuple[torch.Tensor, ...] | None:
    """Our answer; None where PyTorch should give its own. All is plain memory here."""
    if x.numel() < _LEAST_ENTRIES or type(x) not in _PLAIN:
        return None
    try:
        own = describe(x, "x")
    except ApproxTopKError:
        return None
    runtime = serving(own.device)
    way = _faster(
        own.shape, own.strides, own.dtype, k, dim, largest, sorted, own.device, runtime.device_info(own.device)
    )
    if way is None or way.failed:
        return None
    if not way.ran and x.is_cuda and torch.cuda.is_current_stream_capturing():
        return None  # kernels cannot be compiled and loaded now
    try:
        answer = run_plan(x, {"x": own}, way.plan, runtime)
    except (BackendMissing, CompileError) as error:
        # Whoever calls torch.topk has not asked for us.
        way.failed = True
        warnings.warn(f"torch.topk stays PyTorch's own for {own.shape}: {error}", RuntimeWarning, stacklevel=2)
        return None
    way.ran = True
    return answer


class _Way:
    """A plan that is to be preferred, whether its kernels are loaded, and whether they could not be."""

    __slots__ = ("failed", "plan", "ran")

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.ran = self.failed = False


@lru_cache(maxsize=4096)
def _faster(
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    dtype: str,
    k: int,
    dim: int,
    largest: bool,
    sorted: bool,
    device: Device,
    info: DeviceInfo,
) -> _Way | None:
    """Our way to serve a call on `device`, where it should be faster than PyTorch's."""
    if not _is_gpu(info) or k == 0:
        return None
    mode = "largest" if largest else "smallest"
    try:
        plan = make_plan("top_k", shape, strides, dtype, info, k, axis=dim, mode=mode, sorted=sorted)
    except ApproxTopKError:
        return None
    r = plan.request
    ours = min(map(planned_seconds, mappings(r, info)))
    theirs, their_host = aten_cost.seconds(r, machine_of(info))
    our_host = _HOST + _HOST_LAUNCH * plan.launches
    waited = our_host + ours < _MARGIN * (their_host + theirs)
    busy = max(our_host, ours) < _MARGIN * max(their_host, theirs)
    return _Way(plan) if waited and busy else None
