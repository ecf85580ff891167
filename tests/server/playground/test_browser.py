"""The playground as a person uses it: in Chromium, against the demo's real server."""

import json
import re
import signal
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import yaml
from browser import OpenPage, ask, choose, drop
from pictures import data_uri, question
from server_process import ServerProcess

from skipserve.budgets.keys import digest_of_key

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
PICTURE = ROOT / "docs/picture.png"
POLICIES = ["skip-block-every-3-from-16-all", "exit-after-24", "fastv-2-half"]
CHAT = "/v1/chat/completions"
REFUSED = "Failed to load resource"


def replies(server: ServerProcess, text: str, *policies: object) -> list[Any]:
    """Return what the server replies to the same question without the page."""
    with server.client() as client:
        return [
            client.post(
                CHAT,
                json=question(
                    text,
                    data_uri(PICTURE.read_bytes()),
                    skip_policy=policy,
                    temperature=0,
                    max_tokens=64,
                    cache_salt=f"alone-{index}",
                ),
            ).json()
            for index, policy in enumerate(policies)
        ]


def words(text: str) -> list[str]:
    return re.findall(r"\s*\S+", text)


def test_a_picture_is_dropped_and_three_policies_answer(
    open_page: OpenPage, server: ServerProcess
) -> None:
    page = open_page()
    drop(page, PICTURE.read_bytes())
    page.get_by_text("mine.png").wait_for()
    choose(page, *POLICIES)

    columns = ask(page, "Describe the image.")

    assert list(columns) == ["full", *POLICIES]
    expected = replies(server, "Describe the image.", *columns)
    full = expected[0]["choices"][0]["message"]["content"]
    for column, reply in zip(columns.values(), expected, strict=True):
        text, skip = reply["choices"][0]["message"]["content"], reply["metrics"]["skip"]
        shown = column.inner_text()
        assert column.locator(".answer").inner_text().startswith(text)
        assert column.get_attribute("aria-busy") == "false"
        assert re.search(r"First token\n\d", shown)
        assert f"prompt {skip['saved_for']['prompt']}" in shown
        if skip["saved_ratio"] > 0:
            assert f"{100 * skip['saved_ratio']:.1f} % saved" in shown
        assert re.search(r"Exact match, in %: \d+", shown)
        assert column.get_by_role("img").get_attribute("aria-label").startswith("What runs. Text: ")
        if reply is not expected[0]:
            agreement = column.locator(".agreement").inner_text()
            pairs = zip(words(text), words(full), strict=False)
            num_alike = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
            differs = f"Differs from full at word {num_alike + 1}"
            assert agreement == ("Same as full" if text == full else differs)
    assert page.get_by_role("status").first.inner_text().startswith("4 answers. ")
    history = page.locator("#past li")
    assert history.count() == 1
    history.locator("summary").click()
    assert history.locator("tbody tr").count() == 4
    page.reload()
    assert page.locator("#past li .asked").inner_text() == "Describe the image."


def test_a_policy_is_drawn_with_the_keyboard(open_page: OpenPage, server: ServerProcess) -> None:
    page = open_page()
    drop(page, PICTURE.read_bytes())
    choose(page)
    start = page.get_by_role("button", name="Layer 16, visual, FFN: leave out")
    start.focus()

    page.keyboard.press("Space")
    for _ in range(15):
        page.keyboard.press("Shift+ArrowRight")

    focused = page.locator("#grid button:focus")
    assert focused.get_attribute("aria-label") == "Layer 31, visual, FFN: leave out"
    assert page.locator("#grid button[tabindex='0']").count() == 1
    assert page.locator("#drawn").is_checked()
    policy = json.loads(page.locator("#rules").text_content() or "")["skip_policy"]
    layers = {"from": 16, "to": 31}
    assert policy["rules"] == [{"action": "skip_ffn", "layers": layers, "scope": "visual"}]
    with server.client() as client:
        body = {"skip_policy": "visual-ffn-skip-from-16"}
        preview = client.post("/v1/skip_policies/resolve", json=body).json()
    saved = f"{100 * preview['skip']['saved_ratio']:.1f} %"
    page.locator("#saving strong", has_text=saved).wait_for()
    told = preview["quality"][0]
    assert f"Exact match, in %: {told['value']:g}" in page.locator("#cost").inner_text()
    columns = ask(page, "How many red squares are there?")
    [full, drawn] = replies(server, "How many red squares are there?", "full", policy)
    assert list(columns) == ["full", "drawn"]
    assert full["choices"][0]["message"]["content"] == "2"
    answer = drawn["choices"][0]["message"]["content"]
    assert columns["drawn"].locator(".answer").inner_text().startswith(answer)
    saving = f"{100 * drawn['metrics']['skip']['saved_ratio']:.1f} % saved"
    assert saving in columns["drawn"].inner_text()


