"""What a server says to try is run as a user would: copied into a shell, elsewhere."""

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import children
import pytest
from server_process import ServerProcess
from tiny_llava import make_checkpoint

from skipserve import hints
from skipserve.hints import Hints

ROOT = Path(__file__).parents[2]
URL = "http://127.0.0.1:8000"
KEY = "key with 'quotes'"


class OddlyPlaced(ServerProcess):
    """A server whose program lies at a path that a shell takes apart."""

    def __init__(self, model: Path, venv: Path, *flags: str) -> None:
        self.python = str(venv / "bin" / Path(sys.executable).name)
        super().__init__(model, *flags)


def run(line: str, folder: Path) -> str:
    done = children.run(["sh", "-c", line], cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_a_ready_server_says_works_in_any_folder(tmp_path: Path) -> None:
    """Of a model that few policies fit."""
    model = make_checkpoint(tmp_path / "it's small", max_positions=256)
    venv = tmp_path / "it's $HOME; a venv"
    venv.symlink_to(sys.prefix)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with OddlyPlaced(model, venv, "--api-key", KEY) as server:
        said = [server.read_line()]
        while "curl" not in said[-1]:
            said.append(server.read_line())
        export, ask, policies, curl = (line.strip() for line in said if line.startswith("  "))
        assert not any("red squares" in line for line in said)
        assert shlex.quote(f"{venv}/bin/skipserve") in ask
        key = export.replace("YOUR-KEY", shlex.quote(KEY))
        assert "tokens/s" in run(f"{key}; {ask}", elsewhere)
        listed = run(f"{key}; {policies} --json", elsewhere)
        reply = json.loads(run(f"{key}; {curl}", elsewhere))
    assert reply["choices"][0]["message"]["content"] is not None
    named = reply["metrics"]["skip"]["policy"]
    assert named in {entry["name"] for entry in json.loads(listed)["data"]} - {"full"}


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A venv that is not on the path."""
    program = tmp_path / "a venv" / "bin" / "skipserve"
    program.parent.mkdir(parents=True)
    program.touch(0o755)
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    monkeypatch.setenv("PATH", "/nowhere")
    return program


def named_program() -> str:
    line = next(line for line in Hints(URL).lines() if " policies " in line)
    return line.strip().removesuffix(f" policies --url {URL}")


@pytest.mark.fast
def test_a_program_that_only_this_shell_finds_is_named_in_full(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert named_program() == f"'{program}'"
    monkeypatch.setenv("PATH", str(program.parent))
    assert named_program() == f"'{program}'", "the path may be that of an active environment"
    monkeypatch.chdir(program.parent.parent)
    monkeypatch.setenv("PATH", "bin")
    assert named_program() == f"'{program}'"
    monkeypatch.setattr(sys, "executable", "bin/python")
    assert named_program() == f"'{program}'"


@pytest.mark.fast
def test_a_program_that_every_shell_finds_is_named_in_short(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = tmp_path / "links"
    links.mkdir()
    monkeypatch.setenv("PATH", str(links))
    (links / "skipserve").touch(0o755)
    assert named_program() == f"'{program}'", "that is another one"
    (links / "skipserve").unlink()
    (links / "skipserve").symlink_to(program)
    assert named_program() == "skipserve"
    program.unlink()
    assert named_program() == f"'{program.with_name('python')}' -m skipserve_client"


@pytest.mark.fast
def test_the_picture_that_ships_is_that_of_the_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Path(hints._picture()).read_bytes() == (ROOT / "docs/picture.png").read_bytes()
    monkeypatch.chdir("/")
    assert Path(hints._picture()).is_file()


@pytest.mark.fast
def test_the_demo_is_asked_what_it_knows() -> None:
    plain = Hints(URL)
    assert "red squares" not in "".join(plain.lines())
    assert "red squares" in "".join(replace(plain, is_demo=True).lines())


@pytest.mark.fast
def test_the_page_is_named_where_there_is_one() -> None:
    with_page = Hints(URL).lines()
    without = replace(Hints(URL), has_page=False).lines()
    assert with_page[0] == f"Open {URL}/ in a browser, or try in another terminal:"
    assert without[0] == "Try in another terminal:"
    assert with_page[1:] == without[1:]


@pytest.mark.fast
@pytest.mark.parametrize("name", [None, "mine", "it's $(mine) %s \\n `\"PICTURE"])
@pytest.mark.parametrize("folder", ["plain", 'it\'s $(a place); "yes"'])
def test_the_body_survives_the_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | None, folder: str
) -> None:
    picture = tmp_path / folder / "picture.png"
    picture.parent.mkdir()
    picture.write_bytes(b"\x89PNG" * 5000)
    monkeypatch.setattr(hints, "files", lambda package: picture.parent)
    *_, curl, _ = Hints("http://[::1]:9", skip_policy=name).lines()
    sender, receiver = curl.rsplit(" | ", 1)
    assert shlex.split(receiver)[:3] == ["curl", "-s", "http://[::1]:9/v1/chat/completions"]
    body = json.loads(run(sender, tmp_path))
    assert body.get("skip_policy") == name
    url = body["messages"][0]["content"][0]["image_url"]["url"]
    assert url.startswith("data:image/png;base64,iVBOR")
    assert len(url) > 20_000
