"""The benchmark of a flood."""

import json
import os
from pathlib import Path

import pytest
from flood import Replies
from overload import main


def test_a_short_run_writes_every_row(tmp_path: Path, deep_model: Path) -> None:
    output, cores = tmp_path / "overload.json", os.sched_getaffinity(0)
    main(model=str(deep_model), clients=80, seconds=0.5, repeats=1, output=output)
    assert os.sched_getaffinity(0) == cores
    rows = {row["name"]: row for row in json.loads(output.read_text())["rows"]}
    assert rows["24 clients/answers"]["value"] > 0
    for kind in ("80 clients", "80 that reconnect"):
        assert rows[f"{kind}/share of the throughput"]["target"] == 90
        assert rows[f"{kind}/p99 over that of the few"]["target"] == 2
        assert rows[f"{kind}/refusals"]["value"] > 0


def test_what_is_neither_an_answer_nor_a_refusal_is_a_fault() -> None:
    replies = Replies(1.0)
    replies.add(200, 0.1)
    replies.add(503, 0.2)
    with pytest.raises(RuntimeError, match="400"):
        replies.add(400, 0.3)
    assert (replies.accepted, replies.refused) == ([0.1], [0.2])
