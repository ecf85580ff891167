"""Skips the test file that imports this where Ray is not installed; TEST_REQUIRES=ray fails it."""

import os
from importlib.util import find_spec

import pytest

_REASON = "ray is not installed: pip install 'skipserve[ray]'"

if find_spec("ray") is None:
    if "ray" in os.environ.get("TEST_REQUIRES", "").split():
        pytest.fail(_REASON)
    pytest.skip(_REASON, allow_module_level=True)
