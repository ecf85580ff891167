"""What the server's code must not contain: the rows of the security table on code itself."""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

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
def test_s05_s56_nothing_fetches(path: Path) -> None:
    tree = TREES[path]
    assert not {"httpx", "requests", "urllib", "aiohttp", "urllib3"} & set(imports(tree))
    if path.relative_to(ROOT).parts[0] in HOSTILE:
        assert not {"transformers", "torch", "huggingface_hub"} & set(imports(tree))


@pytest.mark.parametrize(
    "name",
    [
        *("media/data_uri.py", "media/decode.py", "media/preprocess.py", "settings.py"),
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
