"""What an adapter needs to know of an operator to serve it in its framework, and nothing more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Operator"]


@dataclass(frozen=True)
class Operator:
    """A record that adapters interpret generically, so that a new operator needs no new adapter code.

    Attributes
    ----------
    name : str
        The public function's name, by which requests and plans tell what is asked for.
    inputs, outputs : tuple of str
        Names of the arrays that go in and come out, in order: a plan's steps call their buffers so. The first input
        is always there, others where the caller gave them; a plan says which outputs there are.
    derivative : {"gather", None}
        ``"gather"``: the first output is the first input gathered along the axis at the last output
        (the indices), and so is its derivative. None: not differentiable.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    derivative: Literal["gather"] | None
