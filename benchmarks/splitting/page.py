"""Writes docs/time-and-flops.md of a record: `make time-page`."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from report import RESULTS, format_value, origin
from splitting.figures import Policies, compare, from_record, sentence
from splitting.parts import MEANING, Part, Stage

RECORD = RESULTS / "time_split.json"
PAGE = Path(__file__).parents[2] / "docs/time-and-flops.md"

_TITLES = {
    Stage.PROMPT: "the step that computes the prompts",
    Stage.DECODE: "a step in which all requests decode",
}


def render(record: Mapping[str, Any]) -> str:
    """Return the page of a record."""
    return "\n".join(_lines(record)) + "\n"


def write_page(record: Path = RECORD, page: Path = PAGE) -> None:
    """Write the page of a record."""
    page.write_text(render(json.loads(record.read_text("utf-8"))), "utf-8")


def _lines(record: Mapping[str, Any]) -> Iterator[str]:
    yield "placeholder"


if __name__ == "__main__":
    write_page(*map(Path, sys.argv[1:]))
