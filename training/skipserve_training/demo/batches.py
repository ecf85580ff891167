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

from skipserve_client.evaluate.off_topic import REFUSAL, draw_off_topic
from skipserve_client.evaluate.questions import (
    QUESTION_TYPES,
    Question,
    QuestionType,
    draw_question,
)
from skipserve_client.evaluate.scenes import Scene
from skipserve_training.demo.recipe import (
    FOLLOW_UP_SHARE,
    PICTURELESS_SHARE,
    QUESTION_SHARES,
    REFUSED_SHARE,
    Recipe,
)
from skipserve_training.demo.rewording import reworded
from skipserve_training.demo.tokenizer import (
    ANSWER_MARK,
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


@dataclass(frozen=True)
class _Segment:
    """A question and its answer as ids."""

    kind: QuestionType
    prompt: list[int]
    answer: list[int]


@dataclass(frozen=True)
class _Sequence:
    """What one row of a batch is packed from: a prefix, and what is asked behind it."""

    prefix: list[int]
    segments: list[_Segment]


class Packer:
    """Turns scenes into batches; encodes a text once."""

    def __init__(self, tokenizer: Tokenizer, recipe: Recipe, patches: int) -> None:
        self.tokenizer = tokenizer
        self.recipe = recipe
        self.prefix = prompt_prefix(tokenizer, patches)
        self._known: dict[str, list[int]] = {}

    def pack(self, scenes: list[Scene], is_varied: bool = False) -> Batch:
        """Pack one sequence a scene; the same scenes give the same questions.

        Args:
            scenes: what is asked about.
            is_varied: whether to reword some questions, to ask beyond the shapes, and to leave
                out some pictures.
        """
        shape = (len(scenes), self.recipe.rows)
        ids = np.full(shape, PADDING_ID, dtype=np.int64)
        positions = np.zeros(shape, dtype=np.int64)
        segments = np.full(shape, _PADDING_SEGMENT, dtype=np.int64)
        answers: list[tuple[int, int, float, int]] = []
        for row, scene in enumerate(scenes):
            sequence = self._varied(scene) if is_varied else self._plain(scene)
            start = cursor = len(sequence.prefix)
            ids[row, :cursor] = sequence.prefix
            positions[row, :cursor] = np.arange(cursor)
            segments[row, :cursor] = 0
            for number, segment in enumerate(sequence.segments, start=1):
                prompt, answer = segment.prompt, segment.answer
                end = cursor + len(prompt) + len(answer)
                if end > shape[1]:
                    break
                ids[row, cursor:end] = prompt + answer
                positions[row, cursor:end] = start + np.arange(end - cursor)
                segments[row, cursor:end] = number
                first = row * shape[1] + cursor + len(prompt) - 1
                answers += self._answer_rows(segment, first)
                cursor = end
        return _to_batch(ids, positions, segments, answers)

    def _plain(self, scene: Scene) -> _Sequence:
        questions = _questions_about(scene)
        return _Sequence(self.prefix, [self._after_picture(question) for question in questions])

    def _varied(self, scene: Scene) -> _Sequence:
        rng = random.Random(f"varied-questions/{scene.split}/{scene.index}")
        questions = _questions_about(scene)
        if rng.random() < PICTURELESS_SHARE:
            return self._without_picture(scene, questions, rng)
        if rng.random() < REFUSED_SHARE:
            questions.insert(0, _off_topic(scene, rng))
        asked = [reworded(question, rng) for question in questions]
        segments = [self._after_picture(question) for question in asked]
        for number, question in enumerate(asked[1:], start=1):
            if rng.random() < FOLLOW_UP_SHARE:
                segments[number] = self._follow_up(segments[number - 1], question)
        return _Sequence(self.prefix, segments)

    def _without_picture(
        self, scene: Scene, questions: list[Question], rng: random.Random
    ) -> _Sequence:
        """Refuse everything where there is no picture, be it about shapes or not."""
        refused = [Question(QuestionType.REFUSAL, question.text, REFUSAL) for question in questions]
        others = [_off_topic(scene, rng) for _ in refused]
        paired = [one for pair in zip(refused, others, strict=True) for one in pair]
        head = [START_ID, *self._ids(PROMPT_HEAD.rstrip())]
        asked = [reworded(question, rng) for question in paired]
        return _Sequence(head, [self._alone(question) for question in asked])

    def _after_picture(self, question: Question) -> _Segment:
        """Encode what follows the prefix, which holds the line break already."""
        return self._segment(question, self._ids(question_text(question.text))[1:])

    def _follow_up(self, before: _Segment, question: Question) -> _Segment:
        """Encode a later turn of a conversation, behind an earlier one with its answer."""
        turn = self._ids(f"{PROMPT_HEAD}{question.text}{ANSWER_MARK}")
        return self._segment(question, [*before.prompt, *before.answer, *turn])

    def _alone(self, question: Question) -> _Segment:
        return self._segment(question, self._ids(f" {question.text}{ANSWER_MARK}"))

    def _segment(self, question: Question, prompt: list[int]) -> _Segment:
        return _Segment(question.type, prompt, [*self._ids(" " + question.answer), END_ID])

    def _ids(self, text: str) -> list[int]:
        if text not in self._known:
            encoded = self.tokenizer.encode(text, add_special_tokens=False)
            self._known[text] = encoded.ids
        return self._known[text]

    def _answer_rows(self, segment: _Segment, first: int) -> list[tuple[int, int, float, int]]:
        """List (row that predicts, token, weight, type) for each token of an answer."""
        words = len(segment.answer) - 1
        weights = [1.0] * words
        if segment.kind is QuestionType.CAPTION:
            weights = [self.recipe.caption_weight] * words
        elif segment.kind is QuestionType.REFUSAL:  # its first token decides, the rest is fixed
            weights[1:] = [self.recipe.refusal_weight] * (words - 1)
        kind = QUESTION_TYPES.index(segment.kind)
        weights.append(self.recipe.end_weight)
        return [
            (first + step, token, weight, kind)
            for step, (token, weight) in enumerate(zip(segment.answer, weights, strict=True))
        ]


def _questions_about(scene: Scene) -> list[Question]:
    rng = random.Random(f"training-questions/{scene.split}/{scene.index}")
    kinds = rng.choices(
        list(QUESTION_SHARES), weights=list(QUESTION_SHARES.values()), k=_QUESTION_TRIES
    )
    unique: dict[str, Question] = {}
    for kind in kinds:
        question = draw_question(scene, kind, rng)
        if question is not None and (kind is not QuestionType.CAPTION or kind not in unique):
            unique[kind if kind is QuestionType.CAPTION else question.text] = question
    return list(unique.values())


def _off_topic(scene: Scene, rng: random.Random) -> Question:
    return Question(QuestionType.REFUSAL, draw_off_topic(scene.split, rng), REFUSAL)


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
