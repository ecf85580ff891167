"""Answers as they grow with the engine's steps, and as they are handed out."""

from dataclasses import dataclass

from skipserve.api.answer import AnswerText, Piece, Tally
from skipserve.api.convert import Prepared
from skipserve.api.report import Reporter
from skipserve.api.wire import SkipReport, TokenLogprobs
from skipserve.engine.reports import FinishReason, StepOutput
from skipserve.prompt.tokenizer import Tokenizer


@dataclass(frozen=True)
class Answer:
    """An answer, and what it took.

    Attributes:
        text: without special tokens and stop strings.
        finish_reason: "stop" at the end token or a stop string, "length" where tokens ran out.
        token_ids: all that were generated, the end token and those of stop strings among them.
        logprobs: of the tokens that the text comes from; None unless asked for.
        num_prompt_tokens: rows of the prompt, those of images among them.
        num_cached_tokens: of those, the leading ones that earlier work had computed.
        skip: the policy that ran, and what it computed beside what the full model would have.
    """

    text: str
    finish_reason: FinishReason
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] | None
    num_prompt_tokens: int
    num_cached_tokens: int
    skip: SkipReport


class GrowingAnswer:
    """Takes the steps of one request.

    Args:
        prepared: what was asked.
        tokenizer: the model's.
    """

    def __init__(self, prepared: Prepared, tokenizer: Tokenizer) -> None:
        self._prepared = prepared
        self._text = AnswerText(tokenizer, prepared.stops, prepared.has_logprobs)
        self._tally = Tally()
        self._token_ids: list[int] = []
        self._pieces: list[Piece] = []

    @property
    def is_over(self) -> bool:
        """Whether the answer has come to its end."""
        return bool(self._pieces) and self._pieces[-1].finish_reason is not None

    def push(self, output: StepOutput) -> None:
        """Take a step."""
        self._tally.add(output)
        if output.token_id is not None:
            self._token_ids.append(output.token_id)
        self._pieces.append(self._text.push(output))

    def finish(self, reporter: Reporter) -> Answer:
        """Return the answer, which must be over."""
        finish_reason = self._pieces[-1].finish_reason
        assert finish_reason is not None
        request, policy = self._prepared.request, self._prepared.policy
        logprobs = tuple(token for piece in self._pieces for token in piece.logprobs)
        return Answer(
            text="".join(piece.text for piece in self._pieces),
            finish_reason=finish_reason,
            token_ids=tuple(self._token_ids),
            logprobs=logprobs if self._prepared.has_logprobs else None,
            num_prompt_tokens=request.num_prompt,
            num_cached_tokens=self._tally.num_cached,
            skip=reporter.metrics(request, policy, self._tally).skip,
        )
