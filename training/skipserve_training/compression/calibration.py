"""What a compression looks at: packed lessons, rendered as a training renders them."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from skipserve_training.mapping.lessons import LessonSource, PromptForm
from skipserve_training.mapping.packing import Batch, pack
from skipserve_training.mapping.parts import Parts
from skipserve_training.mapping.training import embed


@dataclass(frozen=True)
class Calibration:
    """A task's prompts and answers, a medium each.

    Attributes:
        name: of the task.
        rows: embeddings by medium, [1, T, d_llm] each.
        batches: what they are.
    """

    name: str
    rows: Sequence[Tensor]
    batches: Sequence[Batch]

    @property
    def num_tokens(self) -> int:
        """Return the number of rows of all media."""
        return sum(rows.shape[1] for rows in self.rows)


@torch.no_grad()
def draw_calibration(
    name: str, parts: Parts, lessons: LessonSource, media: int, seed: int
) -> Calibration:
    """Draw media, and what a step of a training asks about each; all without padding.

    Args:
        name: of the task.
        parts: what makes rows of media and texts.
        lessons: what is asked and answered.
        media: how many.
        seed: draws them, and the questions.

    Raises:
        ValueError: There are fewer media.
    """
    if not 0 < media <= len(lessons):
        raise ValueError(
            f"media is {media}: the task {name!r} has {len(lessons)}, of which 1 or more are drawn."
        )
    draw = random.Random(f"{seed}/calibration/{name}")
    device = next(parts.projector.parameters()).device
    rows, batches = [], []
    for index in draw.sample(range(len(lessons)), media):
        # As a training reads them from its file.
        features = parts.encoder.encode([lessons.media(index)]).bfloat16()
        prompts = PromptForm(
            parts.tokenizer, parts.projector.rows(features.shape[1]), lessons.kinds
        )
        batch = pack([map(prompts.example, lessons.exchanges(index, draw))]).to(device)
        batches.append(batch)
        rows.append(embed(parts.language, parts.projector, features, batch))
    return Calibration(name, rows, batches)
