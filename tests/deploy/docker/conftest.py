"""The image that the tests of this folder run: built once, with what this machine has."""

import os

import programs
import pytest
from image_engine import Engine, MissingEngineError, find_engine


@pytest.fixture(scope="session")
def engine() -> Engine:
    try:
        return find_engine()
    except MissingEngineError as error:
        programs.do_without("podman", str(error))


@pytest.fixture(scope="session")
def image(engine: Engine) -> str:
    return engine.build(os.environ.get("TEST_TARGET", "cpu"))
