"""OpenTelemetry's metrics of generative AI's servers, sent beside the traces.

All that they tell was measured anyway: a request is recorded when it has ended. Needs the extra
`trace`.
"""

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from skipserve.api.exchange import Exchange
from skipserve.engine.reports import FinishReason

_NAME = "skipserve"
# All three as the conventions want them.
_REQUEST_SECONDS = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
)  # fmt: skip
_FIRST_TOKEN_SECONDS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
_TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)


class GenAiMetrics:
    """Sends histograms of how long requests take, by operation and error.

    Knows no global provider: what other libraries measure in this process stays theirs.

    Args:
        endpoint: of the collector, without the path of metrics.
        model: the name of the served model.
        resource: who sends.
    """

    def __init__(self, endpoint: str, model: str, resource: Resource) -> None:
        self._common = {
            "gen_ai.provider.name": _NAME,
            "gen_ai.request.model": model,
            "gen_ai.response.model": model,
        }
        exporter = OTLPMetricExporter(endpoint=f"{endpoint.rstrip('/')}/v1/metrics")
        self._provider = MeterProvider(
            [PeriodicExportingMetricReader(exporter)], resource, shutdown_on_exit=False
        )
        meter = self._provider.get_meter(_NAME)
        self._duration = meter.create_histogram(
            "gen_ai.server.request.duration",
            "s",
            "From a request's arrival to the end of its reply.",
            explicit_bucket_boundaries_advisory=_REQUEST_SECONDS,
        )
        self._first_token = meter.create_histogram(
            "gen_ai.server.time_to_first_token",
            "s",
            "From a question to its first token, of answers that came to their end.",
            explicit_bucket_boundaries_advisory=_FIRST_TOKEN_SECONDS,
        )
        self._per_token = meter.create_histogram(
            "gen_ai.server.time_per_output_token",
            "s",
            "Mean time between two tokens of an answer, of those that came to their end.",
            explicit_bucket_boundaries_advisory=_TOKEN_SECONDS,
        )

    def record(self, exchange: Exchange, operation: str) -> None:
        """Record a request that has ended: its time, and of a good end those of its tokens."""
        attributes = self._common | {"gen_ai.operation.name": operation}
        if (error := _error_of(exchange)) is not None:
            self._duration.record(exchange.duration_seconds, attributes | {"error.type": error})
            return
        self._duration.record(exchange.duration_seconds, attributes)
        for account in exchange.accounts:
            if (seconds := account.time_to_first_token_seconds) is not None:
                self._first_token.record(seconds, attributes)
            if (seconds := account.inter_token_latency_seconds) is not None:
                self._per_token.record(seconds, attributes)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def _error_of(exchange: Exchange) -> str | None:
    """Return how a request failed, in the words of its error's type or of the metrics."""
    is_cancelled = exchange.status is None or any(
        account.finish_reason is FinishReason.CANCELLED for account in exchange.accounts
    )
    return exchange.error_type or (FinishReason.CANCELLED.value if is_cancelled else None)
