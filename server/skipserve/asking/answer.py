"""Steps of the engine to pieces of the answer's text, with log-probabilities."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from pydantic import BaseModel, ConfigDict

from skipserve.engine.reports import FinishReason, StepOutput
from skipserve.prompt.detokenize import Detokenizer, StopScanner
from skipserve.prompt.tokenizer import Tokenizer


class TopLogprob(BaseModel):
    """A token that could have come, with the model's own log-probability."""

    model_config = ConfigDict(frozen=True)

    token: str
    logprob: float
    bytes: tuple[int, ...]


class TokenLogprobs(TopLogprob):
    """A token of the answer and its alternatives."""

    top_logprobs: tuple[TopLogprob, ...]


@dataclass(frozen=True)
class Piece:
    """What is shown next of an answer.

    Attributes:
        text: goes on where the last piece ended; may be empty.
        logprobs: of the tokens that the text comes from.
        finish_reason: None while more is to come.
        index: which of the request's questions it belongs to.
        choice: which of the answers to it.
        stop: the stop string that ended the answer; None if none did.
    """

    text: str
    logprobs: tuple[TokenLogprobs, ...]
    finish_reason: FinishReason | None
    index: int = 0
    choice: int = 0
    stop: str | None = None


@dataclass(frozen=True, kw_only=True)
class WholeAnswer(Piece):
    """All that a client is shown, as one piece."""

    finish_reason: FinishReason

    @classmethod
    def join(cls, pieces: Sequence[Piece]) -> Self:
        """Return the pieces of an answer, from the first to the last, as one."""
        finish_reason = pieces[-1].finish_reason
        assert finish_reason is not None
        return cls(
            text="".join(piece.text for piece in pieces),
            logprobs=tuple(token for piece in pieces for token in piece.logprobs),
            finish_reason=finish_reason,
            index=pieces[-1].index,
            choice=pieces[-1].choice,
            stop=pieces[-1].stop,
        )

    @classmethod
    def join_all(cls, pieces: Sequence[Piece]) -> list[Self]:
        """Return the pieces of all answers to a request as one for each, in their order."""
        answers: dict[tuple[int, int], list[Piece]] = {}
        for piece in pieces:
            answers.setdefault((piece.index, piece.choice), []).append(piece)
        return [cls.join(answers[place]) for place in sorted(answers)]


class AnswerText:
    """Puts one answer together.

    Attributes:
        seconds: what that has taken.

    Args:
        tokenizer: the model's.
        stops: strings that end the answer and are not part of it.
        has_logprobs: whether the steps carry log-probabilities.
        drops_space: whether one space at the very start is the chat template's, and not shown.
        min_tokens: stop strings count after so many tokens.
        choice: which of several answers it is.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stops: Sequence[str],
        has_logprobs: bool,
        min_tokens: int = 0,
        choice: int = 0,
        *,
        drops_space: bool = True,
    ) -> None:
        self._choice = choice
        self.seconds = 0.0
        self._num_tokens = 0
        self._min_tokens = min_tokens
        self._tokenizer = tokenizer
        self._has_logprobs = has_logprobs
        self._stops = tuple(stops)
        self._detokenizer = Detokenizer(tokenizer, drops_space=drops_space)
        self._scanner = StopScanner(stops)
        self._num_decoded = 0
        self._num_shown = 0
        # Tokens whose text is not shown yet, each with the place where its text begins.
        self._waiting: deque[tuple[int, TokenLogprobs]] = deque()

    def push(self, output: StepOutput) -> Piece:
        """Take a step and return what it adds; the piece that ends the answer has a reason."""
        begun = time.perf_counter()
        piece = self._push(output)
        self.seconds += time.perf_counter() - begun
        return piece

    def _push(self, output: StepOutput) -> Piece:
        text = self._take_token(output)
        finish_reason = output.finish_reason
        if finish_reason is not None:
            text += self._scan(self._detokenizer.finish())
            text += self._scanner.finish()
        if self._scanner.has_stopped:
            finish_reason = FinishReason.STOP
        self._num_shown += len(text)
        shown = tuple(self._logprobs_shown(finish_reason))
        stop = self._stop(output, finish_reason)
        return Piece(text, shown, finish_reason, choice=self._choice, stop=stop)

    def _stop(self, output: StepOutput, finish_reason: FinishReason | None) -> str | None:
        """Return the stop string that ended the answer: found in its text, or a token's name."""
        if finish_reason is not FinishReason.STOP or self._scanner.has_stopped:
            return self._scanner.stop
        hidden = self._tokenizer.hidden_tokens
        return next((stop for stop in self._stops if hidden.get(stop) == output.token_id), None)

    def _take_token(self, output: StepOutput) -> str:
        if output.token_id is None:
            return ""
        if output.finish_reason is FinishReason.STOP:
            return ""  # the token that ends an answer is not part of it, special or not
        self._num_tokens += 1
        if self._has_logprobs:
            self._waiting.append((self._num_decoded, self._logprobs(output, output.token_id)))
        return self._scan(self._detokenizer.push(output.token_id))

    def _scan(self, text: str) -> str:
        self._num_decoded += len(text)
        return self._scanner.push(text, may_stop=self._num_tokens > self._min_tokens)

    def _logprobs_shown(self, finish_reason: FinishReason | None) -> list[TokenLogprobs]:
        """Let go of the tokens whose text has begun to be shown; at the end, of all."""
        is_whole = finish_reason is not None and not self._scanner.has_stopped
        shown = []
        while self._waiting and (is_whole or self._waiting[0][0] < self._num_shown):
            shown.append(self._waiting.popleft()[1])
        return shown

    def _logprobs(self, output: StepOutput, token_id: int) -> TokenLogprobs:
        chosen = self._top_logprob(token_id, output.logprob or 0.0)
        top = tuple(self._top_logprob(each.token_id, each.logprob) for each in output.top_logprobs)
        return TokenLogprobs(
            token=chosen.token, logprob=chosen.logprob, bytes=chosen.bytes, top_logprobs=top
        )

    def _top_logprob(self, token_id: int, logprob: float) -> TopLogprob:
        return TopLogprob(
            token=self._tokenizer.token_text(token_id),
            logprob=logprob,
            bytes=tuple(self._tokenizer.token_bytes(token_id)),
        )
