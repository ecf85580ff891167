"""Confirms what a search found, on questions that it never saw."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property

from skipserve_client.evaluate.figures import RIGHT
from skipserve_client.evaluate.records import worth_of
from skipserve_client.evaluate.retention import Interval, accuracy, retention
from skipserve_client.evaluate.sample import Sample
from skipserve_policies.resolve import ResolvedPolicy
from skipserve_training.calibration.journal import Journal
from skipserve_training.calibration.measuring import FlopsCost, Stage
from skipserve_training.calibration.probe import Probe, Reply

_TOGETHER = 64  # questions, between which nothing can be lost


@dataclass(frozen=True)
class Confirmed:
    """What one policy reached on the confirming questions.

    Attributes:
        cost: FLOPs as a share of the full model's, with answers as long as that gives.
        accuracy: the share of right answers, with Wilson's interval.
        retention: by the full model's accuracy, paired; None where that is 0.
        agreement: the share of the answers that are the full model's, letter by letter.
        full: the full model's accuracy.
        right: question by question.
    """

    policy: ResolvedPolicy
    cost: float
    accuracy: Interval
    retention: Interval | None
    agreement: Interval
    full: float
    right: tuple[bool, ...]


@dataclass(frozen=True)
class Confirmation:
    """Answers questions that no search has seen, under policies, and grades them.

    Attributes:
        probe: the model.
        samples: the questions, by their place in the probe.
        full: the full model's policy.
        journal: where answers are kept.
        stage: hears how far it is.
    """

    probe: Probe
    samples: Mapping[int, Sample]
    full: ResolvedPolicy
    journal: Journal
    stage: Stage

    @cached_property
    def cost(self) -> FlopsCost:
        """What policies cost on these questions, with answers as long as the full model's."""
        (replies,) = self._replies([self.full]).values()
        return FlopsCost(self.probe, {index: it.num_tokens for index, it in replies.items()})

    def confirm(self, policies: Sequence[ResolvedPolicy]) -> dict[str, Confirmed]:
        """Return what policies reach, by their digest, the full model among them."""
        asked = {policy.digest: policy for policy in (self.full, *policies)}
        replies = self._replies([*asked.values()])
        right = {
            digest: tuple(_is_right(self.samples[index], reply) for index, reply in found.items())
            for digest, found in replies.items()
        }
        full, right_of_full = replies[self.full.digest], right[self.full.digest]
        return {
            digest: Confirmed(
                policy=asked[digest],
                cost=self.cost.of_policy(asked[digest]),
                accuracy=accuracy(right[digest]),
                retention=retention(right[digest], right_of_full) if any(right_of_full) else None,
                agreement=accuracy([found[it].text == full[it].text for it in found]),
                full=sum(right_of_full) / len(right_of_full),
                right=right[digest],
            )
            for digest, found in replies.items()
        }

    def _replies(self, policies: Sequence[ResolvedPolicy]) -> dict[str, dict[int, Reply]]:
        """Return all answers, by policy and question; what is not kept yet is asked."""
        jobs = [(policy, index) for index in self.samples for policy in policies]
        missing = [job for job in jobs if self.journal.get(self._key(*job)) is None]
        for start in range(0, len(missing), _TOGETHER):
            some = missing[start : start + _TOGETHER]
            for job, reply in zip(some, self.probe.reply(some), strict=True):
                self.journal.put(self._key(*job), astuple(reply))
            self.stage("unseen questions", start + len(some), len(missing))
        return {
            policy.digest: {
                index: Reply(*self.journal.get(self._key(policy, index))) for index in self.samples
            }
            for policy in policies
        }

    def _key(self, policy: ResolvedPolicy, index: int) -> str:
        return f"answer {policy.digest} {self._digests[index]}"

    @cached_property
    def _digests(self) -> dict[int, str]:
        return {index: digest_of(sample) for index, sample in self.samples.items()}


def digest_of(sample: Sample) -> str:
    """Return a digest of a question, its picture and its right answers."""
    return sample.digest(sample.messages())


def _is_right(sample: Sample, reply: Reply) -> bool:
    worth = worth_of(sample, reply.text)
    assert worth is not None, "questions were drawn whose answers are right or wrong"
    return worth >= RIGHT
