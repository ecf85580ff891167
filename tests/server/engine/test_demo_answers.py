"""The demo model answers on the device, all at once and in graphs, as the CPU does one by one."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import skipserve
from skipserve.engine.engine import Engine
from skipserve.engine.limits import EngineLimits
from skipserve.engine.reports import StepOutput
from skipserve.engine.request import Image, Request, SamplingParams
from skipserve.model.config import ModelConfig
from skipserve.model.llava import Llava
from skipserve.prompt.processor import PromptProcessor
from skipserve.prompt.template import ImagePart, Message, TextPart
from skipserve_policies.catalog import load_catalog
from skipserve_policies.resolve import resolve

DEMO = Path(skipserve.__file__).parent / "demo"
POLICIES = (
    "full",
    "skip-block-every-3-from-16",
    "visual-freeze-from-16",
    "parallel-ffn-attention-every-3-from-16-all",
    "parallel-blocks-every-3-from-16-all",
)
COLOURS = {"What color is the square?": (200, 40, 40), "Describe the image.": (40, 60, 200)}
# Log-probabilities that are nearer to each other may change places in other sums.
TIE = 1e-3


def _requests() -> list[Request]:
    """Return questions about pictures of a square on grey, under each policy."""
    config = ModelConfig.from_folder(DEMO)
    size, num_rows = config.sizes.vision.image_size, config.sizes.rows_per_image
    prompts = PromptProcessor.from_folder(DEMO, config)
    requests = []
    for number, (text, colour) in enumerate(COLOURS.items()):
        prompt = prompts.encode_chat([Message("user", (ImagePart(), TextPart(text)))], [num_rows])
        picture = torch.full((size, size, 3), 120, dtype=torch.uint8)
        picture[size // 4 : size // 2, size // 3 : size // 2] = torch.tensor(colour)
        image = Image(picture.numpy().tobytes(), bytes([number]) * 32, num_rows)
        for name in POLICIES:
            plan = resolve(name, load_catalog()[name], config.sizes.decoder.num_layers).plan
            sampling = SamplingParams(
                max_tokens=5, temperature=0.0, ends_at_eos=False, num_top_logprobs=2
            )
            requests.append(
                Request(
                    id=f"{name}: {text}",
                    prompt_ids=prompt.prompt_ids,
                    token_classes=prompt.token_classes,
                    images=(image,),
                    sampling=sampling,
                    policy_name=name,
                    plan=plan,
                )
            )
    return requests


def _answers(engine: Engine, requests: Sequence[Request]) -> dict[str, list[StepOutput]]:
    answers: dict[str, list[StepOutput]] = {request.id: [] for request in requests}
    for request in requests:
        engine.add(request)
    while engine.has_work:
        for output in engine.step().outputs:
            answers[output.request_id].append(output)
    return answers


def _follows(found: Sequence[StepOutput], alone: Sequence[StepOutput]) -> bool:
    """Return whether tokens are equal, up to where the best two were too near to tell."""
    for ours, theirs in zip(found, alone, strict=True):
        first, second = theirs.top_logprobs
        if ours.token_id != theirs.token_id:
            return first.logprob - second.logprob < TIE
        assert ours.logprob == pytest.approx(theirs.logprob, abs=TIE)
    return True


def test_answers_are_those_of_the_cpu(device: torch.device) -> None:
    requests = _requests()
    limits = EngineLimits(kv_cache_bytes=2**26, max_running=len(requests), reuses_prefixes=False)
    together = _answers(Engine(Llava.load(DEMO, device, torch.float32), limits), requests)
    cpu = Engine(Llava.load(DEMO, torch.device("cpu"), torch.float32), limits)
    for request in requests:
        alone = _answers(cpu, [request])[request.id]
        assert _follows(together[request.id], alone), request.id
