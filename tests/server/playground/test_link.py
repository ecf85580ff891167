"""Links to the playground's settings: what they hold, and what hostile ones cannot do."""

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from browser import OpenPage, ask, choose
from server_process import ServerProcess

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow

ATTACK = "<img src=x onerror=alert(1)><script>alert(2)</script>"


def link(server: ServerProcess, value: object) -> str:
    text = base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
    return f"{server.url}/#s={text}"


def opened(open_page: OpenPage, url: str) -> "tuple[Page, list[Any]]":
    """Open a link on a page that was there before; return the page, and what it then asks."""
    page = open_page(url.partition("#")[0])
    sent: list[Any] = []
    page.on("request", lambda it: sent.append(it) if "/v1/" in it.url else None)
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    page.evaluate("(to) => { location.href = to; }", url)
    page.locator("#status", has_text="nothing has been asked yet").wait_for()
    return page, sent


def test_a_link_has_the_settings_and_asks_nothing(
    open_page: OpenPage, server: ServerProcess
) -> None:
    first = open_page()
    choose(first, "exit-after-24", "fastv-2-half")
    first.get_by_label("What do you want to know of it?").fill("Where is the “star”? ☆")
    first.get_by_role("button", name="Leave out all of layer 7").click()
    first.locator("#method").select_option("dart")
    first.get_by_role("button", name="Yellow circles").click()
    first.get_by_role("button", name="Copy link").click()
    first.locator("#status", has_text="link is").wait_for()
    rules = first.locator("#rules").text_content()

    sent: list[str] = []
    second = open_page("about:blank", waits=False)
    second.on("request", lambda request: sent.append(f"{request.method} {request.post_data}"))
    second.goto(first.url)
    second.locator("#status", has_text="nothing has been asked yet").wait_for()

    assert second.locator("#question").input_value() == "Where is the “star”? ☆"
    chosen = second.locator("#policy-list input:checked").all()
    assert [box.get_attribute("value") for box in chosen] == ["exit-after-24", "fastv-2-half"]
    assert second.locator("#drawn").is_checked()
    assert second.locator("#rules").text_content() == rules
    sample = second.get_by_role("button", name="Yellow circles")
    assert sample.get_attribute("aria-pressed") == "true"
    # What the page asks on its own is the model's layers, and names no policy of the link's.
    posted = [it for it in sent if it.startswith("POST")]
    assert all('"skip_policy":"full"' in it or '"rules":[]' in it for it in posted)
    second.get_by_role("button", name="Count its FLOPs").click()
    second.locator("#saving strong").wait_for()
    assert len(ask(second, "How many stars are there?")) == 4


def test_a_hostile_link_is_text(open_page: OpenPage, server: ServerProcess) -> None:
    settings = {
        "version": 1,
        "question": ATTACK,
        "sample": "../../v1/models",
        "policies": [ATTACK, "exit-after-24", {"rules": []}, "no-such", "__proto__", 7],
        "drawn": "yes",
        "draft": {
            "skipped": {"attention visual": [3, -1, 1e9, "4", 3, 2000], "__proto__": [1]},
            "dropper": {"method": "constructor", "before": ATTACK},
        },
        "maxTokens": 10**9,
        "temperature": "hot",
        "seed": -1,
        "__proto__": {"fresh": False},
        "apiKey": "stolen",
    }
    page, sent = opened(open_page, link(server, settings))

    assert page.locator("#question").input_value() == ATTACK
    assert page.locator("#policy-list input:checked").count() == 1
    assert page.locator("#status").inner_text().endswith("This server has no no-such.")
    assert not page.locator("#drawn").is_checked()
    assert page.locator("#grid td [aria-pressed='true']").count() == 1
    values = [
        page.locator(f"#{name}").input_value() for name in ("max-tokens", "temperature", "seed")
    ]
    assert values == ["64", "0", ""]
    assert page.locator("#method").input_value() == ""
    page.wait_for_timeout(500)
    assert sent == []
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator("#ask:enabled").wait_for()
    assert page.locator("#past .asked").inner_text() == ATTACK
    assert page.locator("main img[src='x'], main script").count() == 0


@pytest.mark.parametrize(
    "fragment",
    [
        "#s=",
        "#s=%%%",
        "#s=e30",
        "#s=" + "A" * 100_000,
        "#s=" + base64.urlsafe_b64encode(b'{"version": 2}').decode(),
        "#s=" + base64.urlsafe_b64encode(b"[" * 5000).decode(),
        "#answers",
    ],
)
def test_what_is_no_link_changes_nothing(
    open_page: OpenPage, server: ServerProcess, fragment: str
) -> None:
    page = open_page(f"{server.url}/{fragment}")

    assert page.locator("#question").input_value() == "Describe the image."
    assert page.locator("#policy-list input:checked").count() == 2
    assert page.locator("#status").inner_text() == ""
