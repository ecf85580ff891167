"""The columns of the page's tables, by what answers are held against."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from skipserve_training.paper.cells import FULL
from skipserve_training.paper.findings import Findings
from skipserve_training.paper.records import ALL, Record, Score, Way
from skipserve_training.paper.setup import Scoring, Setup


@dataclass(frozen=True)
class Row:
    """A measured cell."""

    findings: Findings
    record: Record

    @property
    def last(self) -> Score:
        """Return the score after the training, where there was one."""
        return self.record.last

    def kept(self, way: Way) -> str:
        """Return what is kept of the full model's accuracy."""
        kept = self.findings.kept(self.record, self.last, way)
        return "" if kept is None else str(kept)


Columns = Mapping[str, Callable[[Row], str]]

# easy-VQA's types: those that belong together are added up.
_EASY_TYPES: dict[str, tuple[str, ...]] = {
    "colour": ("colour",),
    "shape": ("shape",),
    "yes/no": ("yes/no, present", "yes/no, absent"),
    "negated": ("negated, present", "negated, absent"),
}


def skipped_columns(findings: Findings) -> Columns:
    """Return the columns of a table of cells that nothing was trained for."""
    head: Columns = {"cell": _name, "blocks": _blocks}
    match findings.setup.scoring:
        case Scoring.CAPTIONS:
            counted: Columns = {"captions": _questions, "as the full model's": _same}
        case Scoring.VOTES:
            counted = {"questions": _questions, "kept": _kept_accepted, "accuracy": _accepted}
        case _:
            counted = {
                "questions": _questions,
                "kept, exact": _kept_exact,
                "kept, accepted": _kept_accepted,
                "exact": _exact,
                "accepted": _accepted,
                "begun": _begun,
            }
    return {**head, **counted, **_types(findings), **_losses(findings.setup), **_PERPLEXITY}


def trained_columns(findings: Findings) -> Columns:
    """Return the columns of a table of cells before and after a training."""
    head: Columns = {"cell": _name, "blocks": _blocks, "weights gone": _gone}
    match findings.setup.scoring:
        case Scoring.CAPTIONS:
            counted: Columns = {"as the full model's, untrained": _same_before, "trained": _same}
        case Scoring.VOTES:
            counted = {
                "untrained": _accepted_before,
                "trained": _accepted,
                "kept": _kept_accepted,
            }
        case _:
            counted = {
                "untrained": _exact_before,
                "trained": _exact,
                "kept, exact": _kept_exact,
                "kept, accepted": _kept_accepted,
            }
    tail: Columns = {"loss": _training_loss, "CPU minutes": _cpu_minutes}
    if not findings.setup.is_shipped:
        before: Columns = {"loss, untrained": _loss_before, "loss, trained": _loss}
        tail = {**before, "loss of the training": _training_loss, "minutes": _minutes}
    return {**head, **counted, **_types(findings), **_PERPLEXITY, **tail}


def percent(right: float, n: int) -> str:
    """Write a share; nothing where there is none."""
    return f"{100 * right / n:.1f} %" if n else ""


def _types(findings: Findings) -> Columns:
    """Return a column for each type of question."""
    setup, full = findings.setup, findings.record(FULL)
    if setup.is_shipped:
        return {name: partial(_of_types, kinds, Way.EXACT) for name, kinds in _EASY_TYPES.items()}
    kinds = [] if full is None else [kind for kind in full.untrained.types if kind != ALL]
    if setup.scoring is Scoring.CAPTIONS or len(kinds) < 2:
        return {}
    return {kind: partial(_of_types, (kind,), Way.ACCEPTED) for kind in kinds}


def _losses(setup: Setup) -> Columns:
    return {} if setup.is_shipped else {"loss": _loss}


def _of_types(kinds: Sequence[str], way: Way, row: Row) -> str:
    return _share(row.last, way, kinds)


def _name(row: Row) -> str:
    return row.record.name


def _blocks(row: Row) -> str:
    return str(len(row.record.layers))


def _gone(row: Row) -> str:
    return "" if row.record.sparsity is None else f"{100 * row.record.sparsity:.1f} %"


def _questions(row: Row) -> str:
    return f"{row.last.n:,}"


def _kept_exact(row: Row) -> str:
    return row.kept(Way.EXACT)


def _kept_accepted(row: Row) -> str:
    return row.kept(Way.ACCEPTED)


_same = _kept_exact  # the full model gives each of its own captions


def _same_before(row: Row) -> str:
    kept = row.findings.kept(row.record, row.record.untrained, Way.EXACT)
    return "" if kept is None else str(kept)


def _exact(row: Row) -> str:
    return _share(row.last, Way.EXACT)


def _exact_before(row: Row) -> str:
    return _share(row.record.untrained, Way.EXACT)


def _accepted(row: Row) -> str:
    return _share(row.last, Way.ACCEPTED)


def _accepted_before(row: Row) -> str:
    return _share(row.record.untrained, Way.ACCEPTED)


def _share(score: Score, way: Way, kinds: Sequence[str] = (ALL,)) -> str:
    """Write the share of right answers to questions of some types."""
    counts = [score.types[kind] for kind in kinds if kind in score.types]
    right = sum(count.exact if way is Way.EXACT else count.accepted for count in counts)
    return percent(right, sum(count.n for count in counts))


def _begun(row: Row) -> str:
    count = row.last.types[ALL]
    return percent(count.begun, count.n)


def _loss(row: Row) -> str:
    return "" if row.last.loss is None else f"{row.last.loss:.2f}"


def _loss_before(row: Row) -> str:
    loss = row.record.untrained.loss
    return "" if loss is None else f"{loss:.2f}"


def _training_loss(row: Row) -> str:
    training = row.record.training
    return "" if training is None else f"{training.loss:.2f}"


def _cpu_minutes(row: Row) -> str:
    training = row.record.training
    return "" if training is None else f"{training.cpu_seconds / 60:.1f}"


def _minutes(row: Row) -> str:
    training = row.record.training
    return "" if training is None else f"{training.wall_seconds / 60:.1f}"


def _perplexity(row: Row) -> str:
    found = row.record.perplexity
    return f"{found:,.0f}" if found < 1e6 else f"{found:.0e}"


_PERPLEXITY: Columns = {"perplexity": _perplexity}
