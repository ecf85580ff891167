"""Estimates what one H100 takes for a model of one's own, from configurations and texts alone."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from skipserve_policies.flops import vision_flops
from skipserve_policies.plan import Plan, TokenClass, trim
from skipserve_policies.resolve import resolve
from skipserve_policies.schema import SkipPolicy
from skipserve_policies.sizes import DecoderSizes, MappingSizes, VisionSizes
from skipserve_training.compression.recipe import Method
from skipserve_training.mapping.pass_flops import Pass, module_flops
from skipserve_training.paper.cells import FULL, Cell
from skipserve_training.paper.setup import Scoring, Setup

# One H100 (SXM) as published, without sparsity: operations and bytes a second.
_BF16, _FP32, _MEMORY = 989e12, 67e12, 3.35e12

# Assumed, none of it measured.
_REACHED = 0.35  # of these, by small batches in PyTorch
_DISK = 1e9  # bytes a second, of weights that are read and written
_CHARACTERS = 4  # a token of English
_CAPTION_STEPS = 20  # tokens of a free caption
_DECODING = 0.015  # seconds of a core for a picture or a sound

ASSUMED = (
    f"Estimated for one H100 ({_BF16 / 1e12:.0f} TFLOP/s in bf16; {_FP32 / 1e12:.0f} in fp32, in "
    f"which the encoder and the module run; {_MEMORY / 1e12:.2f} TB/s), of which {_REACHED:.0%} "
    f"are taken to be reached, with {_CHARACTERS} characters a token, weights at "
    f"{_DISK / 1e9:.0f} GB/s and {1000 * _DECODING:.0f} ms to decode a picture. None of it was "
    "measured."
)

_PICTURES = 8  # that are asked about at a time
_PERPLEXITY = Pass({TokenClass.TEXT: 80, TokenClass.GENERATED: 1_020}, 256, 1_020)
_BYTES = 2  # of a weight, and of a feature


@dataclass(frozen=True)
class Amounts:
    """How much data there is.

    Attributes:
        media, asked_media: that are trained on, and that there are to be asked about.
        exchanges, probes: about one of them, in the mean: drawn in a step, and asked.
        question, answer: characters of each with the words around them, in the mean.
        pictures: that are decoded for a medium: the frames of a video.
    """

    media: int
    asked_media: int
    exchanges: float
    probes: float
    question: float
    answer: float
    pictures: int = 1


@dataclass(frozen=True)
class Hours:
    """What the cells of a grid take.

    Attributes:
        text, vision: the configurations of the language model and of the encoder.
    """

    setup: Setup
    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    amounts: Amounts
    module: MappingSizes = field(default_factory=MappingSizes)

    def seconds(self, cell: Cell) -> float:
        """Estimate what a cell takes; the first one's module is trained with it."""
        plan = self._plan(cell)
        taken = self._asking(plan)
        if cell.name == FULL:
            # The weights are read, written and read again.
            taken += 3 * self._weights / _DISK + self._features()
            taken += self._training(plan, self.setup.questions)
        if cell.compression is not None:
            taken += self._compression(cell.compression.method)
        if cell.training is not None:
            taken += self._weights / _DISK + self._training(plan, cell.training.questions)
            taken += self._asking(plan)
        return taken

    def disk_bytes(self, cells: Iterable[Cell]) -> float:
        """Estimate what the checkpoints and features of cells take on disk."""
        compressed = {
            (cell.compression.method, str(cell.compression.pattern))
            for cell in cells
            if cell.compression is not None
        }
        media = self.amounts.media + self.amounts.asked_media
        features = media * self._encoder.num_rows * self._d_vis * _BYTES
        return self._weights * (1 + len(compressed)) + features

    def _training(self, plan: Plan, questions: int) -> float:
        exchanges = math.ceil(self.setup.pictures * self.amounts.exchanges)
        trained = self._pass(self.setup.pictures, exchanges, self._answer)
        sizes = self._decoder
        step = self._through(trained.forward_flops(sizes, plan), plan)
        step += self._through(trained.backward_flops(sizes, plan), plan)
        step += 3 * self._in_module(self.setup.pictures)
        return math.ceil(questions / exchanges) * step

    def _asking(self, plan: Plan) -> float:
        """Let a model answer, tell the loss of right answers, and continue a text."""
        probes = max(self.amounts.probes, 1e-9)
        media = min(self.amounts.asked_media, math.ceil(self.setup.many / probes))
        groups = math.ceil(media / _PICTURES)
        exchanges = math.ceil(_PICTURES * probes)
        asked = self._pass(_PICTURES, exchanges * self.setup.num_beams, self._answer)
        flops = asked.forward_flops(self._decoder, plan)
        one = self._through(flops, plan) + self._in_module(_PICTURES)
        text = self._through(_PERPLEXITY.forward_flops(self._decoder, plan), plan)
        return groups * (self._steps + 1) * one + text

    @property
    def _steps(self) -> int:
        """Return how often what was said so far is computed again for an answer."""
        if self.setup.scoring is Scoring.CAPTIONS:
            return _CAPTION_STEPS
        return self._answer + 1

    def _compression(self, method: Method) -> float:
        """Read and write the weights; run what is calibrated on twice, a medium at a time."""
        taken = 3 * self._weights / _DISK
        tasks = {Method.WANDA: 1, Method.ALPHA_SUBNET: len(self.setup.tasks)}.get(method, 0)
        plan = trim(Plan.full(self._decoder.num_layers))
        seen = self._pass(1, math.ceil(self.amounts.exchanges), self._answer)
        one = self._through(seen.forward_flops(self._decoder, plan), plan)
        return taken + tasks * self.setup.media * (2 * one + self._encoding)

    def _features(self) -> float:
        return (self.amounts.media + self.amounts.asked_media) * self._encoding

    @cached_property
    def _encoding(self) -> float:
        """Return the seconds that a medium takes to be decoded and encoded."""
        flops = vision_flops(self._encoder, self._encoder.num_layers)
        encoded = flops / (_FP32 * _REACHED)
        return encoded + self.amounts.pictures * _DECODING

    def _in_module(self, media: int) -> float:
        rows, d_llm = self._encoder.num_rows, self._decoder.embedding_size
        flops = media * module_flops(self.module, rows, self._d_vis, d_llm)
        return flops / (_FP32 * _REACHED)

    def _through(self, flops: int, plan: Plan) -> float:
        """Return what a pass takes: its arithmetic, or reading the weights that its plan needs."""
        read = self._weights * self._share(plan)
        return max(flops / _BF16, read / _MEMORY) / _REACHED

    def _share(self, plan: Plan) -> float:
        """Return the share of the work that is left under a plan, of a row in each class."""
        rows = Pass(dict.fromkeys(TokenClass, 1), 1, 1)
        full = rows.forward_flops(self._decoder, Plan.full(self._decoder.num_layers))
        return rows.forward_flops(self._decoder, plan) / full

    def _pass(self, media: int, exchanges: int, answer: int) -> Pass:
        question = math.ceil(self.amounts.question / _CHARACTERS)
        rows = {
            TokenClass.VISUAL: media * self.module.num_queries,
            TokenClass.TEXT: exchanges * max(question - 1, 0),
            TokenClass.LAST: exchanges,
            TokenClass.GENERATED: exchanges * (answer - 1),
        }
        length = math.ceil(sum(rows.values()) / media)
        return Pass(rows, length, exchanges * answer)

    def _plan(self, cell: Cell) -> Plan:
        policy = SkipPolicy.model_validate(cell.policy or {})
        return resolve(cell.name, policy, self._decoder.num_layers).plan

    @property
    def _answer(self) -> int:
        """Return the tokens of an answer, its end among them."""
        return math.ceil(self.amounts.answer / _CHARACTERS) + 1

    @property
    def _d_vis(self) -> int:
        return self._encoder.hidden_size

    @cached_property
    def _encoder(self) -> VisionSizes:
        """All of whose layers run, and all of whose rows are read."""
        return VisionSizes.of_tower(self.vision)

    @cached_property
    def _decoder(self) -> DecoderSizes:
        return DecoderSizes.from_config(self.text)

    @cached_property
    def _weights(self) -> float:
        """Return the bytes of the language model's weights."""
        sizes = self._decoder
        d, d_q = sizes.hidden_size, sizes.num_heads * sizes.head_dim
        attention = 2 * d * (d_q + sizes.num_kv_heads * sizes.head_dim)
        ffn = (3 if sizes.is_gated else 2) * d * sizes.ffn_size
        head = sizes.embedding_size * sizes.vocab_size
        return _BYTES * (sizes.num_layers * (attention + ffn) + head)
