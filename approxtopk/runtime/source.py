"""Kernels as text: sources with their includes joined, compiler options, and the packed parameter.

CuPy's disk cache and the driver key on the text they are given; text with ``#include "..."`` left in would hide
changes of the included files from them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from ..buffer import Buffer
from ..plan import Launch

__all__ = ["joined", "options", "pack"]

_MASK = (1 << 64) - 1

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


def options(launch: Launch) -> tuple[str, ...]:
    """The compiler options of a variant."""
    return ("--std=c++17", *(f"-D{name}={value}" for name, value in launch.defines))


def pack(launch: Launch, buffers: Mapping[str, Buffer]) -> bytes:
    """The kernel's one parameter: a struct of 8-byte members."""
    words = (
        argument if isinstance(argument, int) else buffers[argument.buffer].pointer + argument.offset
        for argument in launch.arguments
    )
    return struct.pack(f"{len(launch.arguments)}Q", *(word & _MASK for word in words))
