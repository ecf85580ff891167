"""What is made of records: figures, the table, and the forms for programs."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from skipserve_client.evaluate.plot import draw
from skipserve_client.evaluate.records import Conditions, Record
from skipserve_client.evaluate.results import Evaluation, answers_json, evaluation_json, show
from skipserve_policies.quality import QUALITY_FILE, load_measured

pytestmark = pytest.mark.fast

CONDITIONS = Conditions(
    data="riddles",
    model="sphinx",
    model_digest="w",
    dtype="float32",
    device="cpu",
    max_tokens=8,
    concurrency=1,
)
LONG_NAME = "parallel-ffn-attention-every-3-from-16-all"


def record(policy: str, index: int, **changes: Any) -> Record:
    """Return a record that is right under full, and always yes under others."""
    kind = "odd" if index % 2 else "even"
    right = "no" if index % 2 else "yes"
    answer = right if policy == "full" else "Yes."
    fields: dict[str, Any] = {
        **CONDITIONS.model_dump(),
        "policy": policy,
        "policy_digest": f"digest of {policy}",
        "index": index,
        "id": None,
        "type": kind,
        "question": f"question {index}",
        "question_digest": "d",
        "expected": (right,),
        "answer": answer,
        "correct": answer.lower().startswith(right),
        "finish_reason": "stop",
        "prompt_tokens": 40,
        "cached_tokens": 0,
        "completion_tokens": 2,
        "planned_flops": 1000 if policy == "full" else 750,
        "full_flops": 1000,
        "latency_seconds": 0.03,
        "first_token_seconds": 0.02,
    }
    return Record.model_validate(fields | changes)


def evaluation(*policies: str, **changes: Any) -> Evaluation:
    records = {name: [record(name, index, **changes) for index in range(10)] for name in policies}
    return Evaluation(CONDITIONS, records, left_out={"misfit": "misfit does not fit"})


def shown(found: Evaluation, width: int) -> str:
    text = io.StringIO()
    show(found, Console(file=text, width=width))
    return text.getvalue()


def test_accuracy_is_counted_by_type_and_beside_full() -> None:
    found = evaluation("full", "half")
    full, half = found.policies["full"], found.policies["half"]
    assert (full.score.accuracy, half.score.accuracy) == (1.0, 0.5)
    assert half.score.types["odd"].accuracy == 0.0
    assert half.score.n == 10
    assert found.retention("half") == 0.5
    assert evaluation("half").retention("half") is None


def test_another_model_s_full_can_be_what_is_held_against() -> None:
    own = evaluation("full", "half")
    assert "baseline" not in evaluation_json(own)
    # Of the other model, seven in ten are right.
    wrong = {"answer": "no idea", "correct": False}
    other = [record("full", it, model="whole", **(wrong if it < 3 else {})) for it in range(10)]
    found = replace(own, baseline=other)
    assert found.retention("half") == pytest.approx(0.5 / 0.7)
    written = evaluation_json(found)
    assert written["baseline"]["model"] == "whole"
    assert (written["baseline"]["policy"], written["baseline"]["accuracy"]) == ("full", 0.7)
    half = written["policies"]["half"]
    kept = half["beside_full"]["retention"]
    assert kept["low"] < half["retention"] == kept["value"] < kept["high"]
    assert half["beside_full"]["right_to_wrong"] + half["beside_full"]["wrong_to_right"] > 0
    assert written["policies"]["full"]["retention"] == pytest.approx(1 / 0.7)
    told = "full here is whole's, whose answers to the same questions under full reach 70.0 %"
    assert told in shown(found, 300)


def test_flops_and_times_are_summed_up() -> None:
    half = evaluation("full", "half").policies["half"]
    assert half.flops_saved == 0.25
    assert (half.latency_seconds, half.first_token_seconds) == (0.03, 0.02)
    assert evaluation("half", first_token_seconds=None).policies["half"].first_token_seconds == 0.03


def test_the_json_has_the_contracts_form() -> None:
    written = evaluation_json(evaluation("full", "half"))
    assert (written["data"], written["model_digest"]) == ("riddles", "w")
    half = written["policies"]["half"]
    assert {"accuracy", "low", "high", "n", "types"} <= set(half)
    assert half["low"] < half["accuracy"] < half["high"]
    assert half["types"]["odd"] == {"accuracy": 0.0, "majority": 1.0, "n": 5}
    assert half["retention"] == 0.5
    assert written["left_out"] == {"misfit": "misfit does not fit"}


def test_every_answer_has_a_place_in_the_json() -> None:
    answers = answers_json(evaluation("full", "half"))
    assert [(it["policy"], it["index"]) for it in answers][9:11] == [("full", 9), ("half", 0)]
    assert (answers[1]["expected"], answers[1]["answer"], answers[1]["correct"]) == (
        ["no"],
        "no",
        True,
    )


def test_the_server_can_show_what_was_written(tmp_path: Path) -> None:
    found = evaluation("full", "half")
    (tmp_path / QUALITY_FILE).write_text(json.dumps(evaluation_json(found)))
    (quality,) = load_measured(tmp_path, "mine")["digest of half"]
    assert quality.dataset == "riddles"
    assert quality.value == 100 * found.policies["half"].score.accuracy


@pytest.mark.parametrize("width", [60, 80, 160])
def test_no_name_and_no_figure_is_cut_at_any_width(width: int) -> None:
    text = shown(evaluation("full", LONG_NAME), width)
    assert max(map(len, text.splitlines())) <= width
    for expected in ("full", LONG_NAME, "50.0 %", "23.7-76.3", "25.0 %", "30 ms", "accuracy"):
        assert expected in text
    assert "…" not in text
    assert text.count("|") == (9 * 4 if width == 160 else 0)


def test_nothing_that_fits_is_an_empty_table(tmp_path: Path) -> None:
    found = Evaluation(CONDITIONS, {}, left_out={"misfit": "misfit does not fit"})
    assert "misfit does not fit" in shown(found, 120)
    assert evaluation_json(found)["policies"] == {}
    draw(found, tmp_path / "plot.svg")


def test_figures_beside_full_are_in_the_table() -> None:
    text = shown(evaluation("full", "half"), 160)
    (row,) = [line for line in text.splitlines() if "| half" in line]
    assert "50.0 % (20.0-80.0)" in row
    assert "| 5/0 |" in " ".join(row.split())


def test_answers_that_were_cut_are_told() -> None:
    assert "were cut" not in shown(evaluation("full"), 100)
    found = evaluation("full", finish_reason="length")
    assert "10 of 10 answers were cut at 8 tokens" in shown(found, 100)
    assert evaluation_json(found)["policies"]["full"]["num_cut"] == 10


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_the_picture_names_every_policy(tmp_path: Path, ending: str) -> None:
    draw(evaluation("full", "half"), tmp_path / f"plot.{ending}")
    written = (tmp_path / f"plot.{ending}").read_bytes()
    if ending == "svg":
        assert all(f"<!-- {name}".encode() in written for name in ("full", "half"))
    else:
        assert written.startswith(b"\x89PNG")


def test_what_needs_no_picture_is_told_where_the_data_tell_it() -> None:
    words = "would be right without the pictures"
    assert words not in shown(evaluation("full"), 200)
    assert f"50.0 % {words}" in shown(evaluation("full", "half", blind="yes"), 200)


def test_records_from_before_parts_of_types_are_read() -> None:
    older = record("full", 0).model_dump(exclude={"part", "blind"})
    assert Record.model_validate(older) == record("full", 0)
