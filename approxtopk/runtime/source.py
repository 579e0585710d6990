"""Kernels as text: sources with their includes joined, a variant's text, and the packed parameter.

CuPy's disk cache and the driver key on the text they are given; text with ``#include "..."`` left in would hide
changes of the included files from them. The macros that pick a variant are in its text, not among the options: for
every new tuple of options CuPy first compiles an empty file, to learn the compiler's version (20 ms), even where the
binary is on disk.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from ..buffer import Buffer
from ..plan import Launch

__all__ = ["OPTIONS", "Parameter", "joined", "pack", "source"]

#: The compiler's, for all kernels.
OPTIONS = ("--std=c++17",)

_MASK = (1 << 64) - 1
_put_word = struct.Struct("Q").pack_into

_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"\n', re.MULTILINE)


@cache
def joined(name: str) -> str:
    """The text of ``kernels/<name>.cu``, every included file in it once."""
    seen: set[str] = set()

    def read(file: str) -> str:
        if file in seen:
            return ""
        seen.add(file)
        text = files("approxtopk.kernels").joinpath(file).read_text(encoding="utf-8")
        text = text.replace("#pragma once\n", "")
        return _INCLUDE.sub(lambda match: read(match[1]), text)

    return read(f"{name}.cu")


def source(launch: Launch) -> str:
    """The text of a variant: its macros, and its kernel from line 1 on, as errors count."""
    macros = "".join(f"#define {name} {value}\n" for name, value in launch.defines)
    return f"{macros}#line 1\n{joined(launch.kernel)}"


class Parameter:
    """The one parameter of a launch, a struct of 8-byte members, all packed but for the addresses of a call.

    Parameters
    ----------
    launch : Launch
        Whose arguments the members are.
    """

    def __init__(self, launch: Launch) -> None:
        arguments = launch.arguments
        words = (argument & _MASK if isinstance(argument, int) else 0 for argument in arguments)
        self._words = struct.pack(f"{len(arguments)}Q", *words)
        self._pointers = tuple(
            (8 * i, *argument) for i, argument in enumerate(arguments) if not isinstance(argument, int)
        )

    def at(self, buffers: Mapping[str, Buffer]) -> bytearray:
        """The struct for a call's buffers."""
        memory = bytearray(self._words)
        for where, name, offset in self._pointers:
            _put_word(memory, where, buffers[name].pointer + offset)
        return memory


def pack(launch: Launch, buffers: Mapping[str, Buffer]) -> bytes:
    """The parameter of a launch that is made once."""
    return bytes(Parameter(launch).at(buffers))
