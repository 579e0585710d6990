"""JAX: rows sharded over the devices of a mesh, on eight emulated devices in a process of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .interpreter import python

pytest.importorskip("jax")

ROOT = Path(__file__).resolve().parent.parent


def test_devices() -> None:
    """Every scenario of jax_devices.py: one test, because starting the process is what takes long."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.jax_devices import main; main()"
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    outcomes = json.loads(python(code, XLA_FLAGS=flags, JAX_PLATFORMS="cpu").splitlines()[-1])
    failed = [f"{name}: {outcome}" for name, outcome in outcomes.items() if outcome]
    assert outcomes and not failed, "\n".join(failed)
