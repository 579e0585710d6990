"""Examples in docstrings and on Markdown pages, run."""

from __future__ import annotations

import doctest
import re
from collections.abc import Callable
from typing import Any

import pytest

from .backends import gpu_present

__all__ = ["BLOCK", "run_example", "run_page"]

#: A fenced block of Python as it is typed, in Markdown.
BLOCK = r"```pycon\n(.*?)^```$"

_FRAMEWORKS = ("torch", "jax", "cupy", "dask")


def run_example(function: Callable[..., Any]) -> None:
    """Run the examples of `function`, of which there must be some."""
    finder = doctest.DocTestFinder(exclude_empty=True, recurse=False)
    [test] = finder.find(function, function.__name__, globs={})
    _run(test)


def run_page(name: str, examples: str) -> None:
    """Run `examples`, text with prompts; skip where what it imports is not here."""
    for framework in _FRAMEWORKS:
        if re.search(rf"^>>> (import|from) {framework}\b", examples, re.MULTILINE):
            pytest.importorskip(framework)
    if "import cupy" in examples and not gpu_present():
        pytest.skip("needs a GPU")
    _run(doctest.DocTestParser().get_doctest(examples, {}, name, name, 0))


def _run(test: doctest.DocTest) -> None:
    runner = doctest.DocTestRunner(verbose=False)
    said: list[str] = []
    # PyTorch's compiler looks for names of the page once more when it goes.
    runner.run(test, out=said.append, clear_globs=False)
    assert runner.tries, f"{test.name} has no example"
    assert not runner.failures, "".join(said)
