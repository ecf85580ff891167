"""Tests of what is built from the settings."""

import contextlib
import re
import shutil
from pathlib import Path

import pytest
from app_client import send
from prometheus_client.parser import text_string_to_metric_families

from skipserve.app import Built, build, engine_spec
from skipserve.engine.types import EngineLimits
from skipserve.model_folder import StartError, model_folder
from skipserve.settings import LogFormat, Settings
from skipserve_policies.plan import Plan, trim

pytestmark = pytest.mark.fast


def with_changes(settings: Settings, **changes: object) -> Settings:
    return settings.model_copy(update=changes)


def test_an_unknown_model(settings: Settings) -> None:
    with pytest.raises(StartError, match=r"no model folder nowhere/at-all.*'demo'"):
        build(with_changes(settings, model="nowhere/at-all"))


def test_a_folder_that_is_no_checkpoint(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"config\.json"):
        build(with_changes(settings, model=str(tmp_path)))


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer_config.json", "tokenizer.json", "processor_config.json"]
)
def test_a_damaged_file_of_a_checkpoint(
    settings: Settings, checkpoint: Path, tmp_path: Path, name: str
) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "damaged")
    (folder / name).write_text('{"cut": ')
    with pytest.raises(StartError, match=re.escape(name)):
        build(with_changes(settings, model=str(folder)))


def test_an_unknown_default_policy(settings: Settings) -> None:
    with pytest.raises(StartError, match=r"'ful'.*full"):
        build(with_changes(settings, default_skip_policy="ful"))


def test_a_default_policy_that_does_not_fit(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("deep: {rules: [{action: skip_ffn, layers: [99]}]}")
    with pytest.raises(StartError, match=r"deep does not fit.*layer 99"):
        build(with_changes(settings, policies=tmp_path / "p.yaml", default_skip_policy="deep"))


def test_a_broken_policies_file(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("mine: {rulez: []}")
    with pytest.raises(StartError, match="rulez"):
        build(with_changes(settings, policies=tmp_path / "p.yaml"))


def test_an_operators_policies_are_listed(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "mine: {rules: [{action: skip_ffn, layers: [5]}]}\n"
        "deep: {rules: [{action: skip_ffn, layers: [99]}]}\n"
    )
    built = build(with_changes(settings, policies=tmp_path / "p.yaml"))
    assert "mine" in built.serving.converter.policies.resolved
    assert any("deep does not fit" in warning for warning in built.warnings)


def test_reaching_beyond_this_machine_without_a_key_is_warned_of(settings: Settings) -> None:
    assert not build(settings).warnings
    assert "--api-key" in build(with_changes(settings, host="0.0.0.0")).warnings[0]
    keyed = Settings(**settings.model_dump() | {"host": "0.0.0.0", "api_key": "k"})
    assert not build(keyed).warnings


def test_isolating_keys_that_are_not_there_is_warned_of(settings: Settings) -> None:
    [warning] = build(with_changes(settings, isolate_keys=True)).warnings
    assert "--isolate-keys does nothing" in warning
    keyed = Settings(**settings.model_dump() | {"isolate_keys": True, "api_key": "k"})
    assert not build(keyed).warnings


def test_the_engine_gets_its_limits(settings: Settings) -> None:
    changed = with_changes(
        settings,
        max_batch_tokens=512,
        max_running_requests=32,
        page_size=8,
        kv_cache_gib=0.5,
        encoder_cache_mib=3,
        prefix_cache=False,
        cuda_graphs=False,
    )
    plan = trim(Plan.full(4))
    assert engine_spec(changed, Path("m"), (plan,)).limits == EngineLimits(
        max_batch_tokens=512,
        max_running=32,
        page_size=8,
        kv_cache_bytes=2**29,
        encoder_cache_bytes=3 * 2**20,
        reuses_prefixes=False,
        uses_graphs=False,
        hot_plans=(plan,),
    )
    assert engine_spec(settings, Path("m")).limits == EngineLimits()
    assert not engine_spec(settings, Path("m")).logs_json
    assert engine_spec(with_changes(settings, log_format=LogFormat.JSON), Path("m")).logs_json


def test_the_demo_is_a_name_and_not_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    with contextlib.suppress(StartError):
        assert model_folder("demo") != tmp_path / "demo"


def test_before_the_engine_is_there(idle: Built) -> None:
    ready = send(idle.app, "GET", "/ready")
    assert (ready.status_code, ready.json()["error"]["type"]) == (503, "overloaded_error")
    assert ready.json()["error"]["message"] == "the engine is not running"
    assert send(idle.app, "GET", "/health").status_code == 503
    body = {"messages": [{"role": "user", "content": "Hi"}]}
    reply = send(idle.app, "POST", "/v1/chat/completions", json=body)
    assert reply.status_code == 503
    assert reply.headers["Retry-After"].isdecimal()
    assert send(idle.app, "GET", "/version").json().keys() == {"version"}
    assert len(send(idle.app, "GET", "/v1/skip_policies").json()["data"]) > 20


def test_replies_end_their_connections_once_the_server_stops(settings: Settings) -> None:
    built = build(settings)
    paths = {"/ready": 503, "/version": 200, "/nowhere": 404}
    assert not [path for path in paths if "Connection" in send(built.app, "GET", path).headers]
    built.serving.admission.drain()
    for path, status in paths.items():
        reply = send(built.app, "GET", path)
        assert (reply.status_code, reply.headers["Connection"]) == (status, "close")


def test_every_counter_can_be_seen_to_rise_from_0(settings: Settings) -> None:
    built = build(settings)
    counters = {
        f"{family.name}_total": [it.value for it in family.samples if it.name.endswith("_total")]
        for family in text_string_to_metric_families(send(built.app, "GET", "/metrics").text)
        if family.type == "counter" and family.name.startswith("skipserve_")
    }
    late = {
        metric.name
        for metric in built.serving.metrics.made
        # There are dozens of policies. Each begins with its first request: lines at 0 for those
        # that nobody asks for would fill every panel.
        if metric.kind == "counter" and "skip_policy" in metric.labels
    }
    assert {name for name, values in counters.items() if not values} == late
    assert {value for values in counters.values() for value in values} == {0}


def test_a_hot_policy_must_be_one_that_fits(settings: Settings) -> None:
    with pytest.raises(StartError, match="no skip policy 'ful'"):
        build(with_changes(settings, hot_policies=("ful",)))
    built = build(with_changes(settings, hot_policies=("full",)))
    assert built.serving.converter.policies.resolved["full"]
