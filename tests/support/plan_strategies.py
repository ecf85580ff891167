"""Plans for tests: Hypothesis strategies for any, and one that is nearly full."""

from hypothesis import strategies as st

from skipserve_policies.plan import Cell, Column, Ffn, Pair, Plan, TokenClass

SINGLE_CELLS = tuple(
    dict.fromkeys(Cell(attention=attention, ffn=ffn) for attention in (True, False) for ffn in Ffn)
)
PAIR_CELLS = (Cell(pair=Pair.FIRST), Cell(pair=Pair.SECOND))


@st.composite
def columns(draw: st.DrawFn, num_layers: int) -> Column:
    """Draw what one class does: any cells, and pairs of blocks among them."""
    cells: list[Cell] = []
    while len(cells) < num_layers:
        is_pair = len(cells) + 2 <= num_layers and draw(st.integers(0, 3)) == 0
        cells.extend(PAIR_CELLS if is_pair else (draw(st.sampled_from(SINGLE_CELLS)),))
    return tuple(cells)


def plans(num_layers: int) -> st.SearchStrategy[Plan]:
    """Draw a plan for a model of `num_layers` blocks."""
    return st.tuples(*(columns(num_layers) for _ in TokenClass)).map(Plan)


def without_generated_ffn(num_layers: int, layer: int) -> Plan:
    """Return the full plan, but that generated rows have no FFN at one layer."""
    columns = list(Plan.full(num_layers).columns)
    cells = list(columns[TokenClass.GENERATED])
    cells[layer] = Cell(ffn=Ffn.NONE)
    columns[TokenClass.GENERATED] = tuple(cells)
    return Plan(tuple(columns))
