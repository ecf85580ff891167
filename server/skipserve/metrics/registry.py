"""All Prometheus metrics of the server, fed by events. Knows neither HTTP nor the engine's inside.

Labels come from closed sets only: a policy that the server does not list, as every inline one, is
counted as "inline".
"""

import platform
from collections.abc import Callable, Iterable
from enum import StrEnum
from http import HTTPStatus
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector

from skipserve.engine.reports import (
    EngineState,
    FailureKind,
    FinishReason,
    Ready,
    Stage,
    StepOutput,
    StepReport,
)
from skipserve.metrics.engine import EngineMetrics
from skipserve.metrics.families import Families, Labels, Metric
from skipserve.service.observer import Observer
from skipserve_policies.resolve import ResolvedPolicy
from skipserve_policies.schema import Quality

_ERROR_STATUSES = frozenset(status.value for status in HTTPStatus if status.value >= 400)
_ERROR = "error"
_ENDS = (*(reason.value for reason in FinishReason), _ERROR)

# A VQA answer has 1 to 5 tokens, so the scales start low; a prefill on a CPU takes a minute.
_TOKEN_SECONDS = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.2, 0.5, 1.0, 2.5),
)
_REQUEST_SECONDS = (
    *(0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75),
    *(1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 120.0),
)
_STAGE_SECONDS = (
    *(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 300.0),
)


class Rejection(StrEnum):
    """Why a well-formed request was turned away."""

    QUEUE_FULL = "queue_full"
    QUEUED_TOKENS = "queued_tokens"
    DRAINING = "draining"
    NOT_READY = "not_ready"


