"""What XLA's programs run: plans, named by strings that a program carries and another process can read."""

from __future__ import annotations

import json
from typing import Any, NamedTuple
from zlib import crc32

from ...buffer import Buffer, Device, row_major
from ...errors import DeviceMismatch
from ...execute import execute
from ...plan import Plan
from ...planning.cached import replan
from ...runtime import serving
from ...runtime.protocol import Runtime
from ..common import name_buffers
from .handler import register

__all__ = ["name"]


class _Call(NamedTuple):
    """A plan, what runs it, and its inputs: name, shape, strides and dtype."""

    plan: Plan
    runtime: Runtime
    inputs: tuple[tuple[str, tuple[int, ...], tuple[int, ...], str], ...]


_calls: dict[tuple[bytes, str], _Call] = {}
_MOST_CALLS = 8192
# Runtimes by the numbers they have in names: a test may put another in place of a machine's.
_runtimes: list[Runtime] = []


def name(plan: Plan, runtime: Runtime, kind: str) -> str:
    """Name `plan`, to run on `runtime` on a device of `kind`, for the attribute of a custom call."""
    r = plan.request
    inputs: list[tuple[str, str, tuple[int, ...]]] = [("x", r.dtype.name, r.shape)]
    inputs += [(name, dtype, shape) for name, (dtype, shape, _) in r.others.items()]
    if not any(known is runtime for known in _runtimes):
        _runtimes.append(runtime)
    text = json.dumps(
        {
            "operator": r.operator,
            "arguments": r.arguments,
            "inputs": inputs,
            "device": plan.device.name,
            "workspace": plan.workspace_bytes,
            "steps": crc32(repr(plan.steps).encode()),
            "runtime": next(i for i, known in enumerate(_runtimes) if known is runtime),
        }
    )
    _keep(text.encode(), kind, _Call(plan, runtime, _described(inputs)))
    return text


def _run(name: bytes, kind: Any, index: int, stream: int, inputs: list[int], outputs: list[int]) -> None:
    """What the custom call does: execute the plan of that name over buffers at these addresses."""
    device = Device(kind, index)
    plan, runtime, described = _calls.get((name, kind)) or _read(name, device)
    facts = {
        name: Buffer(address, shape, strides, dtype, device)
        for (name, shape, strides, dtype), address in zip(described, inputs, strict=True)
    }
    count = len(plan.outputs)
    buffers = name_buffers(facts, plan, outputs[:count], outputs[-1] if plan.workspace_bytes else 0)
    execute(plan, buffers, runtime, stream)


def _read(name: bytes, device: Device) -> _Call:
    """The call of that name where this process has not made it: an exported program, or one for another device."""
    record = json.loads(name)
    inputs = _described(record["inputs"])
    x, *others = ((name, (dtype, shape, strides)) for name, shape, strides, dtype in inputs)
    runtime = serving(device)
    info = runtime.device_info(device)
    plan = replan(record["operator"], x[1], dict(others), record["arguments"], info)
    if plan.workspace_bytes > record["workspace"]:
        raise DeviceMismatch(
            f"x was traced for {record['device']}, with {record['workspace']} bytes of workspace, and runs on "
            f"{plan.device.name}, which needs {plan.workspace_bytes}; allowed is the device JAX defaults to while "
            "tracing: set jax.default_device, or export on a device like those it will run on"
        )
    runtime.prepare(plan, device)
    return _keep(name, device.kind, _Call(plan, runtime, inputs))


def _keep(name: bytes, kind: str, call: _Call) -> _Call:
    if len(_calls) >= _MOST_CALLS:
        _calls.clear()  # what is still used is read again from its name
    _calls[name, kind] = call
    return call


def _described(inputs: Any) -> tuple[tuple[str, tuple[int, ...], tuple[int, ...], str], ...]:
    return tuple((name, tuple(shape), row_major(tuple(shape)), dtype) for name, dtype, shape in inputs)


register(_run)
