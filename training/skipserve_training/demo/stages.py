"""What each stage trains and which loss it follows."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipserve_client.evaluate.questions import QUESTION_TYPES
from skipserve_client.evaluate.scenes import Scene
from skipserve_training.demo.batches import Batch, Packer, to_pixels
from skipserve_training.demo.codebook import Codebook
from skipserve_training.demo.model import DemoModel, ModelSizes
from skipserve_training.demo.recipe import Recipe, StageName
from skipserve_training.demo.tokenizer import END_ID, IMAGE_ID, train_tokenizer

ACTIVATIONS = torch.bfloat16
_OCCUPIED_WEIGHT = 6.0


@dataclass(frozen=True)
class StageLoss:
    """A loss, and what it looked like: the share of right predictions by kind."""

    value: Tensor
    shares: dict[str, float]


@dataclass(frozen=True)
class Lesson:
    """What every stage needs besides the model."""

    recipe: Recipe
    codebook: Codebook
    packer: Packer
    device: torch.device
    is_varied: bool = False  # see `StageRecipe.is_varied`


LossFunction = Callable[[Lesson, DemoModel, list[Scene]], StageLoss]


def make_lesson(recipe: Recipe, sizes: ModelSizes, device: torch.device) -> Lesson:
    """Build the tokenizer and the codebook of a recipe."""
    codebook = Codebook(sizes.hidden, sizes.patch, sizes.patches_per_side, recipe.seed)
    packer = Packer(train_tokenizer(recipe.vocabulary), recipe, sizes.patches)
    return Lesson(recipe, codebook, packer, device)


def trained_parameters(stage: StageName, model: DemoModel) -> dict[str, nn.Parameter]:
    """Return what a stage trains: the eye, the decoder, or both."""
    part: nn.Module = model
    if stage in (StageName.VISION, StageName.BACKGROUNDS):
        part = model.vision
    elif stage is StageName.SYMBOLIC:
        part = model.decoder
    return dict(part.named_parameters())


def vision_loss(lesson: Lesson, model: DemoModel, scenes: list[Scene]) -> StageLoss:
    """Regress the codebook's words from pixels."""
    wanted, occupied = lesson.codebook.targets(scenes)
    wanted, occupied = wanted.to(lesson.device), occupied.to(lesson.device)
    tokens = _look(lesson, model, scenes).float()
    errors = (tokens - wanted).square().sum(-1)
    weights = 1 + (_OCCUPIED_WEIGHT - 1) * occupied
    return StageLoss(
        (errors * weights).mean(), _read_back(lesson.codebook, tokens, wanted, occupied)
    )


def _read_back(
    codebook: Codebook, tokens: Tensor, wanted: Tensor, occupied: Tensor
) -> dict[str, float]:
    """Read each attribute where an object is, and presence everywhere."""
    said, meant = tokens.detach()[occupied], wanted[occupied]
    shares = {}
    for name in ("shapes", "colours", "sizes"):
        vectors = getattr(codebook, name).to(said.device)
        right = (said @ vectors.T).argmax(-1) == (meant @ vectors.T).argmax(-1)
        shares[name] = right.float().mean().item()
    seen = tokens.detach() @ codebook.presence[0].to(said.device) > 0.5
    shares["presence"] = (seen == occupied).all(-1).float().mean().item()
    return shares


def symbolic_loss(lesson: Lesson, model: DemoModel, scenes: list[Scene]) -> StageLoss:
    """Answer from the codebook's words with noise; no picture is painted."""
    tokens, _ = lesson.codebook.targets(scenes)
    noise = torch.Generator().manual_seed(lesson.recipe.seed + scenes[0].index)
    tokens += torch.randn(tokens.shape, generator=noise) * lesson.recipe.token_noise
    return _answer_loss(lesson, model, tokens.to(lesson.device, ACTIVATIONS), scenes)


def end_to_end_loss(lesson: Lesson, model: DemoModel, scenes: list[Scene]) -> StageLoss:
    """Answer from pixels; the loss reaches the eye too."""
    return _answer_loss(lesson, model, _look(lesson, model, scenes), scenes)


def _look(lesson: Lesson, model: DemoModel, scenes: list[Scene]) -> Tensor:
    pixels = to_pixels([scene.render() for scene in scenes])
    tokens: Tensor = model.vision(pixels.to(lesson.device, ACTIVATIONS))
    return tokens


def embed(model: DemoModel, ids: Tensor, tokens: Tensor) -> Tensor:
    """Embed `[B, T]` and put the visual tokens `[B, P, D]` in the places of pictures, if any."""
    rows = F.embedding(ids, model.decoder.embedding).to(tokens.dtype)
    places = ids == IMAGE_ID
    return rows.masked_scatter(places[..., None], tokens[places.any(1)])


def _answer_loss(
    lesson: Lesson, model: DemoModel, tokens: Tensor, scenes: list[Scene]
) -> StageLoss:
    batch = lesson.packer.pack(scenes, lesson.is_varied).to(lesson.device)
    hidden = model.decoder(embed(model, batch.ids, tokens), batch.positions, batch.allowed)
    logits = model.decoder.logits(hidden.flatten(0, 1)[batch.answer_rows])
    losses = F.cross_entropy(logits, batch.targets, reduction="none")
    value = (losses * batch.weights).sum() / batch.weights.sum()
    return StageLoss(value, _shares(logits.detach(), batch))


def _shares(logits: Tensor, batch: Batch) -> dict[str, float]:
    """Return the share of right tokens by question type, each after the right ones before it."""
    right = logits.argmax(-1) == batch.targets
    is_answer = batch.targets != END_ID  # where an answer ends is easy
    shares = {}
    for index, kind in enumerate(QUESTION_TYPES):
        chosen = right[(batch.kinds == index) & is_answer]
        if len(chosen):
            shares[str(kind)] = chosen.float().mean().item()
    return shares


LOSSES: dict[StageName, LossFunction] = {
    StageName.VISION: vision_loss,
    StageName.SYMBOLIC: symbolic_loss,
    StageName.END_TO_END: end_to_end_loss,
    StageName.FINAL: end_to_end_loss,
    StageName.BACKGROUNDS: vision_loss,
    StageName.VARIED: end_to_end_loss,
}
