"""Bad calls: the right error class, a message that says what is wrong, and nothing launched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import approxtopk as atk

from .bad_calls import TABLES, Case, complaint, table
from .fakes import Foreign
from .interpreter import python

CASES = [pytest.param(case, id=f"{f}-{case.name}") for f in TABLES for case in table(f)]


@pytest.mark.parametrize("case", CASES)
def test_bad_call(case: Case) -> None:
    problem = complaint(case)
    assert not problem, problem


@pytest.mark.parametrize("text", ["9" * 5000, "x" * 5000, "3x" + "9" * 5000], ids=["digits", "text", "product"])
@pytest.mark.parametrize("place", [0, 1])
def test_command_line_echoes_little(capsys: pytest.CaptureFixture[str], text: str, place: int) -> None:
    from approxtopk.cli import main

    arguments = ["10", "3"]
    arguments[place] = text
    with pytest.raises(SystemExit) as stop:
        main(["plan", *arguments])
    complaint = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2
    assert len(complaint) < 250 and "..." in complaint and "_shape" not in complaint


@pytest.mark.parametrize("framework", [name for name in TABLES if name != "plan"])
def test_each_adapter_has_at_least_sixty(framework: str) -> None:
    cases = table(framework)
    if not cases:
        pytest.skip(f"{framework} is not installed")
    assert len(cases) >= 60
    assert len({case.name for case in cases}) == len(cases)


def test_refused_exports_are_given_back() -> None:
    x = Foreign(np.zeros(4, np.float32), lanes=4)
    for _ in range(3):
        with pytest.raises(atk.UnsupportedDType):
            atk.top_k(x, 1)
    assert (x.exported, x.deleted) == (3, 3)


def test_under_optimisation() -> None:
    """``python -O`` drops asserts; no check may hang on one."""
    code = f"""
        import sys
        import approxtopk  # before the checkout that these tests lie in, which need not be the one that is tested
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from tests.bad_calls import TABLES, complaint, table
        cases = [(name, case) for name in TABLES for case in table(name)]
        wrong = [(name, case.name, problem) for name, case in cases if (problem := complaint(case))]
        print(*wrong, f"{{len(cases)}} cases, {{len(wrong)}} wrong, optimised: {{not __debug__}}", sep="\\n")
    """
    assert python(code, "-O") == f"{len(CASES)} cases, 0 wrong, optimised: True\n"
