"""A frozen language model of LLaMA's or OPT's type, run on packed rows."""

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

LANGUAGE_MODEL_TYPES = ("llama", "opt")
_FORBIDDEN = -1e9  # added to a score; finite, so that a padding row that sees nothing stays finite


class FrozenLanguageModel:
    """A language model that is never trained; gradients pass through it to its inputs."""

    def __init__(self, model: PreTrainedModel) -> None:
        kind = model.config.model_type
        if kind not in LANGUAGE_MODEL_TYPES:
            raise ValueError(
                f"The language model is of type {kind!r}: expected one of "
                f"{', '.join(LANGUAGE_MODEL_TYPES)}."
            )
        self._model = cast(Any, model)  # transformers leaves much untyped
        # Explicit attention trains faster on a CPU than SDPA's backward with a mask.
        self._model.set_attn_implementation("eager")
        self._model.requires_grad_(False).eval()
        self._embedding = self._model.get_input_embeddings()
        self._head = self._model.get_output_embeddings()

    @property
    def width(self) -> int:
        """Return the width of an embedding; OPT-350M's is not that of its blocks."""
        return int(self._embedding.weight.shape[1])

    @property
    def dtype(self) -> torch.dtype:
        """Return the type of the weights and activations."""
        dtype: torch.dtype = self._model.dtype
        return dtype

    def embed(self, ids: Tensor) -> Tensor:
        """Embed ids `[B, T]` as `[B, T, d_llm]`."""
        rows: Tensor = self._embedding(ids)
        return rows

    def hidden(self, rows: Tensor, positions: Tensor, allowed: Tensor) -> Tensor:
        """Run all blocks and the last norm.

        Args:
            rows: embeddings, `[B, T, d_llm]`.
            positions: `[B, T]`, from 0.
            allowed: which row sees which, `[B, T, T]`, boolean.
        """
        mask = torch.zeros(allowed.shape, dtype=rows.dtype, device=rows.device)
        mask = mask.masked_fill(~allowed, _FORBIDDEN)[:, None]
        hidden: Tensor = self._model.base_model(
            inputs_embeds=rows, attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Apply the head to chosen rows `[N, D]`; returns fp32."""
        logits: Tensor = self._head(hidden)
        return logits.float()


def load_language_model(
    folder: Path, dtype: torch.dtype, device: torch.device
) -> FrozenLanguageModel:
    """Load a folder that transformers can load.

    Raises:
        ValueError: The folder holds no model, or one of another type than LLaMA or OPT.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no language model: it has no config.json.")
    kind = AutoConfig.from_pretrained(folder).model_type
    if kind not in LANGUAGE_MODEL_TYPES:
        raise ValueError(
            f"{folder} holds a model of type {kind!r}: expected a language model of type "
            f"{' or '.join(LANGUAGE_MODEL_TYPES)}."
        )
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    return FrozenLanguageModel(model.to(device))


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer beside a language model."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return tokenizer
