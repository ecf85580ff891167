"""What a step computed, by the formula that also gives the planned FLOPs."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from skipserve.engine.reports import Executed
from skipserve.engine.scheduler import Step
from skipserve.engine.sequence import Sequence
from skipserve_policies import flops
from skipserve_policies.plan import Plan, TokenClass, trim
from skipserve_policies.sizes import ModelSizes


@dataclass
class _Tally:
    """The rows of one policy in a step.

    Attributes:
        plan: what they run.
        num_generated, num_pairs: decode rows, and the (query, key) pairs that they attend to.
        prompt: the other rows.
        num_logits: rows whose logits were computed.
        num_images: images that were encoded.
    """

    plan: Plan
    num_generated: int = 0
    num_pairs: int = 0
    prompt: dict[TokenClass, flops.Rows] = field(default_factory=dict)
    num_logits: int = 0
    num_images: int = 0

    def add_chunk(self, sequence: Sequence, start: int, stop: int) -> None:
        """Count rows of any class."""
        classes = sequence.request.token_classes[start:stop]
        num_generated = stop - start - len(classes)
        rows = flops.count_rows((*classes, *(TokenClass.GENERATED,) * num_generated), start)
        for token_class, counted in rows.items():
            self.prompt[token_class] = self.prompt.get(token_class, flops.Rows()) + counted

    @property
    def rows(self) -> dict[TokenClass, flops.Rows]:
        """All rows by class."""
        rows = dict(self.prompt)
        decoded = flops.Rows(self.num_generated, self.num_pairs)
        rows[TokenClass.GENERATED] = rows.get(TokenClass.GENERATED, flops.Rows()) + decoded
        return rows


class WorkCounter:
    """Counts what is computed on one model."""

    def __init__(self, sizes: ModelSizes) -> None:
        self._sizes = sizes
        self._full = trim(Plan.full(sizes.decoder.num_layers))
        self._image_flops = flops.projector_flops(sizes) + flops.vision_flops(
            sizes.vision, sizes.vision.num_layers_used
        )

    def executed(self, step: Step, num_encoded: Mapping[Sequence, int]) -> dict[str, Executed]:
        """Return what a step computed, by policy name.

        Args:
            step: its rows, all of which were launched.
            num_encoded: images that were encoded, by the sequence they were encoded for.
        """
        tallies: dict[tuple[str, int], _Tally] = {}
        for chunk in step.chunks:
            sequence, start, stop = chunk.sequence, chunk.start, chunk.stop
            key = (sequence.request.policy_name, sequence.plan.index)
            tally = tallies.get(key)
            if tally is None:
                tally = tallies[key] = _Tally(sequence.plan.plan)
            tally.num_logits += chunk.samples
            if start >= sequence.num_prompt and stop - start == 1:
                tally.num_generated += 1
                tally.num_pairs += stop
            else:
                tally.add_chunk(sequence, start, stop)
                tally.num_images += num_encoded.get(sequence, 0)
        executed: dict[str, Executed] = {}
        for (policy_name, _), tally in tallies.items():
            executed[policy_name] = executed.get(policy_name, Executed()) + self._executed(tally)
        return executed

    def _executed(self, tally: _Tally) -> Executed:
        sizes, rows = self._sizes.decoder, tally.rows
        shared = flops.head_flops(sizes, tally.num_logits) + tally.num_images * self._image_flops
        attention, ffn = _sublayers(tally.plan, rows)
        full_attention, full_ffn = _sublayers(self._full, rows)
        return Executed(
            flops=shared + flops.decoder_flops(sizes, tally.plan, rows),
            full_flops=shared + flops.decoder_flops(sizes, self._full, rows),
            attention=attention,
            ffn=ffn,
            skipped_attention=full_attention - attention,
            skipped_ffn=full_ffn - ffn,
            images=tally.num_images,
        )


def _sublayers(plan: Plan, rows: flops.RowsByClass) -> tuple[int, int]:
    """Return how often rows run attention and the FFN, each layer counted."""
    counts = [(plan.sublayers[c], counted.count) for c, counted in rows.items()]
    attention = sum(layers.attention * count for layers, count in counts)
    return attention, sum(layers.ffn * count for layers, count in counts)
