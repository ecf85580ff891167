"""Records to sum up."""

from collections.abc import Callable
from typing import Any

import pytest

from skipserve_client.load.records import Record, Tokens

Making = Callable[..., Record]


@pytest.fixture
def record() -> Making:
    """Return what makes a record: answered after a second, under full."""

    def make(**changes: Any) -> Record:
        values: dict[str, Any] = {
            "index": 0,
            "policy": "full",
            "picture": None,
            "question": "?",
            "scheduled_seconds": None,
            "sent_seconds": 0.0,
            "e2e_seconds": 1.0,
        }
        if "failure" not in changes:
            values |= {"ttft_seconds": 0.5, "tokens": Tokens(10, 4, 3, 3, 75, 100)}
            values["itl_seconds"] = (0.2, 0.3)
        return Record(**(values | changes))

    return make
