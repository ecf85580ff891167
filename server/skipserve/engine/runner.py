"""Drives the model: encodes images, runs one forward of what the scheduler chose."""

import torch
from torch import Tensor

from skipserve.engine.inputs import build_batch
from skipserve.engine.sequence import Sequence
from skipserve.engine.types import Image, Stage
from skipserve.model.llava import Llava


class Runner:
    """A model with its K/V cache, large enough for one sequence of the longest context."""

    def __init__(self, model: Llava) -> None:
        self._model = model
        self._cache = model.new_cache(model.config.max_positions)

    def run(self, sequences: list[Sequence]) -> Tensor:
        """Compute all pending rows; return the logits of each sequence's last one, [B, V]."""
        batch = build_batch(
            sequences,
            image_token_id=self._model.config.image_token_id,
            visual_features=self._encode_images(sequences),
            device=self._model.device,
        )
        return self._model.forward(batch, self._cache)

    def _encode_images(self, sequences: list[Sequence]) -> Tensor | None:
        """Return the projected features of all images to be seen in this step, [N, D]."""
        seeing = [s for s in sequences if s.is_prefill and s.request.images]
        if not seeing:
            return None
        images = [image for sequence in seeing for image in sequence.request.images]
        features = self._model.encode_images(_pixels(images).to(self._model.device))
        if features.is_cuda:
            torch.cuda.synchronize(features.device)  # or its time would count as the prefill's
        for sequence in seeing:
            sequence.mark(Stage.VISION_ENCODE)
        return features.flatten(0, 1)


def _pixels(images: list[Image]) -> Tensor:
    """Return the pixels of images of one size, uint8 [N, S, S, 3]."""
    # A bytearray, for torch warns of memory that cannot be written to.
    joined = bytearray().join(image.pixels for image in images)
    return torch.frombuffer(joined, dtype=torch.uint8).view(-1, images[0].size, images[0].size, 3)
