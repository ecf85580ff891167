"""Lets a trained model answer about one medium, from its file: a picture, frames or a sound."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from skipserve_policies.schema import SkipPolicy
from skipserve_training.mapping.features import Features
from skipserve_training.mapping.lessons import PromptForm
from skipserve_training.mapping.media import load_media
from skipserve_training.mapping.recovery import static_plan
from skipserve_training.mapping.served import ServedModel
from skipserve_training.mapping.speaking import GREEDY, Speaker, Turn


def under(model: ServedModel, name: str, policy: Mapping[str, Any]) -> ServedModel:
    """Return the same model under a policy, as a request spells it.

    Raises:
        ValueError: The policy does not fit the model, or takes rows of images away.
    """
    plan = static_plan(name, SkipPolicy.model_validate(policy), model.depth)
    return replace(model, language=model.language.under(plan))


@torch.inference_mode()
def ask(
    model: ServedModel,
    media: Path,
    question: str | None,
    *,
    limit: int = 16,
    num_beams: int = GREEDY,
) -> str:
    """Ask a question about a medium, or let it be told of where there is none.

    Args:
        model: what answers.
        media: a picture, a folder of frames, or a sound at the encoder's rate.
        question: what is asked.
        limit: tokens of an answer.
        num_beams: of the search for it; 1 is greedy.

    Raises:
        ValueError: The file cannot be read, or does not fit the encoder.
    """
    encoded = model.encoder.encode([load_media(media)]).bfloat16().cpu()
    features = Features(encoded.view(torch.int16).numpy())
    prompts = PromptForm(model.tokenizer, model.projector.rows(features.num_patches), ())
    end = int(model.tokenizer.eos_token_id)
    speaker = Speaker(model.language, model.projector, features, end)
    (said,) = speaker.say([Turn(0, prompts.prompt(question))], limit, num_beams)
    return str(model.tokenizer.decode([*said], skip_special_tokens=True)).strip()
