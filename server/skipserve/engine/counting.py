"""What a step computed, by the formula that also gives the planned FLOPs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from skipserve.engine.drops import Drops, Reached
from skipserve.engine.reports import Executed
from skipserve.engine.scheduler import Chunk, Step
from skipserve.engine.sequence import Counted, Sequence
from skipserve_policies import flops
from skipserve_policies.cost import trimmed_full
from skipserve_policies.narrowing import Stretch
from skipserve_policies.plan import Plan, Sublayers, TokenClass
from skipserve_policies.reduction import Reduction
from skipserve_policies.shapes import resize
from skipserve_policies.sizes import ModelSizes

RowCounts = dict[TokenClass, flops.Rows]
Classes = tuple[TokenClass, ...]


@dataclass
class _Tally:
    """The rows of one policy in a step.

    Attributes:
        plan: what they run.
        reduction: what their images are reduced by, if anything.
        num_generated, num_pairs: decode rows, and the (query, key) pairs that they attend to.
        num_absent: such pairs as there would be besides, with all rows of the images.
        prompt: the other rows.
        whole: what these stand for, with all rows of the images.
        num_logits: rows whose logits were computed.
        scores: whether tokens of the prompt are scored: all its rows then have logits.
        num_images: images that were encoded.
    """

    plan: Plan
    reduction: Reduction | None = None
    num_generated: int = 0
    num_pairs: int = 0
    num_absent: int = 0
    prompt: RowCounts = field(default_factory=dict)
    whole: RowCounts = field(default_factory=dict)
    num_logits: int = 0
    scores: bool = False
    num_images: int = 0

    def add_chunk(self, sequence: Sequence, start: int, stop: int, image_rows: int) -> None:
        """Count rows of any class; the model takes `image_rows` of an image that is not reduced."""
        prompt = sequence.request.token_classes
        _add(self.prompt, prompt, start, stop)
        if self.reduction is not None:
            resized = resize(prompt, self.reduction.num_rows, image_rows)
            _add(self.whole, resized.prompt, resized.place(start), resized.place(stop))

    @property
    def rows(self) -> RowCounts:
        """All rows by class."""
        return _with_decoded(self.prompt, flops.Rows(self.num_generated, self.num_pairs))

    @property
    def whole_rows(self) -> RowCounts:
        """All that they stand for, by class."""
        if self.reduction is None:
            return self.rows
        num_pairs = self.num_pairs + self.num_absent
        return _with_decoded(self.whole, flops.Rows(self.num_generated, num_pairs))


def _add(counts: RowCounts, prompt: Classes, start: int, stop: int) -> None:
    """Count rows of a prompt, and of the answer behind it."""
    classes = prompt[start:stop]
    num_generated = stop - start - len(classes)
    rows = flops.count_rows((*classes, *(TokenClass.GENERATED,) * num_generated), start)
    for token_class, counted in rows.items():
        counts[token_class] = counts.get(token_class, flops.Rows()) + counted


def _with_decoded(counts: RowCounts, decoded: flops.Rows) -> RowCounts:
    generated = counts.get(TokenClass.GENERATED, flops.Rows()) + decoded
    return {**counts, TokenClass.GENERATED: generated}


class WorkCounter:
    """Counts what is computed on one model."""

    def __init__(self, sizes: ModelSizes) -> None:
        self._sizes = sizes
        self._tower_flops = flops.vision_flops(sizes.vision, sizes.vision.num_layers_used)

    def executed(self, step: Step, num_encoded: Mapping[Sequence, int]) -> dict[str, Executed]:
        """Return what a step computed, by policy name.

        Args:
            step: its rows, all of which were launched.
            num_encoded: images that were encoded, by the sequence they were encoded for.
        """
        tallies: dict[Counted, _Tally] = {}
        executed: dict[str, Executed] = {}
        for chunk in step.chunks:
            sequence, start, stop = chunk.sequence, chunk.start, chunk.stop
            if sequence.drops is not None:
                name = sequence.request.policy_name
                narrowed = self._narrowed(chunk, sequence.drops, num_encoded.get(sequence, 0))
                executed[name] = executed.get(name, Executed()) + narrowed
                continue
            tally = tallies.get(sequence.counted_as)
            if tally is None:
                tally = tallies[sequence.counted_as] = _Tally(
                    sequence.plan.plan, sequence.request.reduction, scores=sequence.scores_prompt
                )
            tally.num_logits += chunk.samples
            if chunk.scored:
                tally.num_logits += len(chunk.scored)
            if start >= sequence.num_prompt and stop - start == 1:
                tally.num_generated += 1
                tally.num_pairs += stop
                if tally.reduction is not None:
                    tally.num_absent += self._num_absent(sequence, tally.reduction)
            else:
                tally.add_chunk(sequence, start, stop, self._sizes.rows_per_image)
                tally.num_images += num_encoded.get(sequence, 0)
        for (policy_name, *_), tally in tallies.items():
            executed[policy_name] = executed.get(policy_name, Executed()) + self._executed(tally)
        return executed

    def _num_absent(self, sequence: Sequence, reduction: Reduction) -> int:
        """Return how many rows of a prompt were taken away."""
        return len(sequence.request.images) * (self._sizes.rows_per_image - reduction.num_rows)

    def _executed(self, tally: _Tally) -> Executed:
        sizes, rows, whole = self._sizes.decoder, tally.rows, tally.whole_rows
        full = self._full(scores=tally.scores)
        head = flops.head_flops(sizes, tally.num_logits)
        attention, ffn = _sublayers(tally.plan.sublayers, rows)
        full_attention, full_ffn = _sublayers(full.sublayers, whole)
        return Executed(
            flops=head
            + tally.num_images * self._image_flops(tally.reduction)
            + flops.decoder_flops(sizes, tally.plan, rows),
            full_flops=head
            + tally.num_images * self._image_flops(None)
            + flops.decoder_flops(sizes, full, whole),
            attention=attention,
            ffn=ffn,
            skipped_attention=full_attention - attention,
            skipped_ffn=full_ffn - ffn,
            images=tally.num_images,
        )

    def _narrowed(self, chunk: Chunk, drops: Drops, num_images: int) -> Executed:
        """Return what a chunk computed of whose prompt rows leave, layer by layer."""
        sizes, plan = self._sizes.decoder, chunk.sequence.plan.plan
        head = flops.head_flops(sizes, chunk.samples + len(chunk.scored))
        full = self._full(scores=chunk.sequence.scores_prompt)
        images = num_images * self._image_flops(None)
        work, attention, ffn = head + images, 0, 0
        for stage, (start, stop) in enumerate(pairwise((0, *drops.layers, plan.num_layers))):
            rows = _rows_of(chunk.reached(stage))
            work += flops.stretch_flops(sizes, plan, range(start, stop), rows)
            if stage and chunk.ranked_from is not None:
                work += self._choosing(drops, drops.stretch(stage - 1, chunk.ranked_from))
            some = _sublayers(plan.sublayers_in(start, stop), rows)
            attention, ffn = attention + some[0], ffn + some[1]
        whole = _rows_of(chunk.reached(0))
        full_attention, full_ffn = _sublayers(full.sublayers, whole)
        return Executed(
            flops=work,
            full_flops=head + images + flops.decoder_flops(sizes, full, whole),
            attention=attention,
            ffn=ffn,
            skipped_attention=full_attention - attention,
            skipped_ffn=full_ffn - ffn,
            images=num_images,
            dropped=_num_left_behind(chunk, drops),
        )

    def _choosing(self, drops: Drops, entering: Stretch) -> int:
        """Return what it costs to choose the rows that go on behind some layers."""
        sizes = self._sizes.decoder
        if drops.fates is None:
            return flops.ranking_flops(sizes, drops.narrowing, entering)
        # Chosen before, they are only merged anew.
        assert entering.leaving is not None
        return flops.merging_flops(sizes, entering.leaving)

    def _full(self, *, scores: bool) -> Plan:
        """Return what the full model runs."""
        return trimmed_full(self._sizes.decoder.num_layers, scores=scores)

    def _image_flops(self, reduction: Reduction | None) -> int:
        """Return what one image costs before the decoder."""
        return self._tower_flops + flops.projector_flops(self._sizes, reduction)


def _num_left_behind(chunk: Chunk, drops: Drops) -> int:
    """Return how many visual rows left, of those that a chunk has brought or has ranked."""
    last = len(drops.layers)
    if chunk.ranked_from is not None:
        return drops.num_dropped(last)
    if chunk.waits:
        return 0
    return len(chunk.reached(0).rows) - len(chunk.reached(last).rows)


def _rows_of(reached: Reached) -> RowCounts:
    return flops.count_rows(map(TokenClass, reached.classes.tolist()), reached.start)


def _sublayers(sublayers: tuple[Sublayers, ...], rows: flops.RowsByClass) -> tuple[int, int]:
    """Return how often rows run attention and the FFN, each layer counted."""
    counts = [(sublayers[c], counted.count) for c, counted in rows.items()]
    attention = sum(layers.attention * count for layers, count in counts)
    return attention, sum(layers.ffn * count for layers, count in counts)
