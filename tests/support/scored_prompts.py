"""Scores of prompts' tokens, and what they are by the formulas of the policies, in float64."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from reference_llava import ReferenceDecoder, steps_of_policy
from torch import Tensor

from skipserve.engine.drops import Drops
from skipserve.engine.reports import PromptScores
from skipserve.engine.request import Image, Request, SamplingParams
from skipserve.model.llava import Llava
from skipserve_policies.flops import prompt_classes
from skipserve_policies.plan import TokenClass
from skipserve_policies.resolve import ResolvedPolicy
from skipserve_policies.schema import Rule

IMAGE_ID = 4


@dataclass(frozen=True)
class Scores:
    """What an engine tells of a prompt: S tokens, K alternatives each."""

    logprobs: NDArray[np.float32]
    ranks: NDArray[np.int32]
    top_ids: NDArray[np.int32]
    top: NDArray[np.float32]

    @classmethod
    def of(cls, told: PromptScores | None) -> "Scores":
        assert told is not None
        shape = (len(told.logprobs) // 4, told.num_top)
        return cls(
            np.frombuffer(told.logprobs, "<f4"),
            np.frombuffer(told.ranks, "<i4"),
            np.frombuffer(told.top_ids, "<i4").reshape(shape),
            np.frombuffer(told.top, "<f4").reshape(shape),
        )


def ask(
    name: str,
    texts: Sequence[Sequence[int]],
    images: Sequence[Image],
    policy: ResolvedPolicy,
    num_top: int | None = 3,
    sampling: SamplingParams | None = None,
) -> Request:
    """Return a request with images between texts, which scores its prompt unless K is None."""
    shown = tuple(image.reduced(policy.reduction) for image in images)
    ids, segments = list(texts[0]), [(TokenClass.TEXT, len(texts[0]))]
    for image, text in zip(shown, texts[1:], strict=True):
        ids += [IMAGE_ID] * image.num_rows + list(text)
        segments += [(TokenClass.VISUAL, image.num_rows), (TokenClass.TEXT, len(text))]
    request = Request(
        id=name,
        prompt_ids=tuple(ids),
        token_classes=prompt_classes(segments),
        images=shown,
        sampling=sampling or SamplingParams(2, temperature=0.0, ends_at_eos=False),
        policy_name=policy.name,
        plan=policy.plan,
        narrowing=policy.narrowing,
        num_prompt_logprobs=num_top,
    )
    return replace(request, plan=policy.plan_for(scores=request.num_scored > 0))


class LeavingReference(ReferenceDecoder):
    """A decoder in which rows leave before a layer: those that are left see them no more."""

    leaving: Tensor | None = None
    first_layer = 0

    def _unseen(self, name: str, num_rows: int) -> Tensor:
        unseen = super()._unseen(name, num_rows)
        if self.leaving is None or int(name.rsplit(".", maxsplit=1)[-1]) < self.first_layer:
            return unseen
        # But themselves, so that none sees nothing.
        return unseen | (self.leaving[None, :] & ~torch.eye(num_rows, dtype=torch.bool))


class Reference:
    """A checkpoint by the formulas; its pictures as the product sees them."""

    def __init__(self, folder: Path, model: Llava, num_heads: int, num_kv_heads: int) -> None:
        self._decoder = LeavingReference(folder, num_heads, num_kv_heads)
        self._model = model

    def logprobs(self, request: Request, policy: ResolvedPolicy) -> Tensor:
        """Return the log-probabilities of what follows each row of a prompt, [T, V]."""
        static = tuple(rule for rule in policy.policy.rules if isinstance(rule, Rule))
        steps = steps_of_policy(
            policy.policy.model_copy(update={"rules": static}), self._decoder.num_layers
        )
        ids = torch.tensor(request.prompt_ids)
        is_visual = ids == IMAGE_ID
        embedded = self._decoder.embed(ids, is_visual, self._features(request.images))
        self._decoder.leaving = None
        drops = Drops.of(request)
        if drops is not None:
            assert drops.kept is not None
            self._decoder.leaving = torch.ones(len(ids), dtype=torch.bool)
            self._decoder.leaving[torch.from_numpy(drops.kept[0])] = False
            self._decoder.first_layer = drops.layers[0]
        return self._decoder.logits(embedded, request.token_classes, steps).log_softmax(-1)

    def _features(self, images: Sequence[Image]) -> Tensor:
        if not images:
            return torch.zeros(0, self._decoder.weights["model.embed_tokens.weight"].shape[1])
        size = self._model.config.sizes.vision.image_size
        pixels = [torch.frombuffer(bytearray(it.pixels), dtype=torch.uint8) for it in images]
        stacked = torch.stack(pixels).view(-1, size, size, 3)
        return torch.cat(self._model.encode_reduced(stacked, [it.reduction for it in images]))


def check_scores(request: Request, scores: Scores, expected: Tensor) -> None:
    """Compare scores with the log-probabilities of what follows each row, [T, V]."""
    allowed = 2e-4 * float(expected.abs().max())
    rows = expected.numpy()[request.scored_rows]
    assert len(scores.logprobs) == len(rows) > 0
    own = rows[np.arange(len(rows)), request.prompt_array[request.scored_rows + 1]]
    assert np.abs(own - scores.logprobs).max() <= allowed
    least, most = ((rows > own[:, None] + it).sum(axis=1) + 1 for it in (allowed, -allowed))
    assert (least <= scores.ranks).all()
    assert (scores.ranks <= most).all()
    assert scores.top.shape == (len(rows), request.num_prompt_logprobs)
    if request.num_prompt_logprobs:
        best = -np.sort(-rows, axis=1)[:, : request.num_prompt_logprobs]
        assert np.abs(best - scores.top).max() <= allowed
        of_ids = np.take_along_axis(rows, scores.top_ids.astype(np.int64), axis=1)
        assert np.abs(of_ids - scores.top).max() <= allowed
