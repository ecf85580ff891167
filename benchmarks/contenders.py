"""Those that are timed: our engine in this process, and transformers' `generate`."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from questions import Question
from timing import OnToken
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from skipserve.engine.engine import Engine
from skipserve.engine.reports import StepReport
from skipserve.engine.request import Request, SamplingParams
from skipserve.model.llava import Llava

_request_numbers = itertools.count()


def load_engine(folder: Path, device: torch.device, dtype: torch.dtype) -> Engine:
    """Load a checkpoint into an engine with the limits that it has by itself."""
    return Engine(Llava.load(folder, device, dtype))


class OurEngine:
    """The engine, driven without processes or HTTP.

    Attributes:
        engine: may be shared by several that take turns.
        concurrency: so many questions are under way at a time; the next one follows the first
            that ends.
        reports: of the steps of the last set of questions.
    """

    def __init__(self, engine: Engine, concurrency: int = 1) -> None:
        self.engine = engine
        self.concurrency = concurrency
        self.reports: list[StepReport] = []

    def answer(self, questions: Sequence[Question], on_token: OnToken) -> None:
        """Answer all greedily; report each token as soon as it is known."""
        self.reports = []
        waiting = iter(enumerate(questions))
        index_of: dict[str, int] = {}
        while True:
            num_free = self.concurrency - len(index_of)
            for index, question in itertools.islice(waiting, num_free):
                request = make_request(question)
                index_of[request.id] = index
                self.engine.add(request)
            if not index_of:
                return
            self._step(index_of, on_token)

    def cpu_seconds(self) -> float:
        """Return the processor time of this process."""
        return time.process_time()

    def _step(self, index_of: dict[str, int], on_token: OnToken) -> None:
        result = self.engine.step()
        for output in result.outputs:
            assert output.token_id is not None
            on_token(index_of[output.request_id], output.token_id)
            if output.finish_reason is not None:
                del index_of[output.request_id]
        if result.report is not None:
            self.reports.append(result.report)


def make_request(question: Question) -> Request:
    """Return a question as the engine takes it; the answer does not end early."""
    return Request(
        id=str(next(_request_numbers)),
        prompt_ids=question.prompt_ids,
        token_classes=question.token_classes,
        images=(question.image,),
        sampling=SamplingParams(
            max_tokens=question.num_new_tokens, temperature=0.0, ends_at_eos=False
        ),
        policy_name=question.policy,
        plan=question.plan,
        narrowing=question.narrowing,
    )


class Transformers:
    """`LlavaForConditionalGeneration.generate` as it comes: SDPA attention, dynamic cache.

    A batch is padded on the left to its longest prompt and runs to its longest answer; the next
    batch follows when all of it has ended.
    """

    def __init__(self, model: Any, batch_size: int = 1) -> None:
        self._model = model
        self._batch_size = batch_size

    @staticmethod
    def load(folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
        """Load a checkpoint, for any number of contenders."""
        model: Any = LlavaForConditionalGeneration.from_pretrained(folder, dtype=dtype)
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = 0
        return model.to(device).eval()

    def answer(self, questions: Sequence[Question], on_token: OnToken) -> None:
        """Answer all greedily; report each token as soon as it is known."""
        for start in range(0, len(questions), self._batch_size):
            self._generate(start, questions[start : start + self._batch_size], on_token)

    def cpu_seconds(self) -> float:
        """Return the processor time of this process."""
        return time.process_time()

    def _generate(self, start: int, batch: Sequence[Question], on_token: OnToken) -> None:
        device = self._model.device
        input_ids, mask = padded([question.prompt_ids for question in batch])
        pixels = torch.cat([question.pixel_values for question in batch])
        lengths = [question.num_new_tokens for question in batch]
        self._model.generate(
            input_ids=input_ids.to(device),
            attention_mask=mask.to(device),
            pixel_values=pixels.to(device, self._model.dtype),
            do_sample=False,
            max_new_tokens=max(lengths),
            streamer=_Streamer(start, lengths, on_token),
        )


def padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return prompts as one matrix, padded with 0 on the left, and the mask of what is real."""
    longest = max(map(len, prompts))
    ids = [[0] * (longest - len(prompt)) + [*prompt] for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids), torch.tensor(mask)


@dataclass
class _Streamer:
    """What `generate` calls: with the prompts first, then with each step's tokens.

    What a question did not ask for is dropped.
    """

    first_index: int
    lengths: Sequence[int]
    on_token: OnToken
    _num_steps: int = field(default=-1, init=False)

    def put(self, token_ids: Tensor) -> None:
        self._num_steps += 1
        if self._num_steps == 0:
            return
        for row, (length, token_id) in enumerate(
            zip(self.lengths, token_ids.tolist(), strict=True)
        ):
            if self._num_steps <= length:
                self.on_token(self.first_index + row, token_id)

    def end(self) -> None:
        pass
