"""The table: which K/V it stores, what trimming leaves, and what its digests tell apart."""

from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_strategies import PAIR_CELLS, SINGLE_CELLS, plans

from skipserve_policies.plan import Cell, Column, Ffn, Pair, Plan, TokenClass, trim

pytestmark = pytest.mark.fast

TEXT, VISUAL, LAST, GENERATED = TokenClass
IDLE = Cell(attention=False, ffn=Ffn.NONE)
ANY_PLAN = st.integers(1, 6).flatmap(plans)

# A value that a forward computes: what it is, of which row, at which layer.
Node = tuple[str, int, int]


def column(*cells: Cell, num_layers: int = 4) -> Column:
    return (*cells, *(Cell(),) * (num_layers - len(cells)))


def plan_of(**columns: Column) -> Plan:
    """Return a plan of four layers that is full but for the columns of some classes."""
    return Plan(tuple(columns.get(c.name.lower(), column()) for c in TokenClass))


# --- an independent oracle of trimming: which values the wanted logits depend on, row by row


def long_prompt(num_layers: int) -> list[TokenClass]:
    """Return rows in which every class sees every class that it can, as often as layers allow."""
    return [TEXT, VISUAL] * (num_layers + 2) + [LAST] + [GENERATED] * 3


def sources(plan: Plan, classes: list[TokenClass], node: Node) -> Iterator[Node]:
    """Yield the values from which a value is computed, by the formulas of the actions."""
    kind, row, layer = node
    if kind == "state":
        yield from _state_sources(plan, classes[row], row, layer)
        return
    # All three read the state before the block, which in the second of a pair is still the input
    # of the pair: the first one's result is set aside.
    yield "state", row, layer
    if kind == "attention":
        yield from (("kv", earlier, layer) for earlier in range(row + 1))
    cell = plan.cell(layer, classes[row])
    if kind == "ffn" and cell.ffn is Ffn.SERIAL and cell.attention:
        yield "attention", row, layer


def _state_sources(plan: Plan, token_class: TokenClass, row: int, layer: int) -> Iterator[Node]:
    if layer == 0:
        return
    yield "state", row, layer - 1
    place = plan.cell(layer - 1, token_class).pair
    blocks = {Pair.NONE: (layer - 1,), Pair.FIRST: (), Pair.SECOND: (layer - 2, layer - 1)}[place]
    for block in blocks:
        cell = plan.cell(block, token_class)
        if cell.attention:
            yield "attention", row, block
        if cell.ffn is not Ffn.NONE:
            yield "ffn", row, block


def needed(
    plan: Plan, wanted: Iterable[TokenClass] = (LAST, GENERATED)
) -> set[tuple[str, TokenClass, int]]:
    """Return (kind, class, layer) of all sublayers that some wanted logit depends on."""
    classes = long_prompt(plan.num_layers)
    waiting = [("state", row, plan.num_layers) for row, c in enumerate(classes) if c in wanted]
    reached = set(waiting)
    while waiting:
        found = set(sources(plan, classes, waiting.pop())) - reached
        reached |= found
        waiting.extend(found)
    return {(kind, classes[row], layer) for kind, row, layer in reached if kind != "state"}


def computed(plan: Plan) -> set[tuple[str, TokenClass, int]]:
    """Return (kind, class, layer) of all sublayers that a plan computes."""
    return {
        (kind, c, layer)
        for c in TokenClass
        for layer in range(plan.num_layers)
        for kind, runs in (
            ("attention", plan.cell(layer, c).attention),
            ("ffn", plan.cell(layer, c).ffn is not Ffn.NONE),
            ("kv", plan.kv[c][layer]),
        )
        if runs
    }


@given(ANY_PLAN)
def test_trimming_leaves_exactly_what_the_wanted_logits_depend_on(plan: Plan) -> None:
    assert computed(trim(plan)) == needed(plan)


