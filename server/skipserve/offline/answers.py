"""Answers as they grow with the engine's steps, and as they are handed out."""

from dataclasses import dataclass

from skipserve.asking.account import Account
from skipserve.asking.answer import Piece, TokenLogprobs, WholeAnswer
from skipserve.asking.processor import QuestionProcessor
from skipserve.asking.prompt_logprobs import PromptEntries
from skipserve.asking.question import Prepared
from skipserve.asking.report import SkipReport
from skipserve.engine.reports import FinishReason, StepOutput
from skipserve.engine.request import MAX_PROMPT_LOGPROBS


@dataclass(frozen=True)
class Answer:
    """An answer, and what it took.

    Attributes:
        text: without special tokens and stop strings.
        finish_reason: "stop" at the end token or a stop string, "length" where tokens ran out.
        token_ids: all that were generated, the end token and those of stop strings among them.
        logprobs: of the tokens that the text comes from; None unless asked for.
        prompt_logprobs: of the prompt's tokens; None unless asked for.
        num_prompt_tokens: rows of the prompt, those of images among them.
        num_cached_tokens: of those, the leading ones that earlier work had computed.
        skip: the policy that ran, and what it computed beside what the full model would have.
    """

    text: str
    finish_reason: FinishReason
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] | None
    prompt_logprobs: PromptEntries | None
    num_prompt_tokens: int
    num_cached_tokens: int
    skip: SkipReport


class GrowingAnswer:
    """Takes the steps of one request.

    Args:
        prepared: what was asked.
        processor: what it was prepared with.
    """

    def __init__(self, prepared: Prepared, processor: QuestionProcessor) -> None:
        self._account = Account()
        self._account.start(prepared)
        self._processor = processor
        self._text = processor.answer_text(prepared)
        self._token_ids: list[int] = []
        self._pieces: list[Piece] = []

    @property
    def is_over(self) -> bool:
        """Whether the answer has come to its end."""
        return bool(self._pieces) and self._pieces[-1].finish_reason is not None

    def push(self, output: StepOutput) -> None:
        """Take a step."""
        self._account.take(output)
        if output.token_id is not None:
            self._token_ids.append(output.token_id)
        self._pieces.append(self._text.push(output))

    def finish(self) -> Answer:
        """Return the answer, which must be over."""
        answer, account = WholeAnswer.join(self._pieces), self._account
        account.finish(answer.finish_reason, self._processor.reporter)
        prompt = answer.prompt
        assert account.skip is not None
        return Answer(
            text=answer.text,
            finish_reason=answer.finish_reason,
            token_ids=tuple(self._token_ids),
            logprobs=answer.logprobs if account.prepared.has_logprobs else None,
            prompt_logprobs=None if prompt is None else prompt.entries(MAX_PROMPT_LOGPROBS),
            num_prompt_tokens=account.prepared.request.num_prompt,
            num_cached_tokens=account.num_cached,
            skip=account.skip,
        )