def test_a_policy_is_drawn_with_the_mouse(open_page: OpenPage) -> None:
    page = open_page(tolerates=REFUSED)

    def box(layer: int) -> dict[str, float]:
        cell = page.get_by_role("button", name=f"Layer {layer}, text, attention: leave out")
        found = cell.bounding_box()
        assert found is not None
        return {"x": found["x"] + found["width"] / 2, "y": found["y"] + found["height"] / 2}

    page.locator("#draw").scroll_into_view_if_needed()
    page.locator("#grid").hover()
    start, end = box(4), box(9)
    page.mouse.move(**start)
    page.mouse.down()
    page.mouse.move(**end, steps=30)
    page.mouse.up()
    page.locator("#method").select_option("fastv")
    page.locator("#keep").fill("25")
    page.get_by_role("button", name="Leave out all of layer 20").click()

    policy = json.loads(page.locator("#rules").text_content() or "")["skip_policy"]
    assert policy["rules"] == [
        {"action": "skip_attention", "layers": {"from": 4, "to": 9}, "scope": "prompt"},
        {"action": "skip_block", "layers": [20], "scope": "all"},
        {"action": "drop_visual", "method": "fastv", "before": 2, "keep": "25%"},
    ]
    page.get_by_text("Rows of an image that go on: 9 of 36 from layer 2.").wait_for()
    # Its choice looks at the attention of the layer before.
    page.locator("#before").fill("5")
    page.locator("#saving .fault", has_text="layer 4").wait_for()
    page.get_by_role("button", name="Clear").click()
    page.locator("#saving strong", has_text="0.0 %").wait_for()
    assert not page.locator("#drawn").is_checked()


def test_a_wrong_key_is_asked_for_again(open_page: OpenPage) -> None:
    with ServerProcess("demo", "--api-key", "the-right-one") as locked:
        page = open_page(locked.url, tolerates=REFUSED, waits=False)
        field = page.get_by_label("API key", exact=True).and_(page.locator("input"))
        page.locator("#key-fault", has_text="this server wants an API key").wait_for()
        assert field.evaluate("(it) => it === document.activeElement")

        field.fill("a-wrong-one")
        page.keyboard.press("Enter")
        page.locator("#key-fault", has_text="the API key is wrong").wait_for()
        assert field.get_attribute("aria-invalid") == "true"
        assert field.evaluate("(it) => it === document.activeElement")
        assert page.get_by_role("button", name="Ask", exact=True).is_disabled()

        field.fill("the-right-one")
        page.keyboard.press("Enter")
        page.locator("#grid td button").first.wait_for()
        assert field.get_attribute("aria-invalid") is None
        columns = ask(page, "How many circles are there?")
        assert len(columns) == 3
        assert all(column.locator(".fault").count() == 0 for column in columns.values())
        page.get_by_role("button", name="Copy link").click()
        kept = "() => JSON.stringify([{...sessionStorage}, {...localStorage}, location.href])"
        assert "the-right-one" not in page.evaluate(kept)
        page.get_by_label("Keep it until this tab is closed").check()
        assert page.evaluate(kept).count("the-right-one") == 1
        page.reload()
        page.locator("#grid td button").first.wait_for()


