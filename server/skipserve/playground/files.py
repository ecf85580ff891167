"""The playground's files, ready to be sent. Knows nothing of what the page does."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

PAGE_PATH = "/"
# Below it lie all other files; the page names them without the slash, so a prefix is no matter.
ASSETS_PATH = "/playground/"
_PAGE_FILE = "index.html"
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
# The page's own files and server, and pictures that a person chose; nothing that stands in a
# page, nothing of elsewhere, and nobody's frame.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    # Kept, but never used unasked: a page must not meet the scripts of another version.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True)
class StaticFile:
    """A file that is sent as it is.

    Attributes:
        path: where it is asked for.
        body: what it holds.
        media_type: what that is.
    """

    path: str
    body: bytes
    media_type: str

    @property
    def etag(self) -> str:
        """What names this version of it."""
        return f'"{hashlib.sha256(self.body).hexdigest()[:32]}"'

    @property
    def route(self) -> Route:
        """What answers requests for it, which no schema shows."""
        etag = self.etag
        headers = _HEADERS | {"ETag": etag}

        async def send(request: Request) -> Response:
            known = request.headers.get("if-none-match", "").split(",")
            if etag in (tag.strip().removeprefix("W/") for tag in known):
                return Response(status_code=304, headers=headers)
            return Response(self.body, headers=headers, media_type=self.media_type)

        return Route(self.path, send, methods=["GET"], include_in_schema=False)


def read_files() -> tuple[StaticFile, ...]:
    """Return the page and all that it consists of, read once."""
    folder = files("skipserve.playground")
    return tuple(sorted(_read(folder, PurePosixPath()), key=lambda file: file.path))


def _read(folder: Traversable, place: PurePosixPath) -> list[StaticFile]:
    found = []
    for entry in folder.iterdir():
        name = place / entry.name
        media_type = _MEDIA_TYPES.get(name.suffix)
        if entry.is_dir():
            found += _read(entry, name)
        elif media_type is not None:
            path = PAGE_PATH if str(name) == _PAGE_FILE else f"{ASSETS_PATH}{name}"
            found.append(StaticFile(path, entry.read_bytes(), media_type))
    return found
