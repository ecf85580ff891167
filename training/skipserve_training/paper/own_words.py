"""What the page says of a model of one's own: names, numbers and scores, all from the records."""

from skipserve_training.paper.cells import FULL, left_out
from skipserve_training.paper.columns import percent
from skipserve_training.paper.findings import Findings
from skipserve_training.paper.records import ALL, Record
from skipserve_training.paper.setup import Scoring, Setup

_KEPT = (
    "Kept is the accuracy by the full model's on the same questions, with a 95 % interval (below). "
    "A verdict holds\nthe interval against what the paper says; of two seeds both must."
)
_KEPT_CAPTIONS = (
    "No quality of captions is measured here, as CIDEr: told is how many are word for word the "
    "full model's own, with a\n95 % interval, and the loss. Neither says whether another caption "
    "is worse, so no claim is judged."
)

_SCORES = {
    Scoring.ANSWER: (
        "*exact*, the tokens of the commonest of the right answers, and its end. *Accepted*: it "
        "ends, and is one of\n  the right answers but for case, spaces and a final stop. *Begun*: "
        "the right tokens come first, whatever follows."
    ),
    Scoring.VOTES: (
        "VQAv2's accuracy over the answers of ten annotators, written as its evaluation writes "
        "them; an answer that does\n  not end within 16 tokens has none."
    ),
    Scoring.CAPTIONS: (
        "a caption counts where it is the full model's own, token by token, with its end or to the "
        "30th token."
    ),
}


def own_words(findings: Findings) -> dict[str, str]:
    """Return what takes the places in the page's template."""
    setup = findings.setup
    is_caption = setup.scoring is Scoring.CAPTIONS
    return {
        "llm": setup.llm,
        "llm_type": setup.llm_type,
        "depth": str(setup.depth),
        "encoder": setup.encoder,
        "encoder_type": setup.encoder_type,
        "layer": str(setup.layer),
        "class_row": "with the class's row" if setup.keeps_class else "without the class's row",
        "questions": f"{setup.questions:,}",
        "more_questions": f"{setup.more_questions:,}",
        "data": setup.data,
        "test": setup.test,
        "many": f"{setup.many:,}",
        "pictures": str(setup.pictures),
        "rate": f"{setup.rate:g}",
        "media": str(setup.media),
        "tasks": ", ".join(f"`{task}`" for task in setup.tasks),
        "kept": _KEPT_CAPTIONS if is_caption else _KEPT,
        "scores": _SCORES[setup.scoring],
        "right": "all captions" if is_caption else "the commonest answer",
        "full": _full(setup, findings.record(FULL)),
        "left_out": _left_out(setup),
    }


def _full(setup: Setup, record: Record | None) -> str:
    if record is None:
        return "not measured yet"
    count, loss = record.untrained.types[ALL], record.untrained.loss
    said = f"perplexity {record.perplexity:.0f}"
    if loss is not None:
        said = f"loss {loss:.2f}; {said}"
    if setup.scoring is Scoring.CAPTIONS:
        return f"{count.n:,} captions; {said}"
    return (
        f"{percent(count.accepted, count.n)} of {count.n:,} questions "
        f"({percent(count.exact, count.n)} exactly); blind, {percent(count.blind, count.n)}; {said}"
    )


def _left_out(setup: Setup) -> str:
    lines = [
        f"- Left out, {len(names)} cells, as `{names[0]}`: {why}."
        for why, names in left_out(setup).items()
    ]
    return "\n".join(lines)