@given(ANY_PLAN, st.sampled_from([{TEXT}, {VISUAL}, {TEXT, VISUAL}]))
def test_logits_of_more_classes_may_be_wanted(plan: Plan, more: set[TokenClass]) -> None:
    """Those of the answer are the same; the table is another where it computes other things."""
    wanted = frozenset({LAST, GENERATED, *more})
    trimmed = trim(plan, wanted=wanted)
    assert computed(trimmed) == needed(plan, wanted)
    assert needed(trimmed) == needed(plan)
    assert (trimmed.key == trim(plan).key) == (trimmed == trim(plan))


@pytest.mark.parametrize("num_layers", [1, 2, 5])
def test_the_full_models_keys_and_values_are_the_same_whatever_logits_are_wanted(
    num_layers: int,
) -> None:
    full = Plan.full(num_layers)
    one, other = trim(full), trim(full, wanted=frozenset(TokenClass))
    assert other == full != one
    assert one.digest != other.digest
    assert all(one.kv_digest(c) == other.kv_digest(c) for c in TokenClass)


@given(ANY_PLAN)
def test_an_untrimmed_plan_computes_all_that_is_needed(plan: Plan) -> None:
    assert needed(plan) <= computed(plan)


@given(ANY_PLAN)
def test_trimming_only_idles_cells(plan: Plan) -> None:
    trimmed = trim(plan)
    for before, after in zip(plan.columns, trimmed.columns, strict=True):
        assert all(new in (old, IDLE) for old, new in zip(before, after, strict=True))


@given(ANY_PLAN)
def test_trimming_twice_changes_nothing_more(plan: Plan) -> None:
    assert trim(trim(plan)) == trim(plan)


def test_the_full_model_trims_to_one_row_in_the_last_layer() -> None:
    trimmed = trim(Plan.full(4))
    assert trimmed.columns[TEXT] == trimmed.columns[VISUAL] == (*(Cell(),) * 3, IDLE)
    assert trimmed.columns[LAST] == trimmed.columns[GENERATED] == (Cell(),) * 4
    assert all(all(stored) for stored in trimmed.kv)


def test_rows_that_nobody_reads_any_more_are_dropped() -> None:
    no_attention = Cell(attention=False)
    late = column(Cell(), Cell(), no_attention, no_attention)
    trimmed = trim(Plan((late,) * 4))
    assert trimmed.columns[TEXT] == (Cell(), IDLE, IDLE, IDLE)
    assert trimmed.kv[TEXT] == (True, True, False, False)
    assert trimmed.columns[LAST] == late


def test_a_pair_at_the_top_frees_the_block_below() -> None:
    pair = column(Cell(), Cell(), Cell(pair=Pair.FIRST), Cell(pair=Pair.SECOND))
    trimmed = trim(Plan((pair,) * 4))
    assert trimmed.columns[TEXT] == (Cell(), Cell(), IDLE, IDLE)
    assert trimmed.kv[TEXT] == (True,) * 4
    assert trimmed.columns[GENERATED] == pair


# --- K/V


@pytest.mark.parametrize(
    ("attending", "stored"),
    [
        ((), ()),
        ((TEXT,), (TEXT, VISUAL)),
        ((VISUAL,), (TEXT, VISUAL)),
        ((LAST,), (TEXT, VISUAL, LAST)),
        ((GENERATED,), (TEXT, VISUAL, LAST, GENERATED)),
    ],
)
def test_a_class_stores_what_a_class_at_or_after_it_attends_to(
    attending: tuple[TokenClass, ...], stored: tuple[TokenClass, ...]
) -> None:
    plan = Plan(tuple((Cell(attention=c in attending),) for c in TokenClass))
    assert [c for c in TokenClass if plan.kv[c][0]] == list(stored)


def test_a_frozen_row_still_stores_its_keys_and_values() -> None:
    plan = plan_of(visual=(IDLE,) * 4)
    assert plan.kv[VISUAL] == (True,) * 4


def test_a_row_that_skips_the_generated_tokens_block_is_not_stored_there() -> None:
    plan = plan_of(generated=column(IDLE))
    assert [plan.kv[c][0] for c in TokenClass] == [True, True, True, False]


# --- cells and digests


