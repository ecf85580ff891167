"""What the answers of several policies have in common, and how they are shown."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from statistics import median
from typing import Any

from rich import box
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from skipserve_client.compare.asking import Answers, TimedAnswer
from skipserve_client.replies import Answer
from skipserve_client.tables import CUT, format_share

SCHEMA = "skipserve.compare/1"


@dataclass(frozen=True)
class Difference:
    """Where two answers part.

    Attributes:
        word: the first word that differs, counted from 1; None where spaces alone differ.
        baseline: that word of the answer that the other is held against; "" behind its end.
        here: that of the other.
    """

    word: int | None
    baseline: str = ""
    here: str = ""

    def told(self, baseline: str) -> str:
        """Say so."""
        if self.word is None:
            return f"differs from {baseline} in spaces alone"
        here, there = (repr(it) if it else "the end" for it in (self.here, self.baseline))
        return f"word {self.word}: {here}, where {baseline} has {there}"


def difference(baseline: str, here: str) -> Difference | None:
    """Return where an answer parts from the baseline's; None where they are equal."""
    if here == baseline:
        return None
    pairs = zip_longest(baseline.split(), here.split(), fillvalue="")
    for number, (theirs, ours) in enumerate(pairs, start=1):
        if theirs != ours:
            return Difference(number, theirs, ours)
    return Difference(None)


@dataclass(frozen=True)
class PolicyResult:
    """What one policy answered.

    Attributes:
        label: of the policy.
        timed: its answers.
        difference: where its first answer parts from the baseline's first one.
    """

    label: str
    timed: Sequence[TimedAnswer]
    difference: Difference | None

    @property
    def answer(self) -> Answer:
        """The first answer."""
        return self.timed[0].answer

    @property
    def is_repeatable(self) -> bool:
        """Whether all its answers are equal."""
        return len({it.answer.text for it in self.timed}) == 1

    @property
    def first_token_seconds(self) -> float:
        """The median."""
        return median(it.first_token_seconds for it in self.timed)

    @property
    def seconds(self) -> float:
        """The median."""
        return median(it.seconds for it in self.timed)

    def as_json(self) -> dict[str, Any]:
        """Return the form that `--json` prints."""
        return {
            "policy": self.label,
            "agrees": self.difference is None,
            "first_difference": None if self.difference is None else asdict(self.difference),
            "is_repeatable": self.is_repeatable,
            "first_token_seconds": self.first_token_seconds,
            "seconds": self.seconds,
            "first_token_seconds_each": [it.first_token_seconds for it in self.timed],
            "seconds_each": [it.seconds for it in self.timed],
            "answer": self.answer.model_dump(
                mode="json", exclude={"logprobs", "prompt_logprobs", "timings"}
            ),
        }


def results_of(answers: Answers) -> list[PolicyResult]:
    """Hold each policy's answer against that of the first."""
    baseline = next(iter(answers.values()))[0].answer.text
    return [
        PolicyResult(label, timed, difference(baseline, timed[0].answer.text))
        for label, timed in answers.items()
    ]


def as_json(results: Sequence[PolicyResult], conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the form that `--json` prints."""
    policies = [result.as_json() for result in results]
    told = {"model": results[0].answer.model, "baseline": results[0].label}
    return {"schema": SCHEMA, **conditions, **told, "policies": policies}


def results_shown(results: Sequence[PolicyResult], caption: str) -> Group:
    """Return the figures, a row a policy, and below them each answer with who gave it."""
    return Group(_figures(results, caption), Text(), *_answers(results))


def _figures(results: Sequence[PolicyResult], caption: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=caption, caption_justify="left")
    table.add_column("policy", overflow="fold")
    for title in ("agrees", "first", "end", "tokens", "saved"):
        table.add_column(title, justify="right")
    for result in results:
        table.add_row(
            result.label,
            "" if result is results[0] else "no" if result.difference else "yes",
            f"{1000 * result.first_token_seconds:.0f} ms",
            f"{1000 * result.seconds:.0f} ms",
            str(result.answer.usage.completion_tokens),
            format_share(result.answer.skip.saved_ratio),
        )
    return table


def _answers(results: Sequence[PolicyResult]) -> Iterator[Padding | Text]:
    by_text: dict[str, list[PolicyResult]] = {}
    for result in results:
        by_text.setdefault(result.answer.text, []).append(result)
    for text, alike in by_text.items():
        yield Text(", ".join(result.label for result in alike), "bold")
        yield _indented(text or "(no text)")
        for line in _notes(alike, results[0].label):
            yield _indented(line, "dim")


def _notes(alike: Sequence[PolicyResult], baseline: str) -> Iterator[str]:
    """Say what is to be known of policies that gave the same answer."""
    if (parting := alike[0].difference) is not None:
        yield parting.told(baseline)
    for result in alike:
        usage = result.answer.usage
        if not result.is_repeatable:
            yield f"{result.label} gave other answers in other repeats"
        if result.answer.finish_reason == CUT:
            yield f"{result.label} was cut after {usage.completion_tokens} tokens: see --max-tokens"
        if usage.cached_tokens:
            yield f"{result.label}: {usage.cached_tokens} of {usage.prompt_tokens} tokens cached"


def _indented(text: str, style: str = "") -> Padding:
    return Padding(Text(text, style), (0, 0, 0, 2))
