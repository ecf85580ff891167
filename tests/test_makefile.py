"""What the Makefile would do, in a clone of several ages; nothing is installed."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.fast,
    pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed"),
]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def commands(clone: Path, target: str, *, has_gpu: bool = False) -> list[str]:
    """Return what a target runs."""
    programs = clone / "programs"
    programs.mkdir(exist_ok=True)
    (programs / "nvidia-smi").unlink(missing_ok=True)
    if has_gpu:
        (programs / "nvidia-smi").touch(0o755)
    done = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", target],
        cwd=clone,
        env={"PATH": f"{programs}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def installed(lines: list[str]) -> list[str]:
    return [line.rsplit(" ", 1)[1] for line in lines if "pip install" in line]


def stamp(clone: Path, *names: str) -> None:
    (clone / ".venv/bin").mkdir(parents=True, exist_ok=True)
    for name in ("bin/python", *names):
        (clone / ".venv" / name).touch()


def test_serving_installs_what_serving_needs(clone: Path) -> None:
    lines = commands(clone, "serve")
    assert installed(lines) == ["'.[server]'"]
    assert installed(commands(clone, "serve", has_gpu=True)) == ["'.[server,gpu]'"]
    assert not any("--quiet" in line for line in lines), "pip says how far it is"
    assert sum("-m venv" in line for line in lines) == 1
    assert lines[-1].endswith("skipserve serve --model demo ")


@pytest.mark.parametrize("target", ["test", "check", "install", "bench", "format"])
def test_all_else_installs_everything_at_once(clone: Path, target: str) -> None:
    assert installed(commands(clone, target)) == ["'.[dev]'"]
    stamp(clone, ".serving")
    lines = commands(clone, target)
    assert installed(lines) == ["'.[dev]'"], "the tools are added to what serves"
    assert not any("-m venv" in line for line in lines)


def test_nothing_is_installed_twice(clone: Path) -> None:
    stamp(clone, ".serving")
    assert installed(commands(clone, "serve")) == []
    [touched] = [line for line in commands(clone, "install") if line.startswith("touch ")]
    assert touched.split()[1:] == [".venv/.serving", ".venv/.installed"]
    stamp(clone, ".serving", ".installed")
    assert installed(commands(clone, "serve")) == installed(commands(clone, "test")) == []


def test_torch_comes_with_the_triton_that_the_kernels_are_for(clone: Path) -> None:
    """A range that all targets share: none of them exchanges what another has downloaded."""
    [line] = [line for line in commands(clone, "serve") if "--constraint" in line]
    done = subprocess.run(
        line.split(" | ")[0], shell=True, cwd=clone, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("triton>=")
    assert f'gpu = ["{done.stdout.strip()}"]' in (ROOT / "pyproject.toml").read_text()
