"""What a request costs under a plan, in FLOPs; one multiply-add is two.

Matrix products only: norms, RoPE, activations and softmax are left out, about 0.04 % at 636
tokens. For `nq` rows that run attention, `nk` that project K/V, `nf` that run the FFN and `P`
attended (query, key) pairs, one layer costs

    F = 2 nq d d_q  +  4 nk d d_kv  +  4 d_q P  +  2 nq d_q d  +  2 g nf d m

with d hidden, d_q and d_kv all query and all key heads, m the FFN's size, g = 3 for a gated FFN and
2 for a plain one. Where the embedding has a width e of its own, a row costs 2 e d more on its way
in, and a position of the head on its way out. `exact` counts the causal pairs that are computed;
`dense` counts all pairs of a forward pass, as published figures do.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Self

from skipserve_policies.narrowing import (
    Departure,
    Narrowing,
    Stretch,
    VisualRows,
    pivot_counts,
    stretches,
)
from skipserve_policies.plan import Plan, Sublayers, TokenClass
from skipserve_policies.reduction import Reduction, reduces_features
from skipserve_policies.schema import Dropper, Reducer
from skipserve_policies.sizes import (
    DecoderSizes,
    MappingSizes,
    Modality,
    ModelSizes,
    VisionSizes,
)

# A prompt as runs of rows of one class, in order.
Segments = Sequence[tuple[TokenClass, int]]


@dataclass(frozen=True)
class Rows:
    """Rows of one class in one forward or several.

    Attributes:
        count: how many rows.
        pairs: the (query, key) pairs that they attend to in a layer where they all run attention.
    """

    count: int = 0
    pairs: int = 0

    def __add__(self, other: Self) -> "Rows":
        return Rows(self.count + other.count, self.pairs + other.pairs)


RowsByClass = Mapping[TokenClass, Rows]


@dataclass(frozen=True)
class RequestFlops:
    """The cost of one request, by part.

    Choosing among rows before the decoder is the projector's, inside it the prefill's.
    """

    vision: int
    projector: int
    prefill: int
    decode: int
    head: int

    @property
    def total(self) -> int:
        """The sum of the parts."""
        return self.vision + self.projector + self.llm

    @property
    def llm(self) -> int:
        """The decoder's part, its head included."""
        return self.prefill + self.decode + self.head


@dataclass(frozen=True)
class Request:
    """The shape of a request, as far as its cost depends on it.

    Attributes:
        prompt: token classes of all prompt rows, the last one marked LAST.
        num_generated: tokens that are answered; the last of them is never fed back.
        num_cached: leading prompt rows whose K/V are at hand.
        num_images: images that the vision tower must encode.
        num_scored: tokens of the prompt whose probabilities are told: so many of its positions have
            logits, besides the last.
    """

    prompt: Sequence[TokenClass]
    num_generated: int
    num_cached: int = 0
    num_images: int = 0
    num_scored: int = 0


def prompt_classes(segments: Segments) -> tuple[TokenClass, ...]:
    """Spell out a prompt row by row and mark its last row.

    [(TEXT, 2), (VISUAL, 3), (TEXT, 2)] gives TEXT TEXT VISUAL VISUAL VISUAL TEXT LAST.

    Raises:
        ValueError: there is no row.
    """
    classes = [token_class for token_class, count in segments for _ in range(count)]
    if not classes:
        raise ValueError("a prompt has at least one row")
    return (*classes[:-1], TokenClass.LAST)


def count_rows(
    classes: Iterable[TokenClass], first_position: int = 0, context: int | None = None
) -> dict[TokenClass, Rows]:
    """Count rows and attended pairs by class, for rows at consecutive positions.

    Args:
        classes: the class of each row.
        first_position: the position of the first of them: how many keys precede it.
        context: keys that each row is paired with (dense counting); None counts those at or before
            the row.
    """
    counted: dict[TokenClass, Rows] = {}
    position = first_position
    for token_class, run in groupby(classes):
        n = sum(1 for _ in run)
        causal = n * position + n * (n + 1) // 2
        rows = Rows(n, causal if context is None else n * context)
        counted[token_class] = counted.get(token_class, Rows()) + rows
        position += n
    return counted


def decoder_flops(sizes: DecoderSizes, plan: Plan, rows: RowsByClass) -> int:
    """Return what rows cost under a plan, up to the last block: the head aside."""
    return stretch_flops(sizes, plan, range(plan.num_layers), rows)


