"""All tables for a model: each data set under each policy, then policies of the model's own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from skipserve_client.command_group import CommandError
from skipserve_client.evaluate import results
from skipserve_client.evaluate.command import write_files
from skipserve_client.evaluate.data_sets.registry import DATA_SETS
from skipserve_client.evaluate.results import Evaluation
from skipserve_client.evaluate.session import Order, carry_out

ANSWERS, SUMMARY, PAGE, PLOT = "answers.jsonl", "summary.json", "changed.html", "frontier.svg"


@dataclass(frozen=True)
class Source:
    """Questions that were found in a folder.

    Attributes:
        name: what results call them.
        data: what `skipserve evaluate --data` takes.
        folder: where a published data set lies; None for a file.
    """

    name: str
    data: str
    folder: Path | None


def sources_in(folder: Path) -> list[Source]:
    """Return the data sets in a folder: subfolders by their names, and JSONL files.

    Raises:
        CommandError: there is none.
    """
    found = [Source(name, name, folder / name) for name in DATA_SETS if (folder / name).is_dir()]
    found += [Source(path.stem, str(path), None) for path in sorted(folder.glob("*.jsonl"))]
    if not found:
        raise CommandError(
            f"--data {folder} holds no data set: expected folders called {', '.join(DATA_SETS)}, "
            "or files of questions, NAME.jsonl"
        )
    return found


def evaluate_all(
    sources: Sequence[Source], order: Order, folder: Path, say: Callable[[str], None]
) -> dict[str, Evaluation]:
    """Evaluate each source into a folder of its own, from where an earlier run stopped.

    Args:
        sources: what to ask.
        order: how, but for the questions and where answers are kept.
        folder: holds a folder for each source.
        say: hears what is under way.

    Raises:
        CommandError: questions cannot be read, or a server does not start.
    """
    found = {}
    for source in sources:
        say(source.name)
        here = folder / source.name
        here.mkdir(parents=True, exist_ok=True)
        asked = replace(order, data=source.data, data_folder=source.folder, output=here / ANSWERS)
        evaluation = carry_out(asked)
        summary = results.evaluation_json(evaluation)
        write_files(evaluation, summary, here / SUMMARY, here / PLOT, here / PAGE)
        found[source.name] = evaluation
    return found


def tables(evaluations: dict[str, Evaluation], calibrated: str | None) -> str:
    """Return all tables as Markdown.

    Args:
        evaluations: by the names of their data.
        calibrated: the data that policies were found on; None where none were sought.
    """
    first = next(iter(evaluations.values())).conditions
    lines = [f"# {first.model}", "", f"{first.dtype} on {first.device}."]
    for name, evaluation in evaluations.items():
        titles = ("policy", *results.titles(evaluation))
        lines += ["", f"## {name}", "", _row(titles), _row(["---", *["---:"] * (len(titles) - 1)])]
        lines += [_row((it, *results.cells(evaluation, it))) for it in evaluation.policies]
        lines += ["", f"[What changed]({name}/{PAGE}), [as a picture]({name}/{PLOT})"]
        lines += [f"- {note}" for note in results.notes(evaluation)]
    if calibrated is not None:
        lines += ["", "## Found for this model", "", f"[On {calibrated}](calibration/report.html)"]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
