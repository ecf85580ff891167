"""What dashboards and rules name exists, and what the server tells is looked at by someone."""

import pytest
from monitoring_files import (
    all_expressions,
    documented_metrics,
    family,
    panel_expressions,
    recorded_from,
    rule_expressions,
)

pytestmark = pytest.mark.fast

# What the server tells and no panel shows, and why.
NOT_SHOWN = {
    "process_virtual_memory_bytes": "resident memory says what is used",
    "skipserve_engine_process_virtual_memory_bytes": "resident memory says what is used",
}


def test_every_metric_that_is_named_exists() -> None:
    known = documented_metrics() | set(recorded_from())
    missing = {
        f"{expression.place}: {metric}"
        for expression in all_expressions()
        for metric in expression.metrics
        if not {metric, family(metric)} & known
    }
    assert not missing


def test_every_metric_is_shown_or_listed() -> None:
    shown = {metric for expression in panel_expressions() for metric in expression.metrics}
    # What a panel shows of a recorded series is the metrics that it is made of.
    for name, made_of in recorded_from().items():
        shown |= made_of if name in shown else set()
    assert documented_metrics() - set(map(family, shown)) == set(NOT_SHOWN)


def test_every_recorded_series_is_read() -> None:
    read = {
        metric
        for expression in (*panel_expressions(), *rule_expressions())
        for metric in expression.metrics
    }
    assert set(recorded_from()) <= read
