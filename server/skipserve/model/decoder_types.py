"""What the type of a decoder decides beside its sizes: what is left out, biases, the window."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skipserve.model import fields
from skipserve_policies.sizes import OPT_MODEL_TYPE

_FULL, _SLIDING = "full_attention", "sliding_attention"
_QKV = frozenset({"q_proj", "k_proj", "v_proj"})
_FFN = frozenset({"gate_proj", "up_proj", "down_proj"})


@dataclass(frozen=True)
class DecoderType:
    """What transformers fills in where a `text_config` of this type is silent.

    Attributes:
        name: its `model_type`.
        max_positions: the longest context.
        eos_token_ids: tokens that end an answer.
        sliding_window: positions that a row attends to at most, itself one of them; None for all.
    """

    name: str
    max_positions: int
    eos_token_ids: tuple[int, ...]
    sliding_window: int | None

    def declared_positions(self, text: Mapping[str, Any]) -> int:
        """Return the longest context that a configuration declares."""
        return fields.whole_number(text, "max_position_embeddings", self.max_positions)

    def biased_layers(self, text: Mapping[str, Any]) -> frozenset[str]:
        """Return the linear layers of a block that have a bias."""
        if self.name == "qwen2":
            return _QKV
        if self.name != "llama":
            return frozenset()
        in_attention = fields.flag(text, "attention_bias", default=False)
        in_ffn = fields.flag(text, "mlp_bias", default=False)
        return (_QKV | {"o_proj"} if in_attention else frozenset()) | (_FFN if in_ffn else set())

    def window(self, text: Mapping[str, Any], num_layers: int) -> int | None:
        """Return how many positions a row attends to at most in some layer; None for all.

        A row at position q sees those after q - window, so that no row of a context as long as the
        window misses one. LLaMA's own code has no window, and its cache heeds one all the same.

        Raises:
            ValueError: a field is not what it should be, or a layer has a window of no size.
        """
        window = text.get("sliding_window", self.sliding_window)
        if self.name == "qwen2" and not fields.flag(text, "use_sliding_window", default=False):
            window = None
        kinds = _layer_types(text)
        if window is None:
            if _SLIDING in kinds:
                raise ValueError(
                    f"text_config.layer_types holds {_SLIDING}, and no window is set "
                    "(sliding_window, for qwen2 with use_sliding_window)"
                )
            return None
        window = fields.whole_number({"sliding_window": window}, "sliding_window", 1)
        return window if self._slides(text, kinds, num_layers) else None

    def _slides(self, text: Mapping[str, Any], kinds: list[str], num_layers: int) -> bool:
        """Return whether some layer has the window, where one is set."""
        if self.name == "mistral":
            return True
        if self.name == "qwen2" and not kinds:
            return fields.count(text, "max_window_layers", 28) < num_layers
        return not kinds or _SLIDING in kinds


def _layer_types(text: Mapping[str, Any]) -> list[str]:
    kinds = text.get("layer_types") or []
    if not isinstance(kinds, list) or not all(kind in (_FULL, _SLIDING) for kind in kinds):
        raise ValueError(
            f"text_config.layer_types is {kinds!r}; it must be a list of {_FULL} and {_SLIDING}"
        )
    return kinds


DECODER_TYPES = {
    kind.name: kind
    for kind in (
        DecoderType("llama", 2048, (2,), None),
        DecoderType("mistral", 131072, (2,), 4096),
        DecoderType("qwen2", 32768, (), 4096),
        DecoderType(OPT_MODEL_TYPE, 2048, (2,), None),
    )
}
