"""Fixtures shared by the functional tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from .backends import BACKENDS, Backend, backend_named

# JAX reads it when it first looks for devices: eight CPUs for the tests of sharding, of which others use the first.
_EIGHT = "--xla_force_host_platform_device_count=8"
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_EIGHT}".strip()


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Every machine in turn."""
    with backend_named(request.param) as machine:
        yield machine
