"""What the pages on running it name is there: links, alerts, commands, files, settings, metrics."""

import re
import shlex
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from monitoring_files import ROOT, dashboards, recorded_from, rules
from prometheus_client import CollectorRegistry

from skipserve.api.asking_routes import router as asking_router
from skipserve.api.routes import router
from skipserve.engine.limits import EngineSpec
from skipserve.metrics.registry import ServerMetrics
from skipserve.settings import Settings
from skipserve_client.cli import app
from skipserve_policies.resolve import resolve
from skipserve_policies.schema import SkipPolicy

_DOCS = ROOT / "docs/operations"
_INCIDENTS = _DOCS / "incidents"
_DEPLOY = ROOT / "deploy"
_PAGES = sorted([*_DOCS.rglob("*.md"), *_DEPLOY.glob("*/README.md"), ROOT / "docs/docker.md"])
_NAMES = [str(page.relative_to(ROOT)) for page in _PAGES]

# Top folders whose files a page may name, and what the reader makes there.
_FOLDERS = ("deploy", "docs", "docker", "benchmarks", "policies", "tests")
_MADE = ("deploy/secrets", "deploy/compose.mine.yaml", "deploy/kubernetes/mine")
# Files and modules whose names look like metrics.
_FILES = {
    "skipserve_api_key",
    "skipserve_metrics_api_key",
    "skipserve_policies",
    "skipserve_dashboards",
}
# Flags of other programs, that a text names with them.
_OTHER_FLAGS = {"--revision", "--set", "--output", "--docs", "--build-arg", "--upgrade", "--user"}
# What a dashboard is made of.
_KINDS = ("panel", "row")
_ASSIGNMENT = re.compile(r"[A-Z_]+=\S+")

each_page = pytest.mark.parametrize("page", _PAGES, ids=_NAMES)


def _alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


@pytest.mark.fast
def test_each_alert_has_its_page_and_each_page_its_alert() -> None:
    alerts = {rule["alert"] for rule in _alerts()}
    pages = {path.stem for path in _INCIDENTS.glob("*.md")} - {"index"}
    listed = set(re.findall(r"\]\((\w+)\.md\)", (_INCIDENTS / "index.md").read_text()))

    assert alerts
    assert pages == alerts
    assert listed == alerts
    assert all((_INCIDENTS / f"{page}.md").read_text().startswith(f"# {page}\n") for page in pages)


@pytest.mark.fast
def test_alerts_name_their_page() -> None:
    for rule in _alerts():
        url = rule["annotations"]["runbook_url"]
        assert url.endswith(f"docs/operations/incidents/{rule['alert']}.md")


