"""What to try on a server that has just started: lines to copy into a shell, in any folder."""

import json
import shlex
import shutil
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

# Where the other commands look for a key. Their variable for the address may name another server.
_KEY_VARIABLE = "SKIPSERVE_API_KEY"
# What the demo model was made for, and what any model can be asked.
_DEMO_QUESTION = "How many red squares are there?"
_QUESTION = "What is in this picture?"


@dataclass(frozen=True)
class Hints:
    """Lines that ask a server, which fit it.

    Attributes:
        url: where it listens.
        is_demo: whether the demo model is served.
        skip_policy: one for an example; None where none fits the model, or its default skips.
        has_key: whether it wants an API key.
        has_page: whether it has a page for browsers.
    """

    url: str
    is_demo: bool = False
    skip_policy: str | None = None
    has_key: bool = False
    has_page: bool = True

    def lines(self) -> list[str]:
        """Return what to try next."""
        key = [f"export {_KEY_VARIABLE}=YOUR-KEY"] if self.has_key else []
        policies = f"{_program()} policies --url {shlex.quote(self.url)}"
        commands = [*key, self._ask(), policies, self._curl()]
        page = f"Open {self.url}/ in a browser, or try" if self.has_page else "Try"
        return [f"{page} in another terminal:", *(f"  {line}" for line in commands), ""]

    def _question(self) -> str:
        return _DEMO_QUESTION if self.is_demo else _QUESTION

    def _ask(self) -> str:
        return f'{_program()} ask {_picture()} "{self._question()}" --url {shlex.quote(self.url)}'

    def _curl(self) -> str:
        """Return the same question without our client."""
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,PICTURE"}}
        content = [image, {"type": "text", "text": self._question()}]
        body = {"messages": [{"role": "user", "content": content}], "temperature": 0}
        if self.skip_policy is not None:
            body["skip_policy"] = self.skip_policy
        before, after = map(shlex.quote, json.dumps(body).split("PICTURE", 1))
        header = f' -H "Authorization: Bearer ${_KEY_VARIABLE}"' if self.has_key else ""
        # Through a pipe: a picture may be larger than an argument can be.
        return (
            f"printf %s {before}\"$(base64 < {_picture()} | tr -d '\\n')\"{after} | "
            f"curl -s {shlex.quote(f'{self.url}/v1/chat/completions')}{header} "
            "-H 'Content-Type: application/json' -d @-"
        )


def _program() -> str:
    """Return what runs this program in a shell of any folder, in which no environment is active."""
    script = Path(sys.executable).absolute().with_name("skipserve")
    found = Path(shutil.which("skipserve") or "")
    if not script.exists():
        return f"{shlex.quote(sys.executable)} -m skipserve_client"
    # Beside the interpreter it may be on this shell's path alone.
    is_link = found.is_absolute() and found.parent != script.parent and found.samefile(script)
    return "skipserve" if is_link else shlex.quote(str(script))


def _picture() -> str:
    """Return the picture that ships."""
    return shlex.quote(str(files("skipserve") / "picture.png"))
