"""What an engine is asked: plain data, encoded by msgspec as msgpack where it crosses a socket."""

from array import array
from dataclasses import dataclass, replace
from functools import cached_property
from struct import pack

import numpy as np
from numpy.typing import NDArray

from skipserve.digests import digest_of
from skipserve_policies.narrowing import Narrowing, VisualRows
from skipserve_policies.plan import Plan, TokenClass
from skipserve_policies.reduction import Reduction

# Alternatives to each token of a prompt: those of a step's rows lie on the device together.
MAX_PROMPT_LOGPROBS = 20


@dataclass(frozen=True)
class Grammar:
    """What an answer is held to.

    Attributes:
        text: the grammar, in llguidance's form.
        param: the field of a client's request that asks for it, for messages.
    """

    text: str
    param: str


@dataclass(frozen=True)
class Adjustments:
    """What is done to a row's logits before temperature, filters and choice.

    Attributes:
        presence_penalty: is taken off the logit of each token that the answer has.
        frequency_penalty: the same, as often as the answer has it.
        repetition_penalty: divides the logits of tokens of prompt and answer, or multiplies those
            that are negative; 1 changes nothing.
        logit_bias: tokens and what is added to their logits.
        bad_words: runs of tokens that the answer may not have.
        min_tokens: no token that ends the answer comes before so many others have.
            Where a grammar allows nothing but the end, the answer ends before all the same.
        end_token_ids: those, beside the model's own and the request's `stop_token_ids`.
        grammar: allows some tokens alone, by those before; None for all.
    """

    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    bad_words: tuple[tuple[int, ...], ...] = ()
    min_tokens: int = 0
    end_token_ids: tuple[int, ...] = ()
    grammar: Grammar | None = None

    @property
    def has_penalties(self) -> bool:
        """Whether logits depend on how often a token was there."""
        penalties = self.presence_penalty, self.frequency_penalty, self.repetition_penalty
        return penalties != (0, 0, 1)

    @property
    def needs_last_token(self) -> bool:
        """Whether a token can be chosen only after the one before it has been read."""
        has_runs = any(len(word) > 1 for word in self.bad_words)
        return self.has_penalties or has_runs or self.grammar is not None


@dataclass(frozen=True)
class SamplingParams:
    """How answer tokens are chosen.

    Attributes:
        max_tokens: at most so many tokens are generated.
        temperature: 0 is greedy.
        top_k: keep so many of the most probable tokens; 0 keeps all.
        top_p: then keep the smallest set of tokens that holds this much probability.
        min_p: then keep tokens at least this many times as probable as the best one.
        seed: with the position, keys the random draw; any 64-bit integer.
        choice: which of several answers to one question this is; keys the draw too.
        num_top_logprobs: None for no log-probabilities, else how many alternatives to report.
        ends_at_eos: whether the end-of-sequence token ends the answer.
        stop_token_ids: tokens that end it besides.
        adjustments: what is done to the logits first; None for nothing.
    """

    max_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    num_top_logprobs: int | None = None
    ends_at_eos: bool = True
    stop_token_ids: tuple[int, ...] = ()
    adjustments: Adjustments | None = None
    choice: int = 0


@dataclass(frozen=True)
class Image:
    """A picture, a video or a sound as the vision tower takes it, before normalisation.

    Attributes:
        pixels: uint8 [S, S, 3], of a video [F, S, S, 3], in row-major order; of a sound float32
            [T, M], the log energies of its mel bands.
        digest: sha256 over that and what it is, 32 bytes.
        num_rows: rows of the prompt that show it.
        reduction: how these are chosen of all; None where they are all.
    """

    pixels: bytes
    digest: bytes
    num_rows: int
    reduction: Reduction | None = None

    def reduced(self, reduction: Reduction | None) -> "Image":
        """Return the image of which as many rows are shown as a reduction leaves."""
        if reduction is None:
            return self
        if reduction.seed is not None:
            reduction = replace(reduction, seed=self.seed(reduction.seed))
        return replace(self, num_rows=reduction.num_rows, reduction=reduction)

    def seed(self, seed: int) -> int:
        """Return a seed mixed with the picture: rows at random are others in each image."""
        mixed = digest_of(pack("<Q", seed), self.digest)
        return int.from_bytes(mixed[:7], "big")

    @cached_property
    def shown_digest(self) -> bytes:
        """What is equal iff the same rows of the same picture are shown, 32 bytes."""
        if self.reduction is None:
            return self.digest
        return digest_of(b"reduced", self.digest, self.reduction.key)


