"""Traces of requests that ask, for OpenTelemetry, made when a request has ended.

All that they tell was measured anyway, so nothing runs per token. Needs the extra `trace`.
"""

import threading
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from itertools import accumulate, pairwise

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from skipserve.api.exchange import Exchange
from skipserve.api.paths import OPERATIONS
from skipserve.asking.account import Account
from skipserve.engine.reports import Stage
from skipserve.genai_metrics import GenAiMetrics

_NAME = "skipserve"
_LAST_WORDS_SECONDS = 2.0
_BEFORE_ENGINE = (Stage.FETCH_IMAGE, Stage.DECODE_IMAGE, Stage.PREPROCESS, Stage.TOKENIZE)
_BEFORE_TOKEN = (Stage.QUEUE, Stage.VISION_ENCODE, Stage.PREFILL)
Attributes = Mapping[str, AttributeValue | None]


class SpanTracer:
    """Sends a span for each request, with the stages as its children.

    Knows no global provider: what other libraries trace in this process stays theirs.

    Args:
        endpoint: of the collector, without the path of traces.
        model: the name of the served model.
        sends_metrics: whether how long requests take is sent there as metrics too.
    """

    def __init__(self, endpoint: str, model: str, sends_metrics: bool = True) -> None:
        self._model = model
        ours = Resource.create({"service.name": _NAME, "service.version": version(_NAME)})
        # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say goes first.
        resource = ours.merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer(_NAME, version(_NAME))
        self._metrics = GenAiMetrics(endpoint, model, resource) if sends_metrics else None
        self._propagator = TraceContextTextMapPropagator()

    def record(self, exchange: Exchange) -> str | None:
        """Trace a request that has ended; return the trace's id, None for one that has no trace."""
        operation = OPERATIONS.get(exchange.path)
        if exchange.method != "POST" or operation is None:
            return None
        if self._metrics is not None:
            self._metrics.record(exchange, operation)
        span = self._tracer.start_span(
            f"{operation} {self._model}",
            self._propagator.extract(exchange.headers),
            SpanKind.SERVER,
            _given(_of_exchange(exchange, self._model, operation)),
            start_time=exchange.arrived_at,
        )
        if span.is_recording():
            self._fill(span, exchange)
        span.end(_nanoseconds(exchange, exchange.arrived + exchange.duration_seconds))
        return format_trace_id(span.get_span_context().trace_id)

    def close(self) -> None:
        """Send what is left, unless the collector takes too long."""
        closing = threading.Thread(target=self._shut_down, daemon=True)
        closing.start()
        closing.join(_LAST_WORDS_SECONDS)

    def _shut_down(self) -> None:
        self._provider.shutdown()
        if self._metrics is not None:
            self._metrics.close()

    def _fill(self, span: Span, exchange: Exchange) -> None:
        if exchange.error is not None and exchange.error.status >= 500:
            span.set_status(StatusCode.ERROR)
        if not exchange.has_started:
            return
        span.set_attributes(_given(_of_question(exchange)))
        span.set_attributes(_given(_of_answer(exchange)))
        context = set_span_in_context(span)
        for stage, (start, end) in _places(exchange).items():
            times = _nanoseconds(exchange, start), _nanoseconds(exchange, end)
            self._tracer.start_span(stage.value, context, start_time=times[0]).end(times[1])


def _given(attributes: Attributes) -> dict[str, AttributeValue]:
    return {name: value for name, value in attributes.items() if value is not None}


def _of_exchange(exchange: Exchange, model: str, operation: str) -> Attributes:
    return {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": _NAME,
        "gen_ai.response.model": model,
        "http.request.method": exchange.method,
        "http.response.status_code": exchange.status,
        "url.path": exchange.path,
        "error.type": exchange.error_type,
        "skipserve.request_id": exchange.request_id,
    }


def _of_question(exchange: Exchange) -> Attributes:
    prepared = exchange.prepared
    request, policy = prepared.request, prepared.policy
    return {
        "gen_ai.request.model": prepared.model,
        "gen_ai.request.max_tokens": request.sampling.max_tokens,
        "gen_ai.request.temperature": request.sampling.temperature,
        "gen_ai.request.top_p": request.sampling.top_p,
        "gen_ai.request.top_k": request.sampling.top_k or None,
        "gen_ai.request.seed": prepared.generation.seed,
        "gen_ai.request.stream": exchange.wants_stream,
        "skipserve.skip_policy": policy.name,
        "skipserve.skip_policy.digest": policy.digest,
        "skipserve.images": len(request.images),
    }


def _of_answer(exchange: Exchange) -> Attributes:
    accounts = exchange.accounts
    reasons = [it.finish_reason.value if it.finish_reason else "error" for it in accounts]
    return {
        "gen_ai.response.id": exchange.prepared.request.id,
        "gen_ai.response.finish_reasons": reasons,
        "gen_ai.response.time_to_first_chunk": exchange.time_to_first_token_seconds,
        "gen_ai.usage.input_tokens": sum(it.prepared.request.num_prompt for it in accounts),
        "gen_ai.usage.cache_read.input_tokens": sum(it.num_cached for it in accounts),
        "gen_ai.usage.output_tokens": sum(it.num_generated for it in accounts),
        "skipserve.saved_ratio": _saved_ratio(accounts),
        "skipserve.engine": accounts[0].engine or None,
        "skipserve.detokenize_seconds": exchange.stage_seconds.get(Stage.DETOKENIZE),
    }


def _saved_ratio(accounts: Sequence[Account]) -> float | None:
    """Return the share of the full model's FLOPs that all answers saved; None if one has failed."""
    reports = [account.skip for account in accounts if account.skip is not None]
    if len(reports) < len(accounts):
        return None
    planned = sum(report.planned_flops for report in reports)
    return 1 - planned / sum(report.full_flops for report in reports)


def _places(account: Account) -> dict[Stage, tuple[float, float]]:
    """Return the start and end of each stage, on the clock of `perf_counter`.

    Only their lengths were measured. They are laid end to end: those of the front end from the
    question's arrival there, those of the engine up to the first token, decode from it.
    """
    seconds = account.stage_seconds
    places = _in_a_row(_BEFORE_ENGINE, seconds, account.asked)
    if account.first_token is None or account.last_token is None:
        return places
    engine_start = account.first_token - sum(seconds.get(stage, 0.0) for stage in _BEFORE_TOKEN)
    places |= _in_a_row(_BEFORE_TOKEN, seconds, engine_start)
    return places | {Stage.DECODE: (account.first_token, account.last_token)}


def _in_a_row(
    stages: Sequence[Stage], seconds: Mapping[Stage, float], start: float
) -> dict[Stage, tuple[float, float]]:
    """Return the places of the stages that there were, one after the other."""
    lengths = {stage: seconds[stage] for stage in stages if stage in seconds}
    ends = list(accumulate(lengths.values(), initial=start))
    return dict(zip(lengths, pairwise(ends), strict=True))


def _nanoseconds(exchange: Exchange, moment: float) -> int:
    """Return a moment of `perf_counter` in nanoseconds since 1970."""
    return exchange.arrived_at + round((moment - exchange.arrived) * 1e9)
