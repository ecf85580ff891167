"""Every expression that is shipped says something about a real server, asked of a real Prometheus.

A mistyped metric is no error in PromQL: it answers with no series. So the server is given traffic
in which nearly everything happens, and no answer may be empty.
"""

import re
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import isnan
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from live_server import LiveServer
from monitoring_files import (
    PROMETHEUS,
    ROOT,
    Expression,
    all_expressions,
    dashboards,
    documented_metrics,
    family,
    panel_expressions,
    panels,
    recorded_from,
    rule_expressions,
    rules,
    variable_expressions,
)
from pictures import data_uri, encode, question, random_picture
from prometheus_client.parser import text_string_to_metric_families
from prometheus_process import PrometheusProcess, program

from skipserve.settings import Settings

pytestmark = pytest.mark.slow

POLICIES = ("full", "visual-freeze-from-16", "skip-block-every-3-from-16-all")
# Two policies are compared once both were asked for 50 times.
NUM_EACH = 54
NUM_CLIENTS = 8
# The time shown, and all of what can be chosen.
VARIABLES = {
    "$__rate_interval": "1m",
    "$__range": "5m",
    "$minimum": "10",
} | {
    f"${variable['name']}": variable["allValue"]
    for dashboard in dashboards().values()
    for variable in dashboard["templating"]["list"]
    if variable["type"] == "query"
}
# Few pages, so that some are given up, and room for as many requests as there are clients.
LIMITS: dict[str, Any] = {
    "kv_cache_gib": 0.01,
    "encoder_cache_mib": 1,
    "max_running_requests": NUM_CLIENTS,
    "max_queued_requests": NUM_CLIENTS,
}

# Whom Prometheus believes to see, all of them one server: two replicas outside Kubernetes, and two
# in a namespace, the last of which seems to serve another model.
TARGETS: tuple[dict[str, str], ...] = (
    {"instance": "127.0.0.1"},
    {"instance": "localhost"},
    {"instance": "10.0.0.1", "namespace": "live", "pod": "skipserve-0"},
    {"instance": "10.0.0.2", "namespace": "live", "pod": "skipserve-1"},
)
# The namespace and the model of each.
SERVED = (("", "demo"), ("live", "demo"), ("live", "other"))
# These are labels in Kubernetes only.
OF_KUBERNETES = {"namespace", "pod"}

# So many requests are turned away that both of these fire.
FIRING = 'count(ALERTS{alertname="HighErrorRatio", alertstate="firing"})'

# What has no series in a sound server, and why.
SILENT = {
    "TargetDown none_left": "the target answers",
    "TargetDown absent": "the target is there",
    "TargetDown one_replica": "the target answers",
}


@dataclass(frozen=True)
class Scene:
    """A server with some traffic behind it, and the Prometheus that has seen it."""

    server: LiveServer
    prometheus: PrometheusProcess
    metrics_key: str
    exposed: set[str]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    program("prometheus")  # before a server is started in vain
    folder = tmp_path_factory.mktemp("monitoring")
    key, metrics_key = secrets.token_hex(16), secrets.token_hex(16)
    keys: dict[str, Any] = {"api_key": key, "metrics_api_key": metrics_key}
    with LiveServer(Settings(model="demo", num_threads=1, **LIMITS, **keys)) as server:
        config = _configuration(folder, server.url.removeprefix("http://"), metrics_key)
        with PrometheusProcess(config, folder / "data") as prometheus, server.client() as client:
            client.headers["Authorization"] = f"Bearer {key}"
            _ask_once_for_everything(client)
            _wait_for_scrapes(prometheus)
            _ask_often(client)
            _ask_too_often(client)
            _wait_for_scrapes(prometheus)
            prometheus.wait_for(f"{FIRING} == {2 * len(SERVED)}")
            yield Scene(server, prometheus, metrics_key, set(_samples(client)))


