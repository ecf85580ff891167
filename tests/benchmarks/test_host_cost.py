"""A step without arithmetic: the requests, the model, and a short run."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from host_cost import is_decode_step, main, make_requests
from instant_model import InstantModel
from plans import FOUR_POLICIES
from tiny_llava import make_checkpoint

from skipserve.engine.engine import Engine, StepResult
from skipserve.engine.reports import FinishReason, StepOutput, StepReport
from skipserve.model.config import ModelConfig

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a checkpoint with a context for the longest prompt and some answer."""
    folder = tmp_path_factory.mktemp("models") / "long"
    return make_checkpoint(folder, num_layers=20, hidden=32, max_positions=400, vocab=320)


@pytest.fixture
def config(folder: Path) -> ModelConfig:
    return ModelConfig.from_folder(folder)


def test_each_policy_has_as_many_greedy_requests_as_drawn_ones(config: ModelConfig) -> None:
    kinds = Counter(
        (request.policy_name, request.sampling.temperature == 0)
        for request in make_requests(config, 16, drawn_every=2)
    )
    assert kinds == {(policy, greedy): 2 for policy in FOUR_POLICIES for greedy in (True, False)}
    greedy = make_requests(config, 8, drawn_every=None)
    assert all(request.sampling.temperature == 0 for request in greedy)


def test_an_instant_model_repeats_its_logits(config: ModelConfig) -> None:
    model = InstantModel(config, num_sequences=3, vocab_size=500)
    engine = Engine(model)
    requests = list(make_requests(config, 3, drawn_every=None))
    for request in requests:
        engine.add(request)
    answers: dict[str, list[int | None]] = {request.id: [] for request in requests}
    while not all(len(found) > 2 for found in answers.values()):
        for output in engine.step().outputs:
            answers[output.request_id].append(output.token_id)
    best = model.logits.argmax(dim=-1).tolist()
    assert [found[-1] for found in answers.values()] == best
    assert model.config.sizes.decoder.vocab_size == 500


@pytest.mark.parametrize(
    ("num_rows", "num_sequences", "finish_reason", "expected"),
    [(4, 4, None, True), (9, 4, None, False), (3, 3, None, False), (4, 4, "length", False)],
)
def test_a_decode_step_has_one_row_of_each(
    num_rows: int, num_sequences: int, finish_reason: FinishReason | None, expected: bool
) -> None:
    output = StepOutput("a", 1, finish_reason=finish_reason)
    report = StepReport({}, 1.0, num_rows, num_sequences, num_plans=1)
    assert is_decode_step(StepResult([output], report), 4) == expected
    assert not is_decode_step(StepResult([], None), 4)


def test_a_short_run_writes_every_row(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "host_cost.json"
    main(model=str(folder), sequences=4, steps=3, output=output)
    rows = {row["name"]: row for row in json.loads(output.read_text())["rows"]}
    for case in ("half greedy, half drawn", "all greedy", "all greedy, 32064 tokens"):
        assert 0 < rows[f"{case}/p50"]["value"] <= rows[f"{case}/p99"]["value"]
    assert rows["half greedy, half drawn/p50"]["target"] == 1.5
    assert "all greedy, 32064 tokens/p50 without argmax" in rows
    assert torch.get_num_threads() == 1
