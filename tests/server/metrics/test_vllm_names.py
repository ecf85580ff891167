"""What vLLM has a name for is shown by that name too, with the same values and no other labels."""

from collections import defaultdict
from collections.abc import Iterator

import pytest
from live_server import LiveServer
from pictures import question
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from skipserve.engine.reports import EngineState, FinishReason, Stage, StepOutput, StepReport
from skipserve.metrics.registry import ServerMetrics
from skipserve.metrics.vllm_names import ALIASES, Alias
from skipserve.settings import MetricAliases, Settings

REASONS = {"stop": "stop", "length": "length", "cancelled": "abort", "error": "error"}
each = pytest.mark.parametrize("alias", ALIASES, ids=lambda alias: alias.name)

# By a series' end of name and the labels that both have.
Values = dict[tuple[str, str, str], float]


def _families(text: str) -> dict[str, Family]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def _values(family: Family, reasons: dict[str, str], stage: Stage | None = None) -> Values:
    """Return what a family says, over all labels but a bucket's bound and why requests ended."""
    values: Values = defaultdict(float)
    for sample in family.samples:
        end = sample.name.removeprefix(family.name)
        if end != "_created" and stage in (None, sample.labels.get("stage")):
            reason = sample.labels.get("finish_reason", sample.labels.get("finished_reason", ""))
            values[end, sample.labels.get("le", ""), reasons.get(reason, reason)] += sample.value
    return values


def _expected(alias: Alias, families: dict[str, Family]) -> Values:
    values: Values = defaultdict(float)
    for metric in alias.sources:
        family = families[metric.name.removesuffix("_total")]
        for key, value in _values(family, REASONS, alias.stage).items():
            values[key] += value
    return values


def _aliased(alias: Alias, families: dict[str, Family]) -> Values:
    return _values(families[f"vllm:{alias.name}"], {})


class Shown:
    """Metrics under both names."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = ServerMetrics(self.registry, "tiny", ())
        self.metrics.show_vllm_names(16, reuses_prefixes=True)

    def families(self) -> dict[str, Family]:
        return _families(generate_latest(self.registry).decode())


def _feed(metrics: ServerMetrics) -> None:
    """Tell of something in each metric that has an alias, each time another number."""
    engine = metrics.engine
    engine.watch_engine(lambda: True, lambda: 3, lambda: 5, lambda: None)
    engine.record_state(EngineState(num_pages=64, num_pages_used=16, num_preemptions=7))
    engine.record_step(StepReport({}, 0.1, num_rows=33, num_sequences=2, num_plans=1))
    for policy, scale in (("full", 1.0), ("mine", 10.0)):
        metrics.record_prompt(policy, int(11 * scale), int(13 * scale), 1)
        metrics.record_prefix_use(policy, int(17 * scale), int(2 * scale))
        metrics.record_first_token(policy, 0.021 * scale)
        metrics.record_inter_token(policy, 0.0023 * scale)
        stages = {Stage.QUEUE: 0.0029 * scale, Stage.PREFILL: 9.0, Stage.DECODE: 0.31 * scale}
        engine.record_output(policy, StepOutput("r", 1, stage_seconds=stages))
        for times, reason in enumerate((*FinishReason, None), start=1):
            for _ in range(times):
                metrics.record_request(policy, reason, 0.37 * scale)


@pytest.fixture(scope="module")
def fed() -> dict[str, Family]:
    shown = Shown()
    _feed(shown.metrics)
    return shown.families()


@pytest.mark.fast
@each
def test_an_alias_says_what_its_sources_say(alias: Alias, fed: dict[str, Family]) -> None:
    aliased = _aliased(alias, fed)
    assert aliased == pytest.approx(_expected(alias, fed))
    assert any(aliased.values())


@pytest.mark.fast
@each
def test_an_alias_begins_at_0_with_all_its_series(alias: Alias, fed: dict[str, Family]) -> None:
    before = _aliased(alias, Shown().families())
    assert before.keys() == _aliased(alias, fed).keys()
    assert set(before.values()) == {0}


@pytest.mark.fast
@each
def test_its_labels_are_vllms(alias: Alias, fed: dict[str, Family]) -> None:
    own = {"finished_reason"} if alias.is_by_reason else set()
    for sample in fed[f"vllm:{alias.name}"].samples:
        assert sample.labels.keys() - {"le"} == {"model_name", "engine"} | own
        assert (sample.labels["model_name"], sample.labels["engine"]) == ("tiny", "0")
        assert sample.labels.get("finished_reason", "stop") in REASONS.values()


@pytest.mark.fast
def test_the_cache_is_told_of_once_its_engine_has() -> None:
    shown = Shown()
    assert shown.families()["vllm:cache_config_info"].samples == []
    shown.metrics.engine.record_state(EngineState(num_pages=64, num_pages_used=16))
    (sample,) = shown.families()["vllm:cache_config_info"].samples
    assert (sample.value, sample.labels) == (
        1,
        {
            "block_size": "16",
            "num_gpu_blocks": "64",
            "enable_prefix_caching": "True",
            "engine": "0",
        },
    )


@pytest.mark.fast
def test_our_own_are_shown_as_before(fed: dict[str, Family]) -> None:
    registry = CollectorRegistry()
    metrics = ServerMetrics(registry, "tiny", ())
    _feed(metrics)
    plain = _families(generate_latest(registry).decode())
    assert not [name for name in plain if name.startswith("vllm")]
    assert {name for name in fed if not name.startswith("vllm")} == set(plain)


@pytest.fixture(scope="module")
def served(settings: Settings) -> Iterator[dict[str, Family]]:
    """What a server shows that has answered under two policies."""
    aliased = settings.model_copy(update={"metric_aliases": MetricAliases.VLLM, "page_size": 32})
    with LiveServer(aliased) as server, server.client() as client:
        for policy in ("full", "skip-ffn-from-16-all"):
            body = question("Why?", temperature=0, max_tokens=4, ignore_eos=True)
            reply = client.post("/v1/chat/completions", json=body | {"skip_policy": policy})
            assert reply.json()["usage"]["completion_tokens"] == 4
        yield _families(client.get("/metrics").text)


@each
def test_a_server_says_the_same_by_both_names(alias: Alias, served: dict[str, Family]) -> None:
    assert _aliased(alias, served) == pytest.approx(_expected(alias, served))


def test_a_server_counts_its_requests_by_vllms_names(served: dict[str, Family]) -> None:
    def value(name: str, end: str) -> float:
        return sum(it.value for it in served[name].samples if it.name == name + end)

    assert value("vllm:request_success", "_total") == 2
    assert value("vllm:generation_tokens", "_total") == 8
    for name in ("time_to_first_token", "e2e_request_latency", "request_queue_time"):
        assert value(f"vllm:{name}_seconds", "_count") == 2
    assert value("vllm:inter_token_latency_seconds", "_count") == 6
    (cache,) = served["vllm:cache_config_info"].samples
    pages = sum(it.value for it in served["skipserve_kv_cache_pages"].samples)
    assert cache.labels["block_size"] == "32"
    assert float(cache.labels["num_gpu_blocks"]) == pages > 0
