"""What the engine process says of a model that it cannot load."""

from pathlib import Path

import pytest

from skipserve.engine.limits import EngineSpec
from skipserve.engine.loading import load
from skipserve.errors import EngineError
from skipserve.model.config import ModelFilesError
from skipserve.service.process import describe_failure

pytestmark = pytest.mark.fast


def test_a_failure_is_told_without_places(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with pytest.raises(ModelFilesError) as raised:
        load(EngineSpec(folder))
    message = describe_failure(raised.value, folder)
    assert "model" in message
    assert str(tmp_path) not in message
    assert describe_failure(EngineError("there is no such device"), folder) == (
        "there is no such device"
    )
    hidden = describe_failure(OSError(f"cannot read {folder} at 0xdeadbeef"), folder)
    assert hidden == "the model could not be loaded (OSError)"
