"""The examples in the public functions' docstrings.

Run by installed name: ``--doctest-modules`` imports the adapters a second time, and a PyTorch operator can be
registered only once.
"""

from __future__ import annotations

import inspect

import pytest

import approxtopk as atk

from .examples import run_example

PUBLIC = [name for name in atk.__all__ if inspect.isfunction(getattr(atk, name))]


@pytest.mark.parametrize("name", PUBLIC)
def test_examples(name: str) -> None:
    run_example(getattr(atk, name))
