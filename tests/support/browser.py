"""A real browser, where there is one, and what a person does on the playground with it."""

import base64
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import programs

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

OpenPage = Callable[..., "Page"]
# As Debian, other systems and Google call it.
_NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def running_browser() -> "Iterator[Browser]":
    """Run a browser while the context lasts; do without the tests where it is missing."""
    try:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415
    except ImportError:
        programs.do_without(
            "playwright", "playwright is not installed: make test-browser installs it"
        )
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        programs.do_without("chromium", "chromium is not installed: apt-get install chromium")
    # Chromium has no sandbox for root, as whom containers often run.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


def drop(page: "Page", content: bytes, name: str = "mine.png", kind: str = "image/png") -> None:
    """Drop a file on the place for pictures."""
    data = page.evaluate_handle(
        """([text, name, type]) => {
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], name, { type }));
            return data;
        }""",
        [base64.b64encode(content).decode(), name, kind],
    )
    page.locator("#drop").dispatch_event("drop", {"dataTransfer": data})


def choose(page: "Page", *names: str) -> None:
    """Choose these policies and no other."""
    chosen = page.locator("#policy-list input:checked")
    while chosen.count():
        chosen.first.uncheck()
    for name in names:
        page.locator(f'#policy-list input[value="{name}"]').check()


def ask(page: "Page", text: str) -> dict[str, "Locator"]:
    """Ask, wait for all answers, and return the columns by their titles."""
    page.get_by_label("What do you want to know of it?").fill(text)
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator("#ask:enabled").wait_for()
    columns = page.locator(".column").all()
    return {column.get_by_role("heading").inner_text(): column for column in columns}
