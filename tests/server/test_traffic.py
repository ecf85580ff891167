"""What requests to the real server do to its metrics."""

from collections.abc import Callable

import httpx
import pytest
from live_server import LiveServer
from pictures import data_uri, encode, question, random_picture
from prometheus_client.parser import text_string_to_metric_families

CHAT = "/v1/chat/completions"
POLICY = "exit-after-24"

Sample = tuple[str, frozenset[tuple[str, str]]]
Read = Callable[[], dict[Sample, float]]


@pytest.fixture
def read(client: httpx.Client) -> Read:
    def read() -> dict[Sample, float]:
        families = text_string_to_metric_families(client.get("/metrics").text)
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    return read


def _sample(live: LiveServer, name: str, **labels: str) -> Sample:
    model = live.built.serving.processor.model_name
    return f"skipserve_{name}", frozenset({"model": model, **labels}.items())


def test_a_question_about_images_is_counted_under_its_policy(
    live: LiveServer, client: httpx.Client, read: Read
) -> None:
    pictures = [data_uri(encode(random_picture(20, 20, seed=seed))) for seed in (901, 902)]
    before = read()
    for _ in range(2):
        body = question("Hi", *pictures, skip_policy=POLICY, max_tokens=3, temperature=0)
        reply = client.post(CHAT, json=body).json()
    after = read()

    def rise(name: str, **labels: str) -> float:
        sample = _sample(live, name, **labels)
        return after[sample] - before.get(sample, 0.0)

    assert rise("images_total", skip_policy=POLICY) == 4
    # The second time, the prefix cache has them.
    assert rise("images_encoded_total", skip_policy=POLICY) == 2
    assert rise("requests_total", skip_policy=POLICY, finish_reason="length") == 2
    num_prompt = reply["usage"]["prompt_tokens"]
    assert rise("prefix_cache_queries_total", skip_policy=POLICY) == 2 * num_prompt
    num_cached = reply["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert rise("prefix_cache_hits_total", skip_policy=POLICY) == num_cached > 0
    assert rise("engine_steps_total", mode="eager") >= 6
    assert rise("engine_steps_total", mode="uniform") == 0
    stages = ("decode_image", "preprocess", "tokenize", "queue", "prefill", "decode", "detokenize")
    assert {rise("stage_duration_seconds_count", stage=stage) for stage in stages} == {2}
    executed = rise("executed_flops_total", skip_policy=POLICY)
    saved = rise("saved_flops_total", skip_policy=POLICY)
    assert 0.1 < saved / (saved + executed) < 0.5


def test_a_request_out_of_time_is_counted_by_why(
    live: LiveServer, client: httpx.Client, read: Read
) -> None:
    failed = _sample(live, "request_failures_total", reason="deadline")
    told = _sample(live, "errors_total", code="408")
    before = read()
    body = question("Hi", max_tokens=100, timeout_seconds=1e-6)
    assert client.post(CHAT, json=body).status_code == 408
    after = read()
    assert after[failed] - before[failed] == 1
    assert after[told] - before.get(told, 0) == 1


def test_what_runs_is_told(live: LiveServer, read: Read) -> None:
    ready, metrics = live.built.serving.service.ready, read()
    assert ready is not None
    about = {"device": "cpu", "dtype": "float32", "weights_digest": ready.weights_digest}
    assert metrics[_sample(live, "engine_info", **about)] == 1
    assert metrics[_sample(live, "skip_policy_saved_ratio", skip_policy="full")] == 0
    policies = live.built.serving.processor.policies.resolved
    saved = live.built.serving.processor.reporter.saved_ratio(policies[POLICY])
    assert metrics[_sample(live, "skip_policy_saved_ratio", skip_policy=POLICY)] == saved > 0
    started = {
        prefix: metrics[f"{prefix}process_start_time_seconds", frozenset()]
        for prefix in ("", "skipserve_engine_")
    }
    assert started["skipserve_engine_"] >= started[""]
