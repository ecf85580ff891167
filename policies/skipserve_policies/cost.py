"""What a policy costs and saves, beside the full model: for replies, lists and the command line."""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import accumulate, groupby
from typing import Any

from skipserve_policies.flops import Request, RequestFlops, Segments, prompt_classes, request_flops
from skipserve_policies.narrowing import Narrowing
from skipserve_policies.plan import ANSWER_CLASSES, Plan, TokenClass, trim
from skipserve_policies.reduction import Reduction
from skipserve_policies.resolve import ResolvedPolicy
from skipserve_policies.shapes import reduced_request
from skipserve_policies.sizes import ModelSizes

# Far over any context; a prompt is spelt out row by row.
MAX_ROWS = 1_000_000


@dataclass(frozen=True)
class Saving:
    """What a request costs under a plan, and what the same rows cost under the full model.

    Both are counted exactly and trimmed, so that the full model saves nothing.
    """

    planned_flops: int
    full_flops: int

    @property
    def saved_ratio(self) -> float:
        """The share of the full model's FLOPs that is saved."""
        return 1 - self.planned_flops / self.full_flops


@dataclass(frozen=True)
class RequestShape:
    """What a saving is counted for, in the notation that `skipserve flops` takes.

    Attributes:
        prompt: rows of text and of images in turn, text first, such as "35+576+25".
        cached_tokens: leading prompt rows that were at hand: in neither count.
        generated_tokens: tokens that are answered.
        scored_tokens: tokens of the prompt whose probabilities are told.
    """

    prompt: str
    cached_tokens: int
    generated_tokens: int
    scored_tokens: int = 0


def request_shape(sizes: ModelSizes, request: Request) -> RequestShape:
    """Return the shape of a request: `parse_prompt` and `make_request` lead back to it."""
    return RequestShape(
        prompt="+".join(map(str, _runs(request, sizes.rows_per_image))),
        cached_tokens=request.num_cached,
        generated_tokens=request.num_generated,
        scored_tokens=request.num_scored,
    )


def _runs(request: Request, image_rows: int) -> Iterator[int]:
    """Yield rows of text and of single images in turn; images side by side have 0 between them."""
    is_image_due = False
    for is_visual, run in groupby(request.prompt, lambda it: it is TokenClass.VISUAL):
        count = len(list(run))
        size = image_rows if is_visual else count
        for start in range(0, count, size):
            if is_visual != is_image_due:
                yield 0
            yield min(size, count - start)
            is_image_due = not is_visual


def saving(
    sizes: ModelSizes,
    plan: Plan,
    request: Request,
    reduction: Reduction | None = None,
    narrowing: Narrowing | None = None,
) -> Saving:
    """Return what a request costs under a trimmed plan and under the trimmed full one.

    Args:
        sizes: the model.
        plan: what is computed, trimmed, with the logits that the request wants.
        request: the shape of the request, with all rows of its images.
        reduction: what its images are reduced by, if anything.
        narrowing: which rows leave inside the decoder, if any.
    """
    reduced = reduced_request(sizes, request, reduction)
    return Saving(
        planned_flops=request_flops(sizes, plan, reduced, reduction, narrowing).total,
        full_flops=request_flops(
            sizes, trimmed_full(plan.num_layers, scores=request.num_scored > 0), request
        ).total,
    )


@lru_cache(maxsize=16)
def trimmed_full(num_layers: int, *, scores: bool = False) -> Plan:
    """Return the trimmed full plan; kept, for every reply of a server asks for it.

    Args:
        num_layers: of the model.
        scores: whether tokens of the prompt are scored.
    """
    return trim(Plan.full(num_layers), wanted=frozenset(TokenClass) if scores else ANSWER_CLASSES)


@dataclass(frozen=True)
class Trimming:
    """A cost by the rules as they stand, and with what nobody needs left out."""

    untrimmed: RequestFlops
    trimmed: RequestFlops


@dataclass(frozen=True)
class Counting:
    """A cost with the causal pairs alone, and with all pairs of a forward pass."""

    exact: Trimming
    dense: Trimming


@dataclass(frozen=True)
class PolicyCost:
    """A request's cost under a policy and under the full model, counted in all ways."""

    policy: Counting
    full: Counting

    @property
    def saved_ratio(self) -> float:
        """The share of the full model's FLOPs that is saved: exact and trimmed."""
        return Saving(self.policy.exact.trimmed.total, self.full.exact.trimmed.total).saved_ratio

    def as_json(self) -> dict[str, Any]:
        """Return the form that `skipserve flops --json` prints."""
        return {
            "policy": _counting_json(self.policy),
            "full": _counting_json(self.full),
            "saved_ratio": self.saved_ratio,
        }


