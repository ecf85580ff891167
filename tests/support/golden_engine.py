"""An engine whose images are the pictures of known answers, which no file could hold."""

from collections.abc import Sequence
from dataclasses import dataclass

from golden_llava import GoldenSizes
from torch import Tensor

from skipserve.digests import digest_of
from skipserve.engine.engine import Engine
from skipserve.engine.limits import EngineLimits
from skipserve.engine.reports import StepMode
from skipserve.engine.request import Image, Request, SamplingParams
from skipserve.model.llava import Llava
from skipserve_policies.flops import prompt_classes
from skipserve_policies.narrowing import Narrowing
from skipserve_policies.plan import Plan, TokenClass, trim


class GoldenModel:
    """A model that sees given rows whatever the image; all else is a loaded one's."""

    def __init__(self, model: Llava, rows: Tensor) -> None:
        self._model = model
        self._rows = rows

    def __getattr__(self, name: str) -> object:
        return getattr(self._model, name)

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Return the given rows for each picture."""
        return self._rows.expand(len(pixels), -1, -1)


def make_engine(model: Llava, rows: Tensor, **limits: object) -> Engine:
    """Return an engine that sees rows [P, D] in each image."""
    return Engine(GoldenModel(model, rows), EngineLimits(**limits))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Asker:
    """Makes requests about images, between texts."""

    sizes: GoldenSizes

    def ask(
        self,
        name: str,
        *texts: Sequence[int],
        narrowing: Narrowing | None = None,
        plan: Plan | None = None,
        max_tokens: int = 6,
        num_top_logprobs: int | None = None,
    ) -> Request:
        """Return a request with an image between each two texts."""
        ids, segments = list(texts[0]), [(TokenClass.TEXT, len(texts[0]))]
        for text in texts[1:]:
            ids += [self.sizes.image_token] * self.sizes.num_patches + list(text)
            segments += [
                (TokenClass.VISUAL, self.sizes.num_patches),
                (TokenClass.TEXT, len(text)),
            ]
        size = self.sizes.image_size
        image = Image(bytes(3 * size**2), digest_of(b"golden"), self.sizes.num_patches)
        return Request(
            id=name,
            prompt_ids=tuple(ids),
            token_classes=prompt_classes(segments),
            images=(image,) * (len(texts) - 1),
            sampling=SamplingParams(
                max_tokens, temperature=0.0, ends_at_eos=False, num_top_logprobs=num_top_logprobs
            ),
            policy_name=name,
            plan=trim(plan or Plan.full(self.sizes.num_layers)),
            narrowing=narrowing,
        )


def answers(
    engine: Engine, *requests: Request, modes: list[StepMode] | None = None
) -> dict[str, list[int]]:
    """Return the tokens of all requests, asked together, and add how each step ran to `modes`."""
    for request in requests:
        engine.add(request)
    tokens: dict[str, list[int]] = {request.id: [] for request in requests}
    while engine.has_work:
        result = engine.step()
        assert not result.failed, result.failed
        if modes is not None and result.report is not None:
            modes.append(result.report.mode)
        for output in result.outputs:
            if output.token_id is not None:
                tokens[output.request_id].append(output.token_id)
    assert engine.check() == []
    return tokens