def stretch_flops(sizes: DecoderSizes, plan: Plan, layers: range, rows: RowsByClass) -> int:
    """Return what rows cost in some layers under a plan, embedding with the first of them."""
    assert plan.num_layers == sizes.num_layers
    num_rows = 0 if layers.start else sum(counted.count for counted in rows.values())
    sublayers = plan.sublayers_in(layers.start, layers.stop)
    return _resizing_flops(sizes, num_rows) + sum(
        _work_flops(sizes, sublayers[token_class], counted) for token_class, counted in rows.items()
    )


def ranking_flops(sizes: DecoderSizes, narrowing: Narrowing, entering: Stretch) -> int:
    """Return what it costs to choose which rows go on behind some layers.

    The attention of a row to all others takes its query and one product a head: of the last row, or
    with sparsevlm of all behind the images. Pyramiddrop projects keys and values of all rows for it
    besides, at the layer that they are about to enter. Dart compares each pivot with all visual
    rows. Sparsevlm compares the rows behind the images with the visual ones, once, and those that
    it merges with each other.
    """
    leaving = entering.leaving
    if leaving is None:
        return 0
    d, d_q = sizes.hidden_size, sizes.num_heads * sizes.head_dim
    d_kv, num_rows = sizes.num_kv_heads * sizes.head_dim, len(entering.prompt)
    looking = 2 * d * d_q + 2 * d_q * num_rows
    match narrowing.method:
        case Dropper.FASTV:
            return looking
        case Dropper.PYRAMIDDROP:
            return looking + 4 * (num_rows - entering.num_cached) * d * d_kv
        case Dropper.DART:
            behind = VisualRows.of(entering.prompt, 1).num_behind
            return 2 * sum(pivot_counts(leaving.num_before, behind)) * leaving.num_before * d
        case Dropper.SPARSEVLM:
            behind = VisualRows.of(entering.prompt, 1).num_behind
            is_first = entering.layers.start == 0
            rating = 2 * behind * leaving.num_before * d if is_first else 0
            merging = merging_flops(sizes, leaving) + 2 * leaving.num_merging**2 * d
            return rating + behind * looking + merging
        case _:
            return 0


def merging_flops(sizes: DecoderSizes, leaving: Departure) -> int:
    """Return what it costs to average the rows that are merged, of those that were there."""
    return 2 * leaving.num_merged * leaving.num_before * sizes.hidden_size


def _resizing_flops(sizes: DecoderSizes, num_rows: int) -> int:
    """Return what leads rows from the embedding's width to that of the blocks, or back."""
    return 0 if sizes.word_size is None else 2 * sizes.word_size * sizes.hidden_size * num_rows


def _work_flops(sizes: DecoderSizes, layers: Sublayers, rows: Rows) -> int:
    d, d_q = sizes.hidden_size, sizes.num_heads * sizes.head_dim
    d_kv = sizes.num_kv_heads * sizes.head_dim
    num_ffn_products = 3 if sizes.is_gated else 2
    attention = 4 * rows.count * d * d_q + 4 * d_q * rows.pairs
    kv = 4 * rows.count * d * d_kv
    ffn = 2 * num_ffn_products * rows.count * d * sizes.ffn_size
    return layers.attention * attention + layers.kv * kv + layers.ffn * ffn


def head_flops(sizes: DecoderSizes, num_positions: int) -> int:
    """Return what the logits of some positions cost."""
    head = 2 * sizes.embedding_size * sizes.vocab_size * num_positions
    return head + _resizing_flops(sizes, num_positions)


def vision_flops(sizes: VisionSizes, num_layers: int) -> int:
    """Return what `num_layers` of the tower cost for one medium, the patch embedding included.

    A layer costs `8 n d d + 4 n n d + 4 n d m`, for n rows; where a video is seen, see below.
    """
    d, n = sizes.hidden_size, sizes.num_rows
    embedding = 2 * sizes.num_patches * sizes.num_channels * sizes.patch_size**2 * d
    is_video = sizes.modality is Modality.VIDEO
    attention = _divided_flops(sizes) if is_video else _tower_attention_flops(n, d)
    return embedding + num_layers * (attention + 4 * n * d * sizes.ffn_size)


def _tower_attention_flops(num_rows: int, d: int) -> int:
    return 8 * num_rows * d**2 + 4 * num_rows**2 * d


def _divided_flops(sizes: VisionSizes) -> int:
    """Count TimeSformer's attention: of each patch over time, then of each frame over space.

    Source: "Is Space-Time Attention All You Need for Video Understanding?", arXiv 2102.05095; there
    is one more matrix behind that over time, and each frame has a copy of the class.
    """
    d, frames, patches = sizes.hidden_size, sizes.num_frames, sizes.num_frame_patches
    time = patches * (_tower_attention_flops(frames, d) + 2 * frames * d**2)
    return time + frames * _tower_attention_flops(patches + 1, d)


