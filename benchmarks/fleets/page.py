"""Writes docs/placing.md and its picture from a record of simulations."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

_ROOT = Path(__file__).parents[2]
RECORD = _ROOT / "benchmarks/results/fleet.json"
PAGE = _ROOT / "docs/placing.md"
_PICTURE = "placing.svg"
_ONE = "closed/1/placed"
_TEMPLATE = Path(__file__).with_name("page_template.md")


def main() -> None:
    """Write the page and its picture."""
    record: dict[str, Any] = json.loads(RECORD.read_text("utf-8"))
    PAGE.write_text(page(record), "utf-8")
    _draw(record, PAGE.with_name(_PICTURE))


def page(record: Mapping[str, Any]) -> str:
    """Return the page."""
    terms, setup, runs = record["terms"], record["setup"], record["runs"]
    return _TEMPLATE.read_text("utf-8").format(
        **setup,
        source=terms["source"],
        seconds="\n".join(
            f"| {name} | " + " | ".join(f"{by[it]:.2f}" for it in by) + " |"
            for name, by in terms["seconds"].items()
        ),
        together=len(terms["speeds"]),
        speed=f"{terms['speeds'][-1]:.2f}",
        num_features=terms["num_features"],
        num_pages=terms["num_pages"],
        closed=_table(runs, "closed", ("over N", "pages warm", "spilled", "p99")),
        open=_table(runs, "open", ("p50", "p99", "pages warm", "gone on", "failed")),
    )


def _table(runs: Mapping[str, Any], kind: str, columns: tuple[str, ...]) -> str:
    lines = [f"| N | way | {' | '.join(columns)} |", "|---:|---|" + "---:|" * len(columns)]
    for size, way, run in _of(runs, kind):
        shown = _shown(run, size, runs[_ONE]["requests_per_second"])
        lines.append(f"| {size} | {way} | " + " | ".join(shown[it] for it in columns) + " |")
    return "\n".join(lines)


def _of(runs: Mapping[str, Any], kind: str) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    for key, run in sorted(runs.items(), key=lambda it: int(it[0].split("/")[1])):
        of, size, way = key.split("/", 2)
        if of == kind and key != _ONE:
            yield int(size), way, run


def _shown(run: Mapping[str, Any], size: int, one: float) -> dict[str, str]:
    return {
        "over N": f"{run['requests_per_second'] / size / one:.3f}",
        "pages warm": f"{100 * run['warm']['pages']:.0f} %",
        "spilled": f"{100 * run['spilled']:.0f} %",
        "p50": f"{run['p50_seconds']:.1f} s",
        "p99": f"{run['p99_seconds']:.1f} s",
        "gone on": str(run["lost"]),
        "failed": str(run["failed"]),
    }


def _draw(record: Mapping[str, Any], file: Path) -> None:
    runs = record["runs"]
    one = runs[_ONE]["requests_per_second"]
    found = [(size, way, run) for size, way, run in _of(runs, "closed")]
    ways = list(dict.fromkeys(way for _, way, _ in found))
    sizes = list(dict.fromkeys(size for size, _, _ in found))
    with mpl.rc_context({"svg.hashsalt": "placing", "font.size": 9}):
        figure = Figure(figsize=(7.5, 3.2), layout="constrained")
        axes = figure.subplots()
        for place, way in enumerate(ways):
            values = {
                size: run["requests_per_second"] / size / one
                for size, it, run in found
                if it == way
            }
            left = [index + (place - len(ways) / 2 + 0.5) * 0.13 for index in range(len(sizes))]
            axes.bar(left, [values.get(size, 0.0) for size in sizes], 0.12, label=way)
        axes.axhline(1.0, color="black", linewidth=0.8)
        axes.set_xticks(range(len(sizes)), [f"N = {size}" for size in sizes])
        axes.set_ylabel("throughput over N")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        figure.savefig(file, metadata={"Date": None})
