"""A tiny model beside a reference that follows the formulas, and what both are fed."""

from pathlib import Path
from typing import Any

import torch
from model_batches import Rows
from reference_llava import ReferenceDecoder, steps_of_plan
from reference_opt import ReferenceOpt
from tiny_llava import DecoderType, make_checkpoint
from tiny_opt import OptShape
from torch import Tensor

from skipserve.model.llava import Llava
from skipserve_policies.plan import ANSWER_CLASSES, Plan, TokenClass

ACTIONS: tuple[dict[str, Any], ...] = (
    {"action": "skip_block"},
    {"action": "skip_ffn"},
    {"action": "skip_attention"},
    {"action": "skip_attention", "shared_norm": True},
    {"action": "parallel_ffn_attention", "shared_norm": True},
    {"action": "parallel_ffn_attention", "shared_norm": False},
    {"action": "parallel_blocks"},
)


# Of the rows that both are fed. The least that the kernels take: four heads of 16.
_HIDDEN = 64


class Subject:
    """A tiny checkpoint, in the product and in the reference: of LLaMA's type, or of OPT's."""

    def __init__(
        self,
        folder: Path,
        num_layers: int,
        device: torch.device,
        *,
        uses_triton: bool = False,
        decoder: DecoderType = DecoderType.LLAMA,
        opt: OptShape | None = None,
    ) -> None:
        narrow = opt is not None and opt.word_size is not None
        make_checkpoint(
            folder,
            num_layers=num_layers,
            hidden=48 if narrow else _HIDDEN,
            num_heads=4,
            num_kv_heads=2,
            ffn=48,
            opt=opt,
            decoder=decoder,
        )
        self.num_layers = num_layers
        self.uses_triton = uses_triton
        self.llava = Llava.load(folder, device, torch.float32, uses_triton=uses_triton)
        self.reference = (
            ReferenceDecoder(folder, num_heads=4, num_kv_heads=2)
            if opt is None
            else ReferenceOpt(folder, num_heads=4, opt=opt)
        )


def make_rows(prompt: str, num_generated: int, seed: int = 0) -> Rows:
    """Draw rows for a prompt written as t (text) and v (visual); its last row is LAST."""
    generator = torch.Generator().manual_seed(seed)
    kinds = {"t": TokenClass.TEXT, "v": TokenClass.VISUAL}
    classes = [kinds[letter] for letter in prompt]
    classes[-1] = TokenClass.LAST
    is_visual = torch.tensor([letter == "v" for letter in prompt] + [False] * num_generated)
    return Rows(
        ids=torch.randint(5, 300, (len(prompt) + num_generated,), generator=generator),
        classes=(*classes, *[TokenClass.GENERATED] * num_generated),
        features=torch.randn(prompt.count("v"), _HIDDEN, generator=generator),
        is_visual=is_visual,
    )


def answer_rows(rows: Rows) -> list[int]:
    return [index for index, c in enumerate(rows.classes) if c in ANSWER_CLASSES]


def assert_close(actual: Tensor, expected: Tensor) -> None:
    """Compare to 1e-4 of the expected logits' scale."""
    assert not actual.isnan().any()
    difference = (actual - expected).abs().max().item()
    assert difference <= 1e-4 * expected.abs().max().item()


def reference_logits(subject: Subject, rows: Rows, untrimmed: Plan) -> Tensor:
    embedded = subject.reference.embed(rows.ids, rows.is_visual, rows.features)
    return subject.reference.logits(embedded, rows.classes, steps_of_plan(untrimmed))
