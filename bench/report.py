"""Tables and plots from committed JSON, and from nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "load", "plots", "tables"]

RESULTS = Path(__file__).resolve().parent / "results"
Report = dict[str, Any]


def load(path: Path) -> Report:
    """Read one result.

    Raises
    ------
    FileNotFoundError
        When it is missing: there is no figure without one.
    """
    report: Report = json.loads(path.read_text(encoding="utf-8"))
    return report


# ---- Tables ---------------------------------------------------------------------------------------------------


def tables(report: Report) -> str:
    """Everything a result says, as Markdown."""
    device = report["device"]["name"]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    load = report["host"].get("load")
    busy = "" if load is None else f" (load {load} on {report['host']['threads']} threads before)"
    parts = [f"`{report['command']}`, {report['date']}, on {device}{busy}, commit {report['commit']}; {versions}.\n"]
    if "suite" in report:
        parts.append(_times(report["results"]))
    parts += [_host_cost(framework) for framework in report.get("host_cost", []) if framework["us"]]
    if "router" in report:
        parts.append(_trainings(report["router"]))
    for name, what in (
        ("loops", "Hot loops: instructions an element against the issue budget at full bandwidth"),
        ("usage", "All common variants: the worst of each kernel"),
        ("shuffled", "Random rows: predicted and measured recall"),
        ("structured", "Rows with an order of their own"),
        ("tasks", "What the loss of recall costs"),
    ):
        if report.get(name):
            parts.append(f"{what}:\n\n{_table(report[name])}")
    return "\n".join(parts)


def case_name(case: dict[str, Any]) -> str:
    from .case import case_of

    return str(case_of(case))


def best(result: Report, name: str, way: str = "") -> float | None:
    """Microseconds of a contender: the median of its best cold way."""
    ways = result["us"].get(name, {})
    found = [t["median"] for w, t in ways.items() if (w == way if way else w != "warm")]
    return min(found) if found else None


def _times(results: list[Report]) -> str:
    names = list(dict.fromkeys(name for result in results for name in result["us"]))
    routes = [result["plan"]["route"] for result in results if "route" in result["plan"]]
    head = ["case", *(["route"] if routes else []), *names]
    rows = []
    for at, result in enumerate(results):
        times = [best(result, name) for name in names]
        rows.append([case_name(result["case"]), *routes[at : at + 1], *map(_number, times)])
    return f"Microseconds a call, median, inputs cold:\n\n{_markdown(head, rows)}"


def _host_cost(framework: Report) -> str:
    head = ["call", "minimum", "median", "allowed"]
    rows = [[name, _number(t["minimum"]), _number(t["median"]), _number(framework["limits"].get(name))]
            for name, t in framework["us"].items()]  # fmt: skip
    return f"{framework['suite']}, microseconds on the host:\n\n{_markdown(head, rows)}"


def _trainings(router: Report) -> str:
    rows = [{name: value for name, value in one.items() if not isinstance(value, list)} for one in router["results"]]
    return f"{router['experts']} experts, {router['k']} for each image, {router['epochs']} epochs:\n\n{_table(rows)}"


def _table(rows: list[Report]) -> str:
    head = list(rows[0])
    return _markdown(head, [[_number(row[name]) for name in head] for row in rows])


def _markdown(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def _number(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 2 else f"{value:.1f}" if value < 1000 else f"{value:,.0f}"
    return str(value)


# ---- Plots ----------------------------------------------------------------------------------------------------


def plots(report: Report, folder: Path, stem: str) -> list[Path]:
    """Write the plots that a result has the figures for, as PNG; return their paths."""
    made = []
    for name, draw in _PLOTS.items():
        figure = draw(report)
        if figure is not None:
            path = folder / f"{stem}-{name}.png"
            figure.savefig(path, dpi=120, bbox_inches="tight", metadata={"Software": None})
            made.append(path)
    return made


def _figure(report: Report, title: str, xlabel: str, ylabel: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.5))
    axes = figure.add_subplot()
    axes.set_title(f"{title}\n{report['device']['name']}, {report['date'][:10]}", fontsize=10)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(True, which="both", alpha=0.25)
    return figure, axes


def _bandwidth(report: Report) -> Any:
    """Input bytes a second against n, beside every peer and the bound."""
    results = [r for r in report.get("results", []) if report.get("suite") == "figure1" and r["case"]["k"] == 64]
    results = [r for r in results if r["case"]["dtype"] == "float32"]
    if not results:
        return None
    figure, axes = _figure(report, "128 rows of float32, k = 64", "n", "input read, GB/s")
    for recall in (0.95, 1.0):
        some = [r for r in results if r["case"]["recall"] == recall]
        names = list(dict.fromkeys(name for r in some for name in r["us"]))
        for name in names:
            ours = name.startswith("approxtopk")
            if name == "approxtopk, prepared" or (recall != 1.0 and not ours):
                continue
            points = [(r["case"]["n"], r["bytes"]["read"] / best(r, name) / 1e3) for r in some if best(r, name)]
            label = f"{name}, {'exact' if recall == 1 else f'recall {recall:g}'}" if ours else name
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, lw=2 if ours else 1, label=label)
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7)
    return figure


def _contenders(report: Report) -> Any:
    """Time of every contender, relative to ours, case by case."""
    if report.get("suite") not in ("cpu", "quick", "soft", "soft-cpu", "rank", "rank-cpu") or not report["results"]:
        return None
    results = report["results"]
    names = [n for n in dict.fromkeys(name for r in results for name in r["us"]) if n != "approxtopk, prepared"]
    figure, axes = _figure(report, "Time of a call", "microseconds, median", "")
    height = 0.8 / len(names)
    for at, name in enumerate(names):
        times = [best(r, name) for r in results]
        where = [row + at * height for row, t in enumerate(times) if t]
        axes.barh(where, [t for t in times if t], height, label=name)
    axes.set_xscale("log")
    axes.set_yticks([row + 0.4 - height / 2 for row in range(len(results))])
    axes.set_yticklabels([case_name(r["case"]) for r in results], fontsize=7)
    axes.invert_yaxis()
    # Bars of all lengths leave no room for names, but in the first suite's.
    beside = {} if report["suite"] in ("cpu", "quick") else {"loc": "upper left", "bbox_to_anchor": (1, 1)}
    axes.legend(fontsize=7, **beside)
    figure.set_size_inches(8, 1 + 0.5 * len(results))
    return figure


def _pareto(report: Report) -> Any:
    """Expected recall against the speed-up over the best exact peer."""
    if report.get("suite") != "pareto":
        return None
    figure, axes = _figure(report, "128 x 2^20 float32", "expected recall", "times as fast as the best exact answer")
    for k in sorted({r["case"]["k"] for r in report["results"]}):
        some = [r for r in report["results"] if r["case"]["k"] == k]
        exact = [t for r in some if r["plan"]["route"] == "exact" for name in r["us"]
                 if not name.startswith(("copy", "read", "torch.max")) and (t := best(r, name))]  # fmt: skip
        for kept in sorted({r["plan"]["k_per_bucket"] for r in some if r["plan"]["k_per_bucket"]}):
            own = [r for r in some if r["plan"]["k_per_bucket"] == kept]
            points = [(r["plan"]["expected_recall"], min(exact) / t) for r in own if (t := best(r, "approxtopk"))]
            axes.plot(*zip(*sorted(points), strict=True), marker="o", markersize=3, label=f"k = {k}, k_b = {kept}")
    axes.axhline(1, color="black", lw=0.8)
    axes.legend(fontsize=7)
    return figure


def _against_k(report: Report) -> Any:
    """Time against k, for the shape of the suite with most of them."""
    if report.get("suite") != "exact":
        return None
    results = [r for r in report["results"] if r["case"]["dtype"] == "float32"]
    rows, n = max({(r["case"]["rows"], r["case"]["n"]) for r in results}, key=lambda shape: shape[0] * shape[1])
    some = [r for r in results if (r["case"]["rows"], r["case"]["n"]) == (rows, n)]
    figure, axes = _figure(report, f"{rows} x {n} float32, exact", "k", "microseconds, median")
    for name in dict.fromkeys(name for r in some for name in r["us"]):
        points = [(r["case"]["k"], time) for r in some if (time := best(r, name))]
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.legend(fontsize=7)
    return figure


def _roofline(report: Report) -> Any:
    """Instructions of the hot loops against the budget at full bandwidth."""
    rows = [r for r in report.get("loops", []) if r["architecture"] == "sm_90" and r["mode"] == "largest"]
    if not rows:
        return None
    figure, axes = _figure(report, "", "", "share of the issue budget at full bandwidth")
    version = ".".join(map(str, report["nvrtc"]))
    axes.set_title(f"Hot loops on sm_90, by the machine code: compiled, not run\nNVRTC {version}", fontsize=10)
    dtypes = list(dict.fromkeys(r["dtype"] for r in rows))
    kinds = [None, 1, 2, 4, 8]
    for at, kept in enumerate(kinds):
        loads = [next(r["load"] for r in rows if r["dtype"] == dtype and r["k_per_bucket"] == kept) for dtype in dtypes]
        label = "exact, filter" if kept is None else f"buckets, k_b = {kept}"
        axes.bar([i + at / (len(kinds) + 1) for i in range(len(dtypes))], loads, 1 / (len(kinds) + 1), label=label)
    axes.axhline(1, color="black", lw=0.8)
    axes.text(len(dtypes) - 0.3, 1, "memory", fontsize=7, ha="right", va="bottom")
    axes.set_xticks([i + 0.33 for i in range(len(dtypes))])
    axes.set_xticklabels(dtypes, fontsize=8)
    axes.legend(fontsize=7)
    return figure


def _recall(report: Report) -> Any:
    """Predicted against measured recall."""
    rows = report.get("shuffled")
    if not rows:
        return None
    figure, axes = _figure(report, "Recall on random rows", "predicted", "measured - predicted, points")
    for planned, label in ((False, "named (b, k_b)"), (True, "planned for a target")):
        some = [r for r in rows if (r["recall_target"] is not None) == planned]
        axes.errorbar(
            [r["predicted"] for r in some],
            [100 * (r["measured"] - r["predicted"]) for r in some],
            [200 * r["error"] for r in some],
            fmt="o", markersize=3, lw=1, label=f"{label}, with two standard errors",
        )  # fmt: skip
    axes.axhline(0, color="black", lw=0.8)
    axes.margins(y=0.25)
    axes.legend(fontsize=8, loc="upper right")
    return figure


def _tasks(report: Report) -> Any:
    """The score of each task against recall."""
    rows = report.get("tasks")
    if not rows:
        return None
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(r["task"] for r in rows))
    figure = Figure(figsize=(4.5 * len(names), 3.6))
    for at, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), at + 1)
        some = sorted((r["recall"], r["score"]) for r in rows if r["task"] == name)
        axes.plot(*zip(*some, strict=True), marker="o")
        axes.set_xlabel("recall")
        axes.set_title(name, fontsize=9)
        axes.set_ylim(0, 1.1 * max(score for _, score in some))
        axes.grid(True, alpha=0.25)
    return figure


_PLOTS: dict[str, Callable[[Report], Any]] = {
    "bandwidth": _bandwidth,
    "time": _contenders,
    "pareto": _pareto,
    "k": _against_k,
    "roofline": _roofline,
    "recall": _recall,
    "tasks": _tasks,
}
