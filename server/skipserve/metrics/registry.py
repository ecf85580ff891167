"""What the front end tells of its work, counted beside its engine's. Knows no HTTP."""

import platform
from collections.abc import Callable, Iterable
from http import HTTPStatus
from importlib.metadata import version

from prometheus_client import CollectorRegistry, ProcessCollector

from skipserve.asking.auto.choice import Reason
from skipserve.budgets.client import Limited, Use
from skipserve.budgets.keys import OTHER
from skipserve.engine.reports import FinishReason, Stage
from skipserve.grammar.outcome import GrammarOutcome
from skipserve.media.fetch_fault import FetchFault
from skipserve.media.kill import Kill
from skipserve.metrics.engine import EngineMetrics
from skipserve.metrics.families import Families
from skipserve.metrics.table import Metrics, Rejection, UsedFlops, UsedTokens
from skipserve.metrics.vllm_names import VllmNames
from skipserve_policies.named import FULL
from skipserve_policies.quality import IN_PERCENT
from skipserve_policies.resolve import ResolvedPolicy
from skipserve_policies.schema import Quality

_ERROR_STATUSES = frozenset(status.value for status in HTTPStatus if status.value >= 400)
_ERROR = "error"


class ServerMetrics:
    """The metrics of one server.

    Attributes:
        engine: hears what its engine does.

    Args:
        registry: where they are registered.
        model: the name of the served model.
        policies: the policies that have a name here.
        default: the name of the one that runs where a request names none.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        model: str,
        policies: Iterable[ResolvedPolicy],
        default: str = FULL,
    ) -> None:
        policies = tuple(policies)
        families = Families(registry, model, frozenset(policy.name for policy in policies))
        self.engine = EngineMetrics(families)
        self._families, self._of = families, families.of
        self._keys: frozenset[str] = frozenset()
        self.know_keys(())
        self._of(Metrics.build_info, version("skipserve"), platform.python_version()).set(1)
        for policy in policies:
            is_default = str(policy.name == default).lower()
            labels = policy.name, policy.digest, policy.scope or "none", is_default
            self._of(Metrics.skip_policy_info, *labels).set(1)
        ProcessCollector(registry=registry)

    def show_policy(
        self, policy_name: str, saved_ratio: float, measured: Iterable[Quality]
    ) -> None:
        """Tell what a named policy saves, and how good it was on the loaded model.

        Of each data set that is the first share that was measured; points are no share.
        """
        self._of(Metrics.skip_policy_saved_ratio, policy_name).set(saved_ratio)
        shares = [quality for quality in measured if quality.metric.endswith(IN_PERCENT)]
        for quality in {quality.dataset: quality for quality in reversed(shares)}.values():
            labels = policy_name, quality.dataset, str(quality.n or "unknown")
            self._of(Metrics.skip_policy_quality_ratio, *labels).set(quality.value / 100)

    def know_keys(self, names: Iterable[str]) -> None:
        """Count those who have these names apart from now on. Who had one before keeps it."""
        self._keys |= frozenset(names)
        for name in (OTHER, *sorted(self._keys)):
            self._of(Metrics.key_requests, name)
            for tokens in UsedTokens:
                self._of(Metrics.key_tokens, name, tokens)
            for flops in UsedFlops:
                self._of(Metrics.key_flops, name, flops)
            for reason in Limited:
                self._of(Metrics.key_limited, name, reason)

    def record_use(self, key_name: str | None, use: Use) -> None:
        """Count what a request of a key took; None for whoever has no name."""
        name = self._key(key_name)
        self._of(Metrics.key_requests, name).inc()
        self._of(Metrics.key_tokens, name, UsedTokens.PROMPT).inc(use.prompt_tokens)
        self._of(Metrics.key_tokens, name, UsedTokens.CACHED).inc(use.cached_tokens)
        self._of(Metrics.key_tokens, name, UsedTokens.COMPLETION).inc(use.completion_tokens)
        self._of(Metrics.key_flops, name, UsedFlops.COMPUTED).inc(use.computed_flops)
        self._of(Metrics.key_flops, name, UsedFlops.FULL).inc(use.full_flops)

    def record_limited(self, key_name: str | None, limit: Limited) -> None:
        """Count a request of a key that was over a limit of its."""
        self._of(Metrics.key_limited, self._key(key_name), Limited(limit)).inc()

    def _key(self, name: str | None) -> str:
        return name if name in self._keys else OTHER

    def show_vllm_names(self, page_size: int, reuses_prefixes: bool) -> None:
        """Show all that vLLM has a name for by that name too."""
        names = VllmNames(self._families, page_size, reuses_prefixes)
        self._families.registry.register(names)

    def watch_queue(self, num_tokens: Callable[[], int]) -> None:
        """Ask for the prompt tokens that wait whenever the metrics are read."""
        self._of(Metrics.prompt_tokens_waiting).set_function(num_tokens)

    def watch_images(self, num_waiting: Callable[[], int]) -> None:
        """Ask for the images that wait to be decoded whenever the metrics are read."""
        self._of(Metrics.images_waiting).set_function(num_waiting)

    def record_image_kill(self, reason: Kill) -> None:
        """Count a process that was lost over an image."""
        self._of(Metrics.image_decoders_killed, Kill(reason)).inc()

    def record_grammar(self, outcome: GrammarOutcome) -> None:
        """Count what an answer was to be held to."""
        self._of(Metrics.grammars, GrammarOutcome(outcome)).inc()

    def record_choice(self, policy_name: str, reason: Reason) -> None:
        """Count a policy that was chosen for a request."""
        self._of(Metrics.auto_choices, policy_name, Reason(reason)).inc()

    def record_fetch_failure(self, reason: FetchFault) -> None:
        """Count an image that was not fetched."""
        self._of(Metrics.image_fetch_failures, FetchFault(reason)).inc()

    def record_request(
        self, policy_name: str, finish_reason: FinishReason | None, duration_seconds: float
    ) -> None:
        """Count a request that has ended; `finish_reason` None means by an error."""
        self._of(Metrics.requests, policy_name, finish_reason or _ERROR).inc()
        self._of(Metrics.request_duration_seconds, policy_name).observe(duration_seconds)
        if finish_reason is FinishReason.CANCELLED:
            self._of(Metrics.cancellations).inc()

    def record_first_token(self, policy_name: str, seconds: float) -> None:
        """Observe the time from a request's arrival to its first token."""
        self._of(Metrics.time_to_first_token_seconds, policy_name).observe(seconds)

    def record_inter_token(self, policy_name: str, seconds: float) -> None:
        """Observe the time between two tokens of a request."""
        self._of(Metrics.inter_token_latency_seconds, policy_name).observe(seconds)

    def record_stage(self, stage: Stage, seconds: float) -> None:
        """Observe the time that a request spent in a stage."""
        self._of(Metrics.stage_duration_seconds, Stage(stage)).observe(seconds)

    def record_prompt(
        self, policy_name: str, num_text: int, num_visual: int, num_images: int
    ) -> None:
        """Count the prompt rows of a request, those that show an image apart, and its images."""
        self._of(Metrics.prompt_tokens, policy_name).inc(num_text)
        self._of(Metrics.image_tokens, policy_name).inc(num_visual)
        self._of(Metrics.images, policy_name).inc(num_images)
        # They begin at 0 here, so that the first end of each kind is seen as one more.
        for end in (*FinishReason, _ERROR):
            self._of(Metrics.requests, policy_name, end)

    def record_prefix_use(self, policy_name: str, num_prompt: int, num_cached: int) -> None:
        """Count the prompt rows of a request, and those of them that were not computed."""
        self._of(Metrics.prefix_cache_queries, policy_name).inc(num_prompt)
        self._of(Metrics.prefix_cache_hits, policy_name).inc(num_cached)

    def expect_errors(self, codes: Iterable[int]) -> None:
        """Begin to count errors with these statuses, so that the first is seen as one more."""
        for code in codes:
            self._of(Metrics.errors, str(code))

    def record_error(self, code: int) -> None:
        """Count an error that a client was told; a status that is none of HTTP's counts as 500."""
        known = code if code in _ERROR_STATUSES else HTTPStatus.INTERNAL_SERVER_ERROR.value
        self._of(Metrics.errors, str(known)).inc()

    def record_rejection(self, reason: Rejection) -> None:
        """Count a request that was turned away."""
        self._of(Metrics.rejections, Rejection(reason)).inc()
