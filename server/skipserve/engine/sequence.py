"""A request under way: the engine's only mutable type. Few facts are stored, the rest follows."""

import sys
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skipserve.engine.drops import Drops
from skipserve.engine.page_keys import PageKeys
from skipserve.engine.plans import PlanEntry
from skipserve.engine.reports import FinishReason, PromptScores, Stage
from skipserve.engine.request import Request
from skipserve.grammar.matcher import Matcher
from skipserve_policies.reduction import Reduction

# The seat of a sequence that does not run.
NO_SEAT = -1

# A policy's name, a plan's place, what images are reduced by, whether the prompt is scored.
Counted = tuple[str, int, Reduction | None, bool]


@dataclass(eq=False)
class Sequence:
    """A request and how far it has come.

    Attributes:
        request: what was asked.
        keys: names of its pages, for reuse.
        visual_positions: the prompt rows that show an image, [N], ascending.
        plan: what is computed for it.
        arrived: when it came; like all times here, on the clock of `perf_counter`.
        drops: which rows of its prompt leave inside the decoder; None where none do.
        matcher: how far its answer has come in its grammar; None where it has none.
        generated_ids: the answer so far, as far as it is read from the device.
        scores: of its prompt's tokens, likewise, in their order: parts of what `Scoring.result`
            gives.
        num_prompt: rows of the prompt.
        scores_prompt: whether tokens of it are scored.
        counted_as: what its work is counted together by.
        reads_first: whether its next token can be chosen only after the last one has been read.
        rank: its place among those that wait.
        num_tokens: positions that have a token: the prompt's and all sampled ones, read or not.
        num_computed: leading positions whose K/V are stored, or will be by the step under way.
        num_published: leading pages that others may find.
        num_cached: leading positions that were found and not computed, when it first ran.
        score_start: the first position that may have a token to be scored behind it, after the step
            under way; beyond all where none is scored.
        seat: its row in the engine's tables while it runs.
        pages: where its K/V live, in the order of their positions.
        num_allotted: positions that they hold.
        turn_cost: FLOPs that its owner paid for its turn to start.
        is_over: whether it has left the engine.
        started, first_token: when; 0 until then.
        vision_seconds: spent encoding images before its first token.
    """

    request: Request
    keys: PageKeys
    visual_positions: NDArray[np.int64]
    plan: PlanEntry
    arrived: float
    drops: Drops | None = None
    matcher: Matcher | None = None
    seat: int = NO_SEAT
    num_computed: int = 0
    num_published: int = 0
    num_allotted: int = 0
    num_cached: int = 0
    turn_cost: int = 0
    is_over: bool = False
    pages: list[int] = field(default_factory=list)
    generated_ids: list[int] = field(default_factory=list)
    scores: list[tuple[Tensor, ...]] = field(default_factory=list)
    started: float = 0.0
    first_token: float = 0.0
    vision_seconds: float = 0.0

    def __post_init__(self) -> None:
        """Derive what every step asks for; plain attributes, for a step asks hundreds of times."""
        self.num_prompt = self.request.num_prompt
        self.num_tokens = self.num_prompt
        adjustments = self.request.sampling.adjustments
        self.reads_first = adjustments is not None and adjustments.needs_last_token
        self.rank = (self.request.priority, self.arrived)
        # The last token is never fed back.
        self._last_fed = self.num_prompt + self.request.sampling.max_tokens - 1
        self.scores_prompt = self.request.num_scored > 0
        self.score_start = 0 if self.scores_prompt else sys.maxsize
        request = self.request
        self.counted_as: Counted = (
            request.policy_name,
            self.plan.index,
            request.reduction,
            self.scores_prompt,
        )
        self.visual_stop = int(self.visual_positions[-1]) + 1 if len(self.visual_positions) else 0

    @property
    def awaits_ranking(self) -> bool:
        """Whether rows of its prompt are to be ranked, once the last of them is there."""
        drops = self.drops
        return drops is not None and drops.kept is None and self.num_computed < self.num_prompt

    @property
    def num_shareable(self) -> int:
        """How many leading positions other sequences may share, or find shared.

        Behind the first visual row, where some leave, layers hold other rows than each other, and
        which ones is a matter of the whole prompt.
        """
        return sys.maxsize if self.drops is None else int(self.drops.visual[0])

    @property
    def num_findable(self) -> int:
        """How many leading positions it may have from others: what is to be scored is computed."""
        return min(self.num_shareable, self.score_start)

    def score_until(self, start: int, stop: int) -> range:
        """Have rows from `start` on scored that are not yet; return which of its scored rows."""
        rows = self.request.scored_rows
        first, last = rows.searchsorted((max(start, self.score_start), stop)).tolist()
        self.score_start = max(stop, self.score_start)
        return range(first, last)

    def score_again(self, scored: range) -> None:
        """Have rows scored after all which a step has not scored that was to."""
        self.score_start = int(self.request.scored_rows[scored.start])

    def take_scores(self) -> PromptScores | None:
        """Return the scores of all of its prompt, once; None where none are asked for."""
        if self.request.num_prompt_logprobs is None:
            return None
        pieces, self.scores = self.scores, []
        return _joined(pieces)

    @property
    def next_stop(self) -> int:
        """The position behind those that can be computed next."""
        return self.num_tokens if self.num_tokens < self._last_fed else self._last_fed

    def first_reach(self, num_more: int) -> int:
        """Return how many positions its tokens and so many more take, as far as it can get."""
        return min(self.num_tokens + num_more, self._last_fed)

    @property
    def num_unread(self) -> int:
        """Tokens that were sampled and not read from the device yet."""
        return self.num_tokens - self.num_prompt - len(self.generated_ids)

    @property
    def known_ids(self) -> NDArray[np.int64]:
        """The tokens of the prompt and of the answer, as far as they are read."""
        if not self.generated_ids:
            return self.request.prompt_array
        return np.concatenate([self.request.prompt_array, self.generated_ids])

    def settle(self, chosen: list[Tensor]) -> None:
        """Remember which visual rows reach each later stage, for when it is computed again."""
        assert self.drops is not None
        self.drops.settle([rows.cpu().numpy() for rows in chosen])

    def finish_reason(self, eos_token_ids: frozenset[int]) -> FinishReason | None:
        """Return why the answer is complete; None while it is not."""
        sampling, token_id = self.request.sampling, self.generated_ids[-1]
        is_eos = sampling.ends_at_eos and token_id in eos_token_ids
        if is_eos or token_id in sampling.stop_token_ids:
            return FinishReason.STOP
        if len(self.generated_ids) >= sampling.max_tokens:
            return FinishReason.LENGTH
        return None

    def take_stages(self, now: float, *, is_finished: bool) -> dict[Stage, float]:
        """Return the stages that end with the token just read."""
        stages = {}
        if not self.first_token:
            self.first_token = now
            stages[Stage.QUEUE] = self.started - self.arrived
            stages[Stage.PREFILL] = now - self.started - self.vision_seconds
            if self.vision_seconds:
                stages[Stage.VISION_ENCODE] = self.vision_seconds
        if is_finished and now > self.first_token:
            stages[Stage.DECODE] = now - self.first_token
        return stages


def _joined(pieces: list[tuple[Tensor, ...]]) -> PromptScores:
    """Return the scores of consecutive pieces of a prompt; there may be none."""
    if not pieces:
        return PromptScores(0, b"", b"", b"", b"")
    own, ranks, top_ids, top = (torch.cat(parts).numpy() for parts in zip(*pieces, strict=True))
    return PromptScores(
        num_top=top_ids.shape[1],
        logprobs=own.astype("<f4").tobytes(),
        ranks=ranks.astype("<i4").tobytes(),
        top_ids=top_ids.astype("<i4").tobytes(),
        top=top.astype("<f4").tobytes(),
    )