def test_an_answer_that_fails_leaves_the_others(open_page: OpenPage, tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    entry = {
        "name": "alice",
        "sha256": digest_of_key("her-key").hex(),
        "policies": ["full", "exit-after-24"],
    }
    keys.write_text(yaml.safe_dump({"keys": [entry | {"inline_policies": True}]}))
    with ServerProcess("demo", "--api-keys-file", str(keys)) as server:
        page = open_page(server.url, tolerates=REFUSED, waits=False)
        page.locator("#key").fill("her-key")
        page.keyboard.press("Enter")
        page.locator("#grid td button").first.wait_for()
        # Somebody takes the right away while the page is open.
        entry["policies"] = ["full"]
        keys.write_text(yaml.safe_dump({"keys": [entry]}))
        server.signal(signal.SIGHUP)
        choose(page, "exit-after-24")
        columns = ask(page, "How many circles are there?")
    assert columns["full"].locator(".fault").count() == 0
    assert "may not use the skip policy" in columns["exit-after-24"].locator(".fault").inner_text()


def test_a_key_of_few_rights_sees_what_it_may(open_page: OpenPage, tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    rights = {"policies": ["exit-after-24"], "inline_policies": False}
    entry = {"name": "bob", "sha256": digest_of_key("his-key").hex()}
    keys.write_text(yaml.safe_dump({"keys": [entry | rights]}))
    with ServerProcess("demo", "--api-keys-file", str(keys)) as server:
        page = open_page(server.url, tolerates=REFUSED, waits=False)
        page.locator("#key").fill("his-key")
        page.keyboard.press("Enter")
        page.locator("#saving .fault", has_text="may not spell skip policies out").wait_for()
        assert page.locator("#model").inner_text().startswith("demo: 32 layers")
        assert page.get_by_label("Compare with full").is_disabled()
        columns = ask(page, "How many circles are there?")
    assert list(columns) == ["exit-after-24"]
    assert columns["exit-after-24"].locator(".fault").count() == 0


def test_history_brings_settings_and_picture_back(open_page: OpenPage) -> None:
    page = open_page()
    drop(page, PICTURE.read_bytes())
    choose(page, "fastv-2-half")
    ask(page, "How many red squares are there?")
    page.get_by_role("button", name="Two small red circles").click()
    choose(page)
    page.get_by_label("What do you want to know of it?").fill("Another")
    page.locator("#past summary").click()
    page.get_by_role("button", name="Use these settings").click()

    assert page.locator("#question").input_value() == "How many red squares are there?"
    assert page.locator("#preview").get_attribute("src") == data_uri(PICTURE.read_bytes())
    assert page.locator("#policy-list input:checked").get_attribute("value") == "fastv-2-half"
    page.reload()
    page.locator("#grid td button").first.wait_for()
    page.locator("#past summary").click()
    page.get_by_role("button", name="Use these settings").click()
    page.locator("#status", has_text="The picture of then is not kept").wait_for()


def test_an_answer_is_stopped(open_page: OpenPage) -> None:
    """One is held back on its way to the server; the others come."""
    page = open_page(tolerates=REFUSED)
    page.route(
        f"**{CHAT}",
        lambda it: None if "exit-after" in (it.request.post_data or "") else it.continue_(),
    )
    choose(page, "exit-after-24")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator(".column[aria-busy='false']", has_text="full").wait_for()
    assert page.get_by_role("button", name="Ask", exact=True).is_disabled()

    page.get_by_role("button", name="Stop").click()

    page.locator("#ask:enabled").wait_for()
    assert page.locator(".column").nth(0).locator(".fault").count() == 0
    assert page.locator(".column").nth(1).locator(".fault").inner_text().startswith("Stopped")
    assert page.get_by_role("button", name="Stop").is_hidden()


@pytest.mark.parametrize(
    ("content", "kind", "told"),
    [
        (b"no picture at all", "image/png", "The picture"),
        (b"plain", "text/plain", "is no picture"),
    ],
)
def test_what_is_no_picture_is_refused(
    open_page: OpenPage, content: bytes, kind: str, told: str
) -> None:
    page = open_page(tolerates=REFUSED)
    drop(page, content, "broken", kind)
    if kind == "text/plain":
        page.locator("#picture-fault", has_text=told).wait_for()
        return
    columns = ask(page, "Describe the image.")
    for column in columns.values():
        assert column.locator(".fault").inner_text().startswith(told)


def test_too_many_requests_are_told_when_to_come_again(open_page: OpenPage, tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    # The page takes one to learn how many layers there are, then each answer and each map one.
    limits = {"requests_per_minute": 5}
    entry = {"name": "alice", "sha256": digest_of_key("her-key").hex(), "limits": limits}
    keys.write_text(yaml.safe_dump({"keys": [entry]}))
    with ServerProcess("demo", "--api-keys-file", str(keys)) as server:
        page = open_page(server.url, tolerates=REFUSED, waits=False)
        page.locator("#key").fill("her-key")
        page.keyboard.press("Enter")
        page.locator("#grid td button").first.wait_for()
        columns = ask(page, "How many circles are there?")
        faults = [it.locator(".fault") for it in columns.values() if it.locator(".fault").count()]
    assert faults
    for fault in faults:
        told = fault.inner_text()
        assert told.startswith("Too many requests. ")
        assert len(re.findall(r"try again in \d+ s", told, re.IGNORECASE)) == 1


@pytest.mark.parametrize("in_turn", [True, False])
def test_answers_come_at_once_or_one_after_another(open_page: OpenPage, in_turn: bool) -> None:
    """What asks is held back, so that those that are asked by then can be counted."""
    page = open_page(tolerates=REFUSED)
    page.route(f"**{CHAT}", lambda _: None)
    page.get_by_text("Parameters").click()
    page.get_by_label("One after another").set_checked(in_turn)
    with page.expect_request(f"**{CHAT}"):
        page.get_by_role("button", name="Ask", exact=True).click()
    assert page.locator(".column").count() == 3
    assert page.locator(".column.waiting").count() == (1 if in_turn else 3)
    page.get_by_role("button", name="Stop").click()
    page.locator("#ask:enabled").wait_for()
    assert page.locator(".column .fault").count() == 3


@pytest.mark.parametrize("anew", [True, False])
def test_what_was_computed_before_is_left_unused_unless_it_may_be(
    open_page: OpenPage, anew: bool
) -> None:
    page = open_page()
    page.get_by_text("Parameters").click()
    page.get_by_label("Compute all anew").set_checked(anew)
    for _ in range(2):
        columns = ask(page, "How many circles are there in it, would you say?")
    assert ("cached" in columns["full"].inner_text()) is not anew


def test_a_proxy_may_put_it_below_a_path(open_page: OpenPage, server: ServerProcess) -> None:
    def lead_on(route: Any) -> None:
        place = route.request.url.replace("/below/here/", "/")
        route.fulfill(response=route.fetch(url=place))

    page = open_page("about:blank", waits=False)
    asked: list[str] = []
    page.on("request", lambda it: asked.append(it.url.removeprefix(server.url)))
    page.route("**/below/here/**", lead_on)
    page.goto(f"{server.url}/below/here/")
    page.locator("#grid td button").first.wait_for()
    columns = ask(page, "How many circles are there?")
    assert all(column.locator(".fault").count() == 0 for column in columns.values())
    assert all(path.startswith("/below/here/") for path in asked if path.startswith("/"))
    assert f"/below/here{CHAT}" in asked


def test_a_full_server_is_told_with_when_to_come_again(open_page: OpenPage) -> None:
    """The network answers for the server, which cannot be made full for sure."""
    page = open_page(tolerates=REFUSED)
    body = {"error": {"message": "too much waits", "type": "x", "param": None, "code": 503}}
    page.route(
        f"**{CHAT}", lambda it: it.fulfill(status=503, headers={"Retry-After": "7"}, json=body)
    )
    for column in ask(page, "How many circles are there?").values():
        told = "The server is busy. Too much waits. Try again in 7 seconds."
        assert column.locator(".fault").inner_text() == told
