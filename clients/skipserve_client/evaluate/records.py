"""The records of an evaluation: one a question and policy, kept in a file as they come."""

import errno
import fcntl
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from skipserve_client.command_group import CommandError
from skipserve_client.evaluate.figures import RIGHT
from skipserve_client.evaluate.metrics.item import Item
from skipserve_client.evaluate.metrics.registry import METRICS
from skipserve_client.evaluate.sample import Sample
from skipserve_client.replies import Answer, PlainAnswer

# How every line begins, even one that was cut off.
_BEGINNING = b'{"data":"'


class Conditions(BaseModel):
    """What all records of one evaluation have in common.

    Attributes:
        data: what the questions are called.
        model: what the server calls its model.
        model_digest: of the weights; None where the server does not say.
        dtype: the number type that it runs in.
        device: what it runs on.
        max_tokens: at most so many tokens were answered.
        concurrency: requests under way at a time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    data: str
    model: str
    model_digest: str | None
    dtype: str | None
    device: str | None
    max_tokens: int
    concurrency: int


class Record(Conditions):
    """One question, and the answer that it got under one policy.

    Attributes:
        policy: its name, or the label of one that was spelt out; of a server that has no policies,
            the model's name.
        policy_digest: of what ran; None where the server has no policies.
        index: the question's place in the data, from 0.
        id: what the data calls the question.
        question_digest: of what was asked and of what counts as right.
        part: of its type, where the type has parts.
        blind: what a model would answer that sees the question alone, where that is known.
        metric: how it is scored, a name of `METRICS`.
        group: what it belongs together with, such as the other questions on its picture.
        choices: the texts of the options A, B, ..., where the question names some.
        expected: the answers that are right.
        score: what the answer is worth, from 0 to 1; None where that depends on other questions.
        correct: whether it is worth half or more; None likewise.
        prompt_tokens: None where the server does not count, as completion_tokens.
        cached_tokens: prompt tokens that neither count of FLOPs holds.
        planned_flops: None where the server has no policies, as full_flops.
        latency_seconds: the request's duration, as the server counts it; as the client does, where
            the server has no policies.
        first_token_seconds: the time to the first token.
    """

    policy: str
    policy_digest: str | None
    index: int
    id: str | None
    type: str
    part: str | None = None
    blind: str | None = None
    question: str
    question_digest: str
    metric: str = "exact"
    group: str | None = None
    choices: tuple[str, ...] = ()
    expected: tuple[str, ...]
    answer: str
    score: float | None = None
    correct: bool | None
    finish_reason: str
    prompt_tokens: int | None
    cached_tokens: int
    completion_tokens: int | None
    planned_flops: int | None
    full_flops: int | None
    latency_seconds: float
    first_token_seconds: float | None

    @field_validator("metric")
    @classmethod
    def _check_metric(cls, name: str) -> str:
        if name not in METRICS:
            raise ValueError(f"{name} is no metric")
        return name

    @classmethod
    def of(
        cls, sample: Sample, digest: str, policy: str, answer: Answer, conditions: Conditions
    ) -> Self:
        """Grade an answer and write down what belongs to it; `digest` is the question's."""
        return cls(
            **_asked(sample, digest, policy, conditions),
            **_answered(sample, answer),
            policy_digest=answer.skip.digest,
            planned_flops=answer.skip.planned_flops,
            full_flops=answer.skip.full_flops,
            latency_seconds=answer.timings.duration_seconds,
            first_token_seconds=answer.timings.time_to_first_token_seconds,
        )

    @classmethod
    def of_plain(
        cls,
        sample: Sample,
        digest: str,
        answer: PlainAnswer,
        seconds: float,
        conditions: Conditions,
    ) -> Self:
        """Do so for a server that has no policies; `seconds` are the client's."""
        return cls(
            **_asked(sample, digest, conditions.model, conditions),
            **_answered(sample, answer),
            policy_digest=None,
            planned_flops=None,
            full_flops=None,
            latency_seconds=seconds,
            first_token_seconds=None,
        )

    @property
    def item(self) -> Item:
        """What a metric needs of it."""
        return Item(
            self.type,
            self.expected,
            self.answer,
            self.part,
            self.group,
            self.choices,
            self.blind,
        )


def _asked(sample: Sample, digest: str, policy: str, conditions: Conditions) -> dict[str, Any]:
    return {
        **conditions.model_dump(),
        "policy": policy,
        "index": sample.index,
        "id": sample.id,
        "type": sample.type,
        "part": sample.part,
        "blind": sample.blind,
        "question": sample.question,
        "question_digest": digest,
        "metric": sample.metric,
        "group": sample.group,
        "choices": sample.choices,
        "expected": sample.answers,
    }


