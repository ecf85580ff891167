"""Lets a model answer freely, many questions at once: greedily, or by a search with beams.

Nothing is cached: what was said so far is computed again with each token, in trees that share
pictures, questions and beginnings of answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from skipserve_training.mapping.features import Features
from skipserve_training.mapping.language import FrozenLanguageModel
from skipserve_training.mapping.packing import Example, pack
from skipserve_training.mapping.training import embed

GREEDY = 1  # beam

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Turn:
    """What is asked about a picture, and what was said so far.

    Attributes:
        picture: its row of the features.
        prompt: with the picture's rows.
    """

    picture: int
    prompt: Tokens
    said: Tokens = ()


@dataclass(frozen=True)
class Speaker:
    """A model that answers.

    Attributes:
        features: of the pictures that are asked about.
        end: the token that ends an answer.
    """

    language: FrozenLanguageModel
    projector: nn.Module
    features: Features
    end: int

    @torch.inference_mode()
    def follow(self, turns: Sequence[Turn]) -> list[Tokens]:
        """Return for each turn the likeliest token behind the prompt, and behind each one said.

        Turns about a picture follow each other.
        """
        chosen = iter(self._logits(turns).argmax(-1).tolist())
        return [tuple(next(chosen) for _ in range(len(turn.said) + 1)) for turn in turns]

    @torch.inference_mode()
    def say(self, turns: Sequence[Turn], limit: int, num_beams: int = GREEDY) -> list[Tokens]:
        """Return whole answers, with their ends where these come within `limit` tokens.

        Turns about a picture follow each other.
        """
        searches: list[Search]
        if num_beams == GREEDY:
            searches = [Greedy(limit, self.end) for _ in turns]
        else:
            searches = [Beams(num_beams, limit, self.end) for _ in turns]
        while True:
            places = [place for place, search in enumerate(searches) if not search.is_done]
            if not places:
                return [search.best for search in searches]
            open_turns = [
                replace(turns[place], said=said)
                for place in places
                for said in searches[place].running
            ]
            found = iter(self._likeliest(open_turns, 2 * num_beams))
            for place in places:
                searches[place].take([next(found) for _ in searches[place].running])

    def _likeliest(self, turns: Sequence[Turn], count: int) -> list[list[tuple[int, float]]]:
        """Return for each turn the likeliest next tokens, with their log-probabilities."""
        lasts = torch.tensor([len(turn.said) + 1 for turn in turns]).cumsum(0) - 1
        logits = self._logits(turns)
        found = logits[lasts.to(logits.device)].log_softmax(-1).topk(count)
        pairs = zip(found.indices.tolist(), found.values.tolist(), strict=True)
        return [[*zip(tokens, logs, strict=True)] for tokens, logs in pairs]

    def _logits(self, turns: Sequence[Turn]) -> Tensor:
        """Return logits behind each turn's prompt and each of its tokens, one after another."""
        trees: dict[int, list[Example]] = {}
        for turn in turns:
            answer = (*turn.said, self.end)  # whatever: the last token gets no row
            trees.setdefault(turn.picture, []).append(Example(turn.prompt, answer, 0))
        device = self.language.device
        features = self.features.take([*trees]).to(device)
        batch = pack([*trees.values()]).to(device)
        rows = embed(self.language, self.projector, features, batch)
        return self.language.logits(self.language.hidden(rows, batch).flatten(0, 1)[batch.rows])


class Search(Protocol):
    """A search for the answer to one question."""

    @property
    def running(self) -> Sequence[Tokens]:
        """Return the beginnings that are followed."""
        ...

    @property
    def is_done(self) -> bool:
        """Say whether there is nothing to follow any more."""
        ...

    @property
    def best(self) -> Tokens:
        """Return the answer."""
        ...

    def take(self, found: Sequence[Sequence[tuple[int, float]]]) -> None:
        """Go on, given each beginning's likeliest next tokens with their log-probabilities."""
        ...


@dataclass
class Greedy:
    """Takes the likeliest token each time."""

    limit: int
    end: int
    best: Tokens = ()

    @property
    def running(self) -> Sequence[Tokens]:
        """Return what was said so far."""
        return [self.best]

    @property
    def is_done(self) -> bool:
        """Say whether the answer has ended, or is as long as it may be."""
        return len(self.best) == self.limit or self.best[-1:] == (self.end,)

    def take(self, found: Sequence[Sequence[tuple[int, float]]]) -> None:
        """Go on by a token."""
        (((token, _), *_),) = found
        self.best += (token,)


@dataclass
class Beams:
    """Follows the likeliest beginnings, and takes the answer of the best mean log-probability.

    As `generate(num_beams=B, do_sample=False)` of transformers does it, with its length penalty of
    1: of 2 B candidates those among the first B that end are answers, and the best B that do not
    are followed, until there are B answers that none of these is better than.
    """

    num_beams: int
    limit: int
    end: int
    is_done: bool = False
    _running: list[tuple[float, Tokens]] = field(default_factory=lambda: [(0.0, ())])
    _answers: list[tuple[float, Tokens]] = field(default_factory=list)

    @property
    def running(self) -> Sequence[Tokens]:
        """Return the beginnings that are followed."""
        return [said for _, said in self._running]

    @property
    def best(self) -> Tokens:
        """Return the best answer so far."""
        return self._answers[0][1]

    def take(self, found: Sequence[Sequence[tuple[int, float]]]) -> None:
        """Go on by a token in each beam."""
        candidates = [
            (score + log, (*said, token))
            for (score, said), tokens in zip(self._running, found, strict=True)
            for token, log in tokens
        ]
        best = sorted(candidates, key=_score, reverse=True)[: 2 * self.num_beams]
        length = len(best[0][1])
        is_last = length == self.limit
        ended = [it for it in best[: self.num_beams] if is_last or it[1][-1] == self.end]
        answers = [*self._answers, *((score / length, said) for score, said in ended)]
        self._answers = sorted(answers, key=_score, reverse=True)[: self.num_beams]
        self._running = [it for it in best if it[1][-1] != self.end][: self.num_beams]
        self.is_done = is_last or not self._can_improve(length)

    def _can_improve(self, length: int) -> bool:
        if len(self._answers) < self.num_beams:
            return True
        return self._running[0][0] / length > self._answers[-1][0]


def _score(scored: tuple[float, Tokens]) -> float:
    return scored[0]
