"""OpenTelemetry's metrics of requests that no server needs to run for."""

import pytest
from opentelemetry.sdk.resources import Resource
from otlp_receiver import OtlpReceiver, attributes

from skipserve.api.exchange import Exchange
from skipserve.genai_metrics import GenAiMetrics

pytestmark = pytest.mark.fast


def _exchange() -> Exchange:
    return Exchange({"type": "http", "method": "POST", "path": "/v1/messages", "headers": []})


def test_a_request_whose_client_has_left_is_no_success() -> None:
    with OtlpReceiver() as receiver:
        metrics = GenAiMetrics(f"{receiver.url}/", "tiny", Resource({"service.name": "eyes"}))
        left, answered = _exchange(), _exchange()
        answered.status = 200
        metrics.record(left, "chat")
        metrics.record(answered, "chat")
        metrics.close()
    assert receiver.paths == {"/v1/metrics"}
    # There was no token.
    (duration,) = receiver.metrics.values()
    assert (duration.name, duration.unit) == ("gen_ai.server.request.duration", "s")
    points = duration.histogram.data_points
    errors = [attributes(point.attributes).get("error.type") for point in points]
    assert sorted(errors, key=str) == [None, "cancelled"]
    for point in points:
        assert list(point.explicit_bounds) == [0.01 * 2**power for power in range(14)]
        told = attributes(point.attributes)
        assert told["gen_ai.request.model"] == told["gen_ai.response.model"] == "tiny"
        assert told["gen_ai.provider.name"] == "skipserve"