def _code(page: Path) -> Iterator[str]:
    """Yield what is typed or named in a page: lines of blocks, joined at backslashes, and words."""
    text = page.read_text()
    # Deeper ones are in lists.
    for block in re.findall(r"(?:^ {4}.*\n)+", text, re.MULTILINE):
        yield from block.replace("\\\n", " ").splitlines()
    prose = re.sub(r"^ {4}.*\n", "", text, flags=re.MULTILINE)
    yield from (code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", prose))


def _commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of each command, without variables that are set before it."""
    for line in _code(page):
        without_comment = re.sub(r"(^| )# .*", "", line)
        for part in re.split(r"&&|\|\|?|;|\bdo\b| &$|[<>]", without_comment):
            try:
                words = shlex.split(part)
            except ValueError:  # half of what is quoted
                words = part.split()
            while words and _ASSIGNMENT.fullmatch(words[0]):
                words.pop(0)
            if words:
                yield words


@lru_cache
def _flags(name: str) -> set[str]:
    """Return the flags of a subcommand, or of all in a group of them.

    Raises:
        AssertionError: there is no such subcommand.
    """
    group: Any = typer.main.get_command(app)
    command = group.get_command(None, name)
    assert command is not None, f"skipserve has no command {name}"
    commands = [command, *getattr(command, "commands", {}).values()]
    params = [it for each in commands for it in each.params]
    return {flag for it in params for flag in (*it.opts, *it.secondary_opts)}


@each_page
def test_commands_exist_with_their_flags(page: Path) -> None:
    for program, *words in _commands(page):
        if program == "skipserve" and words:
            flags = {word for word in words[1:] if word.startswith("--")}
            assert flags <= _flags(words[0]) | {"--help"}, (page.name, words)


@each_page
def test_flags_on_their_own_are_those_of_serve(page: Path) -> None:
    alone = {words[0] for words in _commands(page) if words[0].startswith("--")}

    assert alone - _OTHER_FLAGS <= _flags("serve")


def test_many_commands_are_looked_at() -> None:
    found = [words[:2] for page in _PAGES for words in _commands(page)]
    subcommands = {words[1] for words in found if words[0] == "skipserve" and len(words) > 1}

    known = {"ask", "calibrate", "policies", "flops", "evaluate", "load", "serve", "keys"}
    assert subcommands == known


@each_page
def test_files_exist(page: Path) -> None:
    for words in _commands(page):
        for word in words:
            if word.startswith(tuple(f"{name}/" for name in _FOLDERS)):
                is_made = word.startswith(_MADE)
                pattern = re.sub(r"\{.*?\}", "*", word).rstrip("/")
                assert is_made or any(ROOT.glob(pattern)), (page.name, word)


@each_page
def test_make_targets_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()

    for words in _commands(page):
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), words


@each_page
def test_variables_are_settings(page: Path) -> None:
    compose = "".join(path.read_text() for path in _DEPLOY.glob("compose*.yaml"))
    known = {f"SKIPSERVE_{name.upper()}" for name in Settings.model_fields}
    known |= set(re.findall(r"\$\{(SKIPSERVE_[A-Z_]+)", compose))

    assert set(re.findall(r"SKIPSERVE_[A-Z_]+", page.read_text())) <= known


@each_page
def test_key_files_are_those_that_prometheus_reads(page: Path) -> None:
    (job,) = yaml.safe_load((_DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    named = set(re.findall(r"/run/secrets/\w+", page.read_text()))

    assert named <= {job["authorization"]["credentials_file"]}


@each_page
def test_metrics_exist(page: Path) -> None:
    named = set(re.findall(r"(?<![\w:.])skipserve_[a-z_]+(?![\w:]*[:.])", page.read_text()))

    assert named - _FILES <= _metrics()


@lru_cache
def _metrics() -> frozenset[str]:
    """Return the names of the server's metrics, as they are written in queries."""
    registry = CollectorRegistry()
    ServerMetrics(registry, "demo", [])
    return frozenset(
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in registry.collect()
    )


@each_page
def test_recorded_series_exist(page: Path) -> None:
    for name in re.findall(r"\bmodel\w*:\w+:\w+", page.read_text()):
        assert name in recorded_from(), name


@each_page
def test_cluster_objects_exist(page: Path) -> None:
    manifests = [
        manifest
        for path in (_DEPLOY / "kubernetes").rglob("*.yaml")
        for manifest in yaml.safe_load_all(path.read_text())
        if manifest and "metadata" in manifest
    ]
    known = {f"{it['kind'].lower()}/{it['metadata']['name']}" for it in manifests}

    named = set(re.findall(r"\b(?:deployment|service|job|secret)/[a-z0-9-]+", page.read_text()))
    assert named - {"service/kube-prometheus-stack-grafana"} <= known


def _clues(kind: str) -> list[tuple[str, str]]:
    """Return page and text of the rows "look at" of one kind, over all incident pages."""
    row = re.compile(rf"^\| {kind} \| `?(.*?)`? \| .+ \|$", re.MULTILINE)
    return [
        (page.name, text)
        for page in sorted(_INCIDENTS.glob("*.md"))
        for text in row.findall(page.read_text())
    ]


@pytest.mark.parametrize("kind", _KINDS)
def test_panels_and_rows_exist(kind: str) -> None:
    clues = _clues(kind)

    assert clues
    for page, clue in clues:
        board, _, title = clue.partition(": ")
        assert title in _titles(board, kind), (page, clue)


@each_page
def test_panels_in_texts_exist(page: Path) -> None:
    """Panels and rows are set in italics; nothing else of two words or a capital is."""
    prose = re.sub(r"^ {4}.*\n", "", page.read_text(), flags=re.MULTILINE)
    boards = ("overview", "policies")
    titles = {title for board in boards for kind in _KINDS for title in _titles(board, kind)}

    for name in re.findall(r"(?<![*\w])\*([A-Z][^*\n]+)\*(?!\*)", prose):
        assert name in titles, name


@lru_cache
def _titles(board: str, kind: str) -> set[str]:
    """Return what the panels, or the rows, of a dashboard are called."""
    everything = dashboards()[f"{board}.json"]["panels"]
    return {panel["title"] for panel in everything if (panel["type"] == "row") == (kind == "row")}


def test_metrics_to_look_at_exist() -> None:
    clues = _clues("metric")

    assert clues
    for page, clue in clues:
        is_known = clue in _metrics() or clue in {"up", "process_start_time_seconds"}
        assert is_known, (page, clue)


def test_lines_of_the_log_are_written_somewhere() -> None:
    sources = [path.read_text() for path in (ROOT / "server/skipserve").rglob("*.py")]
    clues = _clues("log")

    assert clues
    for page, clue in clues:
        assert any(clue in source for source in sources), (page, clue)
    all_routes = (*router.routes, *asking_router.routes)
    routes = {route.path for route in all_routes}  # type: ignore[attr-defined]
    assert {clue.split()[1] for _, clue in _clues("access log")} <= routes


def test_every_incident_page_has_its_parts() -> None:
    for page in _INCIDENTS.glob("*.md"):
        parts = ("**What it means.**", "| look at | |", "**What to do", "**How to confirm.**")
        missing = [part for part in parts if part not in page.read_text()]
        assert not missing or page.name == "index.md", (page.name, missing)


def test_times_are_the_servers() -> None:
    page = (_INCIDENTS / "EngineDown.md").read_text()

    assert set(re.findall(r"(\d{3,}) s\b", page)) == {f"{EngineSpec.load_seconds:.0f}"}


def test_the_policy_of_the_rollout_fits_the_7b_model() -> None:
    (block,) = re.findall(r"(?:^    .*\n)*^    ours:\n(?:^    .*\n)*", _rollout(), re.MULTILINE)
    ((name, stanza),) = yaml.safe_load(block).items()

    assert resolve(name, SkipPolicy.model_validate(stanza), 32).plan.num_layers == 32


def _rollout() -> str:
    return (_DOCS / "rollout.md").read_text()
