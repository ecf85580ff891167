"""What is released has one version, and serves where there is no checkout."""

import runpy
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).parents[3]
_RELEASE: dict[str, Any] = runpy.run_path(str(_ROOT / "deploy/release/release.py"))
_version_of: Callable[[Path], str] = _RELEASE["version_of"]
_check_is_final: Callable[[Path], None] = _RELEASE["check_is_final"]
_ReleaseError: type[Exception] = _RELEASE["ReleaseError"]


def _project(folder: Path, *, chart: str = "1.2.0", heading: str = "1.2.0 (2030-01-31)") -> Path:
    (folder / "deploy/helm/skipserve").mkdir(parents=True)
    (folder / "pyproject.toml").write_text('[project]\nversion = "1.2.0"\n')
    lines = f"version: {chart}\nappVersion: 1.2.0\n"
    (folder / "deploy/helm/skipserve/Chart.yaml").write_text(lines)
    (folder / "CHANGELOG.md").write_text(f"# Changelog\n\n## {heading}\n\n## 1.1.0 (2029-01-31)\n")
    return folder


@pytest.mark.fast
def test_the_version_is_the_same_everywhere() -> None:
    assert _version_of(_ROOT)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"chart": "1.1.0"}, "Chart.yaml"), ({"heading": "1.1.0 (2029-01-31)"}, "CHANGELOG.md")],
)
def test_another_version_somewhere_is_no_release(
    wrong: dict[str, str], named: str, tmp_path: Path
) -> None:
    with pytest.raises(_ReleaseError, match=named):
        _version_of(_project(tmp_path, **wrong))


@pytest.mark.fast
def test_a_release_has_a_date(tmp_path: Path) -> None:
    with pytest.raises(_ReleaseError, match=r"'unreleased'.*--rehearse"):
        _check_is_final(_project(tmp_path, heading="1.2.0 (unreleased)"))


def test_the_wheel_serves_and_answers_without_the_checkout(tmp_path: Path) -> None:
    wheel: Path = _RELEASE["build"](tmp_path / "dist")
    venv.create(tmp_path / "venv")
    (site,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # What serving needs, but for our packages: a path file in there is not read from here.
    (site / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")

    _RELEASE["try_out"](tmp_path / "venv/bin/python", _version_of(_ROOT))

    names = {path.suffix for path in (tmp_path / "dist").iterdir()}
    digests = (tmp_path / "dist/SHA256SUMS").read_text()
    assert names == {".whl", ".gz", ".tgz", ""}
    assert all(path.name in digests for path in (tmp_path / "dist").iterdir() if path.suffix)
