"""The rules hold together, fire when they should, and each alert says what to do."""

import subprocess
from pathlib import Path

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


def test_the_rules_do_what_their_tests_say() -> None:
    _promtool("test", "rules", *UNIT_TESTS)


@pytest.mark.fast
def test_every_alert_is_seen_to_fire_and_not_to_fire() -> None:
    checks = [
        check
        for path in UNIT_TESTS
        for case in yaml.safe_load(path.read_text())["tests"]
        for check in case.get("alert_rule_test", [])
    ]
    silent = {check["alertname"] for check in checks if not check["exp_alerts"]}
    fired = [alert["exp_labels"] for check in checks for alert in check["exp_alerts"]]
    for rule in ALERTS:
        assert rule["alert"] in silent, rule["alert"]
        assert any(rule["labels"].items() <= labels.items() for labels in fired), rule["alert"]


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
