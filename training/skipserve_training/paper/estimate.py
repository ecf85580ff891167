"""How long cells take: seconds of one core of a server, measured with smolvqa in bf16."""

from skipserve_training.compression.recipe import Method
from skipserve_training.paper.cells import Cell
from skipserve_training.paper.setup import PATCHES

_LOADING = 6.0
_SCORE = 14.0  # of 1,000 questions about whole pictures
_TRAINING = 0.02  # a question
_COMPRESSING = {Method.WANDA: 40.0, Method.ALPHA_SUBNET: 80.0}
_WIDER = 4.0  # ten times the rows of a picture, beside those of ten questions


def seconds(cell: Cell) -> float:
    """Estimate what a cell takes; features, once for all, take two to four minutes more."""
    taken = _SCORE * (_WIDER if cell.model == PATCHES else 1)
    if cell.training is not None:
        taken += _LOADING + _SCORE + _TRAINING * cell.training.questions
    if cell.compression is not None:
        taken += _LOADING + _COMPRESSING.get(cell.compression.method, 0.0)
    return taken


def in_words(seconds: float) -> str:
    """Say how long something takes."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
