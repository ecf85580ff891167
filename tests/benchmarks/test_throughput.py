"""Many requests at once: the questions, the targets, and a short run."""

import json
from pathlib import Path

import pytest
from questions import QuestionSource
from throughput import WAYS, main, targets

from skipserve.model.config import ModelConfig


@pytest.mark.fast
def test_only_chosen_matches_have_targets() -> None:
    assert targets("small", "bfloat16", "alike") == {"static batch": 1.6}
    assert targets("demo", "bfloat16", "alike") == {"one by one": 4.0}
    assert targets("demo", "bfloat16", "varied") == targets("demo", "float32", "alike") == {}


@pytest.mark.fast
def test_the_ways_differ_in_lengths_and_pictures(deep_model: Path) -> None:
    config = ModelConfig.from_folder(deep_model)
    sets = {way: draw(QuestionSource(config, 0), 18, 16) for way, draw in WAYS.items()}
    assert {way: len(found) for way, found in sets.items()} == {
        "alike": 16,
        "varied": 32,
        "four each": 16,
    }
    pictures = {way: len({q.image.digest for q in found}) for way, found in sets.items()}
    assert pictures == {"alike": 16, "varied": 32, "four each": 4}
    shapes = {
        way: {(len(q.prompt_ids), q.num_new_tokens) for q in found} for way, found in sets.items()
    }
    assert len(shapes["alike"]) == len(shapes["four each"]) == 1
    assert len(shapes["varied"]) > 16


def test_a_short_run_writes_every_row(deep_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "throughput.json"
    main(models=str(deep_model), dtype="float32", concurrency=4, repeats=1, output=output)
    values = {row["name"]: row["value"] for row in json.loads(output.read_text())["rows"]}
    for way in WAYS:
        for who in ("skipserve", "static batch", "one by one"):
            assert values[f"deep/float32/{way}/throughput/{who}"] > 0
            assert values[f"deep/float32/{way}/CPU per request/{who}"] > 0
        for rival in ("static batch", "one by one"):
            assert values[f"deep/float32/{way}/times as fast/as {rival}"] > 0
            assert values[f"deep/float32/{way}/equal tokens/with {rival}"] == 100
