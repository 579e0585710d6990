"""What an adapter needs to know of an operator to serve it in its framework, and nothing more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["OPERATORS", "Formula", "Operator", "Pullback"]

#: All there are, by name: what a compiler's graph can hold of one is its name.
OPERATORS: dict[str, Operator] = {}

#: A derivative written in operations of any array namespace: ``formula(xp, arguments, arrays, given)``. `arguments` are
#: those of the request (its axis not negative), `arrays` the operator's inputs and outputs by name, `given` the
#: cotangents of outputs (or tangents of inputs) by name, as far as there are such; all arrays are of the type `real`.
#: It returns the cotangents of inputs, "d" before their names (or tangents of outputs).
Formula = Callable[[Any, Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]], "dict[str, Any]"]


@dataclass(frozen=True)
class Pullback:
    """The derivative of an operator: another operator, where that is enough, and formulas, for all orders.

    Attributes
    ----------
    operator : Operator
        Takes the cotangent of the first output as ``"g"``, and returns the cotangents of inputs, ``"d"`` before their
        names.
    saved : mapping of str to str
        Its other inputs, by name: which inputs and outputs of the operator itself they are. Nothing else need be kept.
    vjp, jvp : Formula
        The same, and forward. They may be differentiated again, as often as one likes.
    real : callable
        The element type that the formulas are computed in, by that of x.
    """

    operator: Operator
    saved: Mapping[str, str]
    vjp: Formula
    jvp: Formula
    real: Callable[[str], str]


@dataclass(frozen=True)
class Operator:
    """A record that adapters interpret generically, so that a new operator needs no new adapter code.

    Attributes
    ----------
    name : str
        By which requests and plans tell what is asked for.
    inputs, outputs : tuple of str
        Names of the arrays that go in and come out, in order: a plan's steps call their buffers so. The first input,
        ``"x"``, is always there, others where the caller gave them; a plan says which outputs there are. All have x's
        shape, but for another extent along the axis, or x's shape without the axis.
    derivative : {"gather"}, Pullback or None
        ``"gather"``: the first output is the first input gathered along the axis at the last output
        (the indices), and so is its derivative. None: not differentiable.
    counts : bool
        Whether results count along the axis, in the framework's own type of indices.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    derivative: Literal["gather"] | Pullback | None
    counts: bool = False

    def __post_init__(self) -> None:
        OPERATORS[self.name] = self
