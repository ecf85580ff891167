"""A short run: the parts sum to the whole, and none is unknown."""

import json
from pathlib import Path

import pytest
from splitting.figures import from_record
from splitting.page import render
from splitting.parts import Part, Stage
from time_split import main
from tiny_llava import make_checkpoint

pytestmark = pytest.mark.fast


def test_a_short_run_splits_every_policy(tmp_path: Path) -> None:
    model = make_checkpoint(
        tmp_path / "model", num_layers=8, hidden=32, num_heads=2, num_kv_heads=2, ffn=48
    )
    output, names = tmp_path / "time_split.json", ["visual-freeze-from-16", "fastv-2-half"]
    main(models=str(model), names=",".join(names), repeats=1, output=output)
    record = json.loads(output.read_text())
    found = from_record(record)
    assert {stage for _, stage in found} == set(Stage)
    for (_, stage), policies in found.items():
        assert list(policies) == ["full", *names]
        for figures in policies.values():
            assert sum(figures.parts.values()) == pytest.approx(figures.milliseconds)
            assert figures.parts[Part.OTHER] == 0
            assert (figures.parts[Part.PICTURE] > 0) is (stage is Stage.PROMPT)
            assert (figures.picture_gflops > 0) is (stage is Stage.PROMPT)
            assert min(figures.parts.values()) >= 0
            for part in (Part.ATTENTION, Part.ELEMENTWISE, Part.ROWS, Part.CALLS, Part.HOST):
                assert figures.parts[part] > 0
    assert "`fastv-2-half`: " in render(record)