@dataclass(frozen=True)
class Request:
    """What is asked; never changes.

    Attributes:
        id: made by the server.
        prompt_ids: token ids of all prompt rows; each image is spelt out as the image token, once
            for each of its rows.
        token_classes: the class of each prompt row.
        images: in the order of their placeholders.
        sampling: how tokens are chosen.
        policy_name: a label for metrics; decides nothing.
        plan: what is computed, trimmed, for the logits that are wanted; over the socket the key of
            a plan that the engine has.
        cache_salt: requests share cached work only with those of the same salt.
        queue_seconds: it may wait so long for its first step; None for ever.
        deadline_seconds: it may take so long in all; None for ever.
        priority: of an owner's that wait the lowest starts first, of equals the first that came.
        owner: who takes turns with others while requests wait; any number.
        planned_flops: what its turn costs: the most that it can take under its plan.
        narrowing: which visual rows leave inside the decoder; None for none.
        num_prompt_logprobs: None for no log-probabilities of the prompt, else how many alternatives
            to report with each; the plan then has the logits of all its rows.
    """

    id: str
    prompt_ids: tuple[int, ...]
    token_classes: tuple[TokenClass, ...]
    images: tuple[Image, ...]
    sampling: SamplingParams
    policy_name: str
    plan: Plan | bytes
    cache_salt: str = ""
    queue_seconds: float | None = None
    deadline_seconds: float | None = None
    priority: int = 0
    owner: int = 0
    planned_flops: int = 0
    narrowing: Narrowing | None = None
    num_prompt_logprobs: int | None = None

    @property
    def num_prompt(self) -> int:
        """Rows of the prompt."""
        return len(self.prompt_ids)

    @cached_property
    def prompt_array(self) -> NDArray[np.int64]:
        """The token ids as an array, [num_prompt], read-only."""
        return np.frombuffer(array("q", self.prompt_ids), dtype=np.int64)

    @cached_property
    def reduction(self) -> Reduction | None:
        """How rows of its images are chosen, but for the seeds; None where all are shown."""
        reduction = self.images[0].reduction if self.images else None
        return reduction and replace(reduction, seed=None)

    @cached_property
    def visual_rows(self) -> VisualRows:
        """The rows that can leave inside the decoder."""
        return VisualRows.of(self.token_classes, len(self.images))

    @cached_property
    def active_narrowing(self) -> Narrowing | None:
        """Which of its visual rows leave inside the decoder; None where none do."""
        if self.narrowing is None or not self.narrowing.acts_on(self.visual_rows):
            return None
        return self.narrowing

    @cached_property
    def scored_rows(self) -> NDArray[np.int64]:
        """The rows of the prompt whose next token is scored, [N], ascending; none unless asked.

        A row of an image is no token. Where visual rows leave inside the decoder, none of them says
        how probable the token behind it is.
        """
        if self.num_prompt_logprobs is None:
            return np.zeros(0, dtype=np.int64)
        shows = self.class_array == TokenClass.VISUAL
        # The last row may show anything.
        shows[-1] = int(self.image_starts[-1]) > int(shows.sum())
        is_scored = ~shows[1:]
        if self.narrowing is not None:
            is_scored &= ~shows[:-1]
        return np.flatnonzero(is_scored)

    @property
    def num_scored(self) -> int:
        """How many tokens of the prompt are scored."""
        return len(self.scored_rows)

    @cached_property
    def image_starts(self) -> NDArray[np.int64]:
        """Which of the rows that show images is each image's first, and their number, [N + 1]."""
        return np.array([0, *(image.num_rows for image in self.images)]).cumsum()

    @cached_property
    def class_array(self) -> NDArray[np.uint8]:
        """The token classes as an array, [num_prompt], read-only."""
        return np.frombuffer(bytes(self.token_classes), dtype=np.uint8)
