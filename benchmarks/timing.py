"""Times contenders who answer the same sets of questions, turn by turn."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Protocol

from questions import Question
from rich.console import Console
from rich.progress import Progress

# Takes the index of a question and a token of its answer.
OnToken = Callable[[int, int], None]


class Contender(Protocol):
    """Someone who answers questions."""

    def answer(self, questions: Sequence[Question], on_token: OnToken) -> None:
        """Answer all greedily; report each token as soon as it is known."""

    def cpu_seconds(self) -> float:
        """Return the processor time that was used so far, by all threads."""


@dataclass(frozen=True)
class Answer:
    """What was answered to one question.

    Attributes:
        token_ids: all of them.
        times: when each was known, in seconds since the set was handed over.
    """

    token_ids: tuple[int, ...]
    times: tuple[float, ...]


@dataclass(frozen=True)
class Timing:
    """One set of questions.

    Attributes:
        seconds: from the first question to the last token.
        cpu_seconds: of the process that answers, all its threads.
        answers: in the order of the questions.
    """

    seconds: float
    cpu_seconds: float
    answers: tuple[Answer, ...]

    @property
    def first_token_seconds(self) -> float:
        """From the request to the first token, the mean."""
        return mean(answer.times[0] for answer in self.answers)

    @property
    def per_token_seconds(self) -> float:
        """From one token to the next, the mean; answers have two tokens at least."""
        gaps = [(a.times[-1] - a.times[0]) / (len(a.times) - 1) for a in self.answers]
        return mean(gaps)


Timings = dict[str, list[Timing]]


def time_set(contender: Contender, questions: Sequence[Question]) -> Timing:
    """Time one set."""
    token_ids: list[list[int]] = [[] for _ in questions]
    times: list[list[float]] = [[] for _ in questions]

    def on_token(index: int, token_id: int) -> None:
        times[index].append(time.perf_counter() - start)
        token_ids[index].append(token_id)

    cpu_start, start = contender.cpu_seconds(), time.perf_counter()
    contender.answer(questions, on_token)
    end, cpu_end = time.perf_counter(), contender.cpu_seconds()
    assert [len(ids) for ids in token_ids] == [q.num_new_tokens for q in questions]
    return Timing(
        seconds=end - start,
        cpu_seconds=cpu_end - cpu_start,
        answers=tuple(
            Answer(tuple(ids), tuple(at)) for ids, at in zip(token_ids, times, strict=True)
        ),
    )


def take_turns(
    contenders: Mapping[str, Contender],
    draw: Callable[[], Sequence[Question]],
    repeats: int,
    title: str | None = None,
) -> Timings:
    """Time all in turn, on new questions in each turn; a first turn is not counted.

    Args:
        contenders: by name.
        draw: gives the questions of the next turn; what was seen before, a cache may hold.
        repeats: turns that are counted.
        title: of the progress bar; None for no bar.
    """
    timings: Timings = {name: [] for name in contenders}
    for turn in track(repeats + 1, title):
        questions = draw()
        for name, contender in contenders.items():
            timing = time_set(contender, questions)
            if turn > 0:
                timings[name].append(timing)
    return timings


def median_in_turns(
    measures: Mapping[str, Callable[[], float]], repeats: int, title: str | None = None
) -> dict[str, float]:
    """Return the median of what each measure gives; a first turn is not counted.

    Args:
        measures: by name; they take turns.
        repeats: turns that are counted.
        title: of the progress bar; None for no bar.
    """
    turns = [
        {name: measure() for name, measure in measures.items()} for _ in track(repeats + 1, title)
    ]
    return {name: median(turn[name] for turn in turns[1:]) for name in measures}


def track(count: int, title: str | None) -> Iterator[int]:
    """Count from 0, with a title under a progress bar, which goes to the error stream."""
    if title is None:
        yield from range(count)
        return
    with Progress(console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(range(count), description=title)


def median_of(timings: Sequence[Timing], field: str) -> float:
    """Return the median of a field of Timing."""
    return float(median(getattr(timing, field) for timing in timings))


def agreement(ours: Sequence[Timing], theirs: Sequence[Timing]) -> float:
    """Return the share of an answer up to the first token that differs, the mean of all."""
    return mean(
        _equal_share(our.token_ids, their.token_ids)
        for pair in zip(ours, theirs, strict=True)
        for our, their in zip(pair[0].answers, pair[1].answers, strict=True)
    )


def _equal_share(ours: Sequence[int], theirs: Sequence[int]) -> float:
    pairs = list(zip(ours, theirs, strict=True))
    equal = next((i for i, pair in enumerate(pairs) if pair[0] != pair[1]), len(pairs))
    return equal / len(pairs)
