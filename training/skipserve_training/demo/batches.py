r"""Packs several questions about one picture into one training sequence.

prefix:   <s> USER :  <image> x P \n         seen by every segment
segments: What color is the star? ASSISTANT: red </s>     sees the prefix and itself
          Is there a red star? ASSISTANT: no </s>         at the same positions
"""

import random
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

from skipserve_client.evaluate.questions import (
    QUESTION_TYPES,
    Question,
    QuestionType,
    draw_question,
)
from skipserve_client.evaluate.scenes import Scene
from skipserve_training.demo.recipe import QUESTION_SHARES, Recipe
from skipserve_training.demo.tokenizer import (
    END_ID,
    IMAGE_ID,
    PADDING_ID,
    PROMPT_HEAD,
    START_ID,
    question_text,
)

# CLIP's own, which the checkpoint's processor applies as well.
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)

_PADDING_SEGMENT = -1
_QUESTION_TRIES = 14


@dataclass(frozen=True)
class Batch:
    """Packed sequences of B pictures with T rows, and the N rows whose next token is trained."""

    ids: Tensor  # [B, T]
    positions: Tensor  # [B, T]
    allowed: Tensor  # [B, T, T], boolean
    answer_rows: Tensor  # [N], into the flattened B x T
    targets: Tensor  # [N]
    weights: Tensor  # [N]
    kinds: Tensor  # [N], the index of the question's type

    def to(self, device: torch.device) -> "Batch":
        """Copy all tensors to a device."""
        return Batch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


class Packer:
    """Turns scenes into batches; encodes a text once."""

    def __init__(self, tokenizer: Tokenizer, recipe: Recipe, patches: int) -> None:
        self.tokenizer = tokenizer
        self.recipe = recipe
        self.prefix = prompt_prefix(tokenizer, patches)
        self._known: dict[str, list[int]] = {}

    def pack(self, scenes: list[Scene]) -> Batch:
        """Pack one sequence a scene; the same scenes give the same questions."""
        shape = (len(scenes), self.recipe.rows)
        ids = np.full(shape, PADDING_ID, dtype=np.int64)
        positions = np.zeros(shape, dtype=np.int64)
        segments = np.full(shape, _PADDING_SEGMENT, dtype=np.int64)
        answers: list[tuple[int, int, float, int]] = []
        for row, scene in enumerate(scenes):
            cursor = len(self.prefix)
            ids[row, :cursor] = self.prefix
            positions[row, :cursor] = np.arange(cursor)
            segments[row, :cursor] = 0
            for number, question in enumerate(self._questions(scene), start=1):
                prompt, answer = self._encode(question)
                end = cursor + len(prompt) + len(answer)
                if end > shape[1]:
                    break
                ids[row, cursor:end] = prompt + answer
                positions[row, cursor:end] = len(self.prefix) + np.arange(end - cursor)
                segments[row, cursor:end] = number
                first = row * shape[1] + cursor + len(prompt) - 1
                answers += self._answer_rows(question, first, answer)
                cursor = end
        return _to_batch(ids, positions, segments, answers)

    def _questions(self, scene: Scene) -> list[Question]:
        rng = random.Random(f"training-questions/{scene.split}/{scene.index}")
        kinds = rng.choices(
            QUESTION_TYPES,
            weights=[QUESTION_SHARES[kind] for kind in QUESTION_TYPES],
            k=_QUESTION_TRIES,
        )
        unique: dict[str, Question] = {}
        for kind in kinds:
            question = draw_question(scene, kind, rng)
            if question is not None and (kind is not QuestionType.CAPTION or kind not in unique):
                unique[kind if kind is QuestionType.CAPTION else question.text] = question
        return list(unique.values())

    def _encode(self, question: Question) -> tuple[list[int], list[int]]:
        """Return the ids of the prompt after the prefix, and of the answer with its end."""
        prompt = self._ids(question_text(question.text))
        return prompt[1:], [*self._ids(" " + question.answer), END_ID]

    def _ids(self, text: str) -> list[int]:
        if text not in self._known:
            encoded = self.tokenizer.encode(text, add_special_tokens=False)
            self._known[text] = encoded.ids
        return self._known[text]

    def _answer_rows(
        self, question: Question, first: int, answer: list[int]
    ) -> list[tuple[int, int, float, int]]:
        """List (row that predicts, token, weight, type) for each token of an answer."""
        is_caption = question.type is QuestionType.CAPTION
        word = self.recipe.caption_weight if is_caption else 1.0
        weights = [word] * (len(answer) - 1) + [self.recipe.end_weight]
        kind = QUESTION_TYPES.index(question.type)
        return [
            (first + step, token, weight, kind)
            for step, (token, weight) in enumerate(zip(answer, weights, strict=True))
        ]


def prompt_prefix(tokenizer: Tokenizer, patches: int) -> list[int]:
    """Return the ids up to and with the line break after the picture."""
    head = tokenizer.encode(PROMPT_HEAD, add_special_tokens=False).ids
    line_break = tokenizer.encode("\n", add_special_tokens=False).ids
    return [START_ID, *head, *[IMAGE_ID] * patches, *line_break]


def to_pixels(images: list[Image.Image]) -> Tensor:
    """Normalise pictures as the checkpoint's processor does, to `[B, 3, side, side]`."""
    raw = np.stack([np.asarray(image) for image in images])
    scaled = torch.from_numpy(raw).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor(PIXEL_MEAN), torch.tensor(PIXEL_STD)
    return (scaled - mean[:, None, None]) / std[:, None, None]


def _to_batch(
    ids: NDArray[np.int64],
    positions: NDArray[np.int64],
    segments: NDArray[np.int64],
    answers: list[tuple[int, int, float, int]],
) -> Batch:
    segment = torch.from_numpy(segments)
    rows = ids.shape[1]
    causal = torch.ones(rows, rows, dtype=torch.bool).tril()
    same = segment[:, :, None] == segment[:, None, :]
    shared = (segment == 0)[:, None, :]
    answer_rows, targets, weights, kinds = zip(*answers, strict=True)
    return Batch(
        ids=torch.from_numpy(ids),
        positions=torch.from_numpy(positions),
        allowed=causal & (same | shared),
        answer_rows=torch.tensor(answer_rows),
        targets=torch.tensor(targets),
        weights=torch.tensor(weights),
        kinds=torch.tensor(kinds),
    )
