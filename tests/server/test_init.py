"""Tests of what `import skipserve` gives, and what it leaves alone."""

import subprocess
import sys

import pytest

import skipserve

pytestmark = pytest.mark.fast


def run(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_importing_it_imports_nothing_heavy() -> None:
    loaded = run("import sys, skipserve; print(*sys.modules)").split()
    assert "skipserve" in loaded
    assert not {"torch", "numpy", "fastapi", "pydantic", "skipserve.engine"} & set(loaded)


def test_a_light_name_brings_no_torch() -> None:
    code = "import sys; from skipserve import EngineLimits; print('torch' in sys.modules)"
    assert run(code) == "False"


def test_every_name_is_there() -> None:
    assert set(skipserve.__all__) <= set(dir(skipserve))
    for name in skipserve.__all__:
        value = getattr(skipserve, name)
        assert value.__name__ == name
        assert value.__doc__


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Lava'"):
        getattr(skipserve, "Lava")  # noqa: B009 (the type checker knows that there is none)
