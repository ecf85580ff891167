"""The tokens of a prompt, each with how probable the model finds it and what it finds more so."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from skipserve.engine.reports import PromptScores
from skipserve.engine.request import Request
from skipserve.prompt.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class RankedLogprob:
    """A token that stands in a prompt, or could, in vLLM's words.

    Attributes:
        logprob: the model's own log-probability, after the tokens before.
        rank: its place among all tokens; the most probable one's is 1.
        decoded_token: its text; a special token's name.
    """

    logprob: float
    rank: int
    decoded_token: str


# By place in the prompt: tokens by their ids, the one that stands there first, then the most
# probable ones; None at the first token, which nothing precedes, and at what is not scored.
PromptEntries = tuple[dict[int, RankedLogprob] | None, ...]


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token of a prompt.

    Attributes:
        token_id: which.
        logprob: its log-probability; None for the first one and rows of images, behind which
            stands none either where visual rows leave inside the decoder.
        rank: its place among all tokens, from 1 on; 0 without a log-probability.
        top: the most probable tokens in its place with their log-probabilities, best first.
    """

    token_id: int
    logprob: float | None
    rank: int
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, eq=False)
class PromptLogprobs:
    """What a step tells of a prompt, with its tokens.

    Attributes:
        request: whose prompt it is.
        scores: what the engine found.
        tokenizer: the model's.
    """

    request: Request
    scores: PromptScores
    tokenizer: Tokenizer
    _texts: dict[int, str] = field(default_factory=dict, init=False)

    def tokens(self, num_top: int) -> Iterator[ScoredToken]:
        """Yield all tokens of the prompt, with so many alternatives or all that there are."""
        scores, shape = self.scores, (-1, self.scores.num_top)
        logprobs, ranks = (
            _read(scores.logprobs, "<f4").tolist(),
            _read(scores.ranks, "<i4").tolist(),
        )
        if scores.num_top:
            ids = _read(scores.top_ids, "<i4").reshape(shape)[:, :num_top].tolist()
            top = _read(scores.top, "<f4").reshape(shape)[:, :num_top].tolist()
        else:
            ids = top = [[] for _ in logprobs]
        found = zip(logprobs, ranks, ids, top, strict=True)
        scored = set((self.request.scored_rows + 1).tolist())
        for place, token_id in enumerate(self.request.prompt_ids):
            if place in scored:
                logprob, rank, others, theirs = next(found)
                yield ScoredToken(token_id, logprob, rank, tuple(zip(others, theirs, strict=True)))
            else:
                yield ScoredToken(token_id, None, 0, ())

    def entries(self, num_top: int) -> PromptEntries:
        """Return the prompt in vLLM's form, with so many alternatives to each token."""
        return tuple(
            None if token.logprob is None else dict(self._ranked(token))
            for token in self.tokens(num_top)
        )

    def _ranked(self, token: ScoredToken) -> Iterator[tuple[int, RankedLogprob]]:
        assert token.logprob is not None
        yield token.token_id, RankedLogprob(token.logprob, token.rank, self.text(token.token_id))
        for rank, (token_id, logprob) in enumerate(token.top, start=1):
            if token_id != token.token_id:
                yield token_id, RankedLogprob(logprob, rank, self.text(token_id))

    def text(self, token_id: int) -> str:
        """Return a token as text."""
        if token_id not in self._texts:
            self._texts[token_id] = self.tokenizer.token_text(token_id)
        return self._texts[token_id]


def _read(content: bytes, dtype: str) -> NDArray[np.generic]:
    return np.frombuffer(content, dtype=dtype)
