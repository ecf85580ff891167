"""The paper's claims, each beside what was found here."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from skipserve_client.evaluate.retention import Interval
from skipserve_training.paper.cells import (
    HALF_BLOCKS,
    INFERENCE,
    INTERVALS,
    SEEDS,
    SKIPS,
    STARTS,
    Form,
    ladder,
    rule_name,
    touched,
)
from skipserve_training.paper.findings import Findings
from skipserve_training.paper.records import ALL, Record, Way
from skipserve_training.paper.setup import Scoring, Setup

NOT_RUN = "not run yet"
_KEPT = 0.97  # by the paper, after training
_NOT_JUDGED = "not judged: no quality of captions was measured"
_SCOPES = ("generated", "all")


@dataclass(frozen=True)
class Claim:
    """What the paper says, what was found, and whether that agrees."""

    said: str
    found: str
    verdict: str


def judge_claims(findings: Findings) -> list[Claim]:
    """Return all claims; of captions none is judged, of which no quality is measured."""
    claims = [
        _kept_without_training(findings),
        _parallel(findings),
        _kept_with_half_of_the_blocks(findings),
        _kept_with_few_weights(findings),
        _smaller_models(findings),
    ]
    if findings.setup.scoring is not Scoring.CAPTIONS:
        return claims
    return [
        claim if claim.verdict == NOT_RUN else replace(claim, verdict=_NOT_JUDGED)
        for claim in claims
    ]


def _verdict(kept: Sequence[Interval], least: float, cells: int) -> str:
    """Hold the intervals of so many cells against what must be kept."""
    if not kept:
        return NOT_RUN
    so_far = "" if len(kept) == cells else ", so far"
    if all(each.low >= least for each in kept):
        return f"holds{so_far}"
    if all(each.high < least for each in kept):
        return f"does not hold{so_far}"
    if any(each.low >= least for each in kept):
        return f"holds in part{so_far}"
    return f"undecided{so_far}"


def _described(
    findings: Findings, names: Sequence[str], words: Callable[[str, Record], str]
) -> tuple[str, list[Interval]]:
    """Say what cells keep, by the paper's score; returns the intervals too."""
    said, intervals = [], []
    for name in names:
        record = findings.record(name)
        kept = None if record is None else findings.kept(record, record.last, Way.ACCEPTED)
        if record is None or kept is None:
            said.append(f"`{name}` {NOT_RUN}")
            continue
        exact = findings.kept(record, record.last, Way.EXACT)
        said.append(f"{words(name, record)}: {kept}, exactly {exact}")
        intervals.append(kept)
    return "; ".join(said), intervals


def _kept_without_training(findings: Findings) -> Claim:
    names = [
        rule_name(INFERENCE, Form.BLOCK, 3, start, scope)
        for start in (0, "50%")
        for scope in _SCOPES
    ]
    found, kept = _described(
        findings,
        names,
        lambda name, record: _skipped(name, record, findings.setup),
    )
    return Claim(
        "Up to a third of the blocks skipped keeps more than 90 % of VQA, without training.",
        f"Every third block, from 0 or from the middle, keeps: {found}.",
        _verdict(kept, 0.9, len(names)),
    )


def _skipped(name: str, record: Record, setup: Setup) -> str:
    said = f"{len(record.layers)} of {setup.depth} blocks, scope {name.rsplit('-', 1)[-1]}"
    if setup.scoring is Scoring.CAPTIONS:
        return said
    count = record.untrained.types[ALL]
    return f"{said} (the right word comes first in {100 * count.begun / count.n:.1f} %)"


def _parallel(findings: Findings) -> Claim:
    parts = []
    won = lost = compared = 0
    for ours, theirs in product((Form.PARALLEL, Form.PARALLEL_OWN_NORM), SKIPS):
        duel = findings.duel([*_pairs(ours, theirs)], Way.ACCEPTED)
        won, lost, compared = won + duel.won, lost + duel.lost, compared + duel.n
        if not duel.n:
            continue
        parts.append(
            f"`{ours}` against skipping the {theirs}, better at {duel.won}, worse at {duel.lost}, "
            f"no difference shown at {duel.even} of {duel.n} places"
        )
    return Claim(
        "FFN parallel to attention is better than skipping at the same places.",
        "The same interval, start and scope, the same questions (McNemar, p < 0.05): "
        + ("; ".join(parts) or NOT_RUN)
        + ".",
        _verdict_of_duels(won, lost) if compared else NOT_RUN,
    )


