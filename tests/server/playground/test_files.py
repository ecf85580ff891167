"""The playground without a browser: what is served, with which headers, and what the files hold."""

import io
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import PurePosixPath
from urllib.parse import urljoin

import pytest
from app_client import send
from fastapi import FastAPI
from PIL import Image

from skipserve.app import Built, build
from skipserve.playground.files import ASSETS_PATH, CONTENT_SECURITY_POLICY, PAGE_PATH, read_files
from skipserve.settings import Settings
from skipserve_client.evaluate.scenes import Split, make_scene

pytestmark = pytest.mark.fast

FILES = {file.path: file for file in read_files()}
# Without their comments.
SCRIPTS = {
    path: re.sub(r"/\*\*.*?\*/|^\s*//.*?$", "", file.body.decode(), flags=re.DOTALL | re.MULTILINE)
    for path, file in FILES.items()
    if path.endswith(".js")
}
PAGE = FILES[PAGE_PATH].body.decode()
STYLE = FILES[f"{ASSETS_PATH}style.css"].body.decode()


class _Elements(HTMLParser):
    """Remembers a page's elements with their attributes, and the text in scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.inline = ""
        self._is_inline = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))
        self._is_inline = tag in {"script", "style"}

    def handle_endtag(self, tag: str) -> None:
        self._is_inline = False

    def handle_data(self, data: str) -> None:
        if self._is_inline:
            self.inline += data.strip()


ELEMENTS = _Elements(PAGE)


@pytest.fixture(scope="module")
def off(settings: Settings) -> FastAPI:
    return build(settings.model_copy(update={"playground": False})).app


@pytest.fixture(scope="module")
def locked(settings: Settings) -> FastAPI:
    return build(Settings(**settings.model_dump() | {"api_key": "a-key"})).app


@pytest.mark.parametrize("path", FILES)
def test_each_file_is_served(idle: Built, path: str) -> None:
    reply = send(idle.app, "GET", path)

    assert (reply.status_code, reply.content) == (200, FILES[path].body)
    assert reply.headers["Content-Type"] == FILES[path].media_type
    assert reply.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.headers["Referrer-Policy"] == "no-referrer"
    assert reply.headers["Cache-Control"] == "no-cache"
    assert "Access-Control-Allow-Origin" not in reply.headers


@pytest.mark.parametrize("tag", ["{}", "W/{}", '"other", {}'])
def test_what_a_browser_has_is_not_sent_again(idle: Built, tag: str) -> None:
    etag = send(idle.app, "GET", PAGE_PATH).headers["ETag"]

    reply = send(idle.app, "GET", PAGE_PATH, headers={"If-None-Match": tag.format(etag)})

    assert (reply.status_code, reply.content, reply.headers["ETag"]) == (304, b"", etag)
    other = send(idle.app, "GET", PAGE_PATH, headers={"If-None-Match": '"other"'})
    assert other.status_code == 200


def test_files_have_tags_of_their_own() -> None:
    assert len({file.etag for file in FILES.values()}) == len(FILES)


def test_only_get_and_head_are_taken(idle: Built) -> None:
    for path in (PAGE_PATH, f"{ASSETS_PATH}app.js"):
        assert send(idle.app, "HEAD", path).status_code == 200
        reply = send(idle.app, "POST", path, json={})
        assert (reply.status_code, reply.headers["Allow"]) == (405, "GET, HEAD")
        assert reply.json()["error"]["code"] == 405


@pytest.mark.parametrize(
    "path", ["/playground", "/playground/", "/playground/files.py", "/playground/../app.py"]
)
def test_nothing_else_is_served(idle: Built, path: str) -> None:
    assert send(idle.app, "GET", path).status_code == 404


def test_no_schema_shows_it(idle: Built) -> None:
    assert not {path for path in idle.app.openapi()["paths"] if path in FILES}


def test_it_needs_no_key_and_opens_nothing(locked: FastAPI) -> None:
    assert {send(locked, "GET", path).status_code for path in FILES} == {200}
    for path in ("/v1/models", "/v1/skip_policies", f"{ASSETS_PATH}other.js"):
        assert send(locked, "GET", path).status_code == 401


def test_it_can_be_switched_off(off: FastAPI, settings: Settings) -> None:
    assert {send(off, "GET", path).status_code for path in FILES} == {404}
    assert send(off, "GET", "/v1/models").status_code == 200
    changes = {"api_key": "a-key", "playground": False}
    locked = build(Settings(**settings.model_dump() | changes)).app
    assert {send(locked, "GET", path).status_code for path in FILES} == {401}


def test_the_policy_allows_what_the_page_needs_and_no_more() -> None:
    allowed = dict(part.split(" ", 1) for part in CONTENT_SECURITY_POLICY.split("; "))

    assert allowed == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data: blob:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }


def test_nothing_stands_in_the_page_that_the_policy_forbids() -> None:
    names = {name for _, attributes in ELEMENTS.found for name in attributes}

    assert ELEMENTS.inline == ""
    assert not {name for name in names if name.startswith("on")} | (names & {"style", "srcdoc"})
    assert not {"base", "iframe", "object", "embed"} & {tag for tag, _ in ELEMENTS.found}


def test_nothing_comes_from_elsewhere() -> None:
    for path, text in {PAGE_PATH: PAGE, "style": STYLE, **SCRIPTS}.items():
        named = set(re.findall(r"(?:[a-z]+:)?//[\w.-]+", text))
        assert named <= {"http://www.w3.org"}, path


def _references() -> Iterator[tuple[str, str]]:
    """Yield each file that another names, as the other is served and as it names it."""
    for _, attributes in ELEMENTS.found:
        for name in ("src", "href"):
            if attributes.get(name, "#")[0] != "#":
                yield PAGE_PATH, attributes[name]
    for path, text in SCRIPTS.items():
        yield from ((path, name) for name in re.findall(r'\b(?:from|import)\(? ?"(.+?)"', text))


def test_each_file_that_is_named_exists() -> None:
    found = {urljoin(place, name) for place, name in _references()}
    samples = {f"{ASSETS_PATH}samples/{name}.png" for name in _samples()}

    assert (found | samples | {PAGE_PATH}) == set(FILES)


def test_a_path_before_all_others_changes_nothing() -> None:
    """The page names what it needs from where it lies, so a proxy may put it below any path."""
    named = [name for _, name in _references()]
    named += re.findall(r'["`](\S*(?:v1|playground)/\S*)["`]', "".join(SCRIPTS.values()))

    assert len([name for name in named if name.startswith("v1/")]) >= 4
    assert not [name for name in named if name.startswith(("/", "http"))]


def _samples() -> list[str]:
    return re.findall(r'id: "(scene-\d+)"', SCRIPTS[f"{ASSETS_PATH}picture.js"])


def test_samples_are_held_out_scenes() -> None:
    assert len(_samples()) >= 4
    for name in _samples():
        file = FILES[f"{ASSETS_PATH}samples/{name}.png"]
        scene = make_scene(Split.HELD_OUT, int(name.partition("-")[2]))
        with Image.open(io.BytesIO(file.body)) as sample:
            assert sample.tobytes() == scene.render().tobytes()


def test_scripts_write_no_markup_and_run_no_text() -> None:
    for path, text in SCRIPTS.items():
        found = re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text)
        assert not found, path


def test_one_script_alone_asks_the_server() -> None:
    """Besides it, samples are fetched."""
    using = {PurePosixPath(path).name for path, text in SCRIPTS.items() if "fetch(" in text}

    assert using == {"api.js", "picture.js"}


def test_elements_that_scripts_look_for_are_there() -> None:
    ids = {attributes["id"] for _, attributes in ELEMENTS.found if "id" in attributes}
    wanted = {name for text in SCRIPTS.values() for name in re.findall(r'byId\("([\w-]+)"\)', text)}

    assert wanted <= ids
    referred = {
        name
        for _, attributes in ELEMENTS.found
        for key in ("for", "aria-labelledby", "aria-describedby")
        for name in attributes.get(key, "").split()
    }
    assert referred <= ids


def test_the_page_is_small() -> None:
    assert sum(len(file.body) for file in FILES.values()) < 150_000