def test_without_attention_parallel_is_serial() -> None:
    assert Cell(attention=False, ffn=Ffn.PARALLEL) == Cell(attention=False, ffn=Ffn.SERIAL)
    assert Cell(attention=False, ffn=Ffn.PARALLEL_SHARED).ffn is Ffn.PARALLEL_SHARED


def test_only_a_cell_without_attention_and_ffn_is_idle() -> None:
    assert IDLE.is_idle
    assert not Cell(attention=False).is_idle
    assert not Cell(ffn=Ffn.NONE).is_idle


def test_digests_are_stable() -> None:
    """Stored pages and logs of other versions name plans by these."""
    assert Plan.full(4).digest == "916faba51ff6ab42"
    assert trim(Plan.full(32)).digest == "91254c3383e3156d"
    assert Plan.full(4).column_digest(TEXT) == "27617d1b63648adf"


@given(st.tuples(plans(2), plans(2)))
def test_digests_are_equal_iff_the_tables_are(both: tuple[Plan, Plan]) -> None:
    one, other = both
    assert (one.digest == other.digest) == (one == other)
    for c in TokenClass:
        is_same = one.columns[c] == other.columns[c] and one.kv[c] == other.kv[c]
        assert (one.column_digest(c) == other.column_digest(c)) == is_same


@pytest.mark.parametrize(
    "cell",
    [
        IDLE,
        Cell(attention=False),
        Cell(ffn=Ffn.NONE),
        Cell(ffn=Ffn.PARALLEL),
        Cell(ffn=Ffn.PARALLEL_SHARED),
        Cell(attention=False, ffn=Ffn.PARALLEL_SHARED),
    ],
)
def test_one_changed_cell_changes_the_digest_of_its_column_and_of_the_plan(cell: Cell) -> None:
    changed = plan_of(generated=column(Cell(), cell))
    full = Plan.full(4)
    assert changed.digest != full.digest
    assert changed.column_digest(GENERATED) != full.column_digest(GENERATED)
    assert changed.column_digest(TEXT) == full.column_digest(TEXT)


def test_plans_of_another_depth_have_another_digest() -> None:
    assert len({Plan.full(depth).digest for depth in range(1, 9)}) == 8


def test_plans_are_hashable_and_equal_by_content() -> None:
    assert len({Plan.full(4), Plan.full(4), trim(Plan.full(4))}) == 2


# --- the digest of what K/V depend on


class Formulas:
    """Writes down what the K/V of a row are computed from; each formula once, under a number.

    What a row sees of earlier rows is left out: it is named by the layer alone.
    """

    def __init__(self) -> None:
        self._numbers: dict[tuple[object, ...], int] = {}

    def of(self, plan: Plan, token_class: TokenClass) -> tuple[tuple[int, int], ...]:
        """Return (layer, number of the formula of the projected state) where K/V are stored."""
        stored = []
        state = pair_input = self._write("input")
        for layer in range(plan.num_layers):
            cell = plan.cell(layer, token_class)
            block_input = pair_input if cell.pair is Pair.SECOND else state
            if plan.kv[token_class][layer]:
                stored.append((layer, block_input))
            output = self._block(layer, cell, block_input)
            state = self._write("mean", state, output) if cell.pair is Pair.SECOND else output
            pair_input = block_input
        return tuple(stored)

    def _block(self, layer: int, cell: Cell, before: int) -> int:
        after = self._write("attention", layer, before) if cell.attention else before
        if cell.ffn is Ffn.NONE:
            return after
        norm = "attention norm" if cell.ffn is Ffn.PARALLEL_SHARED else "own norm"
        fed = after if cell.ffn is Ffn.SERIAL else before
        return self._write("ffn", layer, after, self._write(norm, layer, fed))

    def _write(self, *formula: object) -> int:
        return self._numbers.setdefault(formula, len(self._numbers))


def check_digests_name_formulas(plans: Iterable[Plan]) -> int:
    """Compare all classes of all plans with each other; return how many digests they have."""
    formulas = Formulas()
    pairs = {(plan.kv_digest(c), formulas.of(plan, c)) for plan in plans for c in TokenClass}
    digests, written = {digest for digest, _ in pairs}, {formula for _, formula in pairs}
    assert len(digests) == len(written) == len(pairs)
    return len(digests)


