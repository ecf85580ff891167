"""A page of an evaluation: the table, the plot, and the answers that a policy changed.

It is one file that asks nothing of other hosts: pictures are small copies inside it.
"""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from skipserve_client.errors import PictureError
from skipserve_client.evaluate.figures import RIGHT
from skipserve_client.evaluate.plot import svg
from skipserve_client.evaluate.records import Record
from skipserve_client.evaluate.results import Evaluation, cells, notes, titles
from skipserve_client.evaluate.sample import Sample
from skipserve_client.evaluate.scoring import normalise
from skipserve_client.messages import image_data_uri
from skipserve_client.tables import format_flops, format_share
from skipserve_policies.named import FULL

MOST_QUESTIONS = 100  # whose answers are shown
_MOST_ANSWERS = 10  # of the right ones of a question, and of a policy's details
_PICTURE_PIXELS = 256
_TEMPLATE = "page.html"

LOST, WON, CHANGED = "became wrong", "became right", "changed"


@dataclass(frozen=True)
class Change:
    """What a policy answered where full answered otherwise."""

    policy: str
    answer: str
    kind: str


@dataclass(frozen=True)
class ChangedQuestion:
    """A question that at least one policy answered otherwise than full."""

    full: Record
    changes: tuple[Change, ...]

    @property
    def right(self) -> str:
        """The right answers, as far as there is room."""
        return " | ".join(tuple(dict.fromkeys(self.full.expected))[:_MOST_ANSWERS])

    def num(self, kind: str) -> int:
        """Count the policies whose answer changed so."""
        return sum(change.kind == kind for change in self.changes)


def page_of(evaluation: Evaluation) -> str:
    """Return the page as HTML."""
    changed = changed_questions(evaluation)
    shown = changed[:MOST_QUESTIONS]
    pictures = {sample.index: sample for sample in evaluation.samples}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(_TEMPLATE).render(
        conditions=evaluation.conditions.model_dump(),
        titles=titles(evaluation),
        rows=[(name, cells(evaluation, name)) for name in evaluation.policies],
        costs=list(_costs(evaluation)),
        types=_types(evaluation),
        notes=list(notes(evaluation)),
        plot=_data_uri("image/svg+xml", svg(evaluation)),
        num_changed=len(changed),
        questions=[(it, _picture(pictures.get(it.full.index))) for it in shown],
    )


def changed_questions(evaluation: Evaluation) -> list[ChangedQuestion]:
    """Return the questions that a policy answered otherwise than full, losses first."""
    if FULL not in evaluation.records:
        return []
    found = [
        ChangedQuestion(full, changes)
        for place, full in enumerate(evaluation.records[FULL])
        if (changes := tuple(_changes(evaluation, place, full)))
    ]
    return sorted(found, key=lambda it: (-it.num(LOST), -it.num(WON), -it.num(CHANGED)))


def _changes(evaluation: Evaluation, place: int, full: Record) -> Iterator[Change]:
    for policy, records in evaluation.records.items():
        record = records[place]
        if normalise(record.answer) != normalise(full.answer):
            yield Change(policy, record.answer, _kind(evaluation, record, full))


def _kind(evaluation: Evaluation, record: Record, full: Record) -> str:
    metric = evaluation.metric
    if not metric.tells_right:
        return CHANGED
    is_right, was_right = (metric.worths([it.item])[0] >= RIGHT for it in (record, full))
    if is_right == was_right:
        return CHANGED
    return WON if is_right else LOST


def _costs(evaluation: Evaluation) -> Iterator[tuple[str, ...]]:
    """Yield of each policy what an answer costs in the mean, and how long it takes."""
    for name, records in evaluation.records.items():
        result = evaluation.policies[name]
        planned = [it.planned_flops for it in records if it.planned_flops is not None]
        yield (
            name,
            format_flops(sum(planned) / len(planned)) if planned else "",
            "" if result.flops_saved is None else format_share(result.flops_saved),
            f"{1000 * result.first_token_seconds:.0f} ms",
            f"{1000 * result.latency_seconds:.0f} ms",
            str(result.num_cut),
        )


def _types(evaluation: Evaluation) -> list[tuple[str, int, list[str]]]:
    """Return each type with its questions and what each policy's answers are worth in the mean."""
    results = list(evaluation.policies.values())
    return [
        (kind, found.n, [format_share(it.score.types[kind].accuracy) for it in results])
        for kind, found in (results[0].score.types.items() if results else ())
    ]


def _picture(sample: Sample | None) -> str:
    """Return a small copy of a question's picture as a data URI; empty where there is none."""
    if sample is None:
        return ""
    try:
        _, _, text = image_data_uri(sample.image).partition(",")
        with Image.open(io.BytesIO(base64.b64decode(text))) as opened:
            small = opened.convert("RGB")
        small.thumbnail((_PICTURE_PIXELS, _PICTURE_PIXELS))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=80)
    except (PictureError, OSError, ValueError, Image.DecompressionBombError):
        return ""
    return _data_uri("image/jpeg", buffer.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
