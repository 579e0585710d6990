"""The examples in the public functions' docstrings.

Run by installed name: ``--doctest-modules`` imports the adapters a second time, and a PyTorch operator can be
registered only once.
"""

from __future__ import annotations

import doctest
import inspect

import pytest

import approxtopk as atk

PUBLIC = [name for name in atk.__all__ if inspect.isfunction(getattr(atk, name))]


@pytest.mark.parametrize("name", PUBLIC)
def test_examples(name: str) -> None:
    function = getattr(atk, name)
    finder = doctest.DocTestFinder(exclude_empty=True, recurse=False)
    [test] = finder.find(function, name, globs={})
    runner = doctest.DocTestRunner(verbose=False)
    said: list[str] = []
    runner.run(test, out=said.append)
    assert runner.tries, f"{name} has no example"
    assert not runner.failures, "".join(said)
