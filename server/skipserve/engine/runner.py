"""Drives the model: encodes images, runs one forward of what the scheduler chose, samples."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import compress, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skipserve.engine.encoder_cache import EncoderCache, image_key
from skipserve.engine.inputs import build_batch, visual_range
from skipserve.engine.rows import PlanTable
from skipserve.engine.sampler import Sampler, Samples
from skipserve.engine.scheduler import Step
from skipserve.engine.sequence import Sequence
from skipserve.engine.tables import SlotTables
from skipserve.engine.types import Image
from skipserve.model.llava import Llava


@dataclass(frozen=True)
class Launched:
    """A step that the device has been told to run.

    Attributes:
        step: its rows.
        samples: its tokens, in the order of the sequences that sample; None if there are none.
        slots: of these sequences.
        positions: where their tokens go.
        num_encoded: images that were encoded for a sequence, where there are any.
        started: when, on the clock of `perf_counter`.
    """

    step: Step
    samples: Samples | None
    slots: NDArray[np.int64]
    positions: NDArray[np.int64]
    num_encoded: Mapping[Sequence, int]
    started: float


@dataclass(frozen=True)
class _Wanted:
    """Features that a step needs: rows `start` to `stop` of an image, for a sequence."""

    sequence: Sequence
    image: Image
    key: bytes
    start: int
    stop: int


class Runner:
    """A model with its K/V pages and the projected images it has seen.

    Attributes:
        encoder_cache: projected images.
        num_encoder_queries: images that steps needed.
        num_encoder_hits: of those, the ones that were not encoded for it.

    Args:
        model: what to run.
        tables: what the sequences hold.
        plans: what the columns in the tables mean.
        num_pages: of the pool.
        encoder_cache_bytes: for projected images.
        max_images: that are encoded at once.
    """

    def __init__(
        self,
        model: Llava,
        tables: SlotTables,
        plans: PlanTable,
        num_pages: int,
        encoder_cache_bytes: int,
        max_images: int,
    ) -> None:
        self.encoder_cache = EncoderCache(encoder_cache_bytes)
        self.num_encoder_queries = self.num_encoder_hits = 0
        self._model = model
        self._tables = tables
        self._plans = plans
        self._max_images = max_images
        self._cache = model.new_cache(num_pages, tables.page_size)
        self._sampler = Sampler(tables.num_slots, model.device)
        # By slot, for steps that are launched before the last tokens are read.
        self._last_tokens = torch.zeros(tables.num_slots, dtype=torch.int64, device=model.device)

    def launch(self, step: Step) -> Launched:
        """Compute the rows of a step and sample; a device that works on its own may go on later."""
        started = time.perf_counter()
        for sequence in step.placed:
            self._sampler.place(sequence.slot, sequence.request.sampling)
            sequence.started = sequence.started or started
        features, num_encoded = self._features(step)
        batch = build_batch(step, self._tables, self._plans, features, self._last_tokens)
        logits = self._model.forward(batch, self._cache)
        sampling = list(compress(step.sequences, step.samples))
        slots = np.array([s.slot for s in sampling], dtype=np.int64)
        # The scheduler has counted the new token in.
        positions = np.array([s.num_tokens - 1 for s in sampling], dtype=np.int64)
        samples = self._sample(logits, slots, positions) if sampling else None
        return Launched(step, samples, slots, positions, num_encoded, started)

    def _sample(
        self, logits: Tensor, slots: NDArray[np.int64], positions: NDArray[np.int64]
    ) -> Samples:
        samples = self._sampler.sample(logits, slots, positions)
        self._last_tokens[torch.from_numpy(slots)] = samples.token_ids
        return samples

    def _features(self, step: Step) -> tuple[Tensor | None, Mapping[Sequence, int]]:
        """Return the projected features of all rows that show an image, [N, D], and who paid."""
        wanted = list(self._wanted(step))
        if not wanted:
            return None, {}
        cached = {each.key: self.encoder_cache.get(each.key) for each in wanted}
        found = {key: features for key, features in cached.items() if features is not None}
        missing: dict[bytes, _Wanted] = {}
        for each in wanted:
            if each.key not in found:
                missing.setdefault(each.key, each)
        self.num_encoder_queries += len(wanted)
        self.num_encoder_hits += len(wanted) - len(missing)
        features = found | (self._encode(missing) if missing else {})
        pieces = [features[each.key][each.start : each.stop] for each in wanted]
        return torch.cat(pieces), Counter(each.sequence for each in missing.values())

    def _wanted(self, step: Step) -> Iterator[_Wanted]:
        """Yield what the step's chunks reach, image by image, in the order of the rows."""
        num_tokens = self._model.config.sizes.vision.num_tokens
        for sequence, start, stop in zip(step.sequences, step.starts, step.stops, strict=True):
            if start >= sequence.visual_stop:
                continue
            first, last = visual_range(sequence, start, stop)
            request = sequence.request
            for place in range(first // num_tokens, -(-last // num_tokens)):
                begin = place * num_tokens
                image = request.images[place]
                yield _Wanted(
                    sequence=sequence,
                    image=image,
                    key=image_key(image, request.cache_salt),
                    start=max(first - begin, 0),
                    stop=min(last - begin, num_tokens),
                )

    def _encode(self, missing: dict[bytes, _Wanted]) -> dict[bytes, Tensor]:
        """Encode images, in one batch unless there is no room for so many, and keep them."""
        started = time.perf_counter()
        encoded: dict[bytes, Tensor] = {}
        waiting = iter(missing.items())
        while group := dict(islice(waiting, self._max_images)):
            pixels = _pixels([each.image for each in group.values()]).to(self._model.device)
            features = self._model.encode_images(pixels)
            encoded |= zip(group, features.unbind(0), strict=True)
        if pixels.is_cuda:
            torch.cuda.synchronize(pixels.device)  # or its time would count as the prefill's
        for key, rows in encoded.items():
            self.encoder_cache.put(key, rows)
        seconds = time.perf_counter() - started
        for sequence in {each.sequence for each in missing.values()}:
            sequence.vision_seconds += seconds
        return encoded


def _pixels(images: list[Image]) -> Tensor:
    """Return the pixels of images of one size, uint8 [N, S, S, 3]."""
    # A bytearray, for torch warns of memory that cannot be written to.
    joined = bytearray().join(image.pixels for image in images)
    return torch.frombuffer(joined, dtype=torch.uint8).view(-1, images[0].size, images[0].size, 3)
