"""Fixtures shared by the functional tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .backends import BACKENDS, Backend, backend_named


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Every machine in turn."""
    with backend_named(request.param) as machine:
        yield machine
