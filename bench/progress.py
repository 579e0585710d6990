"""A bar where there is a terminal to draw it on."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

__all__ = ["progress", "say"]

Item = TypeVar("Item")


def progress(items: Sequence[Item]) -> Iterator[Item]:
    """The items, with a bar on stderr."""
    for number, item in enumerate(items):
        if sys.stderr.isatty():
            done = 40 * number // len(items)
            bar = f"{'#' * done}{'.' * (40 - done)} {number} of {len(items)}"
            print(f"\r{bar} {item!s:.60}\033[K", end="", file=sys.stderr, flush=True)
        yield item
    _clear()


def say(*lines: str) -> None:
    """Print lines in place of a bar, which the next item draws anew."""
    _clear()
    print("\n".join(lines), flush=True)


def _clear() -> None:
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