class ServerMetrics(Observer):
    """The metrics of one server, which hear what its engine does.

    Attributes:
        engine: those of its engine.

    Args:
        registry: where they are registered.
        model: the name of the served model.
        policies: the policies that have a name here.
    """

    def __init__(
        self, registry: CollectorRegistry, model: str, policies: Iterable[ResolvedPolicy]
    ) -> None:
        policies = tuple(policies)
        self._model = model
        self._families = Families(registry, model, frozenset(policy.name for policy in policies))
        self.engine = EngineMetrics(self._families)
        self._define_latencies()
        self._define_requests()
        self._define_tokens()
        self._define_policies()
        self._set_info(policies)
        ProcessCollector(registry=registry)

    @property
    def made(self) -> tuple[Metric, ...]:
        """All metrics of ours, those of the engine included."""
        return tuple(self._families.made)

    def show_policy(
        self, policy_name: str, saved_ratio: float, measured: Iterable[Quality]
    ) -> None:
        """Tell what a named policy saves, and how good it was on the loaded model."""
        labels = self._labels(policy_name)
        self._saved_ratio.labels(*labels).set(saved_ratio)
        for quality in measured:
            about = quality.dataset, str(quality.n or "unknown")
            self._quality_ratio.labels(*labels, *about).set(quality.value / 100)

    def watch_queue(self, num_tokens: Callable[[], int]) -> None:
        """Ask for the prompt tokens that wait whenever the metrics are read."""
        self._tokens_waiting.labels(self._model).set_function(num_tokens)

    def record_request(
        self, policy_name: str, finish_reason: FinishReason | None, duration_seconds: float
    ) -> None:
        """Count a request that has ended; `finish_reason` None means by an error."""
        labels = self._labels(policy_name)
        reason = _ERROR if finish_reason is None else finish_reason.value
        self._requests.labels(*labels, reason).inc()
        self._request_duration.labels(*labels).observe(duration_seconds)
        if finish_reason is FinishReason.CANCELLED:
            self._cancellations.labels(self._model).inc()

    def record_first_token(self, policy_name: str, seconds: float) -> None:
        """Observe the time from a request's arrival to its first token."""
        self._time_to_first_token.labels(*self._labels(policy_name)).observe(seconds)

    def record_inter_token(self, policy_name: str, seconds: float) -> None:
        """Observe the time between two tokens of a request."""
        self._inter_token_latency.labels(*self._labels(policy_name)).observe(seconds)

    def record_stage(self, stage: Stage, seconds: float) -> None:
        """Observe the time that a request spent in a stage."""
        self._stage_duration.labels(self._model, Stage(stage).value).observe(seconds)

    def record_prompt(
        self, policy_name: str, num_text: int, num_visual: int, num_images: int
    ) -> None:
        """Count the prompt rows of a request, those that show an image apart, and its images."""
        labels = self._labels(policy_name)
        self._prompt_tokens.labels(*labels).inc(num_text)
        self._image_tokens.labels(*labels).inc(num_visual)
        self._images.labels(*labels).inc(num_images)
        # They begin at 0 here, so that the first end of each kind is seen as one more.
        for end in _ENDS:
            self._requests.labels(*labels, end)

    def record_prefix_use(self, policy_name: str, num_prompt: int, num_cached: int) -> None:
        """Count the prompt rows of a request, and those of them that were not computed."""
        labels = self._labels(policy_name)
        self._prefix_queries.labels(*labels).inc(num_prompt)
        self._prefix_hits.labels(*labels).inc(num_cached)

    def watch_engine(
        self,
        is_ready: Callable[[], bool],
        num_running: Callable[[], int],
        num_waiting: Callable[[], int],
        pid: Callable[[], int | None],
    ) -> None:
        """Ask for the engine's condition whenever the metrics are read."""
        self.engine.watch(is_ready, num_running, num_waiting, pid)

    def record_ready(self, ready: Ready) -> None:
        """Tell what was loaded."""
        self.engine.record_ready(ready)

    def record_state(self, state: EngineState) -> None:
        """Show how the engine stands."""
        self.engine.record_state(state)

    def record_step(self, report: StepReport) -> None:
        """Count what a step did."""
        self.engine.record_step(report)

    def record_failure(self, kind: FailureKind) -> None:
        """Count a request that the engine gave up."""
        self.engine.record_failure(kind)

    def record_output(self, policy_name: str, output: StepOutput) -> None:
        """Count what a step of the engine gave a request."""
        if output.token_id is not None:
            self._generated_tokens.labels(*self._labels(policy_name)).inc()
        for stage, seconds in output.stage_seconds.items():
            self.record_stage(stage, seconds)

    def expect_errors(self, codes: Iterable[int]) -> None:
        """Begin to count errors with these statuses, so that the first is seen as one more."""
        for code in codes:
            self._errors.labels(self._model, str(code))

    def record_error(self, code: int) -> None:
        """Count an error that a client was told; a status that is none of HTTP's counts as 500."""
        known = code if code in _ERROR_STATUSES else HTTPStatus.INTERNAL_SERVER_ERROR.value
        self._errors.labels(self._model, str(known)).inc()

    def record_rejection(self, reason: Rejection) -> None:
        """Count a request that was turned away."""
        self._rejections.labels(self._model, Rejection(reason).value).inc()

    def _labels(self, policy_name: str) -> tuple[str, str]:
        return self._families.policy_labels(policy_name)

    def _define_latencies(self) -> None:
        self._request_duration = self._histogram(
            "request_duration_seconds",
            "From a request's arrival to its end, however it ended.",
            "Which stage grew: `skipserve_stage_duration_seconds`.",
            _REQUEST_SECONDS,
        )
        self._time_to_first_token = self._histogram(
            "time_to_first_token_seconds",
            "From a request's arrival to its first token.",
            "The stages up to prefill, the queue first.",
            _REQUEST_SECONDS,
        )
        self._inter_token_latency = self._histogram(
            "inter_token_latency_seconds",
            "Between two tokens of a request.",
            "`skipserve_engine_step_seconds`, and how many rows the steps have.",
            _TOKEN_SECONDS,
        )
        self._stage_duration = self._families.histogram(
            "stage_duration_seconds",
            "Time of a request in one stage, once per request; decode is from the first token to "
            "the last.",
            "queue: the engine is full. decode_image, preprocess, tokenize: the front end lacks "
            "CPU. vision_encode: images that no cache had.",
            _STAGE_SECONDS,
            unit="seconds",
            labels=("stage",),
        )

    def _define_requests(self) -> None:
        counter = self._families.counter
        self._requests = self._counter(
            "requests",
            "Requests handed to the engine that ended.",
            "error: `skipserve_request_failures_total` says why; if not, the log. More length than "
            "before: answers ramble; is it one policy?",
            "finish_reason",
            unit="requests",
        )
        self._errors = counter(
            "errors",
            "Errors that clients were told, by status; those told in a stream after its 200 too.",
            "408: it waited or took too long. Other 4xx: what clients send, see the access log. "
            "503: rejections, memory that ran out, probes while the server loads or stops. 500: "
            "the log has the exception.",
            unit="errors",
            labels=("code",),
        )
        self._rejections = counter(
            "rejections",
            "Requests turned away with a 503, before the engine.",
            "queue_full, queued_tokens: more comes than is served. draining, not_ready: a rollout; "
            "if not, the engine is down.",
            unit="requests",
            labels=("reason",),
        )
        self._cancellations = counter(
            "cancellations",
            "Requests given up by clients.",
            "Rises with latency: clients run out of patience.",
            unit="requests",
        )
        self._tokens_waiting = self._families.gauge(
            "prompt_tokens_waiting",
            "Prompt tokens that wait for the first token of their answer.",
            "At `--max-queued-tokens` requests are turned away.",
            unit="tokens",
        )
        self._cancellations.labels(self._model)
        for reason in Rejection:
            self._rejections.labels(self._model, reason.value)

    def _define_tokens(self) -> None:
        self._prompt_tokens = self._counter(
            "prompt_tokens",
            "Prompt rows that show no image.",
            "Longer prompts cost prefill and pages.",
            unit="tokens",
        )
        self._image_tokens = self._counter(
            "image_tokens",
            "Prompt rows that show an image.",
            "More images, or more of them a request.",
            unit="tokens",
        )
        self._generated_tokens = self._counter(
            "generated_tokens",
            "Tokens sampled.",
            "The server's throughput. Per request: do answers grow under one policy?",
            unit="tokens",
        )
        self._images = self._counter(
            "images",
            "Images that requests brought.",
            "The base of `skipserve_images_encoded_total`.",
            unit="images",
        )
        self._prefix_queries = self._counter(
            "prefix_cache_queries",
            "Prompt rows that were looked for in the cache, image or text.",
            "The base of the hit ratio.",
            unit="rows",
        )
        self._prefix_hits = self._counter(
            "prefix_cache_hits",
            "Prompt rows that were found there and not computed.",
            "Falls: other images, a policy that shares with none, or evictions.",
            unit="rows",
        )

    def _define_policies(self) -> None:
        gauge = self._families.gauge
        self._build_info = gauge(
            "build_info",
            "1; what is running.",
            "Differs among replicas: a rollout is under way.",
            unit="1",
            labels=("version", "python"),
        )
        self._policy_info = gauge(
            "skip_policy_info",
            "1; the named policies. Equal digests compute the same.",
            "A digest that changed: the name means something else now.",
            unit="1",
            labels=("skip_policy", "digest", "scope"),
        )
        self._saved_ratio = gauge(
            "skip_policy_saved_ratio",
            "Planned share of the full model's FLOPs that is saved on the standard request: 60 "
            "text tokens, one image, 10 tokens of answer.",
            "Changes with the policies file only.",
            unit="ratio",
            labels=("skip_policy",),
        )
        self._quality_ratio = gauge(
            "skip_policy_quality_ratio",
            "Share of right answers, as `skipserve evaluate` measured it on these weights. Absent "
            "where it did not.",
            "Changes with a new evaluation only. Compare with that of `full`.",
            unit="ratio",
            labels=("skip_policy", "dataset", "samples"),
        )

    def _set_info(self, policies: Iterable[ResolvedPolicy]) -> None:
        self._build_info.labels(self._model, version("skipserve"), platform.python_version()).set(1)
        for policy in policies:
            labels = policy.name, policy.digest, policy.scope or "none"
            self._policy_info.labels(self._model, *labels).set(1)

    def _histogram(
        self, name: str, meaning: str, advice: str, buckets: tuple[float, ...]
    ) -> Histogram:
        return self._families.histogram(
            name, meaning, advice, buckets, unit="seconds", labels=("skip_policy",)
        )

    def _counter(self, name: str, meaning: str, advice: str, *labels: str, unit: str) -> Counter:
        of_policy: Labels = ("skip_policy", *labels)
        return self._families.counter(name, meaning, advice, unit=unit, labels=of_policy)
