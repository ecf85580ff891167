"""How well a language model continues a text that it has not seen, under its plan.

The text is of decisions of this project, written in 2026: no model that is measured was trained
on it. It is frozen: what was measured before stays comparable.
"""

import math
from importlib.resources import files

import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerBase

from skipserve_training.mapping.language import FrozenLanguageModel
from skipserve_training.mapping.packing import Example, pack

TEXT = "held_out_text.txt"
_PIECE, _PROMPT = 256, 16


def held_out_text() -> str:
    """Return the text."""
    return files("skipserve_training.paper").joinpath(TEXT).read_text()


@torch.inference_mode()
def perplexity(
    language: FrozenLanguageModel, tokenizer: PreTrainedTokenizerBase, text: str
) -> float:
    """Return the perplexity of pieces of 256 tokens, without their first 16.

    Those are the prompt, and all others generated tokens: so a plan that skips for generated
    tokens has an effect.
    """
    ids = tuple(tokenizer(text)["input_ids"])
    pieces = [ids[first : first + _PIECE] for first in range(0, len(ids), _PIECE)]
    batch = pack(
        [[Example(piece[:_PROMPT], piece[_PROMPT:], 0)] for piece in pieces if len(piece) > _PROMPT]
    ).to(language.device)
    hidden = language.hidden(language.embed(batch.ids), batch).flatten(0, 1)[batch.rows]
    return math.exp(F.cross_entropy(language.logits(hidden), batch.targets).item())
