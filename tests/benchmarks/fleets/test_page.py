"""The page says what the record holds."""

import json

import pytest
from fleets.page import PAGE, RECORD, page

pytestmark = pytest.mark.fast


def test_the_page_is_written_from_the_record() -> None:
    assert PAGE.read_text() == page(json.loads(RECORD.read_text())), "run benchmarks/fleet.py"
