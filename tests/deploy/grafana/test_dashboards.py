"""The dashboards are up to date, and whoever reads them finds what is needed to understand them."""

import itertools
import re
from typing import Any

import build
import pytest
import yaml
from monitoring_files import (
    GRAFANA,
    ROOT,
    dashboards,
    panel_expressions,
    panels,
    rules,
    variable_expressions,
)
from skipserve_dashboards.layout import render

pytestmark = pytest.mark.fast

PANELS = [(name, panel) for name, board in dashboards().items() for panel in panels(board)]
by_panel = pytest.mark.parametrize(
    ("name", "panel"), PANELS, ids=[f"{name}-{panel['title']}" for name, panel in PANELS]
)


def test_the_files_are_what_the_code_makes() -> None:
    made = {name: render(board, "docs") for name, board in build.BOARDS.items()}
    shipped = {path.name: path.read_text() for path in (GRAFANA / "dashboards").iterdir()}
    assert shipped == made, "run: python deploy/grafana/build.py"


def test_the_command_takes_a_folder_and_an_address(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["build.py", "--output", str(tmp_path / "new"), "--docs", "https://wiki/docs/"]
    monkeypatch.setattr("sys.argv", arguments)
    build.main()
    assert {path.name for path in (tmp_path / "new").iterdir()} == set(build.BOARDS)
    text = (tmp_path / "new" / "overview.json").read_text()
    assert '"https://wiki/docs/operations/incidents/EngineDown.md"' in text


@by_panel
def test_a_panel_explains_itself(name: str, panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    assert panel["datasource"]["uid"] == "${datasource}"
    colours = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
    assert colours[0] is None
    assert colours[1:] == sorted(colours[1:])


@by_panel
def test_what_is_no_line_is_of_this_moment(name: str, panel: dict[str, Any]) -> None:
    """Else a server that is gone would be shown as it was when it was last seen."""
    is_line = panel["type"] == "timeseries"
    for target in panel["targets"]:
        assert (target.get("range", False), target.get("instant", False)) == (is_line, not is_line)


@by_panel
def test_variables_exist(name: str, panel: dict[str, Any]) -> None:
    known = {variable["name"] for variable in dashboards()[name]["templating"]["list"]}
    used = {word for it in panel["targets"] for word in re.findall(r"\$(\w+)", it["expr"])}
    assert used <= known | {"__rate_interval", "__range"}


def test_everything_shown_is_of_the_namespaces_that_were_chosen() -> None:
    for expression in (*panel_expressions(), *variable_expressions()):
        if not expression.place.endswith(": $namespace"):
            for metric in expression.metrics:
                assert not re.search(rf"\b{metric}(?![\w:{{])", expression.text), expression
            assert expression.selectors
            for selector in expression.selectors:
                assert 'namespace=~"$namespace' in selector, expression


def test_panels_link_to_the_pages_of_alerts_that_exist() -> None:
    alerts = {rule["alert"] for rule in rules() if "alert" in rule}
    linked = {link["url"] for _, panel in PANELS for link in panel.get("links", [])}
    assert linked == {f"docs/operations/incidents/{alert}.md" for alert in alerts}


@pytest.mark.parametrize("name", dashboards())
def test_panels_do_not_overlap(name: str) -> None:
    everything = dashboards()[name]["panels"]
    ids = [panel["id"] for panel in everything]
    assert len(set(ids)) == len(ids)
    for one, other in itertools.combinations([panel["gridPos"] for panel in everything], 2):
        is_apart_in_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        is_apart_in_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert is_apart_in_x or is_apart_in_y, (one, other)


def test_what_is_provisioned_fits_together() -> None:
    provisioning = GRAFANA / "provisioning"
    sources = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())
    (source,) = sources["datasources"]
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
    boards = yaml.safe_load((provisioning / "dashboards" / "skipserve.yaml").read_text())
    assert [provider["type"] for provider in boards["providers"]] == ["file"]
