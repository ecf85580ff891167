"""Changes to the logits of single rows before a token is chosen: bias, penalties, grammar masks.

Each changed number depends on its own row alone, so no row depends on the batch that it is in.
Source of the order: vLLM's sampler: bias, repetition penalty, then frequency and presence. What is
forbidden comes last, by words and by a grammar.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skipserve.engine.request import Adjustments
from skipserve.grammar.fault import GrammarFaultError
from skipserve.grammar.matcher import Matcher
from skipserve.model.transfer import to_device

# One token's logit: bias is added; then it is divided by `ratio` if it is positive, else multiplied
# by it; then `penalty` is taken off.
EDITS = np.dtype(
    [("token_id", np.int64), ("bias", np.float64), ("ratio", np.float64), ("penalty", np.float64)]
)


class RowAdjuster:
    """The changes for one sequence while it has its seat; grows with its answer.

    Args:
        wanted: what the request asks for.
        token_ids: of the sequence, [positions]; those of the answer are entered as they come.
        num_prompt: rows of the prompt.
        end_token_ids: tokens that may not come before `wanted.min_tokens` have.
        matcher: of the answer's grammar, as far as it has come; None without one.
    """

    def __init__(
        self,
        wanted: Adjustments,
        token_ids: NDArray[np.int64],
        num_prompt: int,
        end_token_ids: Sequence[int],
        matcher: Matcher | None = None,
    ) -> None:
        self._wanted = wanted
        self._matcher = matcher
        self._token_ids = token_ids
        self._num_prompt = self._num_counted = num_prompt
        self._end_token_ids = tuple(end_token_ids)
        self._answered: set[int] = set()
        repeats = wanted.repetition_penalty != 1
        prompt_ids = np.unique(token_ids[:num_prompt]) if repeats else token_ids[:0]
        biases = np.array(wanted.logit_bias, dtype=np.float64).reshape(-1, 2)
        bias_ids = biases[:, 0].astype(np.int64)
        known = np.union1d(prompt_ids, bias_ids)
        self._edits = _no_edits(len(known))
        self._edits["token_id"] = known
        self._edits["ratio"][np.searchsorted(known, prompt_ids)] = wanted.repetition_penalty
        self._edits["bias"][np.searchsorted(known, bias_ids)] = biases[:, 1]
        # Where in the table a token stands.
        self._places: dict[int, int] = dict(zip(known.tolist(), range(len(known)), strict=True))

    def edits(self, position: int) -> NDArray[np.void]:
        """Return the EDITS of the row that chooses the token at a position, one a token."""
        if self._wanted.has_penalties:
            for token_id in self._token_ids[self._num_counted : position].tolist():
                self._count(token_id)
            self._num_counted = position
        return self._edits[: len(self._places)]

    @property
    def has_grammar(self) -> bool:
        """Whether a grammar says which tokens may come."""
        return self._matcher is not None

    def forbidden(self, position: int) -> Iterator[int]:
        """Yield the tokens that may not stand at a position, whatever a grammar says."""
        yield from self._early_ends(position)
        yield from self._bad(position)

    def mask(self, position: int) -> NDArray[np.int64]:
        """Return a bit for each token, whether it may stand at a position, [words of 64 bits].

        What ends the answer is forbidden early only where something else may come.

        Raises:
            GrammarFaultError: none may, or the grammar takes too much work there.
        """
        assert self._matcher is not None
        done = self._num_prompt + self._matcher.num_taken
        self._matcher.advance(self._token_ids[done:position].tolist())
        words = self._matcher.mask()
        without_ends = _cleared(words, self._early_ends(position))
        words = without_ends if without_ends.any() else words
        allowed = _cleared(words, self._bad(position))
        if not allowed.any():
            raise GrammarFaultError(
                "bad_words forbids each token that what the answer is held to allows next"
            )
        return allowed

    def _early_ends(self, position: int) -> Iterator[int]:
        if position - self._num_prompt < self._wanted.min_tokens:
            yield from self._end_token_ids

    def _bad(self, position: int) -> Iterator[int]:
        """Yield the tokens that would complete a bad word."""
        for *before, last in self._wanted.bad_words:
            start = position - len(before)
            if start >= self._num_prompt and self._token_ids[start:position].tolist() == before:
                yield last

    def _count(self, token_id: int) -> None:
        """Count a token of the answer."""
        assert token_id >= 0, "a token is counted before it is read"
        wanted, place = self._wanted, self._place(token_id)
        self._edits["ratio"][place] = wanted.repetition_penalty
        self._edits["penalty"][place] += wanted.frequency_penalty
        if token_id not in self._answered:
            self._answered.add(token_id)
            self._edits["penalty"][place] += wanted.presence_penalty

    def _place(self, token_id: int) -> int:
        """Return a token's place in the table, where it changes nothing when it is new."""
        place = self._places.setdefault(token_id, len(self._places))
        if place == len(self._edits):
            self._edits = np.concatenate([self._edits, _no_edits(max(place, 16))])
        self._edits["token_id"][place] = token_id
        return place


