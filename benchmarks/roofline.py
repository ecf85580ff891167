"""What a forward takes at least, from the arithmetic of its products and the bytes that they read.

Each product takes the longer of its FLOPs at the device's peak and its bytes at the device's
bandwidth: of a projection the weights, of attention the keys and values. All else counts nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from skipserve_policies.flops import count_rows, projector_flops, vision_flops
from skipserve_policies.plan import Ffn, Plan, TokenClass
from skipserve_policies.sizes import ModelSizes

# Of a step on a GPU, unless the engine is told otherwise.
STEP_ROWS = 2048


@dataclass(frozen=True)
class Ceilings:
    """What a device can do, as it was measured.

    Attributes:
        flops: of 16-bit matrix products, in one second.
        bandwidth: of its memory, in bytes a second.
    """

    flops: float
    bandwidth: float

    def seconds(self, flops: float, num_bytes: float) -> float:
        """Return what a product takes at least."""
        return max(flops / self.flops, num_bytes / self.bandwidth)


@dataclass(frozen=True)
class Chunk:
    """Rows of one sequence in a forward.

    Attributes:
        plan: what is computed; counted as it stands, so trim it first where it runs trimmed.
        classes: of the rows.
        num_cached: positions before them.
    """

    plan: Plan
    classes: tuple[TokenClass, ...]
    num_cached: int = 0


@dataclass(frozen=True)
class Roofline:
    """The least time of forwards on a device.

    Attributes:
        sizes: of the model.
        ceilings: of the device.
        itemsize: bytes of a number.
    """

    sizes: ModelSizes
    ceilings: Ceilings
    itemsize: int = 2

    def decode_seconds(self, plans: Sequence[Plan], context: int) -> float:
        """Return what a step takes in which sequences decode, each with so many keys."""
        last = (TokenClass.GENERATED,)
        chunks = [Chunk(plan, last, num_cached=context - 1) for plan in plans]
        return self.blocks_seconds(chunks) + self.head_seconds(len(plans))

    def prefill_seconds(self, plan: Plan, classes: Sequence[TokenClass]) -> float:
        """Return what the forward of one whole prompt takes."""
        return self.blocks_seconds([Chunk(plan, tuple(classes))]) + self.head_seconds(1)

    def request_seconds(
        self, plan: Plan, classes: Sequence[TokenClass], num_new_tokens: int, batch: int
    ) -> float:
        """Return a request's share of the time, where so many of its kind are under way.

        Where these are enough, each step has new prompts, as many as fit, beside the rows of
        answers, and reads the weights once for both. Of fewer, each prompt is a step of its own.
        """
        context = len(classes) + num_new_tokens // 2
        num_rows = len(classes) + num_new_tokens - 1
        count = min(batch // num_new_tokens, STEP_ROWS // num_rows)
        if count:
            answers = [Chunk(plan, (TokenClass.GENERATED,), context - 1)] * (num_new_tokens - 1)
            chunks = [Chunk(plan, tuple(classes)), *answers] * count
            step = self.blocks_seconds(chunks) + self.head_seconds(count * num_new_tokens)
            return self.vision_seconds() + step / count
        step = self.decode_seconds([plan] * batch, context)
        prompt = self.vision_seconds() + self.prefill_seconds(plan, classes)
        return prompt + (num_new_tokens - 1) * step / batch

    def vision_seconds(self) -> float:
        """Return what one picture takes in the tower and the projector."""
        sizes = self.sizes
        flops = vision_flops(sizes.vision, sizes.vision.num_layers_used) + projector_flops(sizes)
        return flops / self.ceilings.flops

    def head_seconds(self, num_rows: int) -> float:
        """Return what the logits of some rows take."""
        decoder = self.sizes.decoder
        return self._product(num_rows, decoder.embedding_size, decoder.vocab_size)

    def blocks_seconds(self, chunks: Sequence[Chunk]) -> float:
        """Return what all blocks take: a layer's weights are read once, whoever needs them."""
        decoder = self.sizes.decoder
        return sum(self._layer(chunks, layer) for layer in range(decoder.num_layers))

    def _layer(self, chunks: Sequence[Chunk], layer: int) -> float:
        decoder = self.sizes.decoder
        hidden, ffn = decoder.hidden_size, decoder.ffn_size
        d_q, d_kv = (
            heads * decoder.head_dim for heads in (decoder.num_heads, decoder.num_kv_heads)
        )
        works = [_work(chunk, layer) for chunk in chunks]
        num_queries = sum(work.num_queries for work in works)
        num_ffn = sum(work.num_ffn for work in works)
        num_keys = sum(work.num_keys for work in works)
        key_bytes = 2 * d_kv * self.itemsize * num_keys
        products = (
            self._product(num_queries, hidden, d_q),
            self._product(sum(work.num_kv for work in works), hidden, 2 * d_kv),
            self._product(num_queries, d_q, hidden),
            self._product(num_ffn, hidden, (1 + decoder.is_gated) * ffn),
            self._product(num_ffn, ffn, hidden),
            self.ceilings.seconds(4 * d_q * sum(work.num_pairs for work in works), key_bytes),
        )
        return sum(products)

    def _product(self, num_rows: int, num_inputs: int, num_outputs: int) -> float:
        """Return what a linear layer takes; nothing without rows."""
        if not num_rows:
            return 0.0
        size = num_inputs * num_outputs
        return self.ceilings.seconds(2 * num_rows * size, self.itemsize * size)


@dataclass(frozen=True)
class _Work:
    """What the rows of a chunk do in one layer.

    Attributes:
        num_pairs: of a query and a key that it sees.
        num_keys: that are read, each once.
    """

    num_queries: int
    num_kv: int
    num_ffn: int
    num_pairs: int
    num_keys: int


def _work(chunk: Chunk, layer: int) -> _Work:
    plan = chunk.plan
    counts = count_rows(chunk.classes, first_position=chunk.num_cached)
    attending = [rows for c, rows in counts.items() if plan.cell(layer, c).attention]
    return _Work(
        num_queries=sum(rows.count for rows in attending),
        num_kv=sum(rows.count for c, rows in counts.items() if plan.kv[c][layer]),
        num_ffn=sum(
            rows.count for c, rows in counts.items() if plan.cell(layer, c).ffn is not Ffn.NONE
        ),
        num_pairs=sum(rows.pairs for rows in attending),
        num_keys=chunk.num_cached + len(chunk.classes) if attending else 0,
    )
