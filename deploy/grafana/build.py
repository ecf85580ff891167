"""`python deploy/grafana/build.py` writes the dashboards' JSON, which Grafana reads."""

import argparse
from pathlib import Path

from skipserve_dashboards.comparison import COMPARISON
from skipserve_dashboards.layout import render
from skipserve_dashboards.overview import OVERVIEW

BOARDS = {"overview.json": OVERVIEW, "policies.json": COMPARISON}
_OUTPUT = Path(__file__).with_name("dashboards")


def main() -> None:
    """Write all dashboards."""
    parser = argparse.ArgumentParser(description="Write the dashboards' JSON.")
    parser.add_argument("--output", type=Path, default=_OUTPUT, help="a folder")
    parser.add_argument("--docs", default="docs", help="where the folder docs is read: a URL")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, board in BOARDS.items():
        (arguments.output / name).write_text(render(board, arguments.docs.rstrip("/")))


if __name__ == "__main__":
    main()
