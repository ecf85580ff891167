"""A small vision tower of CLIP's type, trained on the labels that easy-VQA's questions tell.

Each patch that shows a part of the shape is to tell the shape's colour and form, and each
patch whether it shows any: what a projector of one row a patch can read.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from skipserve_client.evaluate.easy_vqa import COLOURS, SHAPES, Attributes

PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's own
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)

_UNKNOWN = -100  # the label that cross-entropy passes over
_CONTRAST = 0.15  # between a shape and its background, of the whole range, in some channel
_COVER = 0.3  # of a patch's area, from which on it shows the shape
_SCALES = (0.65, 1.5)


class Pictures(NamedTuple):
    """Pictures with their labels."""

    pixels: Tensor  # [B, 3, side, side], from 0 to 1
    colours: Tensor  # [B], an index into COLOURS, or _UNKNOWN
    shapes: Tensor  # [B]

    def take(self, rows: Tensor) -> "Pictures":
        """Choose some."""
        return Pictures(self.pixels[rows], self.colours[rows], self.shapes[rows])


def label(pixels: Tensor, attributes: list[Attributes]) -> Pictures:
    """Put pictures and what is known of them together."""
    colours = [COLOURS.index(one.colour) if one.colour else _UNKNOWN for one in attributes]
    shapes = [SHAPES.index(one.shape) if one.shape else _UNKNOWN for one in attributes]
    return Pictures(pixels, torch.tensor(colours), torch.tensor(shapes))


@dataclass(frozen=True)
class TowerSizes:
    """The sizes of a tower whose features are the output of its last layer."""

    hidden: int = 128
    ffn: int = 384
    layers: int = 4
    heads: int = 4
    side: int = 80
    patch: int = 8

    @property
    def patches_per_side(self) -> int:
        """Return the square root of P."""
        return self.side // self.patch

    def config(self, unread_layers: int = 0) -> CLIPVisionConfig:
        """Describe the tower, with layers after it that nothing reads."""
        return CLIPVisionConfig(
            hidden_size=self.hidden,
            intermediate_size=self.ffn,
            projection_dim=self.hidden,
            num_hidden_layers=self.layers + unread_layers,
            num_attention_heads=self.heads,
            image_size=self.side,
            patch_size=self.patch,
            hidden_act="quick_gelu",
        )


class LabelledTower(nn.Module):
    """A tower, and the heads that read labels from its patches while it is trained."""

    def __init__(self, sizes: TowerSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.vision = CLIPVisionModel(sizes.config())
        self.heads = nn.Linear(sizes.hidden, len(COLOURS) + len(SHAPES) + 1)

    def forward(self, pixels: Tensor) -> "Reading":
        """Read each patch of pictures from 0 to 1."""
        pixels = normalise(resize(pixels, self.sizes.side))
        rows = self.vision(pixels).last_hidden_state[:, 1:]
        read = self.heads(rows).float()
        return Reading(*read.split([len(COLOURS), len(SHAPES), 1], dim=-1))


class Reading(NamedTuple):
    """What the patches tell."""

    colours: Tensor  # [B, P, 8]
    shapes: Tensor  # [B, P, 3]
    presence: Tensor  # [B, P, 1], positive where a patch shows the shape

    def vote(self) -> tuple[Tensor, Tensor]:
        """Return each picture's colour and shape by the patches that show it."""
        weights = torch.sigmoid(self.presence)
        return (
            (self.colours.log_softmax(-1) * weights).sum(1).argmax(-1),
            (self.shapes.log_softmax(-1) * weights).sum(1).argmax(-1),
        )


def resize(pixels: Tensor, side: int) -> Tensor:
    """Resize nearly as the checkpoint's processor does.

    Pillow rounds and clips between the two directions, which shows at the corners of shapes.
    """
    small = F.interpolate(pixels, (side, side), mode="bicubic", antialias=True)
    return small.clamp(0, 1)


