"""Traces of the real server, as a real receiver gets them over OTLP."""

import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from live_server import LiveServer
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from otlp_receiver import OtlpReceiver, attributes
from patience import slowness
from pictures import question

from skipserve.api.exchange import Exchange
from skipserve.app import build
from skipserve.asking.answer import AnswerText
from skipserve.model_folder import StartError
from skipserve.settings import Settings
from skipserve.tracing import SpanTracer

CHAT = "/v1/chat/completions"
POLICY = "exit-after-24"
METRIC_ATTRIBUTES = {
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.request.model",
    "gen_ai.response.model",
}
BEFORE_TOKEN = ["decode_image", "preprocess", "tokenize", "queue", "vision_encode", "prefill"]

# Long enough not to stand in random numbers by chance.
ASKED = "Hello there, you"


@dataclass(frozen=True)
class Traced:
    """What a server was asked, by the trace that the question named, and what it sent."""

    replies: dict[str, httpx.Response]
    receiver: OtlpReceiver

    def span(self, name: str) -> Span:
        """The span of a question, the only one of its trace without a parent in this server."""
        (found,) = (span for span in self._trace(name) if span.kind == Span.SPAN_KIND_SERVER)
        return found

    def stages(self, name: str) -> dict[str, Span]:
        parent = self.span(name).span_id
        return {span.name: span for span in self._trace(name) if span.parent_span_id == parent}

    def _trace(self, name: str) -> list[Span]:
        return [span for span in self.receiver.spans if span.trace_id == _trace_id(name)]


def _trace_id(name: str) -> bytes:
    return name.encode().rjust(16, b".")


def _headers(name: str) -> dict[str, str]:
    parent = f"00-{_trace_id(name).hex()}-{b'caller..'.hex()}-01"
    return {"traceparent": parent, "X-Request-Id": f"req-{name}"}


def _fail(*_: object) -> None:
    raise ZeroDivisionError


@pytest.fixture(scope="module")
def traced(settings: Settings, picture_url: str) -> Iterator[Traced]:
    """A server that was asked this and that, and has been closed, so that all spans are here."""
    asked: dict[str, dict[str, object]] = {
        "whole": question(ASKED, picture_url, skip_policy=POLICY, max_tokens=3, temperature=0),
        "stream": question(ASKED, max_tokens=3, stream=True, temperature=0),
        "late": question(ASKED, max_tokens=100, stream=True, timeout_seconds=1e-6),
        "unknown": question(ASKED, skip_policy="no-such-policy"),
        "misspelt": question(ASKED, skip_polcy="full"),
    }
    with pytest.MonkeyPatch.context() as environment, OtlpReceiver() as receiver:
        environment.setenv("OTEL_SERVICE_NAME", "eyes")
        traced_settings = settings.model_copy(update={"otlp_endpoint": receiver.url + "/"})
        with LiveServer(traced_settings) as server, server.client() as client:
            replies = {
                name: client.post(CHAT, json=body, headers=_headers(name))
                for name, body in asked.items()
            }
            with environment.context() as broken:
                broken.setattr(AnswerText, "push", _fail)
                body = question(ASKED, max_tokens=3, stream=True)
                replies["broken"] = client.post(CHAT, json=body, headers=_headers("broken"))
            several = {"prompt": [ASKED, "Why?"], "skip_policy": POLICY, "max_tokens": 2}
            replies["several"] = client.post(
                "/v1/completions", json=several, headers=_headers("several")
            )
            unsampled = _headers("unsampled")
            unsampled["traceparent"] = unsampled["traceparent"].removesuffix("01") + "00"
            client.post(CHAT, json=question(ASKED, max_tokens=1), headers=unsampled)
            client.get("/v1/models", headers=_headers("list"))
            assert client.get(CHAT, headers=_headers("get")).status_code == 405
        yield Traced(replies, receiver)


