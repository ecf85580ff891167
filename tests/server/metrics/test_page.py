"""The page about the metrics says what there is."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from skipserve.metrics.page import page
from skipserve.metrics.registry import ServerMetrics

pytestmark = pytest.mark.fast

FILE = Path(__file__).parents[3] / "docs/metrics.md"


def test_the_page_is_up_to_date() -> None:
    assert FILE.read_text() == page(), "python -m skipserve.metrics.page > docs/metrics.md"


def test_each_metric_has_its_row() -> None:
    registry = CollectorRegistry()
    ServerMetrics(registry, "tiny", ())
    names = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in registry.collect()
    }
    rows = [line.split("`")[1] for line in page().splitlines() if line.startswith("| `")]
    assert names <= set(rows)
    told = [row for row in rows if row.startswith(("skipserve_", "process_"))]
    assert len(told) == len(set(told)) == len(names)
