"""``python -m bench``: what this library claims, measured."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from . import report, sweep
from .case import Case
from .progress import progress, say
from .provenance import gpu_here, provenance
from .suites import SUITES

_DOCS = Path(__file__).resolve().parent.parent / "docs"


def main(arguments: list[str] | None = None) -> None:
    # JAX would take three quarters of a GPU's memory, and leave its neighbours here too little.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="time a suite beside its peers and the bound of memory")
    run.add_argument("suite", choices=sorted(SUITES))
    run.add_argument(
        "--device", choices=["cpu", "cuda"], help="default: cuda where there is one, but for suites of a CPU"
    )
    run.add_argument("--seconds", type=float, help="wall clock to spend (default: 10 a case)")
    run.add_argument("--only", metavar="TEXT", default="", help="only cases whose description contains this")

    recall = commands.add_parser("recall", help="measure recall, on random, ordered and real rows, and what it costs")
    recall.add_argument(
        "--samples", type=int, default=2**18, help="entries among the best, of each case (default 2^18)"
    )
    recall.add_argument("--every", type=int, default=1, metavar="N", help="every N-th case of the grid (default 1)")

    static = commands.add_parser("static", help="count the hot loops' instructions; needs NVRTC and nvdisasm, no GPU")
    static.add_argument("--architectures", nargs="+", default=["sm_80", "sm_90", "sm_100", "sm_120"], metavar="sm_XY")

    host = commands.add_parser("host", help="time calls on the host, with nothing run behind them")
    host.add_argument("--seconds", type=float, default=5.0, help="spent on each framework (default 5)")
    host.add_argument("--quick", action="store_true", help="a few calls of each, to see that all run")

    router = commands.add_parser("router", help="train a router on digits, by soft top-k and by hard")
    router.add_argument("--seeds", type=int, default=10, help="how many trainings of each (default 10)")
    router.add_argument("--epochs", type=int, default=30, help="of a training (default 30)")

    for command in (run, recall, static, host, router):
        command.add_argument("--json", metavar="PATH", type=Path, help="write figures, machine and versions here")

    render = commands.add_parser("report", help="render committed results: Markdown tables and PNG plots")
    render.add_argument("results", nargs="*", type=Path, help="JSON files (default: all of bench/results)")
    render.add_argument("--out", type=Path, default=report.RESULTS, help="folder to write to (default bench/results)")

    pictures = commands.add_parser("pictures", help="draw the pictures of the documentation, computed anew")
    pictures.add_argument("--out", type=Path, default=_DOCS, help="folder to write to (default docs)")

    sweep.add_to(commands.add_parser("sweep", help=sweep.HELP, description=sweep.__doc__))
    options = parser.parse_args(arguments)
    {
        "run": _run,
        "recall": _recall,
        "static": _static,
        "host": _host,
        "router": _router,
        "report": _report,
        "pictures": _pictures,
        "sweep": sweep.run,
    }[options.command](options)


def _run(options: Any) -> None:
    from .run import Cpu, Gpu, run_suite

    cases = [case for case in SUITES[options.suite]() if options.only in str(case)]
    device = options.device or ("cuda" if not options.suite.endswith("cpu") and gpu_here() else "cpu")
    seconds = options.seconds or 10.0 * len(cases)
    print(f"{options.suite} on {device}: {len(cases)} cases in about {seconds:.0f} s")
    print("microseconds a call: median (quartiles)")
    before = provenance("python -m bench", device)  # with the load that others make, not this
    results = run_suite(cases, Gpu() if device == "cuda" else Cpu(), seconds, _tell)
    _write(options.json, {**before, "suite": options.suite, "results": results})


def _tell(case: Case, result: dict[str, Any]) -> None:
    plan = result["plan"]
    lines = [f"{case}  [{plan.get('route') or ', '.join(plan['kernels'])}]"]
    for name, ways in result["us"].items():
        cells = "  ".join(f"{way} {t['median']:.1f} ({t['low']:.1f} - {t['high']:.1f})" for way, t in ways.items())
        lines.append(f"    {name:30} {cells}")
    say(*lines, *(f"    {name:30} absent: {why}" for name, why in result["absent"].items()))


def _recall(options: Any) -> None:
    from . import recall, texts

    if texts.missing():
        print(f"no scores of a language model: {texts.missing()}")
    found = {
        "shuffled": _told(recall.shuffled(options.samples, every=options.every)),
        "structured": _told(recall.structured()),
        "tasks": _told(recall.tasks()),
    }
    _write(options.json, {**provenance("python -m bench", "cpu"), **found})


def _told(rows: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = []
    for row in rows:
        print("  ".join(f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}"
                        for name, value in row.items()), flush=True)  # fmt: skip
        kept.append(row)
    return kept


def _static(options: Any) -> None:
    from . import nvrtc, static

    found = {"nvrtc": list(nvrtc.version()), "loops": _told(static.loops(tuple(options.architectures)))}
    found["usage"] = _told(static.all_usage())
    _write(options.json, {**provenance("python -m bench", "cpu"), **found})


def _host(options: Any) -> None:
    from . import host

    gpu, found = gpu_here(), []
    print("microseconds a call on the host: minimum, median, and the most that the project allows itself")
    for framework in host.measured(gpu, options.seconds, options.quick):
        print(f"\n{framework['suite']}: {framework.get('absent') or f'{host.SHAPE} float32, k = {host.K}'}")
        for name, timing in framework["us"].items():
            limit = framework["limits"].get(name)
            print(f"    {name:36}{timing['minimum']:8.1f}{timing['median']:8.1f}{f'{limit:8.0f}' if limit else ''}")
        found.append(framework)
    where = {"shape": host.SHAPE, "k": host.K}
    _write(options.json, {**provenance("python -m bench", "cuda" if gpu else "cpu"), **where, "host_cost": found})


def _router(options: Any) -> None:
    from . import router

    found = router.run(epochs=options.epochs, seeds=options.seeds)
    _write(options.json, {**provenance("python -m bench", "cpu"), "router": found})


def _pictures(options: Any) -> None:
    from . import pictures

    for path in pictures.draw(options.out):
        print(path)


def _report(options: Any) -> None:
    paths: Iterable[Path] = options.results or sorted(report.RESULTS.glob("*.json"))
    for path in progress(list(paths)):
        result = report.load(path)
        text = [f"# {path.stem}\n", report.tables(result)]
        text += [f"![{plot.stem}]({plot.name})\n" for plot in report.plots(result, options.out, path.stem)]
        target = options.out / f"{path.stem}.md"
        target.write_text("\n".join(text), encoding="utf-8")
        say(str(target))


def _write(path: Path | None, found: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
