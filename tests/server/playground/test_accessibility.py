"""Whether everybody can use the playground: axe's rules, keys, narrow windows, both schemes."""

import json
from typing import TYPE_CHECKING, Any

import pytest
from browser import OpenPage, ask

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow

PHONE = {"viewport": {"width": 320, "height": 640}}
WIDE = {"viewport": {"width": 1440, "height": 1000}}


# Remembers what a screen reader would say, each time that it would.
LISTEN = """() => {
    window.said = [];
    const note = ({ target }) => {
        const element = target.closest ? target : target.parentElement;
        const live = element.closest("[role=status], [role=alert], [aria-live]");
        if (live) window.said.push(live.textContent);
    };
    const watched = { subtree: true, childList: true, characterData: true };
    new MutationObserver((changes) => changes.forEach(note)).observe(document.body, watched);
}"""


def violations(page: "Page") -> list[str]:
    """Return what axe finds, of any weight."""
    from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415

    found: dict[str, Any] = Axe().run(page).response
    return [
        f"{it['impact']} {it['id']}: {node['html']} {node['failureSummary']}"
        for it in found["violations"]
        for node in it["nodes"]
    ]


def num_across(page: "Page") -> int:
    """Return how many pixels the page is wide, those that stick out too."""
    width: int = page.evaluate("() => document.documentElement.scrollWidth")
    return width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_axe_finds_nothing(open_page: OpenPage, size: dict[str, Any], scheme: str) -> None:
    page = open_page(color_scheme=scheme, **size)
    for summary in page.locator("summary").all():
        summary.click()
    page.get_by_role("button", name="Leave out all of layer 20").click()
    page.locator("#method").select_option("fastv")
    before = violations(page)
    ask(page, "Describe the image.")
    page.locator("#past summary").click()

    assert [*before, *violations(page)] == []
    assert num_across(page) <= size["viewport"]["width"]


def test_axe_finds_nothing_where_all_goes_wrong(open_page: OpenPage) -> None:
    page = open_page(tolerates="Failed to load resource")
    page.route("**/v1/**", lambda it: it.abort())
    ask(page, "Describe the image.")
    page.reload()
    page.locator("#problem:visible").wait_for()

    assert "cannot be reached" in page.locator("#problem").inner_text()
    assert violations(page) == []


def test_tab_goes_through_the_grid_in_one_step(open_page: OpenPage) -> None:
    page = open_page()
    page.locator("#clear").focus()
    page.keyboard.press("Tab")
    assert page.locator("#grid button:focus").count() == 1
    page.keyboard.press("Tab")
    assert page.locator("#method:focus").count() == 1


def test_arrows_reach_every_end_of_the_grid(open_page: OpenPage) -> None:
    page = open_page()
    page.locator("#grid td button").first.focus()
    ends = {}
    for key in ("Control+End", "Control+Home", "End", "Home", "PageDown", "ArrowUp"):
        page.keyboard.press(key)
        ends[key] = page.locator("#grid button:focus").get_attribute("aria-label")
    assert ends == {
        "Control+End": "Layer 31, generated, FFN: leave out",
        "Control+Home": "Leave out all of layer 0",
        "End": "Leave out all of layer 31",
        "Home": "Leave out all of layer 0",
        "PageDown": "Layer 0, generated, FFN: leave out",
        "ArrowUp": "Layer 0, generated, attention: leave out",
    }


def test_the_theme_can_be_chosen_and_is_remembered(open_page: OpenPage) -> None:
    page = open_page(color_scheme="light")
    ground = "() => getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    for _ in range(2):
        page.locator("#theme").click()
    assert page.locator("#theme").inner_text() == "Theme: dark"
    dark = page.evaluate(ground)
    page.reload()
    assert page.evaluate(ground) == dark != light


def test_nothing_moves_for_whom_it_must_not(open_page: OpenPage) -> None:
    page = open_page(reduced_motion="reduce")
    page.route("**/v1/chat/completions", lambda _: None)
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator(".waiting").first.wait_for()
    moving = "() => document.getAnimations().length"
    assert page.evaluate(moving) == 0
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate(moving) > 0


def test_what_is_read_out_is_little(open_page: OpenPage) -> None:
    """Not each piece of each answer: that there are answers, and how they agree."""
    page = open_page()
    page.evaluate(LISTEN)
    ask(page, "Describe the image.")
    said = json.loads(page.evaluate("() => JSON.stringify(window.said)"))
    assert len(said) == 2
    assert said[1].startswith("3 answers. ")
