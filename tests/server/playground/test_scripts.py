"""The playground's scripts one by one, in a browser: what is drawn against the plans."""

import random
from typing import TYPE_CHECKING, Any

import pytest
from browser import OpenPage

from skipserve_policies.plan import Cell, Ffn, Plan, TokenClass
from skipserve_policies.resolve import resolve
from skipserve_policies.schema import SkipPolicy

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow

NUM_LAYERS = 12
NAMES = [it.name.lower() for it in TokenClass]


@pytest.fixture
def page(open_page: OpenPage) -> "Page":
    return open_page()


def call(page: "Page", module: str, body: str, argument: object = None) -> Any:
    """Return what JavaScript returns that uses a module of the page."""
    script = f"async (given) => {{ const it = await import('/playground/{module}.js'); {body} }}"
    return page.evaluate(script, argument)


def random_marks(rng: random.Random) -> list[list[Any]]:
    """Return what a person does on the grid: few or many cells, in any order."""
    return [
        [
            rng.randrange(NUM_LAYERS),
            rng.choice(["attention", "ffn"]),
            rng.choice(NAMES),
            rng.random() < 0.7,
        ]
        for _ in range(rng.choice([3, 20, 150]))
    ]


DRAW = """
    return given.map((marks) => {
        const draft = new it.Draft(12);
        for (const [layer, part, name, skips] of marks) draft.set(layer, part, name, skips);
        const again = new it.Draft(12);
        again.load(draft.save());
        const [last] = marks.slice(-1);
        return {
            rules: draft.rules(),
            same: JSON.stringify(again.rules()) === JSON.stringify(draft.rules()),
            obeyed: draft.skips(last[0], last[1], last[2]) === last[3],
            skipped: draft.save().skipped,
        };
    });
"""


def test_what_is_drawn_is_what_the_rules_say(page: "Page") -> None:
    rng = random.Random(0)
    drawings = [random_marks(rng) for _ in range(200)]

    for drawn in call(page, "draft", DRAW, drawings):
        skipped = {key: set(layers) for key, layers in drawn["skipped"].items()}

        def cell(name: str, layer: int, skipped: dict[str, set[int]] = skipped) -> Cell:
            skips_ffn = layer in skipped.get(f"ffn {name}", set())
            return Cell(
                attention=layer not in skipped.get(f"attention {name}", set()),
                ffn=Ffn.NONE if skips_ffn else Ffn.SERIAL,
            )

        plan = Plan(
            tuple(tuple(cell(name, layer) for layer in range(NUM_LAYERS)) for name in NAMES)
        )
        policy = SkipPolicy.model_validate({"rules": drawn["rules"]})
        assert resolve("drawn", policy, NUM_LAYERS).untrimmed == plan
        assert drawn["same"]
        assert drawn["obeyed"]


def test_a_large_model_can_be_drawn_too(page: "Page") -> None:
    """Every cell by itself, and every second layer."""
    rules = call(
        page,
        "draft",
        """
        const draft = new it.Draft(80);
        for (let layer = 0; layer < 80; layer += 2) draft.set(layer, "ffn", "text", true);
        return draft.rules();
        """,
    )
    policy = SkipPolicy.model_validate({"rules": rules})
    assert resolve("drawn", policy, 80).layers == {"skip_ffn": tuple(range(0, 80, 2))}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_events_are_read_however_they_come(page: "Page", size: int, end: str) -> None:
    lines = [
        ": keep-alive",
        "",
        'data: {"a": "ü☆"}',
        "",
        "event: x",
        "data:two",
        "data: lines",
        "",
        "data: [DONE]",
        "",
    ]
    text = end.join([*lines, ""])
    body = """
        const bytes = new TextEncoder().encode(given.text);
        const stream = new ReadableStream({ start(controller) {
            for (let at = 0; at < bytes.length; at += given.size) {
                controller.enqueue(bytes.slice(at, at + given.size));
            }
            controller.close();
        } });
        const found = [];
        for await (const data of it.events(stream)) found.push(data);
        return found;
    """
    found = call(page, "sse", body, {"text": text, "size": size})
    assert found == ['{"a": "ü☆"}', "two\nlines", "[DONE]"]


@pytest.mark.parametrize(
    ("answer", "full", "expected"),
    [
        ("a b c", "a b c", (True, "a b c", "", None)),
        ("a b d", "a b c", (False, "a b", " d", 3)),
        ("a b", "a b c", (False, "a b", "", 3)),
        ("", "a", (False, "", "", 1)),
        ("a  b", "a b", (False, "a", "  b", 2)),
        ("x", "", (False, "", "x", 1)),
    ],
)
def test_where_answers_differ(
    page: "Page", answer: str, full: str, expected: tuple[bool, str, str, int | None]
) -> None:
    found = call(page, "agreement", "return it.compare(given[0], given[1]);", [answer, full])
    assert tuple(found[key] for key in ("same", "shared", "rest", "word")) == expected


def test_numbers_are_told_as_people_read_them(page: "Page") -> None:
    body = """return [it.flops(0), it.flops(999), it.flops(1467549696), it.flops(9.1e12),
        it.percent(0.26047), it.seconds(0.0274), it.seconds(1.416), it.count(1, "answer"),
        it.count(2, "answer")];"""
    assert call(page, "format", body) == [
        *("0.00 FLOPs", "999 FLOPs", "1.47 GFLOPs", "9.10 TFLOPs"),
        *("26.0 %", "27 ms", "1.42 s", "1 answer", "2 answers"),
    ]
