"""The two that are timed: our engine in this process, and transformers' `generate`."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from skipserve.engine.engine import Engine
from skipserve.engine.types import Image, Request, SamplingParams
from skipserve.model.config import ModelConfig
from skipserve.model.llava import Llava
from skipserve_policies.flops import prompt_classes
from skipserve_policies.plan import Plan, TokenClass, trim


@dataclass(frozen=True)
class Question:
    """One request, the same for both: random text around a random picture.

    Attributes:
        before: token ids ahead of the picture.
        after: token ids behind it.
        pixels: the picture, uint8 [S, S, 3].
        num_new_tokens: answered, whatever they are.
    """

    config: ModelConfig
    before: tuple[int, ...]
    after: tuple[int, ...]
    pixels: Tensor
    num_new_tokens: int

    @classmethod
    def draw(cls, config: ModelConfig, num_text: int, num_new_tokens: int) -> Self:
        """Draw a question with so many text tokens; the same one each time."""
        generator = torch.Generator().manual_seed(0)
        size = config.sizes.vision.image_size
        num_others = config.sizes.decoder.vocab_size - 1
        ids = torch.randint(0, num_others, (num_text,), generator=generator)
        ids += ids >= config.image_token_id
        text = tuple(ids.tolist())
        return cls(
            config=config,
            before=text[:5],
            after=text[5:],
            pixels=torch.randint(0, 256, (size, size, 3), generator=generator, dtype=torch.uint8),
            num_new_tokens=num_new_tokens,
        )

    @property
    def num_visual(self) -> int:
        """Rows of the picture."""
        return self.config.sizes.vision.num_tokens

    @cached_property
    def prompt_ids(self) -> tuple[int, ...]:
        """All rows of the prompt."""
        return (*self.before, *(self.config.image_token_id,) * self.num_visual, *self.after)

    @cached_property
    def token_classes(self) -> tuple[TokenClass, ...]:
        """The class of each row."""
        return prompt_classes(
            [
                (TokenClass.TEXT, len(self.before)),
                (TokenClass.VISUAL, self.num_visual),
                (TokenClass.TEXT, len(self.after)),
            ]
        )

    @cached_property
    def image(self) -> Image:
        """The picture as our engine takes it."""
        pixels = self.pixels.numpy().tobytes()
        return Image(pixels, self.pixels.shape[0], sha256(pixels).digest())

    @cached_property
    def pixel_values(self) -> Tensor:
        """The picture as transformers takes it, normalised, [1, 3, S, S]."""
        mean, std = torch.tensor(self.config.image_mean), torch.tensor(self.config.image_std)
        return ((self.pixels / 255 - mean) / std).permute(2, 0, 1)[None]


@dataclass(frozen=True)
class Timing:
    """One request.

    Attributes:
        first_token_seconds: from the request to the first token.
        per_token_seconds: from one token to the next, the mean.
        total_seconds: from the request to the last token.
        cpu_seconds: of this process, all its threads.
        token_ids: what was answered.
    """

    first_token_seconds: float
    per_token_seconds: float
    total_seconds: float
    cpu_seconds: float
    token_ids: tuple[int, ...]


class Contender(Protocol):
    """Someone who answers questions."""

    def answer(self, question: Question, on_token: Callable[[int], None]) -> None:
        """Answer greedily; report each token as soon as it is known."""


def time_one(contender: Contender, question: Question) -> Timing:
    """Time one request."""
    token_ids: list[int] = []
    times: list[float] = []

    def on_token(token_id: int) -> None:
        times.append(time.perf_counter())
        token_ids.append(token_id)

    cpu_start, start = time.process_time(), time.perf_counter()
    contender.answer(question, on_token)
    end, cpu_end = time.perf_counter(), time.process_time()
    assert len(token_ids) == question.num_new_tokens
    return Timing(
        first_token_seconds=times[0] - start,
        per_token_seconds=(times[-1] - times[0]) / (len(times) - 1),
        total_seconds=end - start,
        cpu_seconds=cpu_end - cpu_start,
        token_ids=tuple(token_ids),
    )


class OurEngine:
    """The engine, driven without processes or HTTP, under the full plan."""

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype) -> None:
        model = Llava.load(folder, device, dtype)
        self._engine = Engine(model)
        self._plan = trim(Plan.full(model.config.sizes.decoder.num_layers))
        self._num_requests = 0

    def answer(self, question: Question, on_token: Callable[[int], None]) -> None:
        """Answer greedily; report each token as soon as it is known."""
        self._engine.add(self._request(question))
        while self._engine.has_work:
            for output in self._engine.step():
                assert output.token_id is not None
                on_token(output.token_id)

    def _request(self, question: Question) -> Request:
        self._num_requests += 1
        return Request(
            id=str(self._num_requests),
            prompt_ids=question.prompt_ids,
            token_classes=question.token_classes,
            images=(question.image,),
            sampling=SamplingParams(
                max_tokens=question.num_new_tokens, temperature=0.0, ends_at_eos=False
            ),
            policy_name="full",
            plan=self._plan,
        )


class Transformers:
    """`LlavaForConditionalGeneration.generate` as it comes: SDPA attention, dynamic cache."""

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype) -> None:
        model: Any = LlavaForConditionalGeneration.from_pretrained(folder, dtype=dtype)
        self._model = model.to(device).eval()
        self._model.generation_config.eos_token_id = None
        self._model.generation_config.pad_token_id = 0

    def answer(self, question: Question, on_token: Callable[[int], None]) -> None:
        """Answer greedily; report each token as soon as it is known."""
        device = self._model.device
        input_ids = torch.tensor([question.prompt_ids], device=device)
        self._model.generate(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            pixel_values=question.pixel_values.to(device, self._model.dtype),
            do_sample=False,
            max_new_tokens=question.num_new_tokens,
            streamer=_Streamer(on_token),
        )


@dataclass
class _Streamer:
    """What `generate` calls: with the prompt first, then with each token."""

    on_token: Callable[[int], None]
    _has_seen_prompt: bool = field(default=False, init=False)

    def put(self, token_ids: Tensor) -> None:
        if self._has_seen_prompt:
            self.on_token(int(token_ids.item()))
        self._has_seen_prompt = True

    def end(self) -> None:
        pass