def _no_edits(count: int) -> NDArray[np.void]:
    edits = np.zeros(count, EDITS)
    edits["ratio"] = 1
    return edits


def _cleared(words: NDArray[np.int64], token_ids: Iterable[int]) -> NDArray[np.int64]:
    """Return a mask without some tokens, itself if there are none."""
    places = np.fromiter(token_ids, np.int64)
    places = places[places < 64 * len(words)]
    if not len(places):
        return words
    cleared = words.copy()
    np.bitwise_and.at(cleared, places // 64, ~np.left_shift(np.int64(1), places % 64))
    return cleared


def adjust(
    logits: Tensor,
    rows: Sequence[int],
    positions: Sequence[int],
    adjusters: Sequence[RowAdjuster],
    masks: Mapping[int, NDArray[np.int64]] = MappingProxyType({}),
) -> Tensor:
    """Return logits with the changes of some rows; the others are as they were.

    What changes is computed on the host and goes to the device in one copy. A mask goes as bits.

    Args:
        logits: float32, [B, V]; not touched.
        rows: those that change, [R].
        positions: that their tokens will take, [R].
        adjusters: theirs, [R].
        masks: of rows that have a grammar, the tokens that may come, [words of 64 bits].
    """
    width = logits.shape[1]
    edits = [each.edits(position) for each, position in zip(adjusters, positions, strict=True)]
    starts = np.array(rows, dtype=np.int64) * width
    forbidden = [
        start + token_id
        for start, each, position in zip(starts.tolist(), adjusters, positions, strict=True)
        if not each.has_grammar
        for token_id in each.forbidden(position)
        if token_id < width
    ]
    table = np.concatenate(edits)
    places = table["token_id"] + starts.repeat([len(each) for each in edits])
    # An image token in a prompt need not be one of the head's.
    has_logit = table["token_id"] < width
    table, places = table[has_logit], places[has_logit]
    numbers = np.stack([table["bias"], table["ratio"], table["penalty"]])
    arrays = [places, numbers, np.array(forbidden, dtype=np.int64)]
    if masks:
        arrays += [np.array(list(masks)), np.stack(list(masks.values()))]
    sent = to_device(arrays, logits.device)
    adjusted = logits.clone()
    _apply(adjusted.view(-1), *sent[:3])
    if masks:
        _mask(adjusted, *sent[3:])
    return adjusted


def _apply(logits: Tensor, places: Tensor, numbers: Tensor, forbidden: Tensor) -> None:
    """Change logits [B * V] in place: the N of the edits, then those that are forbidden."""
    bias, ratio, penalty = numbers.float().unbind(0)
    changed = logits.index_select(0, places) + bias
    changed = torch.where(changed > 0, changed / ratio, changed * ratio) - penalty
    logits.index_copy_(0, places, changed)
    logits.index_fill_(0, forbidden, -math.inf)


def _mask(logits: Tensor, rows: Tensor, words: Tensor) -> None:
    """Forbid in some rows of logits [B, V], in place, the tokens without a bit, [G, words]."""
    bits = words[:, :, None] >> torch.arange(64, device=words.device) & 1
    is_forbidden = bits.view(len(words), -1)[:, : logits.shape[1]] == 0
    masked = logits.index_select(0, rows).masked_fill_(is_forbidden, -math.inf)
    logits.index_copy_(0, rows, masked)
