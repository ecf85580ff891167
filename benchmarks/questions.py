"""The requests that are timed: random text around random pictures, the same for everyone."""

from dataclasses import dataclass
from hashlib import sha256

import torch
from plans import resolved
from torch import Tensor

from skipserve.engine.request import Image
from skipserve.model.config import ModelConfig
from skipserve_policies.cost import saving
from skipserve_policies.flops import Request, prompt_classes
from skipserve_policies.narrowing import Narrowing
from skipserve_policies.plan import Plan, TokenClass
from skipserve_policies.shapes import whole_request
from skipserve_policies.sizes import ModelSizes

# Text tokens ahead of the picture, the same in all questions of one source.
NUM_BEFORE = 5

# Text tokens of a prompt; with the picture's, 299 for the larger models and 54 for the demo.
_NUM_TEXT = {"small": 43, "deep": 43}
_NUM_TEXT_ELSE = 18


def num_text(model: str) -> int:
    """Return how many text tokens a question to a model has where nothing else is said."""
    return _NUM_TEXT.get(model, _NUM_TEXT_ELSE)


@dataclass(frozen=True)
class Question:
    """One request; all that the host prepares is prepared.

    Attributes:
        prompt_ids: token ids of all rows.
        token_classes: the class of each row.
        image: the picture as our engine takes it.
        pixel_values: the picture as transformers takes it, normalised, [1, 3, S, S].
        num_new_tokens: answered, whatever they are.
        policy: the name of what our engine computes; others compute everything.
        plan: the same, for the model's depth.
        narrowing: which visual rows leave inside the decoder, if any; its image says whether some
            have left before.
    """

    prompt_ids: tuple[int, ...]
    token_classes: tuple[TokenClass, ...]
    image: Image
    pixel_values: Tensor
    num_new_tokens: int
    policy: str
    plan: Plan
    narrowing: Narrowing | None = None


def flops_ratio(sizes: ModelSizes, question: Question) -> float:
    """Return how many times a question's planned FLOPs the full model needs for it."""
    request = Request(question.token_classes, question.num_new_tokens, num_images=1)
    reduction = question.image.reduction
    whole = whole_request(sizes, request, reduction)
    flops = saving(sizes, question.plan, whole, reduction, question.narrowing)
    return flops.full_flops / flops.planned_flops


class QuestionSource:
    """Draws questions for a model: the same ones for the same seed, others for another."""

    def __init__(self, config: ModelConfig, seed: int) -> None:
        self._config = config
        self._generator = torch.Generator().manual_seed(seed)
        self._before = self._text(NUM_BEFORE)

    def number(self, low: int, high: int) -> int:
        """Return a number from low to high, both possible."""
        return int(torch.randint(low, high + 1, (), generator=self._generator))

    def picture(self) -> Tensor:
        """Return a picture, uint8 [S, S, 3]."""
        size = self._config.sizes.vision.image_size
        return torch.randint(0, 256, (size, size, 3), generator=self._generator, dtype=torch.uint8)

    def question(
        self,
        num_text: int,
        num_new_tokens: int,
        *,
        picture: Tensor | None = None,
        policy: str = "full",
    ) -> Question:
        """Return a question with so many text tokens, on a picture of its own or a given one."""
        pixels = self.picture() if picture is None else picture
        after = self._text(num_text - NUM_BEFORE)
        sizes = self._config.sizes
        runs = resolved(policy, sizes)
        image = _image(pixels, sizes.rows_per_image).reduced(runs.reduction)
        parts = [
            (TokenClass.TEXT, NUM_BEFORE),
            (TokenClass.VISUAL, image.num_rows),
            (TokenClass.TEXT, len(after)),
        ]
        visual = (self._config.image_token_id,) * image.num_rows
        return Question(
            prompt_ids=(*self._before, *visual, *after),
            token_classes=prompt_classes(parts),
            image=image,
            pixel_values=self._pixel_values(pixels),
            num_new_tokens=num_new_tokens,
            policy=policy,
            plan=runs.plan,
            narrowing=runs.narrowing,
        )

    def _text(self, count: int) -> tuple[int, ...]:
        """Return token ids that are not the image's."""
        num_others = self._config.sizes.decoder.vocab_size - 1
        ids = torch.randint(0, num_others, (count,), generator=self._generator)
        return tuple((ids + (ids >= self._config.image_token_id)).tolist())

    def _pixel_values(self, pixels: Tensor) -> Tensor:
        steps = self._config.image_processor
        mean, std = torch.tensor(steps.mean), torch.tensor(steps.std)
        return ((pixels * steps.scale - mean) / std).permute(2, 0, 1)[None]


def _image(pixels: Tensor, num_rows: int) -> Image:
    content = pixels.numpy().tobytes()
    return Image(content, sha256(content).digest(), num_rows)
