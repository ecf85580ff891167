"""What the server's code must not contain: the rows of the security table on code itself."""

import ast
import importlib.util
from collections.abc import Iterator
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import skipserve

pytestmark = pytest.mark.fast

ROOT = Path(str(skipserve.__file__)).parent
SOURCES = sorted(ROOT.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in SOURCES}
# The rooms that see what a client sent.
HOSTILE = ("api", "asking", "media", "prompt")


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def words(tree: ast.AST) -> set[str]:
    """Return every name, attribute and keyword."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.keyword) and node.arg:
            found.add(node.arg)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_s51_s52_s57_nothing_runs_what_it_reads(path: Path) -> None:
    tree = TREES[path]
    assert not {"pickle", "dill", "cloudpickle", "marshal", "shelve"} & set(imports(tree))
    assert not {"literal_eval", "trust_remote_code", "allow_pickle"} & words(tree)
    called = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not {"eval", "exec", "compile", "__import__"} & called


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_s29_nothing_is_saved_under_a_name_that_a_checkpoint_chose(path: Path) -> None:
    """Transformers took the names of chat templates for paths. Only `fetch` saves, what is ours."""
    if path.relative_to(ROOT).parts[0] != "pretrained":
        assert not {"save_pretrained", "save_vocabulary", "push_to_hub"} & words(TREES[path])


def test_s29_the_transformers_that_are_taken_check_such_names() -> None:
    requirements = [Requirement(line) for line in requires("skipserve") or ()]
    (wanted,) = {str(it.specifier) for it in requirements if it.name == "transformers"}
    assert not any(SpecifierSet(wanted).contains(old) for old in ("5.9.9", "5.0", "4.57"))
    assert Version(version("transformers")) >= Version("5.10")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_s47_no_key_of_a_cache_can_be_guessed(path: Path) -> None:
    """Python's own hash has few bits, and of numbers none that are secret."""
    called = {node.func for node in ast.walk(TREES[path]) if isinstance(node, ast.Call)}
    names = {it.id for it in called if isinstance(it, ast.Name)}
    assert "hash" not in names
    assert not {"md5", "sha1", "crc32", "adler32"} & words(TREES[path])


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_s05_s56_one_file_fetches(path: Path) -> None:
    tree = TREES[path]
    fetching = {"httpx", "requests", "urllib", "aiohttp", "urllib3"} & set(imports(tree))
    is_fetcher = path.relative_to(ROOT).as_posix() == "media/remote.py"
    assert fetching == ({"httpx"} if is_fetcher else set())
    if path.relative_to(ROOT).parts[0] in HOSTILE:
        assert not {"transformers", "torch", "huggingface_hub"} & set(imports(tree))


@pytest.mark.parametrize(
    "name",
    [
        *("media/data_uri.py", "media/decode.py", "media/preprocess.py", "settings.py"),
        *("media/hosts.py", "media/remote.py"),
        *("prompt/processor.py", "prompt/tokenizer.py", "prompt/template.py"),
        *("api/auth.py", "api/body.py", "api/errors.py", "api/wire.py"),
        *("api/forms/chat.py", "api/forms/completions.py", "api/forms/message_form.py"),
        *("api/forms/response_form.py", "api/forms/shared.py", "api/forms/tokens.py"),
        *("asking/length.py", "asking/messages.py", "asking/policies.py", "asking/processor.py"),
        "engine/checks.py",
    ],
)
def test_s53_no_check_is_an_assert(name: str) -> None:
    """Asserts vanish under -O."""
    assert not any(isinstance(node, ast.Assert) for node in ast.walk(TREES[ROOT / name]))


def test_s55_forms_cannot_be_parsed() -> None:
    assert importlib.util.find_spec("python_multipart") is None
