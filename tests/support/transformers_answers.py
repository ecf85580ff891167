"""Greedy answers by transformers' LLaVA, with layers of the decoder taken out."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from skipserve.asking.processor import QuestionProcessor
from skipserve.offline.questions import read_image, read_question
from skipserve_client.evaluate.sample import Sample
from skipserve_training.calibration.probe import Comparison

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])


class Oracle:
    """Answers greedily by transformers, without some layers of the decoder."""

    def __init__(self, folder: Path, processor: QuestionProcessor) -> None:
        self.processor = processor
        self.model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        self.layers = list(self.model.model.language_model.layers)

    def logprobs(self, sample: Sample, said: Sequence[int], without: Sequence[int] = ()) -> Tensor:
        """Return what the model finds of the token behind what was said, [V]."""
        ids, pixels = self.inputs(sample)
        kept = [layer for index, layer in enumerate(self.layers) if index not in without]
        self.model.model.language_model.layers = torch.nn.ModuleList(kept)
        with torch.inference_mode():
            found = self.model(
                input_ids=torch.tensor([[*ids, *said]]), pixel_values=pixels, use_cache=False
            )
        logits: Tensor = found.logits[0, -1]
        return logits.log_softmax(-1)

    def inputs(self, sample: Sample) -> tuple[tuple[int, ...], Tensor]:
        """Return a question's prompt and its picture, as the tower takes it."""
        asked = read_question(sample.messages())
        picture = self.processor.preprocessor.fit(read_image(asked.images[0], 10**6), "p")
        prompt = self.processor.prompts.encode_chat(asked.messages, [picture.num_rows])
        pixels = torch.frombuffer(bytearray(picture.pixels), dtype=torch.uint8)
        side = math.isqrt(len(pixels) // 3)
        pixels = pixels.view(side, side, 3).float() / 255
        return prompt.prompt_ids, ((pixels - MEAN) / STD).permute(2, 0, 1)[None]

    def compare(self, sample: Sample, without: Sequence[int], max_tokens: int) -> Comparison:
        """Compare as `Probe.compare` says, one token at a time."""
        said: list[int] = []
        terms: list[float] = []
        while len(said) < max_tokens and 2 not in said:
            full, found = self.logprobs(sample, said), self.logprobs(sample, said, without)
            terms.append(float((full.exp() * (full - found)).sum()))
            mine, theirs = int(full.argmax()), int(found.argmax())
            if mine != theirs:
                return Comparison(terms[0], sum(terms), float(full[mine] - full[theirs]), True)
            said.append(mine)
        return Comparison(terms[0], sum(terms), 0.0, False)
