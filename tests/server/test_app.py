"""Tests of what is built from the settings."""

import asyncio
import contextlib
import json
import logging
import re
import shlex
import shutil
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from app_client import send
from pictures import question
from prometheus_client import Counter
from prometheus_client.parser import text_string_to_metric_families
from tiny_llava import make_checkpoint
from typer.testing import CliRunner

from skipserve.app import Built, build, engine_spec
from skipserve.asking.policy_file import PolicyFile
from skipserve.asking.processor import QuestionProcessor
from skipserve.budgets.client import Rights
from skipserve.engine.limits import EngineLimits, EngineSpec
from skipserve.engine.reports import FinishReason, Ready, StepOutput
from skipserve.engine.request import Request
from skipserve.errors import EngineError, PolicyFitError, UnavailableError
from skipserve.metrics.metric import declared
from skipserve.metrics.table import SKIP_POLICY, Metrics
from skipserve.model_folder import StartError, model_folder
from skipserve.service.observer import Observer
from skipserve.service.service import OnTaken
from skipserve.settings import LogFormat, Settings
from skipserve_client.cli import app as cli
from skipserve_policies.catalog import load_catalog
from skipserve_policies.named import POLICIES_FILE
from skipserve_policies.plan import Plan, trim
from skipserve_policies.resolve import ResolvedPolicy

pytestmark = pytest.mark.fast

CHECKPOINT_FILES = (
    "config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "processor_config.json",
)


def with_changes(settings: Settings, **changes: object) -> Settings:
    return settings.model_copy(update=changes)


def test_an_unknown_model(settings: Settings) -> None:
    with pytest.raises(StartError, match=r"no model folder nowhere/at-all.*'demo'"):
        build(with_changes(settings, model="nowhere/at-all"))


def test_a_folder_that_is_no_checkpoint(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"config\.json"):
        build(with_changes(settings, model=str(tmp_path)))


@pytest.mark.parametrize("name", [*CHECKPOINT_FILES, "preprocessor_config.json"])
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
    changes = {"policies": tmp_path / "p.yaml", "allow_misfit_policies": True}
    with pytest.raises(StartError, match=r"deep does not fit.*layer 99"):
        build(with_changes(settings, **changes, default_skip_policy="deep"))


HALF_BLOCKS = {"skip_block": tuple(range(2, 31, 2))}


def policy_of(
    processor: QuestionProcessor, given: str | None = None, model: str | None = None
) -> ResolvedPolicy:
    wanted = processor.wanted_policy(given, model, Rights())
    assert isinstance(wanted, ResolvedPolicy)
    return wanted


def test_a_model_has_a_default_of_its_own(settings: Settings, half_checkpoint: Path) -> None:
    built = build(with_changes(settings, model=str(half_checkpoint)))
    processor = built.serving.processor
    half = policy_of(processor)
    assert (half.name, half.layers) == ("half", HALF_BLOCKS)
    assert processor.default_policy == "half"
    assert policy_of(processor, "full").name == "full"
    assert policy_of(processor, None, "halved@whole").name == "whole"
    assert not built.warnings


def test_the_operators_default_goes_before_the_models(
    settings: Settings, half_checkpoint: Path
) -> None:
    changes = {"model": str(half_checkpoint), "default_skip_policy": "full"}
    processor = build(with_changes(settings, **changes)).serving.processor
    assert policy_of(processor).name == "full"
    assert policy_of(processor, "half").layers == HALF_BLOCKS


def test_the_default_s_decode_is_hot(settings: Settings, half_checkpoint: Path) -> None:
    def hot(**changes: object) -> tuple[Plan, ...]:
        services: list[OtherService] = []

        def connect(spec: EngineSpec, observer: Observer) -> OtherService:
            services.append(OtherService(spec, observer))
            return services[-1]

        build(with_changes(settings, model=str(half_checkpoint), **changes), connect)
        return services[0].spec.limits.hot_plans

    half, full = hot(default_skip_policy="half"), hot(default_skip_policy="full")
    assert half != full
    assert hot() == half
    assert hot(hot_policies=("full",)) == half + full
    assert hot(default_skip_policy="auto") == half


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("default: halve", "default: there is no skip policy 'halve'"),
        ("polices: {}", "polices: this field is not known; is it policies?"),
        ("policies: {full: {}}", "policies: policy 'full': the name is taken"),
        ("policies: {half: {rulez: []}}", "policies: policy 'half': rulez: this field is not"),
        (
            "policies: {deep: {rules: [{action: skip_ffn, layers: [99]}]}}",
            "policy 'deep' does not fit this model: rule 0 (skip_ffn, ",
        ),
    ],
)
def test_a_fault_in_a_models_own_policies(
    settings: Settings, half_checkpoint: Path, text: str, told: str
) -> None:
    (half_checkpoint / POLICIES_FILE).write_text(text)
    with pytest.raises(StartError) as caught:
        build(with_changes(settings, model=str(half_checkpoint)))
    line, *_ = str(caught.value).splitlines()
    assert line.startswith(f"{half_checkpoint / POLICIES_FILE}: {told}")


