"""What a request would cost under a policy now, and how long it would take."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from skipserve.asking.account import Account
from skipserve.asking.auto.chosen import Trace
from skipserve.asking.auto.memory import SeenImages, WarmPrefixes
from skipserve.asking.auto.speeds import Speeds, Work
from skipserve.asking.auto.traces import Mark
from skipserve.digests import digest_of
from skipserve.engine.reports import Stage
from skipserve.engine.request import Image, Request
from skipserve_policies import flops
from skipserve_policies.plan import TokenClass
from skipserve_policies.reduction import Reduction
from skipserve_policies.resolve import ResolvedPolicy
from skipserve_policies.shapes import reduced_request
from skipserve_policies.sizes import ModelSizes


@dataclass(frozen=True)
class Shape:
    """A request, as far as its cost depends on it.

    Attributes:
        prompt: the class of each prompt row, with all rows of its images.
        images: in the order of their places, with all their rows.
        max_tokens: the answer may have so many.
        is_scored: whether tokens of the prompt are scored: then none of it is reused.
    """

    prompt: tuple[TokenClass, ...]
    images: tuple[Image, ...]
    max_tokens: int
    is_scored: bool = False

    @property
    def num_scored(self) -> int:
        """Tokens of the prompt that are scored, about."""
        return len(self.prompt) - 1 - self.prompt.count(TokenClass.VISUAL) if self.is_scored else 0


@dataclass(frozen=True)
class Estimate:
    """What a request would cost under one policy.

    Attributes:
        flops: what is to be computed.
        cold_flops: the same if nothing was there already.
        num_cached: leading prompt rows that should be there.
        seconds: how long it should take but for its wait; None where nobody knows.
    """

    flops: int
    cold_flops: int
    num_cached: int
    seconds: float | None


class Costs:
    """Counts by formula what is not there yet, and remembers what was computed, and how fast.

    Args:
        sizes: the model's.
        clock: the time in seconds.
    """

    def __init__(self, sizes: ModelSizes, clock: Callable[[], float]) -> None:
        self._sizes = sizes
        self._warm = WarmPrefixes()
        self._images = SeenImages()
        self._speeds = Speeds(clock)

    def estimate(self, policy: ResolvedPolicy, shape: Shape, trace: Trace) -> Estimate:
        """Return what a request would cost now."""
        mark = None if shape.is_scored else self._warm.last(_page_kind(policy), trace.marks)
        known = self._num_known(policy.reduction, shape.images, trace, mark)
        cold = self._flops(policy, shape, None, 0)
        warm = cold if mark is None and not known else self._flops(policy, shape, mark, known)
        work = Work(warm.vision + warm.projector + warm.prefill, warm.decode + warm.head)
        return Estimate(
            flops=warm.total,
            cold_flops=cold.total,
            num_cached=0 if mark is None else mark.num_rows(self._image_rows(policy.reduction)),
            seconds=self._speeds.seconds(policy.digest, work),
        )

    def take_probe(self) -> bool:
        """Return whether a request is to be let through that is expected to be late."""
        return self._speeds.take_probe()

    def learn(self, account: Account, trace: Trace, max_rows: int) -> None:
        """Remember what a request that has ended has left, and how long it took.

        Args:
            account: of the request.
            trace: what it is remembered by.
            max_rows: rows that all pages have.
        """
        request, policy = account.prepared.request, account.prepared.policy
        rows = self._image_rows(policy.reduction)
        self._warm.note(_page_kind(policy), trace.marks, rows, max_rows)
        for image in request.images:
            self._images.note(_image_key(trace.root, policy.reduction, image))
        if len(account.choices) == 1:
            self._learn_speed(account, policy, request)

    def _learn_speed(self, account: Account, policy: ResolvedPolicy, request: Request) -> None:
        shape = flops.Request(
            request.token_classes,
            account.num_generated,
            account.num_cached,
            len(request.images) if account.stage_seconds.get(Stage.VISION_ENCODE) else 0,
            request.num_scored,
        )
        plan = policy.plan_for(scores=shape.num_scored > 0)
        done = flops.request_flops(self._sizes, plan, shape, policy.reduction, policy.narrowing)
        prompt, answer = (
            sum(account.stage_seconds.get(stage, 0.0) for stage in stages)
            for stages in ((Stage.VISION_ENCODE, Stage.PREFILL), (Stage.DECODE,))
        )
        rest = max(account.elapsed_seconds - sum(account.stage_seconds.values()), 0.0)
        self._speeds.learn(
            policy.digest,
            Work(done.vision + done.projector + done.prefill, done.decode + done.head),
            Work(prompt, answer, rest),
            account.num_generated,
        )

    def _flops(
        self, policy: ResolvedPolicy, shape: Shape, mark: Mark | None, num_known: int
    ) -> flops.RequestFlops:
        """Count a request whose prompt is there up to a mark, with so many images."""
        cached = 0 if mark is None else mark.num_rows(self._sizes.rows_per_image)
        whole = flops.Request(
            shape.prompt,
            self._speeds.expected_tokens(shape.max_tokens),
            min(cached, len(shape.prompt) - 1),
            len(shape.images) - num_known,
            shape.num_scored,
        )
        return flops.request_flops(
            self._sizes,
            policy.plan_for(scores=shape.is_scored),
            reduced_request(self._sizes, whole, policy.reduction),
            policy.reduction,
            policy.narrowing,
        )

    def _num_known(
        self,
        reduction: Reduction | None,
        images: Sequence[Image],
        trace: Trace,
        mark: Mark | None,
    ) -> int:
        """Return how many images need not be encoded: their rows are there, or their features."""
        num_in_pages = 0 if mark is None else mark.num_images
        return num_in_pages + sum(
            _image_key(trace.root, reduction, image) in self._images
            for image in images[num_in_pages:]
        )

    def _image_rows(self, reduction: Reduction | None) -> int:
        return self._sizes.rows_per_image if reduction is None else reduction.num_rows


def _page_kind(policy: ResolvedPolicy) -> bytes:
    """Return what a prompt's pages depend on besides the prompt: equal kinds share them."""
    columns = (policy.plan.kv_digest(it).encode() for it in (TokenClass.TEXT, TokenClass.VISUAL))
    removed = (it.key if it else b"" for it in (policy.reduction, policy.narrowing))
    return hashlib.sha256(b"|".join((*columns, *removed))).digest()


def _image_key(root: bytes, reduction: Reduction | None, image: Image) -> bytes:
    return digest_of(root, reduction.key if reduction else b"", image.digest)
