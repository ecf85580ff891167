"""The rules hold together, fire when they should, and each alert says what to do."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from monitoring_files import PROMETHEUS, rules
from prometheus_process import program

ALERTS = [rule for rule in rules() if "alert" in rule]
UNIT_TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))


def _promtool(*arguments: str | Path) -> None:
    command = [program("promtool"), *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.fast
def test_the_rules_are_sound() -> None:
    _promtool("check", "rules", *(PROMETHEUS / "rules").glob("*.yml"))


@pytest.mark.fast
def test_the_configuration_is_sound() -> None:
    # The key's file is on the machine where it runs.
    _promtool("check", "config", "--syntax-only", PROMETHEUS / "prometheus.yml")


@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.stem)
def test_the_rules_do_what_their_tests_say(path: Path) -> None:
    _promtool("test", "rules", path)


@pytest.mark.fast
def test_every_alert_is_seen_to_fire_and_not_to_fire_on_the_same_series() -> None:
    cases = [case for path in UNIT_TESTS for case in yaml.safe_load(path.read_text())["tests"]]
    for rule in ALERTS:
        seen = [_fires(rule, case) for case in cases]
        assert {True, False} in seen, (rule["alert"], rule["labels"])


def _fires(rule: dict[str, Any], case: dict[str, Any]) -> set[bool]:
    """Return what the checks of a case say of a rule: it fires, it does not, or both in turn."""
    return {
        any(rule["labels"].items() <= alert["exp_labels"].items() for alert in check["exp_alerts"])
        for check in case.get("alert_rule_test", [])
        if check["alertname"] == rule["alert"]
    }


@pytest.mark.fast
def test_every_alert_says_what_is_wrong_and_what_to_do() -> None:
    for rule in ALERTS:
        notes = rule["annotations"]
        assert set(notes) == {"summary", "description", "runbook_url"}
        assert notes["runbook_url"] == f"docs/operations/incidents/{rule['alert']}.md"
        assert rule["labels"]["service"] == "skipserve"
        assert rule["labels"]["severity"] in {"page", "ticket"}


@pytest.mark.fast
def test_recorded_names_say_level_metric_and_operation() -> None:
    for rule in rules():
        if name := rule.get("record"):
            level, metric, operation = name.split(":")
            assert level in {"replica", "model", "model_policy"}
            assert metric.startswith(("skipserve_", "process_"))
            assert operation
