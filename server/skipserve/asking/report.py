"""What is told of the work that an answer took, beside what the full model would have done."""

from dataclasses import asdict, dataclass, replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from skipserve.asking.auto.chosen import ChosenBecause
from skipserve.engine.request import Request
from skipserve_policies import flops
from skipserve_policies.cost import Saving, request_shape, saving, standard_request
from skipserve_policies.narrowing import Narrowing, VisualRows
from skipserve_policies.plan import TokenClass
from skipserve_policies.resolve import ResolvedPolicy
from skipserve_policies.shapes import whole_request
from skipserve_policies.sizes import ModelSizes


class SavedFor(BaseModel):
    """The request that a saving is counted for, in the notation of `skipserve flops`."""

    model_config = ConfigDict(frozen=True)

    prompt: str = Field(
        description="Tokens of text and of images in turn, text first.", examples=["35+576+25"]
    )
    cached_tokens: int = Field(
        description="Leading prompt tokens that were computed before: neither count holds them."
    )
    generated_tokens: int = Field(description="Tokens of the answer, its end token too.")
    scored_tokens: int = Field(
        default=0,
        exclude_if=lambda value: not value,
        description="Tokens of the prompt whose log-probabilities were asked for.",
    )


class ImageRows(BaseModel):
    """How many rows of an image went on to the decoder."""

    model_config = ConfigDict(frozen=True)

    kept: int
    of: int


class RowsFrom(BaseModel):
    """How many visual rows of a prompt went on from a layer."""

    model_config = ConfigDict(frozen=True)

    layer: int
    kept: int
    of: int


class SkipReport(BaseModel):
    """Which policy ran, and what it computed beside what the full model would have.

    Both counts are of this request alone, without the prompt tokens that were cached. So the same
    question asked again may save another share, and a list's `saved_ratio` is another request's.
    """

    model_config = ConfigDict(frozen=True)

    policy: str
    requested: Literal["auto"] | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="`auto` where the server has chosen the policy.",
    )
    chosen_because: ChosenBecause | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="Where the server has chosen the policy: why.",
    )
    digest: str
    layers: dict[str, tuple[int, ...]]
    image_rows: ImageRows | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="Where the policy takes rows of images away: what is left of each.",
    )
    visual_rows: tuple[RowsFrom, ...] = Field(
        default=(),
        exclude_if=lambda value: not value,
        description="Where the policy drops visual rows inside the decoder: from each such layer "
        "on, how many of the prompt's are left.",
    )
    planned_flops: int = Field(description="What this request costs under the policy.")
    full_flops: int = Field(
        description="What the same request costs under the full model, with the same tokens cached."
    )
    saved_ratio: float = Field(description="1 - planned_flops / full_flops.")
    saved_for: SavedFor
    further_answers: tuple[SavedFor, ...] = Field(
        default=(),
        exclude_if=lambda value: not value,
        description="Where several answers were asked for, what each but the first is counted for: "
        "both counts are the sums over all.",
    )


@dataclass(frozen=True)
class Reporter:
    """Counts FLOPs for one model; `sizes` are the model's."""

    sizes: ModelSizes

    def saved_ratio(self, policy: ResolvedPolicy) -> float:
        """Return what a policy saves on the standard request: one image, 10 tokens of answer."""
        return self._saving(policy, standard_request(self.sizes)).saved_ratio

    def saved_for(self, shape: flops.Request | None = None) -> SavedFor:
        """Return what names a request's shape; without one, the standard request's."""
        named = request_shape(self.sizes, shape or standard_request(self.sizes))
        return SavedFor(**asdict(named))

    def standard_report(self, policy: ResolvedPolicy) -> SkipReport:
        """Return what the standard request costs under a policy."""
        shape = standard_request(self.sizes)
        saved = self._saving(policy, shape)
        return SkipReport(
            policy=policy.name,
            digest=policy.digest,
            layers=policy.layers,
            image_rows=self._image_rows(policy),
            visual_rows=_rows_from(policy.narrowing, VisualRows.of(shape.prompt, shape.num_images)),
            planned_flops=saved.planned_flops,
            full_flops=saved.full_flops,
            saved_ratio=saved.saved_ratio,
            saved_for=self.saved_for(shape),
        )

    def bound(self, policy: ResolvedPolicy, request: Request) -> int:
        """Return the most that a request can cost under a policy: nothing cached, all tokens."""
        shape = flops.Request(
            request.token_classes,
            num_generated=request.sampling.max_tokens,
            num_images=len(request.images),
            num_scored=request.num_scored,
        )
        plan = policy.plan_for(scores=shape.num_scored > 0)
        return flops.request_flops(
            self.sizes, plan, shape, policy.reduction, policy.narrowing
        ).total

    def _saving(self, policy: ResolvedPolicy, shape: flops.Request) -> Saving:
        plan = policy.plan_for(scores=shape.num_scored > 0)
        return saving(self.sizes, plan, shape, policy.reduction, policy.narrowing)

    def _image_rows(self, policy: ResolvedPolicy) -> ImageRows | None:
        if policy.reduction is None:
            return None
        return ImageRows(kept=policy.reduction.num_rows, of=self.sizes.rows_per_image)

    def report(
        self,
        request: Request,
        policy: ResolvedPolicy,
        num_generated: int,
        num_cached: int,
        *others: tuple[int, int],
    ) -> SkipReport:
        """Return what a request cost.

        Args:
            request: what was asked.
            policy: what it ran under.
            num_generated: tokens of its answer, the end token among them.
            num_cached: leading prompt rows that were not computed.
            others: the same two numbers of each further answer.
        """
        first = _shape(request, num_generated, num_cached)
        further = [_shape(request, *answer) for answer in others]
        # The tokens of the prompt are scored with one answer alone.
        answers = [replace(first, num_scored=request.num_scored), *further]
        shapes = [whole_request(self.sizes, shape, policy.reduction) for shape in answers]
        saved = [self._saving(policy, shape) for shape in shapes]
        planned = sum(each.planned_flops for each in saved)
        full = sum(each.full_flops for each in saved)
        saved_for, *saved_for_others = map(self.saved_for, shapes)
        return SkipReport(
            policy=policy.name,
            digest=policy.digest,
            layers=policy.layers,
            image_rows=self._image_rows(policy),
            visual_rows=_rows_from(request.active_narrowing, request.visual_rows),
            planned_flops=planned,
            full_flops=full,
            saved_ratio=saved[0].saved_ratio if len(saved) == 1 else 1 - planned / full,
            saved_for=saved_for,
            further_answers=tuple(saved_for_others),
        )


def _rows_from(narrowing: Narrowing | None, visual: VisualRows) -> tuple[RowsFrom, ...]:
    if narrowing is None:
        return ()
    return tuple(
        RowsFrom(layer=stage.layer, kept=left, of=visual.count)
        for stage, left in zip(narrowing.stages, narrowing.num_left(visual), strict=True)
    )


def _shape(request: Request, num_generated: int, num_cached: int) -> flops.Request:
    return flops.Request(
        prompt=request.token_classes,
        num_generated=num_generated,
        num_cached=num_cached,
        num_images=_num_needed(request, num_cached),
    )


def _num_needed(request: Request, num_cached: int) -> int:
    """Return the images of which some row was not there already."""
    num_found = request.token_classes[:num_cached].count(TokenClass.VISUAL)
    return int((request.image_starts[1:] > num_found).sum())


def num_visual(request: Request) -> int:
    """Return the prompt rows that show an image."""
    return request.token_classes.count(TokenClass.VISUAL)
