"""The command line: ``python -m approxtopk demo | info | plan | warmup``."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

from .errors import ApproxTopKError
from .plan import Launch, Plan
from .preview import plan
from .request import short
from .warmup import warmup

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 2 for a bad call, told in one line on stderr.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the process by default.
    """
    arguments = _parser().parse_args(argv)
    try:
        if arguments.command == "plan":
            print(_plan(arguments))
        elif arguments.command == "warmup":
            print(_warmup(arguments))
        elif arguments.command == "info":
            from .info import report

            print(report())
        else:
            from .demo import demo

            demo(k=arguments.k, device=arguments.device)
    except ApproxTopKError as error:
        print(f"approxtopk: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m approxtopk", description="The k best entries of every row, on GPUs and CPUs."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    demo = commands.add_parser("demo", help="nearest neighbours of handwritten digits: exact against approximate")
    demo.add_argument("-k", type=_integer, default=20, help="neighbours of each digit (default 20)")
    demo.add_argument("--device", choices=("cpu", "cuda"), help="default: the first GPU, else the CPU")

    commands.add_parser("info", help="what was found on this machine, and what is missing")

    show = commands.add_parser("plan", help="what a call would run", argument_default=argparse.SUPPRESS)
    show.add_argument("shape", type=_shape, metavar="SHAPE", help="of the array: 1048576, 128x1048576 or 128,1048576")
    _add_call(show)
    show.add_argument("--dtype", help="element type (default float32)")
    show.add_argument("--device", help="cpu, cuda, cuda:1, or sm_90 and the like (default: what is here)")

    warm = commands.add_parser(
        "warmup",
        help="compile the kernels of calls to come, into CuPy's cache on disk",
        argument_default=argparse.SUPPRESS,
    )
    warm.add_argument(
        "shape",
        type=_shapes,
        metavar="SHAPE",
        help="of the arrays: 128x1048576, or 1-64x1048576 for every batch of these",
    )
    _add_call(warm)
    warm.add_argument("--dtype", type=_list, help="element types, with commas between (default float32)")
    warm.add_argument("--device", type=_list, help="cuda, cuda:1 or cpu, with commas between (default: what is here)")
    return parser


def _add_call(parser: argparse.ArgumentParser) -> None:
    """Take what a call has besides its array."""
    parser.add_argument("k", type=_integer, metavar="K", help="entries to pick of every row")
    parser.add_argument("--recall", type=float, dest="recall_target", metavar="R", help="recall target (default 0.95)")
    parser.add_argument("--buckets", type=_integer, metavar="B", help="b, in place of the planner's choice")
    parser.add_argument("--k-per-bucket", type=_integer, metavar="KB", help="k_b, in place of the planner's choice")
    parser.add_argument(
        "--contiguous", action="store_false", dest="interleaved", help="buckets are runs, not every b-th entry"
    )
    parser.add_argument("--exact", action="store_true", help="top_k, not approx_top_k")
    parser.add_argument("--axis", type=_integer, help="axis to select along (default -1)")
    parser.add_argument("--mode", metavar="{largest,smallest}", help="which end is best (default largest)")
    parser.add_argument("--unsorted", action="store_false", dest="sorted", help="results need not be in order")
    parser.add_argument("--index-dtype", metavar="{int32,int64}", help="type of the indices (default int64)")
    parser.add_argument("--certify", action="store_true", help="tell which rows' answers are exact")
    parser.add_argument("--starts", metavar="DTYPE", help="rows begin where an array of this integer type says")
    parser.add_argument("--lengths", metavar="DTYPE", help="rows are as long as an array of this integer type says")


def _shape(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[0-9]+([x,][0-9]+)*", text):
        raise argparse.ArgumentTypeError(f"{short(repr(text))} is no shape; write 1048576, 128x1048576 or 128,1048576")
    return tuple(map(_integer, re.split("[x,]", text)))


def _shapes(text: str) -> tuple[Any, ...]:
    if not re.fullmatch(r"[0-9]+(-[0-9]+)?([x,][0-9]+(-[0-9]+)?)*", text):
        raise argparse.ArgumentTypeError(f"{short(repr(text))} is no shape; write 1048576, 128x1048576 or 1-64x1048576")
    ends = [list(map(_integer, extent.split("-"))) for extent in re.split("[x,]", text)]
    return tuple(end[0] if len(end) == 1 else range(end[0], end[1] + 1) for end in ends)


def _list(text: str) -> list[str]:
    return text.split(",")


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:  # Python reads no more than some thousand digits
        raise argparse.ArgumentTypeError(f"{short(repr(text))} cannot be read as an integer") from None


def _plan(arguments: argparse.Namespace) -> Plan:
    options = vars(arguments)
    del options["command"]
    return plan(options.pop("shape"), options.pop("k"), **options)


def _warmup(arguments: argparse.Namespace) -> str:
    options = vars(arguments)
    del options["command"]
    start = time.perf_counter()
    plans = warmup(options.pop("shape"), options.pop("k"), **options)
    seconds = time.perf_counter() - start
    steps = (step for plan in plans for step in plan.steps)
    kernels = len({(step.kernel, step.defines) for step in steps if isinstance(step, Launch)})
    devices = ", ".join(dict.fromkeys(plan.device.name for plan in plans))
    done = f"{_count(kernels, 'kernel')} ready in {seconds:.1f} s" if kernels else "nothing to compile"
    return f"{_count(len(plans), 'call')} on {devices}: {done}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
