"""Reads what is shipped for Prometheus and Grafana: every expression, and the metrics it names."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from skipserve.metrics.metric import declared
from skipserve.metrics.table import Metrics, ProcessMetrics

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"

# In PromQL every word that is a metric of ours begins so; recorded ones have colons.
_METRIC = re.compile(r"\b(?:skipserve|process)_[a-z0-9_]+\b")
_RECORDED = re.compile(r"\b[a-z_]+:[a-z0-9_]+:[a-z0-9_]+\b")
_PARTS_OF_HISTOGRAMS = ("_bucket", "_sum", "_count")


@dataclass(frozen=True)
class Expression:
    """One expression, and where it stands.

    Attributes:
        place: file and title, for messages.
        text: in PromQL; that of a panel has Grafana's variables.
        legend: how its series are called on a panel, or what an alert says of them; `{{label}}`
            stands for a label's value.
    """

    place: str
    text: str
    legend: str = ""

    @property
    def labels(self) -> set[str]:
        """The labels that its legend names."""
        return set(re.findall(r"{{(\w+)}}", self.legend))

    @property
    def selectors(self) -> list[str]:
        """What stands in braces after its metrics."""
        return re.findall(r"{([^}]*)}", self.text)

    @property
    def metrics(self) -> set[str]:
        """The metrics that it names, raw and recorded."""
        recorded = set(_RECORDED.findall(self.text))
        return recorded | set(_METRIC.findall(_RECORDED.sub("", self.text)))


@cache
def dashboards() -> dict[str, dict[str, Any]]:
    """Return the dashboards by file name."""
    return {
        path.name: json.loads(path.read_text())
        for path in sorted((GRAFANA / "dashboards").glob("*.json"))
    }


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a dashboard's panels without its rows."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def panel_expressions() -> Iterator[Expression]:
    """Yield what the panels ask, and the annotations."""
    for name, dashboard in dashboards().items():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                place = f"{name}: {panel['title']}"
                yield Expression(place, target["expr"], target.get("legendFormat", ""))
        for annotation in dashboard["annotations"]["list"]:
            yield Expression(f"{name}: annotations", annotation["expr"])


def variable_expressions() -> Iterator[Expression]:
    """Yield what the variables list: the selector of each `label_values`."""
    for name, dashboard in dashboards().items():
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
                assert found, variable["query"]
                selector, label = found.groups()
                yield Expression(f"{name}: ${variable['name']}", selector, f"{{{{{label}}}}}")


@cache
def rules() -> list[dict[str, Any]]:
    """Return all rules, of recordings and alerts."""
    return [
        rule
        for path in sorted((PROMETHEUS / "rules").glob("*.yml"))
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]


def rule_expressions() -> Iterator[Expression]:
    """Yield what the rules compute or compare."""
    for rule in rules():
        labels = rule.get("labels", {})
        which = labels.get("cause") or labels.get("burn") or ""
        notes = " ".join(rule.get("annotations", {}).values())
        legend = " ".join(f"{{{{{label}}}}}" for label in re.findall(r"\$labels\.(\w+)", notes))
        place = f"{rule.get('record') or rule['alert']} {which}".strip()
        yield Expression(place, rule["expr"], legend)


def all_expressions() -> list[Expression]:
    """Return the expressions of panels, variables and rules."""
    return [*panel_expressions(), *variable_expressions(), *rule_expressions()]


def recorded_from() -> dict[str, set[str]]:
    """Return the metrics that each recorded series is made of."""
    return {
        rule["record"]: Expression("", rule["expr"]).metrics for rule in rules() if "record" in rule
    }


def family(metric: str) -> str:
    """Return the metric that a sample belongs to: a histogram's samples have names of their own."""
    for part in _PARTS_OF_HISTOGRAMS:
        metric = metric.removesuffix(part)
    return metric


def documented_metrics() -> set[str]:
    """Return the metrics that the server tells, as its page about them lists them."""
    told = {metric.name for table in (Metrics, ProcessMetrics) for metric in declared(table)}
    # Those of the engine's process are those of the front end's, with a prefix.
    return told | {f"skipserve_engine_{metric.name}" for metric in declared(ProcessMetrics)}