def test_a_request_is_a_span_of_its_callers_trace(traced: Traced, settings: Settings) -> None:
    span, reply = traced.span("whole"), traced.replies["whole"].json()
    assert span.name == f"chat {Path(settings.model).name}"
    assert span.parent_span_id == b"caller.."
    assert span.status.code == Status.STATUS_CODE_UNSET
    told = attributes(span.attributes)
    assert (
        told
        | {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "skipserve",
            "gen_ai.request.model": Path(settings.model).name,
            "gen_ai.response.model": Path(settings.model).name,
            "gen_ai.request.max_tokens": 3,
            "gen_ai.request.temperature": 0.0,
            "gen_ai.request.stream": False,
            "gen_ai.response.id": reply["id"],
            "gen_ai.response.finish_reasons": [reply["choices"][0]["finish_reason"]],
            "gen_ai.usage.input_tokens": reply["usage"]["prompt_tokens"],
            "gen_ai.usage.output_tokens": reply["usage"]["completion_tokens"],
            "http.response.status_code": 200,
            "skipserve.request_id": "req-whole",
            "skipserve.skip_policy": POLICY,
            "skipserve.skip_policy.digest": reply["metrics"]["skip"]["digest"],
            "skipserve.saved_ratio": reply["metrics"]["skip"]["saved_ratio"],
            "skipserve.images": 1,
        }
        == told
    )


def test_several_prompts_are_one_span_with_their_sums(traced: Traced) -> None:
    span, reply = traced.span("several"), traced.replies["several"].json()
    assert span.name.startswith("text_completion ")
    told = attributes(span.attributes)
    assert told["gen_ai.operation.name"] == "text_completion"
    assert told["gen_ai.usage.input_tokens"] == reply["usage"]["prompt_tokens"]
    assert told["gen_ai.usage.output_tokens"] == reply["usage"]["completion_tokens"]
    reasons = [choice["finish_reason"] for choice in reply["choices"]]
    assert told["gen_ai.response.finish_reasons"] == reasons
    reports = [choice["metrics"]["skip"] for choice in reply["choices"]]
    planned, full = (
        sum(report[name] for report in reports) for name in ("planned_flops", "full_flops")
    )
    assert told["skipserve.saved_ratio"] == 1 - planned / full


def test_the_stages_fill_the_time_to_the_last_token(traced: Traced) -> None:
    span, stages = traced.span("whole"), traced.stages("whole")
    assert list(stages) == [*BEFORE_TOKEN, "decode"]
    in_order = list(stages.values())
    for earlier, later in itertools.pairwise(in_order):
        # A microsecond, for the seconds are floats.
        assert earlier.end_time_unix_nano <= later.start_time_unix_nano + 1000
    assert span.start_time_unix_nano <= in_order[0].start_time_unix_nano
    assert in_order[-1].end_time_unix_nano <= span.end_time_unix_nano
    latency = traced.replies["whole"].json()["metrics"]["time_to_first_token_seconds"]
    told = attributes(span.attributes)["gen_ai.response.time_to_first_chunk"]
    assert told == latency
    seconds = sum(it.end_time_unix_nano - it.start_time_unix_nano for it in in_order[:-1]) / 1e9
    assert 0 < seconds <= latency


def test_a_stream_ends_with_its_last_token(traced: Traced) -> None:
    span = traced.span("stream")
    told = attributes(span.attributes)
    assert told["gen_ai.request.stream"] is True
    assert told["gen_ai.usage.output_tokens"] == 3
    assert told["skipserve.skip_policy"] == "full"
    assert told["skipserve.saved_ratio"] == 0
    assert traced.stages("stream")["decode"].end_time_unix_nano <= span.end_time_unix_nano


@pytest.mark.parametrize(
    ("name", "status", "error"),
    [("unknown", 404, "not_found_error"), ("misspelt", 400, "invalid_request_error")],
)
def test_what_a_client_did_wrong_is_told(
    traced: Traced, name: str, status: int, error: str
) -> None:
    span = traced.span(name)
    told = attributes(span.attributes)
    assert (told["http.response.status_code"], told["error.type"]) == (status, error)
    assert span.status.code == Status.STATUS_CODE_UNSET
    assert traced.stages(name) == {}


@pytest.mark.parametrize(
    ("name", "error", "code"),
    [
        ("broken", "server_error", Status.STATUS_CODE_ERROR),
        ("late", "timeout_error", Status.STATUS_CODE_UNSET),
    ],
)
def test_a_stream_that_fails_tells_why(traced: Traced, name: str, error: str, code: int) -> None:
    assert f'"type":"{error}"' in traced.replies[name].text
    span = traced.span(name)
    told = attributes(span.attributes)
    assert (told["http.response.status_code"], told["error.type"]) == (200, error)
    assert told["gen_ai.response.finish_reasons"] == ["error"]
    assert span.status.code == code


