"""Logits -> tokens of a whole batch, with the model's own log-probabilities where asked for.

A row's token depends on its logits, its parameters, its seed, its position and, where it asks for
that, the tokens before; on nothing else.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from skipserve.engine.adjust import RowAdjuster, adjust
from skipserve.engine.draw import FILTERS, draw, filters_of
from skipserve.engine.host_copy import HostCopy
from skipserve.engine.largest import argmax
from skipserve.engine.philox import uniform
from skipserve.engine.reports import TokenLogprob
from skipserve.engine.request import SamplingParams
from skipserve.grammar.fault import GrammarFaultError
from skipserve.grammar.matcher import Matcher
from skipserve.model.logprobs import RowLogprobs
from skipserve.model.transfer import to_device

_NO_LOGPROBS = -1
_NO_TOKENS = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Logprobs:
    """The model's own log-probabilities at one token, before temperature and filters.

    Attributes:
        logprob: of the token itself.
        top: the most probable tokens, best first, among equals the lower id first.
    """

    logprob: float
    top: tuple[TokenLogprob, ...]


@dataclass(frozen=True)
class SampledTokens:
    """What was chosen.

    Attributes:
        token_ids: by row of the batch.
        logprobs: by row of the batch, only of those that asked.
        faulty: rows of the batch whose logits are no numbers; their tokens mean nothing.
        stuck: rows that cannot go on in their grammars, and why; likewise.
    """

    token_ids: list[int]
    logprobs: dict[int, Logprobs]
    faulty: frozenset[int] = frozenset()
    stuck: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Samples:
    """What the device chooses; it may not have done so yet.

    Attributes:
        token_ids: [B] int64, on the device.
        copies: token_ids, the largest logit of each row, and what `_logprobs` returned.
        num_top: how many alternatives each row reports, _NO_LOGPROBS for no log-probabilities.
        stuck: rows that cannot go on in their grammars, and why.
    """

    token_ids: Tensor
    copies: HostCopy
    num_top: NDArray[np.int64]
    stuck: Mapping[int, str] = field(default_factory=dict)

    def read(self) -> SampledTokens:
        """Wait for the device and return the tokens.

        A row is faulty if a logit of it is NaN or plus infinity, or none is finite.
        """
        token_ids, best, *reports = self.copies.wait()
        is_finite = best[:, 0].isfinite()
        faulty = () if is_finite.all() else (~is_finite).nonzero()[:, 0].tolist()
        logprobs = self._by_row(*reports) if reports else {}
        return SampledTokens(token_ids.tolist(), logprobs, frozenset(faulty), self.stuck)

    def _by_row(self, own: Tensor, top_ids: Tensor, top: Tensor) -> dict[int, Logprobs]:
        rows = (self.num_top != _NO_LOGPROBS).nonzero()[0]
        counts = self.num_top[rows].tolist()
        reports = zip(own.tolist(), top_ids.tolist(), top.tolist(), strict=True)
        return {
            row: Logprobs(logprob, tuple(map(TokenLogprob, ids[:count], values[:count])))
            for row, count, (logprob, ids, values) in zip(
                rows.tolist(), counts, reports, strict=True
            )
        }


class Sampler:
    """Chooses the tokens of the sequences that run; each has a seat with its parameters.

    Args:
        max_running: so many seats there are.
        end_token_ids: of the model.
    """

    def __init__(self, max_running: int, end_token_ids: Collection[int] = ()) -> None:
        self._end_token_ids = end_token_ids
        self._adjusters: dict[int, RowAdjuster] = {}
        self._is_adjusted = np.zeros(max_running, np.bool_)
        self._is_greedy = np.ones(max_running, np.bool_)
        self._filters = np.zeros(max_running, FILTERS)
        self._seeds = np.zeros(max_running, np.uint64)
        self._choices = np.zeros(max_running, np.int64)
        self._num_top = np.full(max_running, _NO_LOGPROBS)

    def place(
        self,
        seat: int,
        params: SamplingParams,
        token_ids: NDArray[np.int64] = _NO_TOKENS,
        num_prompt: int = 0,
        matcher: Matcher | None = None,
    ) -> None:
        """Give a seat to a sequence.

        Args:
            seat: which.
            params: how its tokens are chosen.
            token_ids: its tokens, [positions]; those of the answer are entered as they are read.
            num_prompt: rows of its prompt.
            matcher: of its grammar; None where it has none.
        """
        self._adjusters.pop(seat, None)
        wanted = params.adjustments
        self._is_adjusted[seat] = wanted is not None
        if wanted is not None:
            ends = {*self._end_token_ids, *params.stop_token_ids, *wanted.end_token_ids}
            self._adjusters[seat] = RowAdjuster(
                wanted, token_ids, num_prompt, sorted(ends), matcher
            )
        num_top = params.num_top_logprobs
        self._is_greedy[seat] = params.temperature == 0
        self._filters[seat] = filters_of(params)
        self._seeds[seat] = params.seed % 2**64
        self._choices[seat] = params.choice
        self._num_top[seat] = _NO_LOGPROBS if num_top is None else num_top

    def sample(
        self, logits: Tensor, seats: NDArray[np.int64], positions: NDArray[np.int64]
    ) -> Samples:
        """Choose the next token of each row.

        Args:
            logits: float32, [B, V].
            seats: of the sequence of each row, [B].
            positions: that the tokens will take, [B].
        """
        own_logits, (logits, stuck) = logits, self._adjust(logits, seats, positions)
        token_ids = argmax(logits)
        best = logits.gather(1, token_ids[:, None])
        drawn = (~self._is_greedy[seats]).nonzero()[0]
        if len(drawn):
            seats_drawn = seats[drawn]
            chances = uniform(
                self._seeds[seats_drawn], positions[drawn], self._choices[seats_drawn]
            )
            filters = self._filters[seats_drawn]
            token_ids = draw(token_ids, logits, best, drawn, filters, chances)
        num_top = self._num_top[seats]
        copies = HostCopy(token_ids, best, *_logprobs(own_logits, token_ids, num_top))
        return Samples(token_ids, copies, num_top, stuck)

    def _adjust(
        self, logits: Tensor, seats: NDArray[np.int64], positions: NDArray[np.int64]
    ) -> tuple[Tensor, dict[int, str]]:
        """Return the logits that tokens are chosen by, themselves where no row asks for changes.

        Besides them, the rows that cannot go on in their grammars, and why: they go on without.
        """
        rows = self._is_adjusted[seats].nonzero()[0]
        if not len(rows):
            return logits, {}
        adjusters = [self._adjusters[seat] for seat in seats[rows].tolist()]
        changed = rows.tolist(), positions[rows].tolist(), adjusters
        masks, stuck = _masks(*changed)
        return adjust(logits, *changed, masks), stuck


def _masks(
    rows: Sequence[int], positions: Sequence[int], adjusters: Sequence[RowAdjuster]
) -> tuple[dict[int, NDArray[np.int64]], dict[int, str]]:
    """Return which tokens may come in the rows that have grammars, and which are stuck, and why."""
    masks, stuck = {}, {}
    for row, position, adjuster in zip(rows, positions, adjusters, strict=True):
        if adjuster.has_grammar:
            try:
                masks[row] = adjuster.mask(position)
            except GrammarFaultError as fault:
                stuck[row] = fault.message
    return masks, stuck


def _logprobs(logits: Tensor, token_ids: Tensor, num_top: NDArray[np.int64]) -> tuple[Tensor, ...]:
    """Return, for the R rows that ask, each token's own log-probability and the largest ones.

    Returns:
        own: [R]; ids and values of the largest: [R, K], K the most that any row asks for. Nothing
        at all if no row asks.
    """
    asked = (num_top != _NO_LOGPROBS).nonzero()[0]
    if not len(asked):
        return ()
    (rows,) = to_device([asked], logits.device)
    found = RowLogprobs.of(
        logits.index_select(0, rows), token_ids.index_select(0, rows), int(num_top.max())
    )
    return found.own, found.top_ids, found.top
