"""The command line: ``python -m approxtopk demo | info | plan``."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence

from .errors import ApproxTopKError
from .plan import Plan
from .preview import plan
from .request import short

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
    show.add_argument("k", type=_integer, metavar="K", help="entries to pick of every row")
    show.add_argument("--recall", type=float, dest="recall_target", metavar="R", help="recall target (default 0.95)")
    show.add_argument("--buckets", type=_integer, metavar="B", help="b, in place of the planner's choice")
    show.add_argument("--k-per-bucket", type=_integer, metavar="KB", help="k_b, in place of the planner's choice")
    show.add_argument(
        "--contiguous", action="store_false", dest="interleaved", help="buckets are runs, not every b-th entry"
    )
    show.add_argument("--exact", action="store_true", help="plan top_k, not approx_top_k")
    show.add_argument("--axis", type=_integer, help="axis to select along (default -1)")
    show.add_argument("--mode", metavar="{largest,smallest}", help="which end is best (default largest)")
    show.add_argument("--unsorted", action="store_false", dest="sorted", help="results need not be in order")
    show.add_argument("--dtype", help="element type (default float32)")
    show.add_argument("--index-dtype", metavar="{int32,int64}", help="type of the indices (default int64)")
    show.add_argument("--certify", action="store_true", help="tell which rows' answers are exact")
    show.add_argument("--starts", metavar="DTYPE", help="rows begin where an array of this integer type says")
    show.add_argument("--lengths", metavar="DTYPE", help="rows are as long as an array of this integer type says")
    show.add_argument("--device", help="cpu, cuda, cuda:1, or sm_90 and the like (default: what is here)")
    return parser


def _shape(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[0-9]+([x,][0-9]+)*", text):
        raise argparse.ArgumentTypeError(f"{short(repr(text))} is no shape; write 1048576, 128x1048576 or 128,1048576")
    return tuple(map(_integer, re.split("[x,]", text)))


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:  # Python reads no more than some thousand digits
        raise argparse.ArgumentTypeError(f"{short(repr(text))} cannot be read as an integer") from None


def _plan(arguments: argparse.Namespace) -> Plan:
    options = vars(arguments)
    del options["command"]
    return plan(options.pop("shape"), options.pop("k"), **options)