def _counting_json(counting: Counting) -> dict[str, Any]:
    return {
        name: {
            "untrimmed": _flops_json(trimming.untrimmed),
            "trimmed": _flops_json(trimming.trimmed),
        }
        for name, trimming in (("exact", counting.exact), ("dense", counting.dense))
    }


def _flops_json(flops: RequestFlops) -> dict[str, int]:
    return {**asdict(flops), "total": flops.total}


def compare(sizes: ModelSizes, resolved: ResolvedPolicy, request: Request) -> PolicyCost:
    """Count a request's cost under a policy and under the full model, in all ways."""
    num_layers, scores = sizes.decoder.num_layers, request.num_scored > 0
    return PolicyCost(
        policy=_count(
            sizes,
            (resolved.untrimmed, resolved.plan_for(scores=scores)),
            request,
            resolved.reduction,
            resolved.narrowing,
        ),
        full=_count(
            sizes, (Plan.full(num_layers), trimmed_full(num_layers, scores=scores)), request
        ),
    )


def _count(
    sizes: ModelSizes,
    plans: tuple[Plan, Plan],
    request: Request,
    reduction: Reduction | None = None,
    narrowing: Narrowing | None = None,
) -> Counting:
    untrimmed, trimmed = plans
    reduced = reduced_request(sizes, request, reduction)

    def count(plan: Plan, *, is_trimmed: bool, is_dense: bool) -> RequestFlops:
        return request_flops(
            sizes, plan, reduced, reduction, narrowing, dense=is_dense, trimmed=is_trimmed
        )

    exact, dense = (
        Trimming(
            untrimmed=count(untrimmed, is_trimmed=False, is_dense=is_dense),
            trimmed=count(trimmed, is_trimmed=True, is_dense=is_dense),
        )
        for is_dense in (False, True)
    )
    return Counting(exact=exact, dense=dense)


def standard_request(sizes: ModelSizes) -> Request:
    """Return the request that a policy's saving is quoted for where no request is at hand.

    35 text rows, one image, 25 text rows, 10 generated tokens: a short question to LLaVA-1.5.
    """
    return make_request(
        [
            (TokenClass.TEXT, 35),
            (TokenClass.VISUAL, sizes.rows_per_image),
            (TokenClass.TEXT, 25),
        ],
        num_generated=10,
    )


def parse_prompt(notation: str) -> Segments:
    """Read a prompt's shape, such as "35+576+25": rows of text, of an image, of text, and so on.

    A zero leaves a part out: "0+576+25" begins with the image.

    Raises:
        ValueError: the notation is not of that form.
    """
    if not re.fullmatch(r"[0-9]{1,9}(\+[0-9]{1,9})*", notation):
        raise ValueError(
            f"{notation!r} is not a prompt's shape: write rows of text and of images in turn, "
            'text first, such as "35+576+25"'
        )
    counts = [int(part) for part in notation.split("+")]
    if not 1 <= sum(counts) <= MAX_ROWS:
        raise ValueError(f"a prompt has 1 to {MAX_ROWS} rows, not {sum(counts)}")
    return [
        (TokenClass.VISUAL if index % 2 else TokenClass.TEXT, count)
        for index, count in enumerate(counts)
    ]


def make_request(
    segments: Segments, num_generated: int, num_cached: int = 0, num_scored: int = 0
) -> Request:
    """Return the request of a shape: each run of visual rows is an image.

    Raises:
        ValueError: all rows of the prompt are cached, or more; too many are generated; or more are
            scored than there are tokens behind the first, or some beside cached ones.
    """
    prompt = prompt_classes(segments)
    _check_scored(prompt, num_cached, num_scored)
    if not 1 <= num_generated <= MAX_ROWS:
        raise ValueError(f"an answer has 1 to {MAX_ROWS} tokens, not {num_generated}")
    if num_cached >= len(prompt):
        raise ValueError(
            f"{num_cached} cached rows: of a prompt of {len(prompt)} at least the last is computed"
        )
    ends = accumulate(count for _, count in segments)
    return Request(
        prompt=prompt,
        num_generated=num_generated,
        num_cached=num_cached,
        num_images=sum(
            token_class is TokenClass.VISUAL and count > 0 and end > num_cached
            for (token_class, count), end in zip(segments, ends, strict=True)
        ),
        num_scored=num_scored,
    )


def _check_scored(prompt: tuple[TokenClass, ...], num_cached: int, num_scored: int) -> None:
    num_tokens = len(prompt) - 1 - prompt[1:].count(TokenClass.VISUAL)
    if not 0 <= num_scored <= num_tokens:
        raise ValueError(
            f"{num_scored} scored tokens: there are {num_tokens} of text behind the first row"
        )
    if num_scored and num_cached:
        raise ValueError("where tokens are scored, all of the prompt is computed: none is cached")