def _verdict_of_duels(won: int, lost: int) -> str:
    if not lost:
        return "holds" if won else "undecided"
    return "holds in part" if won else "does not hold"


def _pairs(one: Form, two: Form) -> Iterator[tuple[str, str]]:
    for scope in _SCOPES:
        for interval in INTERVALS:
            for start in STARTS:
                place = (interval, start, scope)
                yield rule_name(INFERENCE, one, *place), rule_name(INFERENCE, two, *place)


def _kept_with_half_of_the_blocks(findings: Findings) -> Claim:
    names = [f"training-half-blocks-seed-{seed}" for seed in SEEDS]
    found, _ = _described(findings, names, _trained)
    half = len(touched("half", HALF_BLOCKS, findings.setup.depth))
    return Claim(
        "With the module trained, 97 % is kept with half of the blocks skipped.",
        f"After training under the policy ({half} of {findings.setup.depth} blocks, scope all): "
        f"{found}{_and_longer(findings, 'longer-half-blocks')}.",
        _verdict_by_length(findings, names, "longer-half-blocks"),
    )


def _and_longer(findings: Findings, name: str) -> str:
    """Say what a longer training gave, where it was run."""
    if findings.record(name) is None:
        return ""
    found, _ = _described(findings, [name], _trained)
    return f"; {found}"


def _verdict_by_length(findings: Findings, names: Sequence[str], longer: str) -> str:
    """Hold trainings against the paper's 97 %, and a longer one apart."""
    _, kept = _described(findings, names, _trained)
    verdict = _verdict(kept, _KEPT, len(names))
    first, more = findings.record(names[0]), findings.record(longer)
    if first is None or more is None:
        return verdict
    _, kept_longer = _described(findings, [longer], _trained)
    counts = [record.cell["training"]["questions"] for record in (first, more)]
    return (
        f"{verdict} with {counts[0]:,} questions; "
        f"{_verdict(kept_longer, _KEPT, 1)} with {counts[1]:,}"
    )


def _kept_with_few_weights(findings: Findings) -> Claim:
    names = [
        f"training-{method}-seed-{SEEDS[0]}"
        for method in ("wanda-70", "alpha-subnet-50", "magnitude-70", "random-70")
    ]
    milder, _ = _described(findings, [f"training-wanda-50-seed-{seed}" for seed in SEEDS], _trained)
    found, _ = _described(
        findings,
        names,
        lambda name, record: (
            f"{name.split('-seed')[0].removeprefix('training-')} "
            f"({100 * (record.sparsity or 0):.0f} % of the blocks' weights gone)"
        ),
    )
    return Claim(
        "With the module trained, 97 % is kept with 70 % of the weights removed.",
        f"After training: {found}{_and_longer(findings, 'longer-wanda-70')}. "
        f"Of half of the weights, by Wanda: {milder}.",
        _verdict_by_length(findings, names, "longer-wanda-70"),
    )


def _smaller_models(findings: Findings) -> Claim:
    depth = findings.setup.depth
    names = [f"ladder-{it}" for it in sorted(ladder(depth))]
    names.append(f"training-dense-seed-{SEEDS[0]}")
    found, kept = _described(
        findings, names, lambda _, record: f"{depth - len(record.layers)} layers"
    )
    others = "was to be had" if findings.setup.is_shipped else "is among these records"
    return Claim(
        "Smaller language models come close to larger ones, with the module trained for each.",
        f"No second size of this model {others}. The same model, cut behind a layer, the "
        f"module trained on: {found}. A cut model was never trained to end there: it shows how "
        "much the module can make good, and not what a small model of its own can do.",
        "not tested" if kept else NOT_RUN,
    )


def _trained(_: str, record: Record) -> str:
    training = record.cell["training"]
    return f"seed {training['seed']}, {training['questions']:,} questions"
