"""Tables: how they are spelt, and who can run them."""

import pytest

from skipserve_policies.plan import Cell, Ffn, TokenClass
from skipserve_policies.resolve import PolicyError
from skipserve_policies.schema import Action, Scope
from skipserve_policies.sizes import KNOWN_MODELS
from skipserve_training.calibration.tables import (
    DROPPERS,
    FULL,
    Element,
    Table,
    can_run,
    droppers_for,
    elements_of,
)

pytestmark = pytest.mark.fast

LLAVA_7B = KNOWN_MODELS["llava-1.5-7b"]

ATTENTION = Element(1, Action.SKIP_ATTENTION, Scope.ALL)
FFN = Element(3, Action.SKIP_FFN, Scope.VISUAL)
BLOCK = Element(3, Action.SKIP_BLOCK, Scope.ANSWER)


def test_equal_tables_are_spelt_alike() -> None:
    one = FULL | [BLOCK, ATTENTION, Element(7, Action.SKIP_ATTENTION, Scope.ALL)]
    two = Table(frozenset({Element(7, Action.SKIP_ATTENTION, Scope.ALL), ATTENTION, BLOCK}))
    assert one == two
    assert one.rules == two.rules == [
        {"action": "skip_attention", "layers": [1, 7], "scope": "all"},
        {"action": "skip_block", "layers": [3], "scope": "answer"},
    ]  # fmt: skip
    assert one - [BLOCK] != one
    assert (one - [BLOCK]) | [BLOCK] == one


def test_a_table_computes_what_its_elements_say() -> None:
    plan = (FULL | [ATTENTION, FFN]).resolve(LLAVA_7B).untrimmed
    for token_class in TokenClass:
        for layer, cell in enumerate(plan.columns[token_class]):
            skips_ffn = layer == FFN.layer and token_class is TokenClass.VISUAL
            wanted = Cell(
                attention=layer != ATTENTION.layer, ffn=Ffn.NONE if skips_ffn else Ffn.SERIAL
            )
            assert cell == wanted


def test_elements_of_one_layer_add_up() -> None:
    both = FULL | [
        Element(2, Action.SKIP_ATTENTION, Scope.ALL),
        Element(2, Action.SKIP_FFN, Scope.ALL),
    ]
    block = FULL | [Element(2, Action.SKIP_BLOCK, Scope.ALL)]
    assert both.resolve(LLAVA_7B).digest == block.resolve(LLAVA_7B).digest
    nothing_more = block | [Element(2, Action.SKIP_FFN, Scope.VISUAL)]
    assert nothing_more.resolve(LLAVA_7B).digest == block.resolve(LLAVA_7B).digest


def test_all_elements_are_different_and_run() -> None:
    elements = [*elements_of(32)]
    assert len(set(elements)) == len(elements) == 32 * 9
    digests = {Table(frozenset({it})).resolve(LLAVA_7B).digest for it in elements}
    assert len(digests) > 200  # in the last layer few rows are left that could skip
    assert len(set(map(str, elements))) == len(elements)


def test_droppers_join_elements() -> None:
    assert droppers_for(LLAVA_7B) == [*DROPPERS]
    assert len({Table(dropper=it).resolve(LLAVA_7B).digest for it in DROPPERS}) == len(DROPPERS)
    policy = Table(frozenset({ATTENTION}), "fastv-25-1of2").resolve(LLAVA_7B)
    assert policy.narrowing is not None
    assert policy.layers["skip_attention"] == (1,)


def test_what_contradicts_cannot_run() -> None:
    # The attention of this layer tells which rows leave.
    ranks = Element(7, Action.SKIP_ATTENTION, Scope.ALL)
    table = Table(frozenset({ranks}), "fastv-25-1of2")
    assert not can_run(table, LLAVA_7B)
    with pytest.raises(PolicyError):
        table.resolve(LLAVA_7B)
    assert can_run(table - [ranks], LLAVA_7B)
