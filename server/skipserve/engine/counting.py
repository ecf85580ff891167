"""What a step computed for a request, by the formula that also gives the planned FLOPs."""

from collections.abc import Sequence

from skipserve.engine.types import Executed
from skipserve_policies import flops
from skipserve_policies.plan import Plan, TokenClass, trim
from skipserve_policies.sizes import ModelSizes


class WorkCounter:
    """Counts what is computed on one model."""

    def __init__(self, sizes: ModelSizes) -> None:
        self._sizes = sizes
        self._full = trim(Plan.full(sizes.decoder.num_layers))
        self._image_flops = flops.projector_flops(sizes) + flops.vision_flops(
            sizes.vision, sizes.vision.num_layers_used
        )

    def executed(
        self,
        plan: Plan,
        classes: Sequence[TokenClass],
        *,
        first_position: int,
        num_images: int,
    ) -> Executed:
        """Return what a step computed for one request that got one token from it.

        Args:
            plan: the request's plan.
            classes: the classes of its rows in the step, which are at consecutive positions.
            first_position: the position of the first row.
            num_images: images that were encoded in the step.
        """
        rows = flops.count_rows(classes, first_position)
        shared = flops.head_flops(self._sizes.decoder, 1) + num_images * self._image_flops
        attention, ffn = _sublayers(plan, rows)
        full_attention, full_ffn = _sublayers(self._full, rows)
        return Executed(
            flops=shared + flops.decoder_flops(self._sizes.decoder, plan, rows),
            full_flops=shared + flops.decoder_flops(self._sizes.decoder, self._full, rows),
            attention=attention,
            ffn=ffn,
            skipped_attention=full_attention - attention,
            skipped_ffn=full_ffn - ffn,
        )


def _sublayers(plan: Plan, rows: flops.RowsByClass) -> tuple[int, int]:
    """Return how often rows run attention and the FFN, each layer counted."""
    counts = [(plan.sublayers[c], counted.count) for c, counted in rows.items()]
    attention = sum(layers.attention * count for layers, count in counts)
    return attention, sum(layers.ffn * count for layers, count in counts)
