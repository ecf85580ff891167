"""Steps of the engine to pieces of the answer's text, with log-probabilities."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from pydantic import BaseModel, ConfigDict

from skipserve.asking.prompt_logprobs import PromptLogprobs
from skipserve.asking.question import Generation
from skipserve.asking.tools import CallPiece, CallReader, joined
from skipserve.engine.reports import FinishReason, StepOutput
from skipserve.engine.request import Request
from skipserve.prompt.detokenize import Detokenizer, StopScanner
from skipserve.prompt.template import Ending
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
        token_ids: that were generated for it, the end token and what is not shown among them.
        calls: pieces of the functions' calls that the answer makes, which are not in its text.
        ends_with_calls: whether the answer ended by itself, with calls that are whole.
        prompt: what the prompt's tokens are like, with the first piece; None unless asked for.
    """

    text: str
    logprobs: tuple[TokenLogprobs, ...]
    finish_reason: FinishReason | None
    index: int = 0
    choice: int = 0
    stop: str | None = None
    token_ids: tuple[int, ...] = ()
    calls: tuple[CallPiece, ...] = ()
    ends_with_calls: bool = False
    prompt: PromptLogprobs | None = None


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
            token_ids=tuple(token_id for piece in pieces for token_id in piece.token_ids),
            calls=joined(call for piece in pieces for call in piece.calls),
            ends_with_calls=pieces[-1].ends_with_calls,
            prompt=next((piece.prompt for piece in pieces if piece.prompt is not None), None),
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
        wanted: what was asked of the answer.
        choice: which of several answers it is.
        request: whose prompt's tokens may be told of; None where they are not.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        wanted: Generation,
        choice: int = 0,
        request: Request | None = None,
    ) -> None:
        self.seconds = 0.0
        self._tokenizer = tokenizer
        self._min_tokens = wanted.min_tokens
        self._has_logprobs = wanted.num_top_logprobs is not None
        self._choice = choice
        self._request = request
        self._stops = wanted.stops
        self._calls = None if wanted.call_form is None else CallReader(wanted.call_form)
        # What a grammar allows is shown as it is.
        drops_space = wanted.ending is not Ending.CONTINUED and wanted.grammar is None
        self._detokenizer = Detokenizer(tokenizer, drops_space=drops_space)
        self._scanner = StopScanner(wanted.stops)
        self._num_tokens = 0
        self._num_decoded = 0
        self._num_shown = 0
        # Whether the next token's first space is not shown.
        self._drops_space = drops_space
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
        token_ids = () if output.token_id is None else (output.token_id,)
        piece = Piece(
            text,
            shown,
            finish_reason,
            choice=self._choice,
            stop=stop,
            token_ids=token_ids,
            prompt=self._prompt(output),
        )
        return piece if self._calls is None else _without_calls(piece, self._calls)

    def _prompt(self, output: StepOutput) -> PromptLogprobs | None:
        if output.prompt_scores is None or self._request is None:
            return None
        return PromptLogprobs(self._request, output.prompt_scores, self._tokenizer)

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
        """Let go of the tokens whose text has begun to be shown; at the end, of all.

        A stop string may begin inside the last one, which is then cut before it.
        """
        has_stopped = self._scanner.has_stopped
        is_whole = finish_reason is not None and not has_stopped
        shown = []
        while self._waiting and (is_whole or self._waiting[0][0] < self._num_shown):
            start, token = self._waiting.popleft()
            num_shown = self._num_shown - start
            is_cut = has_stopped and len(token.token) > num_shown
            shown.append(_cut(token, num_shown) if is_cut else token)
        return shown

    def _logprobs(self, output: StepOutput, token_id: int) -> TokenLogprobs:
        chosen = self._top_logprob(token_id, output.logprob or 0.0)
        top = tuple(self._top_logprob(each.token_id, each.logprob) for each in output.top_logprobs)
        if self._tokenizer.token_bytes(token_id):
            self._drops_space = False
        return TokenLogprobs(
            token=chosen.token, logprob=chosen.logprob, bytes=chosen.bytes, top_logprobs=top
        )

    def _top_logprob(self, token_id: int, logprob: float) -> TopLogprob:
        token, content = self._tokenizer.token_text(token_id), self._tokenizer.token_bytes(token_id)
        if self._drops_space:
            token, content = token.removeprefix(" "), content.removeprefix(b" ")
        return TopLogprob(token=token, logprob=logprob, bytes=tuple(content))


def _without_calls(piece: Piece, reader: CallReader) -> Piece:
    """Return a piece whose text has no calls any more."""
    text, calls = reader.push(piece.text)
    if piece.finish_reason is not None:
        text += reader.finish()
    is_end = piece.finish_reason is FinishReason.STOP and piece.stop is None
    ends_with_calls = is_end and reader.has_whole_calls
    return replace(piece, text=text, calls=calls, ends_with_calls=ends_with_calls)


def _cut(token: TokenLogprobs, num_shown: int) -> TokenLogprobs:
    """Return a token of which so many characters are shown."""
    text = token.token[:num_shown]
    return token.model_copy(update={"token": text, "bytes": tuple(text.encode())})
