"""Other tiles are launched where they are meant, and leave the table as it was."""

import pytest
import torch
from on_gpu.bench import Bench
from on_gpu.choices import TRIED, launch_with, swept_races

from skipserve_kernels.fused.output_projection import triton as output_projection
from skipserve_kernels.fused.tiles import TILES, Kernel, Tile

pytestmark = [pytest.mark.kernels, pytest.mark.fast]


def test_each_tile_of_the_table_has_others() -> None:
    assert {key[1:] for key in TILES} == TRIED.keys()
    for key, tile in TILES.items():
        assert tile not in TRIED[key[1:]] or key[0] == 80
        assert all(other.rows == tile.rows for other in TRIED[key[1:]])


def test_races_are_swept_with_the_tile_that_they_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    found = dict(swept_races(Bench(torch.device("cpu"), "tiny")))
    assert {key[1:] for key in found} == TRIED.keys()
    key = (90, Kernel.OUTPUT_PROJECTION, 32)
    launched: list[Tile] = []
    monkeypatch.setattr(
        output_projection, "_project_fused", lambda *_, tile, **__: launched.append(tile)
    )
    before = dict(TILES)
    for tile in TRIED[key[1:]]:
        launch_with(key, tile, found[key].ours[0])
    assert [(tile.columns, tile.splits) for tile in launched] == [(32, 4), (128, 8)]
    assert before == TILES
