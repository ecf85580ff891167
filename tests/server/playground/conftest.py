"""What the tests in a browser share: the demo's server, and pages that may report no fault."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from browser import OpenPage, running_browser
from server_process import ServerProcess

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


# Not of the session: Playwright leaves an event loop running, beside which no other can.
@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def server(browser: "Browser") -> Iterator[ServerProcess]:
    """The demo; started only where there is a browser to ask it."""
    with ServerProcess("demo") as server:
        yield server


@pytest.fixture
def open_page(browser: "Browser", server: ServerProcess) -> Iterator[OpenPage]:
    """Open the playground in a browser that remembers nothing; a fault in it fails the test."""
    faults: list[str] = []
    with ExitStack() as contexts:

        def open_page(
            url: str = "", *, tolerates: str | None = None, waits: bool = True, **options: Any
        ) -> "Page":
            context = browser.new_context(**{"viewport": {"width": 1440, "height": 1000}} | options)
            contexts.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(60_000)

            def note(text: str) -> None:
                if tolerates is None or tolerates not in text:
                    faults.append(text)

            page.on("pageerror", lambda error: note(str(error)))
            page.on(
                "console", lambda it: note(it.text) if it.type in {"error", "warning"} else None
            )
            page.goto(url or server.url)
            if waits:
                page.locator("#grid td button").first.wait_for()
                page.locator("#saving strong").or_(page.locator("#count:visible")).first.wait_for()
            return page

        yield open_page
    assert not faults