def test_nothing_else_is_sent(traced: Traced) -> None:
    assert traced.receiver.paths == {"/v1/traces", "/v1/metrics"}
    assert traced.receiver.resource["service.name"] == "eyes"
    servers = [it for it in traced.receiver.spans if it.kind == Span.SPAN_KIND_SERVER]
    assert {span.trace_id for span in servers} == {_trace_id(name) for name in traced.replies}
    assert len(servers) == len(traced.replies)
    # Neither question nor picture.
    assert not [
        span for span in traced.receiver.spans if ASKED.encode() in span.SerializeToString()
    ]


def _counts(traced: Traced, name: str) -> dict[tuple[object, object], int]:
    """Return how often something was observed, by operation and error."""
    points = traced.receiver.metrics[f"gen_ai.server.{name}"].histogram.data_points
    keys = [attributes(point.attributes) for point in points]
    assert all(set(key) - {"error.type"} == METRIC_ATTRIBUTES for key in keys)
    return {
        (key["gen_ai.operation.name"], key.get("error.type")): point.count
        for key, point in zip(keys, points, strict=True)
    }


def test_metrics_tell_how_long_each_request_took(traced: Traced) -> None:
    assert _counts(traced, "request.duration") == {
        # One of them is not sampled: metrics are of all.
        ("chat", None): 3,
        ("chat", "timeout_error"): 1,
        ("chat", "not_found_error"): 1,
        ("chat", "invalid_request_error"): 1,
        ("chat", "server_error"): 1,
        ("text_completion", None): 1,
    }


def test_metrics_tell_of_tokens_where_an_answer_came_to_its_end(traced: Traced) -> None:
    # Two prompts of one request have a first token each.
    first = {("chat", None): 3, ("text_completion", None): 2}
    assert _counts(traced, "time_to_first_token") == first
    # One answer has a single token, and so no time between two.
    answers = [traced.replies["whole"].json()["usage"]["completion_tokens"], 3]
    expected = sum(num_tokens > 1 for num_tokens in answers)
    assert _counts(traced, "time_per_output_token")["chat", None] == expected


def test_metrics_say_what_replies_say(traced: Traced) -> None:
    replies = traced.replies["several"].json()["choices"]
    for name, ours in (
        ("time_to_first_token", "time_to_first_token_seconds"),
        ("time_per_output_token", "inter_token_latency_seconds"),
    ):
        points = traced.receiver.metrics[f"gen_ai.server.{name}"].histogram.data_points
        (point,) = (
            it
            for it in points
            if attributes(it.attributes)["gen_ai.operation.name"] == "text_completion"
        )
        assert point.sum == pytest.approx(sum(it["metrics"][ours] or 0 for it in replies))


def test_metrics_can_be_left_out() -> None:
    with OtlpReceiver() as receiver:
        tracer = SpanTracer(receiver.url, "tiny", sends_metrics=False)
        tracer.record(Exchange({"type": "http", "method": "POST", "path": CHAT, "headers": []}))
        tracer.close()
        assert receiver.paths == {"/v1/traces"}


def test_a_collector_that_hangs_does_not_hold_the_end_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        tracer = SpanTracer(f"http://127.0.0.1:{silent.getsockname()[1]}", "tiny")
        scope = {"type": "http", "method": "POST", "path": CHAT, "headers": []}
        assert tracer.record(Exchange(scope)) is not None
        begun = time.perf_counter()
        tracer.close()
        assert time.perf_counter() - begun < 4 * slowness()


def test_without_an_endpoint_nothing_is_loaded(settings: Settings) -> None:
    script = (
        "import sys; from skipserve.app import build; from skipserve.settings import Settings;"
        f"build(Settings(model={settings.model!r}));"
        "print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_an_endpoint_without_the_packages_is_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "skipserve.tracing", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(StartError, match=r"skipserve\[trace\]"):
        build(settings.model_copy(update={"otlp_endpoint": "http://127.0.0.1:4318"}))
