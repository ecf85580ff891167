"""The grid: what it holds, and that every model can run it."""

from collections import Counter

import pytest

from skipserve_policies.resolve import resolve
from skipserve_policies.schema import SkipPolicy
from skipserve_training.paper.cells import (
    DEPTH,
    INFERENCE,
    LADDER,
    LAYERS,
    TRAINING,
    VISUAL,
    Form,
    chosen,
    grid,
    rule_name,
)

pytestmark = pytest.mark.fast

CELLS = grid()


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
