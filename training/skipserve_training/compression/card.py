"""The card of a compressed checkpoint: what was zeroed, by what, and what that does not save."""

from pathlib import Path

from skipserve_training.compression.compress import Report
from skipserve_training.compression.recipe import CompressionRecipe, Group, Method, Part

_CHOICE = {
    Method.WANDA: "Wanda: size times the norm of what it multiplies, layer by layer",
    Method.MAGNITUDE: "magnitude",
    Method.RANDOM: "by lot",
    Method.ALPHA_SUBNET: "alpha-SubNet: kept is what Wanda keeps for every task",
    Method.MASK: "a file of masks",
}
_PART = {
    Part.ALL: "all linear layers of the blocks",
    Part.FFN: "the FFNs' linear layers",
    Part.ATTENTION: "attention's linear layers",
}
_CARD = """\
# {name}, compressed

The language model of `{name}` with weights set to zero; every other part is as it was.

| | |
|---|---|
| chosen by | {choice} |
| asked for | {asked} |
| touched | {part} |
| compared within | {group} |
| zeroed | {removed:,} of {considered:,} weights there, {sparsity:.2%} |
| by matrix | {least:.2%} to {most:.2%} |
| of the language model | {share:.2%} of {parameters:,} weights, embedding and head too |
| calibrated on | {calibration} |

The zeros are stored and multiplied like any number: the server counts FLOPs dense, and nothing is
faster or smaller than before. No accuracy was measured here; the source's does not hold for it.

Figures, seed, versions and digests: `compression.json`.
"""


def write_card(
    folder: Path, name: str, recipe: CompressionRecipe, report: Report, media: int
) -> None:
    """Write the card beside the weights.

    Args:
        folder: of the checkpoint.
        name: of the checkpoint that it was made of.
        recipe: what was done.
        report: what came of it.
        media: that each task's calibration looked at.
    """
    tokens = ", ".join(
        f"{task}: {media} media with their questions, {count:,} tokens"
        for task, count in report.tokens.items()
    )
    text = _CARD.format(
        name=name,
        choice=_CHOICE[recipe.method],
        asked="" if recipe.pattern is None else _asked(recipe),
        part=_PART[recipe.part],
        group=_group(recipe),
        removed=report.removed,
        considered=report.considered,
        sparsity=report.sparsity,
        least=report.least,
        most=report.most,
        share=report.removed / report.parameters,
        parameters=report.parameters,
        calibration=tokens or "nothing",
    )
    (folder / "README.md").write_text(text)


def _asked(recipe: CompressionRecipe) -> str:
    if isinstance(recipe.pattern, Group):
        return f"{recipe.pattern.kept} stay of each {recipe.pattern.size} neighbours in a row"
    each = " for each task" if recipe.method is Method.ALPHA_SUBNET else ""
    return f"a share of {recipe.pattern}{each}"


def _group(recipe: CompressionRecipe) -> str:
    if recipe.method is Method.MASK:
        return "nothing"
    if isinstance(recipe.pattern, Group):
        return "neighbours in a row"
    return "an output row" if recipe.method.is_calibrated else "a matrix"
