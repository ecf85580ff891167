"""A frozen language model of LLaMA's or OPT's type, run on packed rows under a plan."""

from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any, Self, cast

import torch
from tokenizers import AddedToken
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from skipserve.engine.plans import plan_work
from skipserve.model.work import RowWork
from skipserve_policies.plan import Plan, trim
from skipserve_training.mapping.blocks import STACKS, Block, Sight, linears
from skipserve_training.mapping.lessons import IMAGE
from skipserve_training.mapping.packing import Batch
from skipserve_training.mapping.planned import run_blocks

LANGUAGE_MODEL_TYPES = tuple(STACKS)
_FORBIDDEN = -1e9  # added to a score; finite, so that a padding row that sees nothing stays finite


class FrozenLanguageModel:
    """A language model that is never trained; gradients pass through it to its inputs.

    It runs the full plan, or the one that `under` was given.

    Raises:
        ValueError: The model is of another type than LLaMA's or OPT's.
    """

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
        self._stack = STACKS[kind](model)
        self._work = plan_work(trim(Plan.full(len(self.blocks))))

    def under(self, plan: Plan) -> Self:
        """Return the same model, of the same weights, that runs a plan.

        Raises:
            ValueError: The plan is for another depth.
        """
        if plan.num_layers != len(self.blocks):
            raise ValueError(
                f"The plan is for {plan.num_layers} layers: the language model has "
                f"{len(self.blocks)}."
            )
        planned = copy(self)
        planned._work = plan_work(plan)
        return planned

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Return the blocks, in order."""
        return self._stack.blocks

    @property
    def width(self) -> int:
        """Return the width of an embedding; OPT-350M's is not that of its blocks."""
        return int(self._embedding.weight.shape[1])

    @property
    def dtype(self) -> torch.dtype:
        """Return the type of the weights and activations."""
        dtype: torch.dtype = self._model.dtype
        return dtype

    @property
    def device(self) -> torch.device:
        """Return where the weights are."""
        device: torch.device = self._embedding.weight.device
        return device

    @property
    def config(self) -> PretrainedConfig:
        """Return transformers' configuration."""
        config: PretrainedConfig = self._model.config
        return config

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the weights by the names of transformers' class; a tied head is the embedding."""
        seen: set[int] = set()
        for name, value in self._model.state_dict(keep_vars=True).items():
            if id(value) not in seen:
                seen.add(id(value))
                yield name, value.detach()

    @property
    def num_parameters(self) -> int:
        """Return the number of weights of all kinds; a tied head counts once."""
        return sum(weight.numel() for weight in self._model.parameters())

    def linears(self, layer: int, *, in_attention: bool) -> Iterator[tuple[str, nn.Linear]]:
        """Yield the linear layers of a block's attention, or of its FFN.

        Names are those of published LLaVA checkpoints, such as
        `language_model.model.layers.0.self_attn.q_proj.weight`.
        """
        for name, module in linears(self.blocks[layer], in_attention=in_attention):
            yield f"language_model.{self._stack.name}.{layer}.{name}.weight", module

    def embed(self, ids: Tensor) -> Tensor:
        """Embed ids `[B, T]` as `[B, T, d_llm]`."""
        rows: Tensor = self._embedding(ids)
        return rows

    def enter(self, rows: Tensor, batch: Batch) -> tuple[Tensor, Sight]:
        """Return the first block's input `[B, T, D]` for embeddings, and what the rows see."""
        mask = torch.zeros(batch.allowed.shape, dtype=rows.dtype, device=rows.device)
        mask = mask.masked_fill(~batch.allowed, _FORBIDDEN)[:, None]
        sight = Sight(mask, self._stack.factors(rows, batch.positions))
        return self._stack.enter(rows, batch.positions), sight

    def hidden(self, rows: Tensor, batch: Batch) -> Tensor:
        """Run the plan and the last norm.

        What rows hold in the end that emit no token of an answer is not said: a plan leaves out
        what nothing needs.

        Args:
            rows: embeddings, `[B, T, d_llm]`.
            batch: where they are, which sees which, and what each is.

        Returns:
            `[B, T, d_llm]`.
        """
        hidden, sight = self.enter(rows, batch)
        work = RowWork.of(self._work[batch.classes.flatten().cpu().numpy()].T, rows.device)
        return self._stack.leave(run_blocks(self.blocks, work, hidden, sight))

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
    """Load the tokenizer beside a language model; adds the token of an image where it has none."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    if IMAGE not in tokenizer.get_vocab():
        tokenizer.add_tokens([AddedToken(IMAGE, normalized=False, special=True)])
    return tokenizer
