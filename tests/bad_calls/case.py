"""One bad call, and what is wrong with how it fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import approxtopk as atk
from approxtopk.runtime import substitute

from ..fakes import CPU, GPU, Idle

__all__ = ["Arrays", "Case", "Unhashable", "array_cases", "bound_cases", "complaint"]

# What is no good array, by name: it, the error, the words of the message.
Arrays = dict[str, tuple[Any, type[BaseException], tuple[str, ...]]]


class Case(NamedTuple):
    """One bad call: what raises, and what the message must hold."""

    name: str
    call: Callable[[], Any]
    error: type[BaseException]
    words: tuple[str, ...]
    says_allowed: bool = True


@contextmanager
def counting() -> Iterator[Callable[[], int]]:
    """Claim both kinds of device; the yielded function says how much was run."""
    machines = Idle(CPU), Idle(GPU)
    with substitute("cpu", machines[0]), substitute("cuda", machines[1]):
        yield lambda: sum(machine.prepared + machine.runs for machine in machines)


class Unhashable:
    """Neither an integer nor a key of a cache."""

    __hash__ = None  # type: ignore[assignment]


def array_cases(arrays: Arrays, k: int = 1) -> Iterator[Case]:
    """Both functions on arrays (or what is none) that they refuse."""
    for name, (x, error, words) in arrays.items():
        yield Case(name, lambda x=x: atk.approx_top_k(x, k), error, words)
        yield Case(f"{name}, exact", lambda x=x: atk.top_k(x, k), error, words)


def bound_cases(x: Any, good: Any, arrays: Arrays) -> Iterator[Case]:
    """Both functions on starts and lengths that they refuse beside `x`, alone and after a `good` one.

    ``{}`` in the words stands for the argument's name.
    """
    for name, (array, error, words) in arrays.items():
        for argument, other in (("starts", "lengths"), ("lengths", "starts")):
            said = tuple(word.replace("{}", argument) for word in words)
            given, both = {argument: array}, {argument: array, other: good}
            yield Case(f"{argument} {name}", lambda g=given: atk.top_k(x, 1, **g), error, said)
            yield Case(f"{argument} {name}, both", lambda g=both: atk.approx_top_k(x, 1, **g), error, said)


def complaint(case: Case) -> str:
    """What is wrong with how `case` fails; empty where all is right."""
    with counting() as runs:
        try:
            case.call()
        except case.error as error:
            message = str(error)
        except Exception as error:
            return f"raised {type(error).__name__} ({error}), not {case.error}"
        else:
            return f"raised nothing, not {case.error}"
        if runs():
            return f"{runs()} steps were run"
    missing = [word for word in case.words if word not in message]
    if missing:
        return f"the message lacks {missing}: {message}"
    if len(message) > 1000:
        return f"the message has {len(message)} characters"
    if case.says_allowed and not any(word in message for word in ("allowed", "must")):
        return f"the message does not say what is allowed: {message}"
    return ""
