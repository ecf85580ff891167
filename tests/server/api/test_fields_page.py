"""The page about fields says what the table has."""

from pathlib import Path

import pytest

from skipserve.api.fields_page import page
from skipserve.asking.fields import CHAT

pytestmark = pytest.mark.fast

FILE = Path(__file__).parents[3] / "docs/fields.md"


def test_the_page_is_up_to_date() -> None:
    assert FILE.read_text() == page(), "python -m skipserve.api.fields_page > docs/fields.md"


def test_each_field_has_its_row() -> None:
    chats, *_ = page().split("## `POST")
    named = [line.split("`")[1] for line in chats.splitlines() if line.startswith("| `")]
    assert sorted(named) == sorted(
        table.place + row.name for table in CHAT.walk() for row in table.rows
    )
