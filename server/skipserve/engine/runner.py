"""Drives the model: encodes images, runs one forward of what the scheduler chose, samples."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skipserve.engine.adjust import RowAdjuster, adjust
from skipserve.engine.encoder_cache import EncoderCache, image_key
from skipserve.engine.graphs import DecodeGraphs
from skipserve.engine.host_copy import HostCopy
from skipserve.engine.inputs import StepRows, build_batch, visual_range
from skipserve.engine.limits import EngineLimits
from skipserve.engine.memory import runs_graphs
from skipserve.engine.plans import PlanTable
from skipserve.engine.reports import StepMode
from skipserve.engine.request import Adjustments, Image, SamplingParams
from skipserve.engine.sampler import Sampler, Samples
from skipserve.engine.scheduler import Step
from skipserve.engine.sequence import Sequence
from skipserve.engine.stopwatch import Stopwatch
from skipserve.engine.tables import SeatTables
from skipserve.model.model import Model
from skipserve_policies.plan import Plan, trim

# Sampling of every kind.
_DRAWS = (
    SamplingParams(1, temperature=0.0, num_top_logprobs=1),
    SamplingParams(1, top_k=5),
    SamplingParams(1, top_p=0.5),
    SamplingParams(1, min_p=0.5),
    SamplingParams(1, adjustments=Adjustments(logit_bias=((0, 1.0),), bad_words=((1,),))),
)


@dataclass(frozen=True)
class Launched:
    """A step that the device has been told to run.

    Attributes:
        step: its rows.
        samples: its tokens, in the order of the sequences that sample; None if there are none.
        seats: of these sequences.
        positions: where their tokens go.
        num_encoded: images that were encoded for a sequence, where there are any.
        encoding: how long that took; None where there are none.
        started: when, on the clock of `perf_counter`.
        mode: how the forward ran.
        chosen: by sequence whose prompt was ranked, the visual rows that reach each later stage.
        scores: of the prompts' tokens that its chunks score, in order; None where there are none.
    """

    step: Step
    samples: Samples | None
    seats: NDArray[np.int64]
    positions: NDArray[np.int64]
    num_encoded: Mapping[Sequence, int]
    encoding: Stopwatch | None
    started: float
    mode: StepMode
    chosen: Mapping[Sequence, list[Tensor]]
    scores: HostCopy | None


@dataclass(frozen=True)
class Forward:
    """What a model gave for the rows of a step.

    Attributes:
        logits: that the step samples from, [R, V] float32.
        sampled_seats: of these, on the device, [R] int64.
        mode: how it ran.
        chosen: by sequence whose prompt was ranked, the visual rows that reach each later stage.
        scores: what was found of the tokens to be scored; None where there are none.
    """

    logits: Tensor
    sampled_seats: Tensor
    mode: StepMode
    chosen: Mapping[Sequence, list[Tensor]] = field(default_factory=dict)
    scores: HostCopy | None = None


@dataclass(frozen=True)
class _Images:
    """What a step's rows show.

    Attributes:
        features: of all rows that show an image, [N, D]; None if there are none.
        num_encoded: images that had to be encoded, by the sequence that they were encoded for.
        encoding: how long that took; None if there were none.
    """

    features: Tensor | None = None
    num_encoded: Mapping[Sequence, int] = field(default_factory=dict)
    encoding: Stopwatch | None = None


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
        max_images: that are encoded at once.
        limits: how much the engine takes on.
    """

    def __init__(
        self,
        model: Model,
        tables: SeatTables,
        plans: PlanTable,
        num_pages: int,
        max_images: int,
        limits: EngineLimits,
    ) -> None:
        self.encoder_cache = EncoderCache(limits.encoder_cache_bytes)
        self.num_encoder_queries = self.num_encoder_hits = 0
        self._model = model
        self._tables = tables
        self._plans = plans
        self._max_images = max_images
        self._cache = model.new_cache(num_pages, tables.page_size)
        self._sampler = Sampler(tables.num_seats, model.config.eos_token_ids)
        # By seat, for steps that are launched before the last tokens are read.
        self._last_tokens = torch.zeros(tables.num_seats, dtype=torch.int64, device=model.device)
        model.warm_up(self._cache)
        self._graphs = self._capture(limits.hot_plans) if runs_graphs(model, limits) else None
        if model.device.type != "cpu":
            self._warm_up()

    def launch(self, step: Step) -> Launched:
        """Compute the rows of a step and sample; a device that works on its own may go on later."""
        started = time.perf_counter()
        for sequence in step.placed:
            self._sampler.place(
                sequence.seat,
                sequence.request.sampling,
                self._tables.token_ids[sequence.seat],
                sequence.num_prompt,
                sequence.matcher,
            )
            sequence.started = sequence.started or started
        images = self._find_images(step)
        forward = self._forward(step, images.features)
        sampling = step.sampling
        seats = np.array([s.seat for s in sampling], dtype=np.int64)
        # The scheduler has counted the new token in.
        positions = np.array([s.num_tokens - 1 for s in sampling], dtype=np.int64)
        samples = self._sampler.sample(forward.logits, seats, positions) if sampling else None
        if samples is not None:
            self._last_tokens.index_copy_(0, forward.sampled_seats, samples.token_ids)
        return Launched(
            step=step,
            samples=samples,
            seats=seats,
            positions=positions,
            num_encoded=images.num_encoded,
            encoding=images.encoding,
            started=started,
            mode=forward.mode,
            chosen=forward.chosen,
            scores=forward.scores,
        )

    def free_memory(self) -> None:
        """Give up what can be computed again, after the device has run out of memory."""
        self.encoder_cache.clear()
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()

    def _warm_up(self) -> None:
        """Do once what the first requests would wait for: libraries load what they need then."""
        sizes = self._model.config.sizes
        black = Image(bytes(sizes.vision.input_bytes), digest=b"", num_rows=0)
        self._model.encode_images(_media([black], self._model))
        logits = torch.zeros(len(_DRAWS), sizes.decoder.vocab_size, device=self._model.device)
        sampler = Sampler(len(_DRAWS))
        for seat, sampling in enumerate(_DRAWS):
            sampler.place(seat, sampling)
        seats = np.arange(len(_DRAWS))
        sampler.sample(logits, seats, seats)
        # Of a grammar only the mask is the device's business.
        words = np.full(-(-logits.shape[1] // 64), -1, dtype=np.int64)
        adjuster = RowAdjuster(Adjustments(), words[:0], 0, ())
        adjust(logits, [0], [0], [adjuster], {0: words})

    def _capture(self, hot_plans: tuple[Plan, ...]) -> DecodeGraphs:
        full = trim(Plan.full(self._model.config.sizes.decoder.num_layers))
        return DecodeGraphs(
            self._model,
            self._cache,
            self._tables,
            self._plans,
            self._last_tokens,
            hot=(full, *hot_plans),
        )

    def _forward(self, step: Step, features: Tensor | None) -> Forward:
        """Run the rows of a step."""
        rows = StepRows.of(step, self._tables)
        if self._graphs is not None and (replayed := self._graphs.run(step, rows)) is not None:
            return Forward(*replayed)
        inputs = build_batch(step, rows, self._tables, self._plans, features, self._last_tokens)
        logits = self._model.forward(inputs.batch, self._cache)
        scoring = inputs.batch.scoring
        scores = None if scoring is None else HostCopy(*scoring.result())
        return Forward(logits, inputs.sampled_seats, StepMode.EAGER, inputs.chosen, scores)

    def _find_images(self, step: Step) -> _Images:
        """Return the projected features of all rows that show an image."""
        wanted = list(self._wanted(step))
        if not wanted:
            return _Images()
        cached = {each.key: self.encoder_cache.get(each.key) for each in wanted}
        found = {key: features for key, features in cached.items() if features is not None}
        missing: dict[bytes, _Wanted] = {}
        for each in wanted:
            if each.key not in found:
                missing.setdefault(each.key, each)
        self.num_encoder_queries += len(wanted)
        self.num_encoder_hits += len(wanted) - len(missing)
        encoding = Stopwatch(self._model.device) if missing else None
        features = found | (self._encode(missing, encoding) if encoding else {})
        pieces = [features[each.key][each.start : each.stop] for each in wanted]
        payers = Counter(each.sequence for each in missing.values())
        return _Images(torch.cat(pieces), payers, encoding)

    def _wanted(self, step: Step) -> Iterator[_Wanted]:
        """Yield what the step's chunks reach, image by image, in the order of the rows."""
        for chunk in step.chunks:
            sequence = chunk.sequence
            if chunk.start >= sequence.visual_stop:
                continue
            first, last = visual_range(sequence, chunk.start, chunk.stop)
            request = sequence.request
            starts = request.image_starts
            first_image = int(starts.searchsorted(first, side="right")) - 1
            for place in range(first_image, int(starts.searchsorted(last))):
                begin = int(starts[place])
                image = request.images[place]
                yield _Wanted(
                    sequence=sequence,
                    image=image,
                    key=image_key(image, request.cache_salt),
                    start=max(first - begin, 0),
                    stop=min(last - begin, image.num_rows),
                )

    def _encode_batch(self, media: Tensor, images: list[Image]) -> Iterable[Tensor]:
        reductions = [image.reduction for image in images]
        if any(reductions):
            return self._model.encode_reduced(media, reductions)
        return self._model.encode_images(media).unbind(0)

    def _encode(self, missing: dict[bytes, _Wanted], encoding: Stopwatch) -> dict[bytes, Tensor]:
        """Encode images, in one batch unless there is no room for so many, and keep them."""
        encoded: dict[bytes, Tensor] = {}
        waiting = iter(missing.items())
        encoding.start()
        while group := dict(islice(waiting, self._max_images)):
            images = [each.image for each in group.values()]
            media = _media(images, self._model)
            encoded |= zip(group, self._encode_batch(media, images), strict=True)
        encoding.stop()
        for key, rows in encoded.items():
            self.encoder_cache.put(key, rows)
        return encoded


def _media(images: list[Image], model: Model) -> Tensor:
    """Return what a model is shown, on its device: [N, ...], of each as `input_shape` says."""
    vision, device = model.config.sizes.vision, model.device
    # A bytearray, for torch warns of memory that cannot be written to.
    joined = bytearray().join(image.pixels for image in images)
    dtype = torch.uint8 if vision.spectrogram is None else torch.float32
    media = torch.frombuffer(joined, dtype=dtype)
    if device.type == "cuda":
        media = media.pin_memory()
    return media.to(device, non_blocking=True).view(-1, *vision.input_shape)
