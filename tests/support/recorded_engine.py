"""An engine whose logits can be looked at: what it says at each token of an answer."""

from pathlib import Path

import torch
from torch import Tensor

from skipserve.digests import digest_of
from skipserve.engine.engine import Engine
from skipserve.engine.limits import EngineLimits
from skipserve.engine.request import Image, Request, SamplingParams
from skipserve.model.batch import Batch
from skipserve.model.families import load_model
from skipserve.model.layers import KVCache
from skipserve.model.model import Model
from skipserve_policies.flops import prompt_classes
from skipserve_policies.plan import Plan, TokenClass

CPU = torch.device("cpu")


class _RecordingModel:
    """A loaded model that keeps the logits of each forward."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.logits: list[Tensor] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._model, name)

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        """Run a batch, and keep the logits of its wanted rows."""
        logits = self._model.forward(batch, cache)
        self.logits.append(logits.clone())
        return logits


class RecordedEngine:
    """Asks a checkpoint's own engine, in fp32, one question at a time.

    Attributes:
        num_rows: of a picture.
        config: of the model.
    """

    def __init__(self, folder: Path) -> None:
        model = load_model(folder, CPU, torch.float32)
        self._model = _RecordingModel(model)
        limits = EngineLimits(kv_cache_bytes=1 << 22, looks_ahead=False, uses_graphs=False)
        self._engine = Engine(self._model, limits)  # type: ignore[arg-type]
        self.config = model.config
        self.num_rows = model.config.sizes.rows_per_image
        self._asked = 0

    def answer(
        self, pixels: bytes, text: tuple[int, ...], plan: Plan, num_tokens: int
    ) -> tuple[list[int], Tensor]:
        """Ask about a picture, greedily; an end token ends nothing.

        Args:
            pixels: uint8, [S, S, 3].
            text: the ids that follow the picture's rows; if there are none, its last row is asked.
            plan: what runs.
            num_tokens: of the answer.

        Returns:
            The answer's tokens, and the logits that each was chosen by, [N, V].
        """
        self._asked += 1
        classes = [(TokenClass.VISUAL, self.num_rows), (TokenClass.TEXT, len(text))]
        image = Image(pixels, digest_of(pixels), self.num_rows)
        self._engine.add(
            Request(
                id=str(self._asked),
                prompt_ids=(self.config.image_token_id,) * self.num_rows + text,
                token_classes=prompt_classes(classes),
                images=(image,),
                sampling=SamplingParams(num_tokens, temperature=0.0, ends_at_eos=False),
                policy_name="asked",
                plan=plan,
            )
        )
        self._model.logits.clear()
        tokens: list[int] = []
        while self._engine.has_work:
            result = self._engine.step()
            assert not result.failed, result.failed
            tokens += [it.token_id for it in result.outputs if it.token_id is not None]
        return tokens, torch.cat(self._model.logits)