def all_columns(num_layers: int) -> list[Column]:
    """Return every column of single cells and pairs."""
    if num_layers <= 0:
        return [()] * (num_layers == 0)
    single = [(cell, *rest) for cell in SINGLE_CELLS for rest in all_columns(num_layers - 1)]
    return single + [(*PAIR_CELLS, *rest) for rest in all_columns(num_layers - 2)]


def test_kv_digests_are_equal_iff_the_kv_are_computed_alike_in_all_columns_of_two_layers() -> None:
    columns = all_columns(2)
    pairs_of_columns = [(one, other) for one in columns for other in columns]
    tables = [Plan((one, one, one, other)) for one, other in pairs_of_columns]
    tables += [Plan((one, other, other, other)) for one, other in pairs_of_columns]
    assert len(columns) == 50
    # Both layers, by the 7 cells of the first; the second alone, by its 3 that do not attend; the
    # first alone; none.
    assert check_digests_name_formulas([*tables, *map(trim, tables)]) == 7 + 3 + 1 + 1


def test_kv_digests_are_equal_iff_the_kv_are_computed_alike_in_columns_of_three_layers() -> None:
    tables = [plan_of(text=c, visual=c, last=c, generated=c) for c in all_columns(3)]
    assert check_digests_name_formulas([*tables, *map(trim, tables)]) > 60


@given(st.lists(st.integers(1, 5).flatmap(plans), min_size=1, max_size=6))
def test_kv_digests_are_equal_iff_the_kv_are_computed_alike(drawn: list[Plan]) -> None:
    check_digests_name_formulas([*drawn, *map(trim, drawn)])


def test_all_classes_of_the_full_model_store_alike() -> None:
    full = trim(Plan.full(4))
    assert len({full.kv_digest(c) for c in TokenClass}) == 1


@pytest.mark.parametrize(
    "top", [Cell(ffn=Ffn.NONE), Cell(ffn=Ffn.PARALLEL), Cell(ffn=Ffn.PARALLEL_SHARED)]
)
def test_what_follows_the_last_projection_does_not_matter(top: Cell) -> None:
    full, changed = trim(Plan.full(4)), trim(plan_of(generated=(*(Cell(),) * 3, top)))
    assert changed.kv_digest(GENERATED) == full.kv_digest(GENERATED)
    assert changed.column_digest(GENERATED) != full.column_digest(GENERATED)


def test_a_pair_at_the_top_leaves_no_trace_but_its_projections() -> None:
    pair = column(Cell(), Cell(), *PAIR_CELLS)
    frozen = column(Cell(), Cell(), IDLE, Cell())
    plan = Plan((frozen, pair, column(), pair))
    assert plan.kv_digest(VISUAL) == plan.kv_digest(TEXT)
    assert plan.kv_digest(GENERATED) == plan.kv_digest(TEXT)
    assert plan.kv_digest(LAST) != plan.kv_digest(TEXT)


def test_rows_that_do_the_same_but_store_at_other_layers_are_told_apart() -> None:
    quiet = (*(Cell(),) * 3, IDLE)
    unseen, seen = Plan((quiet,) * 4), Plan((quiet, quiet, column(), quiet))
    assert unseen.columns[TEXT] == seen.columns[TEXT]
    assert unseen.kv_digest(TEXT) != seen.kv_digest(TEXT)
    assert unseen.kv_digest(GENERATED) == seen.kv_digest(GENERATED)


def test_rows_that_store_nothing_have_one_digest() -> None:
    nothing, only_ffn = Plan(((IDLE,) * 4,) * 4), Plan(((Cell(attention=False),) * 4,) * 4)
    digests = {plan.kv_digest(c) for plan in (nothing, only_ffn) for c in TokenClass}
    assert len(digests) == 1


def test_kv_digests_are_whole_and_stable() -> None:
    digest = trim(Plan.full(32)).kv_digest(TEXT)
    assert digest == "2f1b8bad4a3b45511bbf1fb3d9c0c5df981ff027600164e500de596ea35e52b0"
