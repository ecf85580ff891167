"""All Prometheus metrics of the server, fed by events. Knows neither HTTP nor the engine's inside.

Labels come from closed sets only: a policy that the server does not list, as every inline one, is
counted as "inline".
"""

import platform
from collections.abc import Callable, Iterable
from enum import StrEnum
from http import HTTPStatus
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Histogram

from skipserve.engine.types import FinishReason, Stage, StepOutput
from skipserve.metrics.engine import EngineMetrics
from skipserve.metrics.families import Families
from skipserve_policies.resolve import ResolvedPolicy

_ERROR_STATUSES = frozenset(status.value for status in HTTPStatus if status.value >= 400)

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


class ServerMetrics:
    """The metrics of one server.

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
        self._define_work()
        self._define_state()
        self._set_info(policies)

    def record_request(
        self, policy_name: str, finish_reason: FinishReason | None, duration_seconds: float
    ) -> None:
        """Count a request that has ended; `finish_reason` None means by an error."""
        labels = self._labels(policy_name)
        reason = "error" if finish_reason is None else finish_reason.value
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

    def record_prompt_tokens(self, policy_name: str, num_text: int, num_image: int) -> None:
        """Count the prompt rows of a request, those of images apart."""
        labels = self._labels(policy_name)
        self._prompt_tokens.labels(*labels).inc(num_text)
        self._image_tokens.labels(*labels).inc(num_image)

    def record_prefix_use(self, policy_name: str, num_prompt: int, num_cached: int) -> None:
        """Count the prompt rows of a request, and those of them that were not computed."""
        labels = self._labels(policy_name)
        self._prefix_queries.labels(*labels).inc(num_prompt)
        self._prefix_hits.labels(*labels).inc(num_cached)

    def record_output(self, policy_name: str, output: StepOutput) -> None:
        """Count what a step of the engine gave a request."""
        if output.token_id is not None:
            self._generated_tokens.labels(*self._labels(policy_name)).inc()
        for stage, seconds in output.stage_seconds.items():
            self.record_stage(stage, seconds)

    def record_error(self, code: int) -> None:
        """Count a reply with an error status; any that HTTP does not know as one counts as 500."""
        known = code if code in _ERROR_STATUSES else HTTPStatus.INTERNAL_SERVER_ERROR.value
        self._errors.labels(self._model, str(known)).inc()

    def record_rejection(self, reason: Rejection) -> None:
        """Count a request that was turned away."""
        self._rejections.labels(self._model, Rejection(reason).value).inc()

    def watch_engine(
        self,
        is_up: Callable[[], bool],
        num_running: Callable[[], int],
        num_waiting: Callable[[], int],
    ) -> None:
        """Ask for the engine's state whenever the metrics are read."""
        self._engine_up.labels(self._model).set_function(is_up)
        self._running.labels(self._model).set_function(num_running)
        self._waiting.labels(self._model).set_function(num_waiting)

    def _labels(self, policy_name: str) -> tuple[str, str]:
        return self._families.policy_labels(policy_name)

    def _define_latencies(self) -> None:
        self._request_duration = self._histogram(
            "request_duration", "From a request's arrival to its end.", _REQUEST_SECONDS
        )
        self._time_to_first_token = self._histogram(
            "time_to_first_token", "From a request's arrival to its first token.", _REQUEST_SECONDS
        )
        self._inter_token_latency = self._histogram(
            "inter_token_latency", "Between two tokens of a request.", _TOKEN_SECONDS
        )
        self._stage_duration = self._families.histogram(
            "stage_duration_seconds",
            "Time of a request in one stage, once per request; decode is from the first token to "
            "the last.",
            _STAGE_SECONDS,
            "stage",
        )

    def _define_work(self) -> None:
        self._requests = self._counter("requests", "Requests that ended.", "finish_reason")
        self._prompt_tokens = self._counter("prompt_tokens", "Prompt rows that show no image.")
        self._image_tokens = self._counter("image_tokens", "Prompt rows that show an image.")
        self._generated_tokens = self._counter("generated_tokens", "Tokens sampled.")
        self._prefix_queries = self._counter(
            "prefix_cache_queries", "Prompt rows that were looked for in the cache, image or text."
        )
        self._prefix_hits = self._counter(
            "prefix_cache_hits", "Prompt rows that were found there and not computed."
        )
        counter = self._families.counter
        self._errors = counter("errors", "Replies with an error status.", "code")
        self._rejections = counter("rejections", "Requests turned away.", "reason")
        self._cancellations = counter("cancellations", "Requests given up by clients.")

    def _define_state(self) -> None:
        gauge = self._families.gauge
        self._running = gauge("requests_running", "Requests under way in the engine.")
        self._waiting = gauge("requests_waiting", "Requests that wait for the engine.")
        self._engine_up = gauge("engine_up", "1 while the engine makes progress.")
        self._build_info = gauge("build_info", "What is running.", "version", "python")
        self._policy_info = gauge(
            "skip_policy_info", "The named policies.", "skip_policy", "digest", "scope"
        )

    def _set_info(self, policies: Iterable[ResolvedPolicy]) -> None:
        self._build_info.labels(self._model, version("skipserve"), platform.python_version()).set(1)
        for policy in policies:
            labels = policy.name, policy.digest, policy.scope or "none"
            self._policy_info.labels(self._model, *labels).set(1)

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...]) -> Histogram:
        return self._families.histogram(f"{name}_seconds", meaning, buckets, "skip_policy")

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return self._families.counter(name, meaning, "skip_policy", *labels)
