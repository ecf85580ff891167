"""How a decoder of OPT's type is built, beside its sizes: from its configuration, no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from skipserve.model import fields


@dataclass(frozen=True)
class OptForm:
    """What decoders of OPT's type differ in.

    Attributes:
        is_post_norm: whether sums are normalised, and not what is fed to attention and FFN; as in
            OPT-350M.
        has_last_norm: whether the last block's output is normalised for the head.
        has_biases: whether the linear layers of the blocks have them.
        has_gains: whether the normalisations have gains and biases.
        activation: of the FFN, as transformers names it.
    """

    is_post_norm: bool
    has_last_norm: bool
    has_biases: bool
    has_gains: bool
    activation: str

    @classmethod
    def from_config(cls, text: Mapping[str, Any]) -> Self:
        """Read a `text_config`; what it leaves out is as in transformers.

        Raises:
            ValueError: a field is not what it should be.
        """
        is_pre_norm = fields.flag(text, "do_layer_norm_before", default=True)
        # Of checkpoints that are older than that normalisation.
        is_removed = fields.flag(text, "_remove_final_layer_norm", default=False)
        activation = text.get("activation_function")
        return cls(
            is_post_norm=not is_pre_norm,
            has_last_norm=is_pre_norm and not is_removed,
            has_biases=fields.flag(text, "enable_bias", default=True),
            has_gains=fields.flag(text, "layer_norm_elementwise_affine", default=True),
            activation="relu" if activation is None else activation,
        )
