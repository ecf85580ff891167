"""Variants of easy-VQA's pictures, so that a module does not learn 3,578 pictures by heart."""

import numpy as np
import torch
from PIL import Image

from skipserve_training.mapping.easy_vqa_lessons import EasyLessons
from skipserve_training.mapping.tower import vary


class Views:
    """Each picture as it is, and with its shape moved, mirrored and scaled."""

    def __init__(self, lessons: EasyLessons, views: int, seed: int) -> None:
        self._lessons = lessons
        self._views = views
        self._seed = seed

    def __len__(self) -> int:
        """Return the number of variants of all pictures."""
        return self._views * len(self._lessons)

    def media(self, index: int) -> Image.Image:
        """Make one: all pictures as they are come first, then the second variant of all."""
        view, number = divmod(index, len(self._lessons))
        picture = self._lessons.media(number)
        if view == 0:
            return picture
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
        draw = torch.Generator().manual_seed(self._seed + index)
        varied = vary(pixels[None], draw)[0] * 255
        return Image.fromarray(varied.round().byte().permute(1, 2, 0).numpy())
