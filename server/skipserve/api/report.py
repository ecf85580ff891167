"""What a reply says about the work: the skip report, token usage and times."""

from dataclasses import asdict, dataclass

from skipserve.api.answer import Tally
from skipserve.api.wire import RequestMetrics, SavedFor, SkipReport, TokenDetails, Usage
from skipserve.engine.request import Request
from skipserve_policies import flops
from skipserve_policies.cost import request_shape, saving, standard_request
from skipserve_policies.plan import TokenClass
from skipserve_policies.resolve import ResolvedPolicy
from skipserve_policies.sizes import ModelSizes


@dataclass(frozen=True)
class Reporter:
    """Counts FLOPs for one model; `sizes` are the model's."""

    sizes: ModelSizes

    def saved_ratio(self, policy: ResolvedPolicy) -> float:
        """Return what a policy saves on the standard request: one image, 10 tokens of answer."""
        return saving(self.sizes, policy.plan, standard_request(self.sizes)).saved_ratio

    def saved_for(self, shape: flops.Request | None = None) -> SavedFor:
        """Return what names a request's shape; without one, the standard request's."""
        named = request_shape(self.sizes, shape or standard_request(self.sizes))
        return SavedFor(**asdict(named))

    def metrics(self, request: Request, policy: ResolvedPolicy, tally: Tally) -> RequestMetrics:
        """Return the `metrics` object of a reply."""
        shape = flops.Request(
            prompt=request.token_classes,
            num_generated=tally.num_generated,
            num_cached=tally.num_cached,
            num_images=self._num_needed(request, tally.num_cached),
        )
        saved = saving(self.sizes, policy.plan, shape)
        return RequestMetrics(
            queue_seconds=tally.queue_seconds,
            time_to_first_token_seconds=tally.time_to_first_token_seconds,
            inter_token_latency_seconds=tally.inter_token_latency_seconds,
            duration_seconds=tally.duration_seconds,
            skip=SkipReport(
                policy=policy.name,
                digest=policy.digest,
                layers=policy.layers,
                planned_flops=saved.planned_flops,
                full_flops=saved.full_flops,
                saved_ratio=saved.saved_ratio,
                saved_for=self.saved_for(shape),
            ),
        )

    def _num_needed(self, request: Request, num_cached: int) -> int:
        """Return the images of which some row was not there already."""
        num_found = request.token_classes[:num_cached].count(TokenClass.VISUAL)
        return int((request.image_starts[1:] > num_found).sum())


def usage(request: Request, tally: Tally) -> Usage:
    """Return the `usage` object of a reply."""
    return Usage(
        prompt_tokens=request.num_prompt,
        completion_tokens=tally.num_generated,
        total_tokens=request.num_prompt + tally.num_generated,
        prompt_tokens_details=TokenDetails(
            cached_tokens=tally.num_cached,
            multimodal_tokens=num_visual(request),
        ),
    )


def num_visual(request: Request) -> int:
    """Return the prompt rows that show an image."""
    return request.token_classes.count(TokenClass.VISUAL)
