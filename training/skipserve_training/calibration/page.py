"""Writes docs/calibration.md of the records of calibrations: `python -m ... RECORDS PAGE`."""

import json
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined

_ORDER = ("smolvqa", "smolvqa-patches", "demo")


def render(records: Path) -> str:
    """Return the page of a folder of records, MODEL.json each."""
    found = {path.stem: json.loads(path.read_text("utf-8")) for path in records.glob("*.json")}
    models = [
        {"name": f"calibration-{name}", "record": found[name]} for name in _ORDER if name in found
    ]
    environment = Environment(
        autoescape=False, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"percent": _percent, "reached": _reached, "interval": _interval}
    template = (files("skipserve_training.calibration") / "page.md.j2").read_text("utf-8")
    return environment.from_string(template).render(models=models)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _reached(found: Mapping[str, float]) -> str:
    return _spelt(found["accuracy"], found["low"], found["high"])


def _interval(found: Mapping[str, float] | None) -> str:
    return "" if found is None else _spelt(found["value"], found["low"], found["high"])


def _spelt(value: float, low: float, high: float) -> str:
    return f"{100 * value:.1f} % ({100 * low:.1f}-{100 * high:.1f})"


def main(arguments: list[str]) -> None:
    """Write the page."""
    records, page = map(Path, arguments)
    page.write_text(render(records), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
