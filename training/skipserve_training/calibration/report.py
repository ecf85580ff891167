"""Writes what a calibration found into a folder: a page, its pictures, and the record."""

import base64
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from skipserve_training.calibration.calibrating import Calibration
from skipserve_training.calibration.plots import FRONTIER, LAYERS, draw_all
from skipserve_training.calibration.record import record_json

RECORD, PAGE = "record.json", "report.html"
_PACKAGE = "skipserve_training.calibration"


def write_report(calibration: Calibration, notes: list[str], folder: Path) -> Path:
    """Write the report; returns the page. It shows its pictures by itself, from anywhere.

    Args:
        calibration: what was found.
        notes: what a reader must know of it.
        folder: an existing one.
    """
    record = record_json(calibration)
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    draw_all(calibration, folder)
    page = folder / PAGE
    page.write_text(_render(calibration, record, notes, folder), "utf-8")
    return page


def _render(
    calibration: Calibration, record: dict[str, Any], notes: list[str], folder: Path
) -> str:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = _percent
    environment.filters["rules"] = lambda rules: json.dumps(rules, ensure_ascii=False)
    template = environment.from_string((files(_PACKAGE) / "report.html.j2").read_text("utf-8"))
    return template.render(
        it=calibration,
        record=record,
        notes=notes,
        frontier=_data_uri(folder / FRONTIER),
        layers=_data_uri(folder / LAYERS),
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _data_uri(picture: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