def _answered(sample: Sample, answer: PlainAnswer) -> dict[str, Any]:
    usage = answer.usage
    worth = worth_of(sample, answer.text)
    return {
        "answer": answer.text,
        "score": worth,
        "correct": None if worth is None else worth >= RIGHT,
        "finish_reason": answer.finish_reason or "",
        "prompt_tokens": None if usage is None else usage.prompt_tokens,
        "cached_tokens": 0 if usage is None else usage.cached_tokens,
        "completion_tokens": None if usage is None else usage.completion_tokens,
    }


def worth_of(sample: Sample, given: str) -> float | None:
    """Return what an answer is worth, 0 to 1; None where its metric calls none right or wrong."""
    metric = METRICS[sample.metric]
    if not metric.tells_right:
        return None
    item = Item(sample.type, sample.answers, given, choices=sample.choices)
    return metric.worths([item])[0]


class RecordFile:
    """A file of records, one a line; those of an earlier run are read when it is opened.

    Only one evaluation at a time can have it. A last line that was cut off, as when a machine
    goes down, is dropped.

    Attributes:
        path: the file's.
        records: what it holds, in the order in which it came.

    Raises:
        CommandError: the file cannot be written, is in use, or holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists() and not path.is_file():
            raise CommandError(f"{path} is not a file that can be read again")
        try:
            self._file = path.open("a+b", buffering=0)
        except OSError as error:
            raise _cannot_write(path, error) from error
        try:
            self.records = self._take_over()
        except BaseException:
            self._file.close()
            raise

    def _take_over(self) -> list[Record]:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CommandError(f"{self.path}: another evaluation writes to it") from error
        self._file.seek(0)
        *lines, cut = self._file.read().split(b"\n")
        records = _parse(self.path, lines)
        if cut:
            if not lines and (cut.endswith(b"}") or not cut.startswith(_BEGINNING)):
                _parse(self.path, [cut])
            self._file.truncate(self._file.tell() - len(cut))
        return records

    def add(self, record: Record) -> None:
        """Write a record; once this returns it is not lost.

        Raises:
            CommandError: it cannot be written.
        """
        line = record.model_dump_json().encode() + b"\n"
        try:
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        self.records.append(record)

    def kept(
        self, samples: Sequence[Sample], policies: Iterable[str], conditions: Conditions
    ) -> dict[tuple[str, int], Record]:
        """Return the records that need not be made again, by policy and question.

        Raises:
            CommandError: they are of other questions, of another model or of other settings.
        """
        wanted = set(policies)
        for record in self.records:
            check_conditions(record, conditions, self.path)
        kept = {
            (record.policy, record.index): record
            for record in self.records
            if record.policy in wanted and record.index < len(samples)
        }
        digests = {index: _digest(samples[index]) for index in {index for _, index in kept}}
        for (_, index), record in kept.items():
            if record.question_digest != digests[index]:
                raise CommandError(
                    f"{self.path} holds the answer to another question than that of "
                    f"{samples[index].name}: name another file with --output"
                )
        return kept

    def close(self) -> None:
        """Close the file, and free it for others."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def check_conditions(record: Record, conditions: Conditions, file: Path) -> None:
    """Refuse a record of a file that was made under other conditions.

    Raises:
        CommandError: it was.
    """
    for name, here in conditions:
        there = getattr(record, name)
        if there != here:
            raise CommandError(
                f"{file} belongs to another evaluation: its {name} is {there}, not {here}; name "
                "another file with --output"
            )


def read_records(path: Path) -> list[Record]:
    """Return the records of a file that is only read; a last line that was cut off is none.

    Raises:
        CommandError: it cannot be read, or holds something else.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror or error}") from error
    return _parse(path, lines[:-1])


def _parse(path: Path, lines: Iterable[bytes]) -> list[Record]:
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(Record.model_validate_json(line))
        except ValidationError as error:
            raise CommandError(
                f"{path}, line {number}: is not a record of an evaluation; "
                "name another file, or one that `skipserve evaluate --output` wrote"
            ) from error
    return records


def _digest(sample: Sample) -> str:
    return sample.digest(sample.messages())


def _cannot_write(path: Path, error: OSError) -> CommandError:
    return CommandError(f"{path} cannot be written: {error.strerror or error}")