def _configuration(folder: Path, target: str, key: str) -> Path:
    """Write what is shipped, with other targets and key, and all of it every second."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(PROMETHEUS / pattern) for pattern in config["rule_files"]]
    (job,) = config["scrape_configs"]
    (folder / "key").write_text(key + "\n")
    job["authorization"]["credentials_file"] = str(folder / "key")
    job["static_configs"] = [{"targets": [target], "labels": labels} for labels in TARGETS]
    job["metric_relabel_configs"] = [
        {
            "source_labels": ["instance", "model"],
            "regex": f"{TARGETS[-1]['instance']};demo",
            "target_label": "model",
            "replacement": "other",
        }
    ]
    config["scrape_configs"].append(_another_program(job, target))
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    return path


def _another_program(job: dict[str, Any], target: str) -> dict[str, Any]:
    """Return what to do for metrics like ours, of a program that is none of ours."""
    keep = {"source_labels": ["__name__"], "regex": "process_.*", "action": "keep"}
    return job | {
        "job_name": "another",
        "static_configs": [{"targets": [target], "labels": {"instance": "another"}}],
        "metric_relabel_configs": [keep],
    }


def _wait_for_scrapes(prometheus: PrometheusProcess) -> None:
    """Return when the metrics have been read twice more, and the rules worked out after it."""
    (now,) = prometheus.query("vector(time())")
    begun = float(now["value"][1])
    read = f"count(timestamp(skipserve_build_info) > {begun} + 1) == {len(TARGETS)}"
    prometheus.wait_for(read)
    worked_out = f"timestamp(model:skipserve_requests_waiting:sum) > {begun} + 2"
    prometheus.wait_for(f"count({worked_out}) == {len(SERVED)}")


def _ask_once_for_everything(client: httpx.Client) -> None:
    """Ask under each policy, whole and as a stream, and do what clients do wrong."""
    picture = data_uri((ROOT / "docs" / "picture.png").read_bytes())
    asked = question("How many red squares are there?", picture, max_tokens=8)
    for policy in POLICIES:
        for is_stream in (False, True):
            reply = _ask(client, asked | {"skip_policy": policy, "stream": is_stream})
            assert reply.status_code == 200, reply.text
    assert _ask(client, asked | {"skip_policy": "auto"}).status_code == 200
    assert _ask(client, asked | {"skip_policy": "no-such-policy"}).status_code == 404
    assert _ask(client, asked | {"timeout_seconds": 1e-6}).status_code == 408
    _give_up(client, question("Describe the image.", picture, max_tokens=64, stream=True))


def _give_up(client: httpx.Client, asked: dict[str, Any]) -> None:
    """Go away in the middle of an answer, until the server has noticed it before the end."""
    for _ in range(20):
        with client.stream("POST", "/v1/chat/completions", json=asked) as stream:
            next(stream.iter_raw())
        if _samples(client)["skipserve_cancellations_total"] > 0:
            return
    raise AssertionError("no request counts as given up")


def _samples(client: httpx.Client) -> dict[str, float]:
    """Return what the server tells: the sum of the series of each name."""
    found: dict[str, float] = {}
    for metric in text_string_to_metric_families(client.get("/metrics").text):
        for sample in metric.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def _ask_often(client: httpx.Client) -> None:
    """Ask about many pictures under all policies, as many at once as there is room for."""
    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        statuses = pool.map(partial(_ask_under_some, client), range(NUM_EACH * len(POLICIES)))
    assert set(statuses) == {200}


def _ask_too_often(client: httpx.Client) -> None:
    """Ask with more clients than there is room for, until a fifth of all were turned away."""
    num_turned_away = 0
    with ThreadPoolExecutor(4 * NUM_CLIENTS) as pool:
        for _ in range(20):
            statuses = list(pool.map(partial(_ask_under_some, client), range(4 * NUM_CLIENTS)))
            assert set(statuses) <= {200, 503}
            num_turned_away += statuses.count(503)
            if num_turned_away > NUM_EACH * len(POLICIES) / 2:
                return
    raise AssertionError(f"only {num_turned_away} requests were turned away")


def _ask_under_some(client: httpx.Client, number: int) -> int:
    picture = data_uri(encode(random_picture(32, 32, seed=number % 20)))
    policy = POLICIES[number % len(POLICIES)]
    asked = question("Describe the image.", picture, max_tokens=2, skip_policy=policy)
    return _ask(client, asked).status_code


def _ask(client: httpx.Client, body: dict[str, Any]) -> httpx.Response:
    return client.post("/v1/chat/completions", json=body)


def _substituted(text: str) -> str:
    for name, value in VARIABLES.items():
        text = re.sub(re.escape(name) + r"\b", value, text)
    assert "$" not in text
    return text


def _unfiltered(rule: str) -> str:
    """Let comparisons say 0 or 1: an alert that does not fire then says so."""
    return re.sub(r" (>=|<=|==|!=|>|<) ", r" \1 bool ", rule)


def _faults(expression: Expression, series: list[dict[str, Any]]) -> Iterator[str]:
    if not series:
        yield f"{expression.place}: no series: {expression.text}"
    elif all(isnan(float(each["value"][1])) for each in series):
        yield f"{expression.place}: no numbers: {expression.text}"
    in_kubernetes = [each for each in series if "namespace" in each["metric"]]
    for label in expression.labels:
        those = in_kubernetes if label in OF_KUBERNETES else series
        if not those or any(label not in each["metric"] for each in those):
            yield f"{expression.place}: the legend's {label} is no label: {expression.text}"


def _drawn_as(legend: str, labels: dict[str, str]) -> str:
    """Return how Grafana calls a series: a label that it has not is empty."""
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found.group(1), ""), legend)


def _panels() -> list[dict[str, Any]]:
    return [panel for board in dashboards().values() for panel in panels(board)]


def _answers(scene: Scene, panel: dict[str, Any]) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Yield each legend of a panel, and the labels of all series under it."""
    for target in panel["targets"]:
        series = scene.prometheus.query(_substituted(target["expr"]))
        yield target["legendFormat"], [each["metric"] for each in series]


