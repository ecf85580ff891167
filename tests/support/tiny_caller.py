"""Writes a small checkpoint whose greedy answers are known, and which calls a function if asked to.

Its weights are made, not trained: hidden states have one dimension for each token. The head follows
each word of an answer by the next, and attention, which is uniform, tells whether a sign is in the
prompt.
"""

from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tiny_llava import HERMES_TEMPLATE, make_checkpoint
from tokenizers import AddedToken, Tokenizer
from torch import Tensor

ARGUMENTS = {"number": 2, "color": "red"}
# Each word is one token, and stands in one place only.
_CALL = ("<tool_call>", "\n", '{"name": "count", "arguments": ', '{"number": ', "2", ', "color": ',
         '"red"', "}}", "\n</tool_call>", "</s>")  # fmt: skip
SAID_BEFORE, SAID_INSTEAD = "Let me see.", "There is nothing to count."
# What the answer begins with, by a sign in the prompt: a call, words and then a call. Without
# either of them it is words alone.
CALLS_AT_ONCE, SPEAKS_AND_CALLS = "!", "?"
_BEGINNINGS = {CALLS_AT_ONCE: _CALL[0], SPEAKS_AND_CALLS: SAID_BEFORE}
_FOLLOWED = (*pairwise(_CALL), (SAID_BEFORE, _CALL[0]), (SAID_INSTEAD, "</s>"))

_VOCAB, _HIDDEN, _FFN = 320, 384, 16
# A sign is seen in one of hundreds of rows: its logit lies between those of the two others.
_LEAST, _OF_A_SIGN, _MOST = 1.0, 100.0, 10_000.0


def make_caller(folder: Path) -> Path:
    """Write the checkpoint, whose template knows tools, into a folder; returns the folder."""
    make_checkpoint(
        folder, num_layers=1, num_heads=1, num_kv_heads=1, hidden=_HIDDEN, ffn=_FFN,
        vocab=_VOCAB, max_positions=2000,
    )  # fmt: skip
    (folder / "chat_template.jinja").write_text(HERMES_TEMPLATE)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    words = {word for pair in _FOLLOWED for word in pair}
    added = [AddedToken(it, normalized=False) for it in sorted(words) if len(it) > 1]
    tokenizer.add_tokens([it for it in added if tokenizer.token_to_id(it.content) is None])
    tokenizer.save(str(folder / "tokenizer.json"))
    file = folder / "model.safetensors"
    save_file(load_file(file) | _weights(tokenizer), file, metadata={"format": "pt"})
    return folder


def _weights(tokenizer: Tokenizer) -> dict[str, Tensor]:
    """Return the decoder's weights by their published names."""

    def id_of(word: str) -> int:
        [token_id] = tokenizer.encode(word, add_special_tokens=False).ids
        return token_id

    head = torch.zeros(_VOCAB, _HIDDEN)
    # The prompt ends with it.
    head[id_of(SAID_INSTEAD), id_of(":")] = _LEAST
    for word, following in _FOLLOWED:
        head[id_of(following), id_of(word)] = _MOST
    values, output = torch.zeros(_HIDDEN, _HIDDEN), torch.zeros(_HIDDEN, _HIDDEN)
    for number, (sign, word) in enumerate(_BEGINNINGS.items()):
        values[number, id_of(sign)] = 1
        output[_VOCAB + number, number] = 1
        head[id_of(word), _VOCAB + number] = _OF_A_SIGN
    tensors = {
        "lm_head.weight": head,
        "model.embed_tokens.weight": torch.eye(_VOCAB, _HIDDEN),
        "model.norm.weight": torch.ones(_HIDDEN),
        "model.layers.0.input_layernorm.weight": torch.ones(_HIDDEN),
        "model.layers.0.self_attn.q_proj.weight": torch.zeros(_HIDDEN, _HIDDEN),
        "model.layers.0.self_attn.v_proj.weight": values,
        "model.layers.0.self_attn.o_proj.weight": output,
        "model.layers.0.mlp.down_proj.weight": torch.zeros(_HIDDEN, _FFN),
    }
    return {f"language_model.{name}": tensor for name, tensor in tensors.items()}
