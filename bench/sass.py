"""Machine code: disassembled by the wheel ``nvidia-cuda-nvdisasm``, and the loop that does the work found in it."""

from __future__ import annotations

import heapq
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import NamedTuple

__all__ = ["available", "cheapest_loop", "count", "detours", "disassemble", "half_rate"]

_LINE = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(.*?)\s*;")
_LABEL = re.compile(r"^(\.L_\w+):")
_TARGET = re.compile(r"\bBRA\b.*`\((\.L_\w+)\)")
#: What the pipe of compares, logic and integer sums does, at half the rate of multiply-adds (Hopper).
_HALF_RATE = re.compile(
    r"^(?:@!?U?P\w+ +)?(?:[IFHD]SETP2?|V?[IFH]MNMX\w*|P?LOP3|F?SEL|SHF|SHL|SHR|PRMT|LEA|ISCADD|IADD3|VIADD\w*|"
    r"BMSK|SGXT|IABS|P2R|R2P|MOV)\b"
)


class Block(NamedTuple):
    """Instructions that run one after the other, and the blocks that may come next."""

    instructions: tuple[str, ...]
    following: tuple[int, ...]


def available() -> bool:
    """Whether the disassembler is installed."""
    return _nvdisasm() is not None


def disassemble(cubin: bytes, kernel: str) -> list[Block]:
    """The basic blocks of one entry point."""
    tool = _nvdisasm()
    assert tool is not None, "no disassembler: pip install nvidia-cuda-nvdisasm"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([tool, "-c", file.name], capture_output=True, text=True, check=True).stdout
    lines = text.split(f"\n{kernel}:\n", 1)[1].splitlines()
    blocks: list[list[str]] = [[]]
    labels: dict[str, int] = {}
    for line in lines:
        if line.lstrip().startswith(".section"):
            break
        if label := _LABEL.match(line):
            if blocks[-1]:
                blocks.append([])
            labels[label[1]] = len(blocks) - 1
        elif instruction := _LINE.match(line):
            blocks[-1].append(instruction[1])
            if re.search(r"\b(BRA|EXIT|RET)\b", instruction[1]):
                blocks.append([])
    return [Block(tuple(block), _following(block, at, labels, len(blocks))) for at, block in enumerate(blocks)]


def cheapest_loop(blocks: list[Block], load: str) -> tuple[str, ...]:
    """The shortest way round from a block with most instructions like `load` back to itself.

    Of a loop that may take detours (an insertion, the ragged ends) this is the way without any.
    """
    return _cheapest(blocks, load)[0]


def detours(blocks: list[Block], load: str) -> int:
    """How many instructions lie on other ways round from that block: at most what a detour can cost."""
    loop, start = _cheapest(blocks, load)
    before: dict[int, list[int]] = {}
    for number, block in enumerate(blocks):
        for after in block.following:
            before.setdefault(after, []).append(number)
    forth = _reachable(start, lambda at: blocks[at].following)
    back = _reachable(start, lambda at: before.get(at, ()))
    return sum(len(blocks[at].instructions) for at in forth & back) - len(loop)


def _cheapest(blocks: list[Block], load: str) -> tuple[tuple[str, ...], int]:
    """The shortest way round, and the block it starts from."""
    loads = [count(block.instructions, load) for block in blocks]
    assert max(loads), f"nothing loads by {load}"
    ways = [(_way_round(blocks, at), at) for at, number in enumerate(loads) if number == max(loads)]
    found = [way for way in ways if way[0]]
    assert found, f"what loads by {load} is in no loop"
    return min(found, key=lambda way: len(way[0]))


def _reachable(start: int, following: Callable[[int], Iterable[int]]) -> set[int]:
    seen: set[int] = set()
    ways = [start]
    while ways:
        at = ways.pop()
        if at not in seen:
            seen.add(at)
            ways.extend(following(at))
    return seen


def _way_round(blocks: list[Block], start: int) -> tuple[str, ...]:
    """The shortest way from a block back to itself; empty without one."""
    best: dict[int, int] = {}
    ways: list[tuple[int, int, tuple[int, ...]]] = [(0, start, ())]
    while ways:
        length, at, way = heapq.heappop(ways)
        if at == start and way:
            return tuple(text for block in way for text in blocks[block].instructions)
        if at in best:
            continue
        if way:
            best[at] = length
        for after in blocks[at].following:
            heapq.heappush(ways, (length + len(blocks[at].instructions), after, (*way, at)))
    return ()


def count(instructions: tuple[str, ...], pattern: str) -> int:
    """How many instructions match."""
    return sum(bool(re.search(pattern, text)) for text in instructions)


def half_rate(instructions: tuple[str, ...]) -> int:
    """How many run on the slower integer pipe."""
    return sum(bool(_HALF_RATE.match(text)) for text in instructions)


def _following(block: list[str], at: int, labels: dict[str, int], blocks: int) -> tuple[int, ...]:
    last = block[-1] if block else ""
    after = []
    if target := _TARGET.search(last):
        after.append(labels[target[1]])
    # A branch under a predicate (before it, or its first operand) may fall through.
    always = re.match(r"(BRA(\.\w+)* `|EXIT|RET)", last)
    if not always and at + 1 < blocks:
        after.append(at + 1)
    return tuple(after)


@cache
def _nvdisasm() -> Path | None:
    try:
        listed = files("nvidia-cuda-nvdisasm") or []
    except PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in listed if file.name == "nvdisasm"), None)
