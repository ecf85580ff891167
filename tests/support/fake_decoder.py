"""A small random decoder with the interface of a model, whose answers show which rows ran what."""

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from skipserve.engine.request import Image, Request, SamplingParams
from skipserve.model.batch import Batch, Segment
from skipserve.model.config import ModelConfig
from skipserve.model.image_processor import ImageProcessor
from skipserve.model.layers import KVCache
from skipserve.model.work import Every, RowSet
from skipserve_kernels.key_values import KeyValues
from skipserve_policies.flops import prompt_classes
from skipserve_policies.narrowing import Narrowing
from skipserve_policies.plan import Plan, TokenClass, trim
from skipserve_policies.reduction import Reduction
from skipserve_policies.sizes import DecoderSizes, ModelSizes, VisionSizes

IMAGE_ID = 3
EOS_ID = 2
IMAGE_SIZE = 4
TOKENS_PER_IMAGE = 4
NUM_LAYERS = 4
VOCAB = 64
HIDDEN = 16


CONFIG = ModelConfig(
    sizes=ModelSizes(
        decoder=DecoderSizes(NUM_LAYERS, HIDDEN, 2, 2, 8, 32, VOCAB),
        vision=VisionSizes(3, 2, 8, 16, IMAGE_SIZE, 2, 3, keeps_cls=False),
    ),
    max_positions=64,
    declared_positions=64,
    image_token_id=IMAGE_ID,
    eos_token_ids=(EOS_ID,),
    rms_norm_epsilon=1e-5,
    dtype=None,
    feature_layers=(1,),
    reads_output=False,
    projector_activation="gelu",
    projector_bias=True,
    ties_head=False,
    biased_layers=frozenset(),
    processor=ImageProcessor.of_square(IMAGE_SIZE),
    opt=None,
    text={},
    vision={},
)


class FakeDecoder:
    """In each layer a row stores itself, adds the mean of what it sees, and adds a constant."""

    config = CONFIG
    device = torch.device("cpu")
    dtype = torch.float32
    uses_triton = False
    weights_digest = ""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.embedding = torch.randn(VOCAB, HIDDEN, generator=generator)
        self.head = torch.randn(HIDDEN, VOCAB, generator=generator)
        self.ffn = torch.randn(NUM_LAYERS, HIDDEN, generator=generator)
        self.seen_pixels: list[Tensor] = []

    def encode_images(self, pixels: Tensor) -> Tensor:
        self.seen_pixels.append(pixels)
        brightness = pixels.float().mean(dim=(1, 2, 3)) / 255
        features = torch.arange(TOKENS_PER_IMAGE * HIDDEN).view(TOKENS_PER_IMAGE, HIDDEN).sin()
        return brightness[:, None, None] * features

    def encode_reduced(
        self, pixels: Tensor, reductions: Sequence[Reduction | None]
    ) -> list[Tensor]:
        """Return the first rows of each picture."""
        rows = self.encode_images(pixels)
        counts = [it.num_rows if it else TOKENS_PER_IMAGE for it in reductions]
        return [each[:count] for each, count in zip(rows, counts, strict=True)]

    def new_cache(self, num_pages: int, page_size: int) -> KVCache:
        """Return room for the rows themselves, [num_slots, HIDDEN] in each layer."""
        self.page_size = page_size
        rooms = [torch.full((num_pages * page_size, HIDDEN), torch.nan) for _ in range(NUM_LAYERS)]
        layers = tuple(KeyValues(keys=room, values=room) for room in rooms)
        return KVCache(layers=layers, page_size=page_size)

    def warm_up(self, cache: KVCache) -> None:
        """Have nothing to compile."""

    def cache_bytes_per_token(self) -> int:
        return 4 * HIDDEN * NUM_LAYERS

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        assert batch.token_ids.min() >= 0
        hidden = self.embedding[batch.token_ids % VOCAB]
        if batch.visual_features is not None:
            hidden[batch.visual_rows] = batch.visual_features
        for segment in batch.segments:
            for layer in segment.layers:
                self._run_layer(layer, segment, hidden, cache.layers[layer].values)
        if batch.scoring is not None:
            batch.scoring.fill(lambda rows: hidden[rows] @ self.head)
        return hidden[batch.logit_rows] @ self.head

    def _run_layer(self, layer: int, segment: Segment, hidden: Tensor, stored: Tensor) -> None:
        rows, group = segment.rows(layer), segment.kv_group(layer)
        before = hidden.clone()
        kv = _mask(rows.kv, len(hidden))
        stored[group.slots[kv]] = before[kv]
        attention = _mask(rows.attention, len(hidden))
        bounds = pairwise(segment.row_starts.tolist())
        for table, (start, stop) in zip(group.tables.device, bounds, strict=True):
            for row in range(start, stop):
                if attention[row]:
                    seen = torch.arange(int(group.places[row]) + 1)
                    slots = table[seen // self.page_size] * self.page_size
                    hidden[row] += stored[slots + seen % self.page_size].mean(dim=0)
        hidden[_mask(rows.ffn, len(hidden))] += self.ffn[layer]


def _mask(rows: RowSet, num_rows: int) -> Tensor:
    if isinstance(rows, Every):
        return torch.full((num_rows,), rows is Every.ALL)
    return torch.zeros(num_rows, dtype=torch.bool).index_fill(0, rows.device, True)


def make_request(
    request_id: str = "r",
    *,
    num_text: int = 3,
    num_images: int = 0,
    max_tokens: int = 4,
    plan: Plan | None = None,
    narrowing: Narrowing | None = None,
    **sampling: Any,
) -> Request:
    """Return a request with `num_text` tokens, then images, then two tokens more."""
    text = [10 + i % 50 for i in range(num_text)]
    num_visual = num_images * TOKENS_PER_IMAGE
    classes = prompt_classes(
        [(TokenClass.TEXT, num_text), (TokenClass.VISUAL, num_visual), (TokenClass.TEXT, 2)]
    )
    defaults = {"temperature": 0.0, "ends_at_eos": False}
    return Request(
        id=request_id,
        prompt_ids=(*text, *(IMAGE_ID,) * num_visual, 60, 61),
        token_classes=classes,
        images=tuple(make_image(50 * (i + 1)) for i in range(num_images)),
        sampling=SamplingParams(max_tokens, **{**defaults, **sampling}),
        policy_name="full",
        plan=plan or trim(Plan.full(NUM_LAYERS)),
        narrowing=narrowing,
    )


def plan_of(request: Request) -> Plan:
    """Return the plan of a request that brings its table."""
    assert isinstance(request.plan, Plan)
    return request.plan


def make_image(brightness: int) -> Image:
    """Return a picture of one colour."""
    pixels = bytes([brightness]) * (IMAGE_SIZE**2 * 3)
    return Image(pixels, hashlib.sha256(pixels).digest(), TOKENS_PER_IMAGE)
