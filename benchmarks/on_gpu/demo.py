"""Whether the demo model answers on the device as it does on the CPU, in float32.

The rule: logits are within 1e-4 of the scale of those that the CPU computes for a request alone,
and tokens are equal unless its two largest logits are closer than that, where comparison stops.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import torch
from checkpoints import checkpoint
from contenders import OurEngine
from on_gpu.bench import Bench, Rows
from on_gpu.record import SHARE_UNIT
from questions import NUM_BEFORE, Question, QuestionSource
from report import Row
from timing import time_set
from torch import Tensor

from skipserve.engine.engine import Engine
from skipserve.engine.types import EngineLimits
from skipserve.model.batch import Batch
from skipserve.model.config import ModelConfig
from skipserve.model.layers import KVCache
from skipserve.model.llava import Llava
from skipserve.prompt.processor import PromptProcessor
from skipserve.prompt.template import ImagePart, Message, TextPart

POLICIES = (
    "full",
    "skip-block-every-3-from-16",
    "visual-freeze-from-16",
    "parallel-ffn-attention-every-3-from-16-all",
    "parallel-blocks-every-3-from-16-all",
)
_TEXTS = (
    "What color is the square?",
    "How many red shapes are there?",
    "Is there a circle?",
    "Describe the image.",
)
_SQUARES = ((200, 40, 40), (40, 60, 200), (40, 170, 60), (220, 200, 60))

_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Recording(Llava):
    """A model that keeps the logits of its forwards; those of graphs pass it by.

    Attributes:
        logits: [R, V] float32 of each forward, on the CPU.
    """

    logits: list[Tensor] = field(default_factory=list)

    @classmethod
    def of(cls, model: Llava) -> "Recording":
        """Wrap a model."""
        return cls(**{each.name: getattr(model, each.name) for each in fields(model)})

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        """Run one batch, and keep what comes out."""
        logits = super().forward(batch, cache)
        self.logits.append(logits.cpu())
        return logits


@dataclass(frozen=True)
class Alone:
    """What a request gave that ran alone.

    Attributes:
        token_ids: of the answer.
        logits: that each was chosen from, [V].
    """

    token_ids: tuple[int, ...]
    logits: tuple[Tensor, ...]

    def tolerance(self, place: int) -> float:
        """Return by how much the logits of a token may differ."""
        return _TOLERANCE * self.logits[place].abs().max().item()

    def is_tie(self, place: int) -> bool:
        """Return whether the two largest logits are too close to tell the token."""
        first, second = self.logits[place].topk(2).values.tolist()
        return bool(first - second < self.tolerance(place))


def check_demo(bench: Bench) -> Rows:
    """Compare answers under several policies: each alone without graphs, and all at once."""
    num_new_tokens, num_texts = (12, len(_TEXTS)) if bench.has_targets else (3, 1)
    with checkpoint("demo") as folder, ieee_products():
        questions = list(demo_questions(folder, num_texts, num_new_tokens))
        cpu, ours = (
            Llava.load(folder, device, torch.float32)
            for device in (torch.device("cpu"), bench.device)
        )
        expected, found = answer_alone(cpu, questions), answer_alone(ours, questions)
        yield from compare_logits(found, expected)
        yield from compare_tokens("alone", [each.token_ids for each in found], expected)
        engine = Engine(ours, EngineLimits(max_running=len(questions)))
        answers = time_set(OurEngine(engine, len(questions)), questions).answers
        yield from compare_tokens("all at once", [each.token_ids for each in answers], expected)


@contextmanager
def ieee_products() -> Iterator[None]:
    """Have products of float32 computed as such: a GPU's convolutions round their inputs."""
    flags = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = flags


def demo_questions(folder: Path, num_texts: int, num_new_tokens: int) -> Iterator[Question]:
    """Yield some texts, each on a picture of a square, under each policy."""
    config = ModelConfig.from_folder(folder)
    prompts = PromptProcessor.from_folder(folder, config)
    source = QuestionSource(config, seed=0)
    for text, colour in zip(_TEXTS[:num_texts], _SQUARES, strict=False):
        prompt = prompts.encode_chat([Message("user", (ImagePart(), TextPart(text)))])
        picture = _square(config.sizes.vision.image_size, colour)
        for policy in POLICIES:
            # Of these questions all but the text counts.
            question = source.question(
                2 * NUM_BEFORE, num_new_tokens, picture=picture, policy=policy
            )
            yield replace(
                question, prompt_ids=prompt.prompt_ids, token_classes=prompt.token_classes
            )


def answer_alone(model: Llava, questions: Sequence[Question]) -> list[Alone]:
    """Answer one question after the other, without graphs."""
    recording = Recording.of(model)
    limits = EngineLimits(max_running=1, reuses_prefixes=False, uses_graphs=False)
    ours = OurEngine(Engine(recording, limits))
    results = []
    for question in questions:
        recording.logits.clear()
        (answer,) = time_set(ours, [question]).answers
        # Looking ahead, there is a forward too many.
        logits = [rows[0] for rows in recording.logits[: len(answer.token_ids)]]
        results.append(Alone(answer.token_ids, tuple(logits)))
    return results


def compare_logits(found: Sequence[Alone], expected: Sequence[Alone]) -> Rows:
    """Compare logits as long as the tokens before them are equal."""
    share = 0.0
    for ours, theirs in zip(found, expected, strict=True):
        for place in range(len(theirs.logits)):
            difference = (ours.logits[place] - theirs.logits[place]).abs().max().item()
            share = max(share, difference / theirs.tolerance(place))
            if ours.token_ids[place] != theirs.token_ids[place]:
                break
    yield Row("logits/alone", share, SHARE_UNIT, target=1.0, is_limit=True)


def compare_tokens(name: str, found: Sequence[tuple[int, ...]], expected: Sequence[Alone]) -> Rows:
    """Count the answers that break the rule, and those that are equal to their end."""
    pairs = list(zip(found, expected, strict=True))
    faults = sum(not follows(tokens, alone) for tokens, alone in pairs)
    yield Row(f"answers that differ/{name}", faults, "answers", target=0, is_limit=True)
    equal = sum(tokens == alone.token_ids for tokens, alone in pairs)
    yield Row(f"answers equal to their end/{name}", 100 * equal / len(pairs), "%")


def follows(token_ids: Sequence[int], alone: Alone) -> bool:
    """Return whether tokens are those of a request alone, up to a tie that fell otherwise."""
    for place, (ours, theirs) in enumerate(zip(token_ids, alone.token_ids, strict=True)):
        if ours != theirs:
            return alone.is_tie(place)
    return True


def _square(size: int, colour: tuple[int, int, int]) -> Tensor:
    """Return a picture of a square on grey, uint8 [S, S, 3]."""
    picture = torch.full((size, size, 3), 120, dtype=torch.uint8)
    picture[size // 4 : size // 2, size // 3 : size // 2 + size // 12] = torch.tensor(
        colour, dtype=torch.uint8
    )
    return picture
