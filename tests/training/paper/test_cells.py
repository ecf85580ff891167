"""The grid: what it holds, and that every model can run it."""

from collections import Counter
from dataclasses import replace

import pytest

from skipserve_policies.resolve import resolve
from skipserve_policies.schema import SkipPolicy
from skipserve_training.paper.cells import (
    INFERENCE,
    LADDER,
    LAYERS,
    TRAINING,
    VISUAL,
    Form,
    chosen,
    grid,
    ladder,
    left_out,
    rule_name,
    touched,
)
from skipserve_training.paper.setup import SHIPPED, Setup

pytestmark = pytest.mark.fast

CELLS = grid()
DEPTH = SHIPPED.depth


def _layers(name: str) -> list[int]:
    (cell,) = chosen(CELLS, name, has_extra=True)
    resolved = resolve(name, SkipPolicy.model_validate(cell.policy), DEPTH)
    return sorted({layer for layers in resolved.layers.values() for layer in layers})


def test_every_cell_has_a_name_of_its_own() -> None:
    assert len({cell.name for cell in CELLS}) == len(CELLS)
    assert {cell.baseline for cell in CELLS} <= {cell.name for cell in CELLS}


def test_tables_are_whole() -> None:
    counts = Counter(cell.group for cell in CELLS if not cell.is_extra)
    assert counts[INFERENCE] == 1 + len(Form) * 3 * 3 * 2
    assert counts[LAYERS] == 3 * DEPTH
    assert counts[VISUAL] == 1 + 3 + len(Form) * 3 * 3
    assert counts[LADDER] == 2
    assert counts[TRAINING] == 17


def test_every_policy_fits_and_touches_something() -> None:
    for cell in CELLS:
        if cell.policy is not None:
            assert _layers(cell.name), cell.name


def test_layers_are_those_that_names_say() -> None:
    assert _layers("training-half-blocks-seed-20") == [*range(2, 29, 2)]
    assert len(_layers("training-two-thirds-blocks-seed-20")) == 19
    assert _layers("training-parallel-all-seed-20") == [*range(30)]
    assert _layers("ladder-10") == [*range(10, 30)]
    assert _layers("layer-ffn-07") == [7]
    assert _layers(rule_name(INFERENCE, Form.BLOCK, 3, "50%", "all")) == [18, 21, 24, 27]
    assert _layers("visual-freeze-from-50pc") == [*range(15, 30)]


def test_trainings_have_their_seeds_and_questions() -> None:
    trained = {cell.name: cell.training for cell in CELLS if cell.training is not None}
    for name in ("half-blocks", "wanda-50"):
        seeds = {trained[f"training-{name}-seed-{seed}"] for seed in (20, 21)}
        assert len(seeds) == 2
    assert all(training.questions >= 8000 for training in trained.values())


def test_a_pattern_chooses() -> None:
    names = [cell.name for cell in chosen(CELLS, "ladder-*", has_extra=False)]
    assert names == ["ladder-20", "ladder-10"]
    assert not chosen(CELLS, "longer-*", has_extra=False)
    assert len(chosen(CELLS, "longer-*", has_extra=True)) == 3
    with pytest.raises(ValueError, match="only is 'half': no cell is called so"):
        chosen(CELLS, "half", has_extra=False)


def _own(depth: int, *tasks: str) -> Setup:
    return replace(SHIPPED, model="own", depth=depth, patches=None, tasks=tasks)


@pytest.mark.parametrize("depth", [4, 12, 24, 32, 40])
def test_a_grid_follows_the_depth(depth: int) -> None:
    cells = grid(_own(depth, "one", "two"))
    assert {cell.model for cell in cells} == {"own"}
    assert sum(cell.group == LAYERS for cell in cells) == 3 * depth
    by_name = {cell.name: cell for cell in cells}
    for cut in ladder(depth):
        policy = by_name[f"ladder-{cut}"].policy
        assert touched("cut", policy, depth) == [*range(cut, depth)]
    assert len(ladder(depth)) == 2
    two_thirds = touched("some", by_name["training-two-thirds-blocks-seed-20"].policy, depth)
    assert two_thirds == [layer for layer in range(1, depth - 1) if layer % 3]
    whole = touched("all", by_name["training-parallel-all-seed-20"].policy, depth)
    assert whole == [*range(depth)]


def test_what_cannot_be_run_is_left_out_by_name() -> None:
    assert left_out(SHIPPED) == {}
    found = left_out(_own(6, "one"))
    assert found["needs another task"] == ["training-alpha-subnet-50-seed-20"]
    assert len(found["needs a module with a row a patch"]) == 1 + 3 + len(Form) * 3 * 3
    assert "inference-block-every-3-from-50pc-all" in found["touches none of 6 blocks"]
    names = {cell.name for cell in grid(_own(6, "one"))}
    assert not names & {name for some in found.values() for name in some}


def test_trainings_are_as_long_as_is_asked_for() -> None:
    cells = grid(replace(_own(12), more_questions=70))
    counts = {cell.training.questions for cell in cells if cell.training is not None}
    assert counts == {70, 350}
