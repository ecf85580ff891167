"""What `args` in a Serve config may say."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from skipserve.ray.options import Options
from skipserve.ray.remote import Patience

pytestmark = pytest.mark.fast


def test_settings_are_those_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKIPSERVE_API_KEY", "secret")
    settings = Options(settings={"model": "demo", "num_threads": 2}).read_settings(
        policies=Path("p.yaml")
    )
    assert (settings.model, settings.num_threads) == ("demo", 2)
    assert settings.policies == Path("p.yaml")
    assert settings.wants_keys


def test_patience() -> None:
    options = Options(placing_seconds=3, silence_seconds=5)
    assert options.patience == Patience(3, 5)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"engines": 0}, "engines"),
        ({"engine": 2}, "engine"),
        ({"engines": 5, "max_engines": 4}, "between"),
        ({"engines": 1, "min_engines": 2, "max_engines": 4}, "between"),
        # Engines say something every two seconds.
        ({"silence_seconds": 2}, "silence_seconds"),
    ],
)
def test_what_cannot_be(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Options(**wrong)


def test_starting_from_none() -> None:
    assert Options(max_engines=4, min_engines=0).starts_from_none
    assert not Options(max_engines=4).starts_from_none
    assert not Options(min_engines=0).starts_from_none
