"""The records of an evaluation: one a question and policy, kept in a file as they come."""

import errno
import fcntl
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from skipserve_client.command_group import CommandError
from skipserve_client.evaluate.sample import Sample
from skipserve_client.evaluate.scoring import GradedAnswer
from skipserve_client.replies import Answer

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
        policy: its name, or the label of one that was spelt out.
        policy_digest: of what ran.
        index: the question's place in the data, from 0.
        id: what the data calls the question.
        question_digest: of what was asked and of what counts as right.
        part: of its type, where the type has parts.
        blind: what a model would answer that sees the question alone, where that is known.
        expected: the answers that are right.
        correct: whether the answer is one of them.
        cached_tokens: prompt tokens that neither count of FLOPs holds.
        latency_seconds: the request's duration, as the server counts it.
        first_token_seconds: the time to the first token.
    """

    policy: str
    policy_digest: str
    index: int
    id: str | None
    type: str
    part: str | None = None
    blind: str | None = None
    question: str
    question_digest: str
    expected: tuple[str, ...]
    answer: str
    correct: bool
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    planned_flops: int
    full_flops: int
    latency_seconds: float
    first_token_seconds: float | None

    @classmethod
    def of(
        cls, sample: Sample, digest: str, policy: str, answer: Answer, conditions: Conditions
    ) -> Self:
        """Grade an answer and write down what belongs to it; `digest` is the question's."""
        return cls(
            **conditions.model_dump(),
            policy=policy,
            policy_digest=answer.skip.digest,
            index=sample.index,
            id=sample.id,
            type=sample.type,
            part=sample.part,
            blind=sample.blind,
            question=sample.question,
            question_digest=digest,
            expected=sample.answers,
            answer=answer.text,
            correct=GradedAnswer.of(sample.type, sample.answers, answer.text).is_correct,
            finish_reason=answer.finish_reason,
            prompt_tokens=answer.usage.prompt_tokens,
            cached_tokens=answer.usage.cached_tokens,
            completion_tokens=answer.usage.completion_tokens,
            planned_flops=answer.skip.planned_flops,
            full_flops=answer.skip.full_flops,
            latency_seconds=answer.timings.duration_seconds,
            first_token_seconds=answer.timings.time_to_first_token_seconds,
        )

    @property
    def graded(self) -> GradedAnswer:
        """The answer beside those that are right."""
        return GradedAnswer.of(self.type, self.expected, self.answer, self.part, self.blind)


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
        records = [self._read(line, number) for number, line in enumerate(lines, start=1)]
        if cut:
            if not lines and (cut.endswith(b"}") or not cut.startswith(_BEGINNING)):
                self._read(cut, 1)
            self._file.truncate(self._file.tell() - len(cut))
        return records

    def _read(self, line: bytes, number: int) -> Record:
        try:
            return Record.model_validate_json(line)
        except ValidationError as error:
            raise CommandError(
                f"{self.path}, line {number}: is not a record of an evaluation; "
                "name another file, or one that `skipserve evaluate --output` wrote"
            ) from error

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
            self._check_conditions(record, conditions)
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

    def _check_conditions(self, record: Record, conditions: Conditions) -> None:
        for name, here in conditions:
            there = getattr(record, name)
            if there != here:
                raise CommandError(
                    f"{self.path} belongs to another evaluation: its {name} is {there}, not "
                    f"{here}; name another file with --output"
                )

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


def _digest(sample: Sample) -> str:
    return sample.digest(sample.messages())


def _cannot_write(path: Path, error: OSError) -> CommandError:
    return CommandError(f"{path} cannot be written: {error.strerror or error}")