def test_a_models_default_must_fit_even_where_misfits_are_let_be(
    settings: Settings, half_checkpoint: Path
) -> None:
    deep = "policies: {deep: {rules: [{action: skip_ffn, layers: [99]}]}}\n"
    changes = {"model": str(half_checkpoint), "allow_misfit_policies": True}
    (half_checkpoint / POLICIES_FILE).write_text(deep)
    assert "deep" in build(with_changes(settings, **changes)).serving.processor.policies.misfits
    (half_checkpoint / POLICIES_FILE).write_text(f"{deep}default: deep\n")
    with pytest.raises(StartError) as caught:
        build(with_changes(settings, **changes))
    path = half_checkpoint / POLICIES_FILE
    assert str(caught.value).startswith(f"{path}: default: policy 'deep' does not fit this model: ")


def test_no_other_file_takes_a_name_of_the_models(
    settings: Settings, half_checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "p.yaml").write_text("half: {}\n")
    for name in ("policies", "added_policies"):
        changes = {"model": str(half_checkpoint), name: tmp_path / "p.yaml"}
        with pytest.raises(StartError, match=r"p\.yaml: policy 'half': the name is taken by"):
            build(with_changes(settings, **changes))


def test_a_broken_policies_file(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("mine: {rulez: []}")
    with pytest.raises(StartError, match="rulez"):
        build(with_changes(settings, policies=tmp_path / "p.yaml"))


def test_an_operators_policies_are_listed(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("mine: {rules: [{action: skip_ffn, layers: [5]}]}\n")
    built = build(with_changes(settings, policies=tmp_path / "p.yaml"))
    assert "mine" in built.serving.processor.policies.resolved
    assert not built.warnings


MISFITS = (
    "mine: {rules: [{action: skip_ffn, layers: [5]}]}\n"
    "deep: {rules: [{action: skip_ffn, layers: [99]}]}\n"
    "late: {rules: [{action: skip_block, layers: {start: 30, interval: 3}, scope: visual}]}\n"
)


def test_all_misfits_of_an_operators_file_end_the_start_at_once(
    settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(MISFITS)
    with pytest.raises(StartError) as caught:
        build(with_changes(settings, policies=file))
    deep, late, advice = str(caught.value).splitlines()
    assert deep.startswith(f"{file}: policy 'deep' does not fit this model: rule 0 (skip_ffn, ")
    assert "layer 99 does not exist: the model has layers 0 to 31" in deep
    assert late.startswith(f"{file}: policy 'late' does not fit this model: rule 0 (skip_block, ")
    assert "--allow-misfit-policies" in advice


def test_misfits_of_an_operators_file_can_be_let_be(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(MISFITS)
    built = build(with_changes(settings, policies=file, allow_misfit_policies=True))
    [warning] = built.warnings
    total = len(load_catalog()) + 3
    assert warning.startswith(f"skip policies that do not fit this model: 2 of {total}; ")
    assert f"--policies {file}` says which" in warning
    policies = built.serving.processor.policies
    assert "mine" in policies.resolved
    with pytest.raises(PolicyFitError, match="layer 99"):
        policies.find("deep")


def test_a_broken_file_of_added_policies(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "added.yaml"
    changes = with_changes(settings, added_policies=file)
    for text, told in (
        ("mine: {rulez: []}", "added.yaml: policy 'mine': rulez"),
        ("mine: [", "added.yaml: is not valid YAML"),
        ("full: {}", "added.yaml: policy 'full': the name is taken"),
        (MISFITS, "added.yaml: policy 'deep' does not fit this model"),
    ):
        file.write_text(text)
        with pytest.raises(StartError) as caught:
            build(changes)
        assert told in str(caught.value)
    built = build(with_changes(changes, allow_misfit_policies=True))
    assert "mine" in built.serving.processor.policies.added


def test_two_files_cannot_name_the_same_policy(settings: Settings, tmp_path: Path) -> None:
    for name in ("own.yaml", "added.yaml"):
        (tmp_path / name).write_text("mine: {rules: [{action: skip_ffn, layers: [5]}]}\n")
    files = {"policies": tmp_path / "own.yaml", "added_policies": tmp_path / "added.yaml"}
    with pytest.raises(StartError, match=r"added\.yaml: policy 'mine': the name is taken"):
        build(with_changes(settings, **files))


def test_a_read_only_folder_of_added_policies_is_warned_of(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PolicyFile, "can_be_written", False)
    warnings = build(with_changes(settings, added_policies=tmp_path / "added.yaml")).warnings
    assert any("added.yaml is read-only" in warning for warning in warnings)


def test_no_flag_lets_a_contradiction_be(settings: Settings, tmp_path: Path) -> None:
    rules = "{action: skip_block, layers: [18]}, {action: parallel_blocks, layers: [18]}"
    (tmp_path / "p.yaml").write_text(f"{MISFITS}both: {{rules: [{rules}]}}")
    changes = {"policies": tmp_path / "p.yaml", "allow_misfit_policies": True}
    with pytest.raises(StartError, match=r"policy 'both': rule 0 .* contradict .* layer 18$"):
        build(with_changes(settings, **changes))


def test_what_ships_and_does_not_fit_a_shallow_model_is_one_warning(
    settings: Settings, tmp_path: Path
) -> None:
    folder = make_checkpoint(tmp_path / "small one", num_layers=8)
    [warning] = build(with_changes(settings, model=str(folder))).warnings
    found = re.fullmatch(
        r"skip policies that do not fit this model: (\d+) of (\d+); `(.*)` says which and why",
        warning,
    )
    assert found is not None
    assert 0 < int(found[1]) < int(found[2]) == len(load_catalog())
    program, *arguments = shlex.split(found[3])
    assert program == "skipserve"
    shown = CliRunner().invoke(cli, arguments).output
    assert len(json.loads(shown)["misfits"]) == int(found[1])


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
        for metric in declared(Metrics)
        # There are dozens of policies. Each begins with its first request: lines at 0 for those
        # that nobody asks for would fill every panel.
        if metric.family is Counter and SKIP_POLICY in metric.labels
    }
    assert {name for name, values in counters.items() if not values} == late
    assert {value for values in counters.values() for value in values} == {0}


def test_a_hot_policy_must_be_one_that_fits(settings: Settings) -> None:
    with pytest.raises(StartError, match="no skip policy 'ful'"):
        build(with_changes(settings, hot_policies=("ful",)))
    built = build(with_changes(settings, hot_policies=("full",)))
    assert built.serving.processor.policies.resolved["full"]


class OtherService:
    """Stands in the place of an engine: repeats the first tokens of each prompt."""

    def __init__(self, spec: EngineSpec, observer: Observer) -> None:
        self.ready: Ready | None = None
        self.failure: EngineError | None = None
        self.why_not_ready: str | None = None
        self.is_alive = True
        self.num_running = self.num_waiting = 0
        self.spec = spec
        self.observer = observer
        self.calls: list[str] = []

    async def start(self) -> None:
        self.calls.append("start")
        self.ready = Ready("elsewhere", "float32", "digest", 4096)
        self.observer.record_ready(self.ready)

    async def stream(
        self, request: Request, on_taken: OnTaken | None = None
    ) -> AsyncGenerator[StepOutput, None]:
        assert isinstance(request.plan, Plan)
        *shown, last = request.prompt_ids[1:6]
        for token_id in shown:
            yield StepOutput(request.id, token_id)
        yield StepOutput(request.id, last, finish_reason=FinishReason.LENGTH)

    async def wait_ready(self) -> None:
        """Be ready already."""

    async def wait_closed(self) -> None:
        """Be closed already."""

    async def close(self, grace_seconds: float) -> None:
        self.calls.append("close")


def test_the_front_end_takes_any_service(settings: Settings) -> None:
    built = build(settings, OtherService)
    service = built.serving.service
    assert isinstance(service, OtherService)
    assert service.spec.model == Path(settings.model).resolve()

    async def ask() -> tuple[httpx.Response, httpx.Response]:
        transport = httpx.ASGITransport(built.app)
        async with (
            built.app.router.lifespan_context(built.app),
            httpx.AsyncClient(transport=transport, base_url="http://front") as client,
        ):
            reply = await client.post("/v1/chat/completions", json=question("Why?"))
            return reply, await client.get("/metrics")

    reply, metrics = asyncio.run(ask())
    assert reply.json()["choices"][0]["message"]["content"] == "USER:"
    assert reply.json()["choices"][0]["finish_reason"] == "length"
    assert 'device="elsewhere"' in metrics.text
    assert service.calls == ["start", "close"]


class CrowdedService(OtherService):
    """Takes the requests that it is told to, and fails at all."""

    takes = False

    async def stream(
        self, request: Request, on_taken: OnTaken | None = None
    ) -> AsyncGenerator[StepOutput, None]:
        if self.takes and on_taken is not None:
            on_taken("one")
        raise UnavailableError("all engines are busy", retry_after_seconds=7)
        yield StepOutput(request.id, None)


@pytest.mark.parametrize("num_choices", [1, 2])
def test_a_stream_that_nobody_takes_is_refused_before_its_headers(
    settings: Settings, num_choices: int
) -> None:
    asked = question("Why?", stream=True, n=num_choices)
    reply = send(build(settings, CrowdedService).app, "POST", "/v1/chat/completions", json=asked)
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "7")
    assert reply.json()["error"]["message"] == "all engines are busy"


def test_a_stream_that_was_taken_fails_in_its_events(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CrowdedService, "takes", True)
    asked = question("Why?", stream=True)
    reply = send(build(settings, CrowdedService).app, "POST", "/v1/chat/completions", json=asked)
    assert reply.status_code == 200
    assert '"message":"all engines are busy"' in reply.text


class MovingService(OtherService):
    """Takes a request in one engine, then in another."""

    async def stream(
        self, request: Request, on_taken: OnTaken | None = None
    ) -> AsyncGenerator[StepOutput, None]:
        assert on_taken is not None
        on_taken("one")
        on_taken("two")
        async for output in super().stream(request):
            yield output


def test_the_log_says_which_engine_ran_a_request(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "skipserve.requests")
    for service in (MovingService, OtherService):
        app = build(settings, service).app
        send(app, "POST", "/v1/chat/completions", json=question("Why?")).raise_for_status()
    lines = (it for it in caplog.records if it.name == "skipserve.requests")
    moved, alone = (vars(record)["fields"] for record in lines)
    assert moved["engine"] == "two"
    assert "engine" not in alone


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("/v1/v1/chat/completions", "; is it /v1/chat/completions?"),
        ("/v1/chat/completion", "; is it /v1/chat/completions?"),
        ("/v1/modles", "; is it /v1/models?"),
        ("/nowhere", ""),
        ("/" + "x" * 10_000, ""),
    ],
    ids=range(5),
)
def test_a_misspelt_route_is_told_with_the_nearest(
    settings: Settings, path: str, advice: str
) -> None:
    error = send(build(settings).app, "GET", path).json()["error"]
    assert error["message"] == f"there is no such route{advice}"


def test_a_model_whose_name_holds_a_slash(settings: Settings) -> None:
    """Its folder has no slash, so such a name comes from whoever builds the front end."""
    built = build(settings)
    processor = replace(built.serving.processor, model_name="of/some one")
    preparation = replace(built.serving.preparation, processor=processor)
    built.app.state.serving = replace(built.serving, preparation=preparation)
    for name in ("of/some one", "of/some one@full"):
        for spelt in (name, name.replace("/", "%2F").replace(" ", "%20").replace("@", "%40")):
            reply = send(built.app, "GET", f"/v1/models/{spelt}")
            assert (reply.status_code, reply.json()["id"]) == (200, name)
    assert send(built.app, "GET", "/v1/models/of").status_code == 404


def test_a_policy_that_does_not_fit_says_why(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("deep: {rules: [{action: skip_ffn, layers: [99]}]}")
    changes = {"policies": tmp_path / "p.yaml", "allow_misfit_policies": True}
    app = build(with_changes(settings, **changes)).app
    for path in ("/v1/skip_policies/deep", f"/v1/models/{Path(settings.model).name}@deep"):
        reply = send(app, "GET", path)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "skip_policy")
        assert "layer 99" in reply.json()["error"]["message"]