def test_every_panel_has_an_answer(scene: Scene) -> None:
    faults: list[str] = []
    for expression in (*panel_expressions(), *variable_expressions()):
        faults += _faults(expression, scene.prometheus.query(_substituted(expression.text)))
    assert not faults, "\n".join(faults)


def test_every_policy_is_compared(scene: Scene) -> None:
    for expression in panel_expressions():
        if expression.place.startswith("policies.json") and "{{skip_policy}}" in expression.legend:
            series = scene.prometheus.query(_substituted(expression.text))
            found = {
                (labels.get("namespace", ""), labels["model"], labels["skip_policy"])
                for labels in (each["metric"] for each in series)
            }
            wanted = {(*served, policy) for served in SERVED for policy in POLICIES}
            assert found >= wanted, expression


def test_every_replica_is_drawn(scene: Scene) -> None:
    for expression in panel_expressions():
        if "{{instance}}" in expression.legend:
            series = scene.prometheus.query(_substituted(expression.text))
            found = [each["metric"]["instance"] for each in series]
            assert sorted(found) == sorted(labels["instance"] for labels in TARGETS), expression


def test_no_panel_draws_two_series_under_one_legend(scene: Scene) -> None:
    for panel in _panels():
        if panel["type"] != "table":
            legends = [
                _drawn_as(legend, labels)
                for legend, series in _answers(scene, panel)
                for labels in series
            ]
            assert len(set(legends)) == len(legends), (panel["title"], sorted(legends))


def test_the_columns_of_a_table_join(scene: Scene) -> None:
    for panel in _panels():
        if panel["type"] == "table":
            rows = {
                frozenset(labels.keys() - OF_KUBERNETES)
                for _, series in _answers(scene, panel)
                for labels in series
            }
            assert len(rows) == 1, (panel["title"], rows)


def test_every_rule_has_an_answer(scene: Scene) -> None:
    faults: list[str] = []
    silent = set()
    for rule in rule_expressions():
        series = scene.prometheus.query(_unfiltered(rule.text))
        if rule.place in SILENT and not series:
            silent.add(rule.place)
        else:
            faults += _faults(rule, series)
    assert not faults, "\n".join(faults)
    assert silent == set(SILENT)


def test_prometheus_takes_the_rules(scene: Scene) -> None:
    taken = scene.prometheus.rules()
    assert len(taken) == len(rules())
    assert [rule for rule in taken if rule["health"] != "ok"] == []


def test_recorded_series_are_there(scene: Scene) -> None:
    assert [name for name in recorded_from() if not scene.prometheus.query(name)] == []


def test_requests_that_are_turned_away_burn_the_objective(scene: Scene) -> None:
    firing = scene.prometheus.query('ALERTS{alertname="HighErrorRatio", alertstate="firing"}')
    found = {
        (labels.get("namespace", ""), labels["model"], labels["burn"])
        for labels in (alert["metric"] for alert in firing)
    }
    assert found == {(*served, burn) for served in SERVED for burn in ("fast", "slow")}


def test_every_metric_that_is_named_exists(scene: Scene) -> None:
    known = scene.exposed | set(recorded_from())
    missing = {
        f"{expression.place}: {metric}"
        for expression in all_expressions()
        for metric in expression.metrics - known
    }
    assert not missing


def test_what_is_documented_is_what_the_server_tells(scene: Scene) -> None:
    told = {family(name) for name in scene.exposed if not name.endswith("_created")}
    assert told == documented_metrics()


def test_a_server_that_refuses_the_key_counts_as_down(scene: Scene, tmp_path: Path) -> None:
    address = scene.server.url.removeprefix("http://")
    config = _configuration(tmp_path, address, scene.metrics_key)
    (engines_up,) = (it for it in panel_expressions() if it.place.endswith(": Engines up"))
    with PrometheusProcess(config, tmp_path / "data") as prometheus:
        prometheus.wait_for(f"({_substituted(engines_up.text)}) == {len(TARGETS)}")
        (tmp_path / "key").write_text("another\n")
        prometheus.wait_for(f'count(up{{job="skipserve"}} == 0) == {len(TARGETS)}')
        prometheus.wait_for('ALERTS{alertname="TargetDown", alertstate="pending"}')
        prometheus.wait_for(f"({_substituted(engines_up.text)}) == 0")