def normalise(pixels: Tensor) -> Tensor:
    """Normalise as CLIP does."""
    mean, std = pixels.new_tensor(PIXEL_MEAN), pixels.new_tensor(PIXEL_STD)
    return (pixels - mean[:, None, None]) / std[:, None, None]


def shape_mask(pixels: Tensor) -> Tensor:
    """Tell where pictures differ from their background, `[B, side, side]`, boolean.

    The background is the commonest of the four corners: a shape can cover at most two.
    """
    corners = pixels[:, :, :: pixels.shape[2] - 1, :: pixels.shape[3] - 1].flatten(2)
    background = corners.median(-1).values[..., None, None]
    return (pixels - background).abs().amax(1) > _CONTRAST


def tower_loss(tower: LabelledTower, pictures: Pictures) -> Tensor:
    """Ask the patches that show the shape for its labels, and all for whether they show it."""
    reading = tower(pictures.pixels)
    mask = shape_mask(pictures.pixels)[:, None].float()
    cover = F.adaptive_avg_pool2d(mask, tower.sizes.patches_per_side).flatten(1)
    shown = cover >= torch.minimum(cover.amax(1, keepdim=True), torch.tensor(_COVER))
    share = shown / shown.sum(1, keepdim=True)
    loss = F.binary_cross_entropy_with_logits(reading.presence[..., 0], shown.float())
    for logits, labels in ((reading.colours, pictures.colours), (reading.shapes, pictures.shapes)):
        wanted = labels[:, None].expand(shown.shape)
        errors = F.cross_entropy(logits.mT, wanted, ignore_index=_UNKNOWN, reduction="none")
        loss = loss + (errors * share).sum(1).mean()
    return loss


def vary(pixels: Tensor, draw: torch.Generator) -> Tensor:
    """Move, mirror and scale the shape of each picture, so that it stays whole."""
    theta = torch.stack([_placement(mask, draw) for mask in shape_mask(pixels)])
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def _placement(mask: Tensor, draw: torch.Generator) -> Tensor:
    """Draw the map from a new picture's coordinates to the old one's, `[2, 3]`."""
    low, high = _SCALES
    zoom = 1.0 if _random(draw) < 0.3 else low * (high / low) ** _random(draw)
    mirror = -1.0 if _random(draw) < 0.5 else 1.0
    rows = [_shift(mask.any(0), zoom, mirror, draw), _shift(mask.any(1), zoom, 1.0, draw)]
    (scale_x, shift_x), (scale_y, shift_y) = rows
    return torch.tensor([[scale_x, 0.0, shift_x], [0.0, scale_y, shift_y]])


def _shift(
    occupied: Tensor, zoom: float, sign: float, draw: torch.Generator
) -> tuple[float, float]:
    """Draw a new place along one axis, whose coordinates run from -1 to 1."""
    places = occupied.nonzero().flatten()
    if len(places) == 0:
        return sign, 0.0
    side = len(occupied)
    start, end = places[0].item() / side * 2 - 1, (places[-1].item() + 1) / side * 2 - 1
    half = (end - start) / 2 * zoom
    room = max(0.0, 1 - half)
    centre = (2 * _random(draw) - 1) * room
    scale = sign / zoom
    return scale, (start + end) / 2 - scale * centre


def _random(draw: torch.Generator) -> float:
    return torch.rand((), generator=draw).item()


@dataclass(frozen=True)
class TowerScore:
    """The share of pictures whose colour and whose shape the patches tell rightly."""

    colour: float
    shape: float
    n: int


@torch.inference_mode()
def score_tower(tower: LabelledTower, pictures: Pictures) -> TowerScore:
    """Ask the tower for the labels of pictures, of those that are known."""
    votes = [tower(part).vote() for part in torch.split(pictures.pixels, 250)]
    colours, shapes = (torch.cat(column) for column in zip(*votes, strict=True))
    return TowerScore(
        _share_right(colours, pictures.colours),
        _share_right(shapes, pictures.shapes),
        len(colours),
    )


def _share_right(given: Tensor, labels: Tensor) -> float:
    known = labels != _UNKNOWN
    return (given == labels)[known].float().mean().item()