def projector_flops(sizes: ModelSizes, reduction: Reduction | None = None) -> int:
    """Return what it costs to make rows of one image's features, and to choose among either."""
    choosing = _choosing_flops(sizes, reduction)
    n, d_vis, d = sizes.vision.num_features, sizes.vision.feature_size, sizes.decoder.embedding_size
    if reduction is not None and reduces_features(reduction, sizes):
        n = reduction.num_rows
    if isinstance(sizes.projector, MappingSizes):
        return choosing + _mapping_flops(sizes.projector, n, d_vis, d)
    return choosing + 2 * n * d_vis * d + 2 * n * d**2


def _choosing_flops(sizes: ModelSizes, reduction: Reduction | None) -> int:
    """Return what it costs to choose among the rows of one image.

    Visionzip and vispruner look at the attention of the tower's class token to its rows, and at the
    likeness of the others' keys to those they are merged into, or of all patches' features to each
    other; divprune, at the likeness of all rows to each other.
    """
    if reduction is None:
        return 0
    vision, n = sizes.vision, sizes.rows_per_image
    attention = 2 * vision.num_rows * vision.hidden_size
    match reduction.method:
        case Reducer.VISIONZIP:
            # One of the rows that are left is the class token's, beside the patches.
            num_joining = n + 1 - reduction.num_rows
            key_size = vision.hidden_size // vision.num_heads
            return attention + 2 * num_joining * reduction.num_merged * key_size
        case Reducer.VISPRUNER:
            return attention + 2 * n * n * vision.feature_size
        case Reducer.DIVPRUNE:
            return 2 * n * n * sizes.decoder.embedding_size
        case _:
            return 0


def _mapping_flops(sizes: MappingSizes, num_features: int, d_vis: int, d: int) -> int:
    """Return what a mapping module costs: in its last layer, only the queries read and go on."""
    w, m, q = sizes.hidden_size, sizes.ffn_size, sizes.num_queries
    n = num_features + q

    def layer(rows: int) -> int:
        attention = 4 * rows * w**2 + 4 * n * w**2 + 4 * rows * n * w
        return attention + 4 * rows * w * m

    ends = 2 * num_features * d_vis * w + 2 * q * w * d_vis + 2 * q * d_vis * d
    return ends + (sizes.num_layers - 1) * layer(n) + layer(q)


def request_flops(
    sizes: ModelSizes,
    plan: Plan,
    request: Request,
    reduction: Reduction | None = None,
    narrowing: Narrowing | None = None,
    *,
    dense: bool = False,
    trimmed: bool = True,
) -> RequestFlops:
    """Return what a request costs under a plan.

    Args:
        sizes: the model.
        plan: the table as it runs; trim it first, or not, as `trimmed` says. Where tokens of the
            prompt are scored, it is trimmed for that.
        request: the shape of the request, reduced where images are.
        reduction: what its images are reduced by, if anything.
        narrowing: which rows leave inside the decoder, if any.
        dense: count all pairs of a forward pass, not the causal ones alone.
        trimmed: whether the vision tower stops at the layer whose output is used.
    """
    seen = stretches(
        narrowing,
        request.prompt,
        request.num_cached,
        num_layers=plan.num_layers,
        image_rows=sizes.rows_per_image,
    )
    num_steps = max(request.num_generated - 1, 0)
    prefill = decode = 0
    for stretch in seen:
        num_rows = len(stretch.prompt)
        prompt = count_rows(
            stretch.prompt[stretch.num_cached :],
            first_position=stretch.num_cached,
            context=num_rows if dense else None,
        )
        generated = count_rows([TokenClass.GENERATED] * num_steps, first_position=num_rows)
        prefill += stretch_flops(sizes.decoder, plan, stretch.layers, prompt)
        decode += stretch_flops(sizes.decoder, plan, stretch.layers, generated)
        if narrowing is not None:
            prefill += ranking_flops(sizes.decoder, narrowing, stretch)
    vision_layers = sizes.vision.num_layers_used if trimmed else sizes.vision.num_layers
    return RequestFlops(
        vision=request.num_images * vision_flops(sizes.vision, vision_layers),
        projector=request.num_images * projector_flops(sizes, reduction),
        prefill=prefill,
        decode=decode,
        head=head_flops(sizes.decoder, request.num_generated + request.num_scored),
    )
