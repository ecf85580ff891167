"""The whole chain on a small model: zeroed, asked, trained, asked, recorded, written of."""

import json
import shutil
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from recorded_engine import CPU
from safetensors.torch import load_file, save_file
from tiny_language import make_tokenizer

from skipserve_training.compression.recipe import CompressionRecipe, Method, Share
from skipserve_training.paper import estimate
from skipserve_training.paper.cells import FULL, INFERENCE, TRAINING, Cell, Form, Training, rules
from skipserve_training.paper.findings import Findings
from skipserve_training.paper.page import render
from skipserve_training.paper.plots import draw_all
from skipserve_training.paper.records import ALL, Way, read_all
from skipserve_training.paper.running import Bench, Place
from skipserve_training.paper.setup import SHIPPED
from skipserve_training.paper.work import Work, run_all

TRAINED = Training(questions=12, seed=20)
GRID = (
    Cell(FULL, INFERENCE),
    Cell("lighter", INFERENCE, policy=rules(Form.FFN, [0])),
    Cell(
        "zeroed", TRAINING, compression=CompressionRecipe(Method.WANDA, Share(0.5)),
        training=TRAINED,
    ),
    Cell(
        "meeting", TRAINING, compression=CompressionRecipe(Method.ALPHA_SUBNET, Share(0.5)),
        training=TRAINED,
    ),
    Cell("trained", TRAINING, policy=rules(Form.BLOCK, [1]), training=TRAINED),
)  # fmt: skip


@pytest.fixture
def place(served_folder: Path, easy_folder: Path, tmp_path: Path) -> Place:
    data = f"easy-vqa:{easy_folder}"
    return Place(
        models=lambda name: served_folder,
        trained_on=data,
        asked=f"{data}#test",
        tasks=(data, f"easy-vqa-captions:{easy_folder}"),
        runs=tmp_path / "runs",
        device=CPU,
        setup=replace(SHIPPED, few=6, many=12, media=2),
        views=1,
    )


def _work(place: Place, records: Path) -> Work:
    return Work(place.setup, records, partial(Bench, place), estimate.seconds, "one core")


@pytest.mark.fast
def test_a_grid_is_measured_and_written_of(
    place: Place, served_folder: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    run_all(GRID, _work(place, tmp_path / "records"), said.append)
    records = read_all(tmp_path / "records")
    assert [*records] == sorted(cell.name for cell in GRID)
    assert said[-1].startswith("5/5 trained: ")
    assert said[-1].endswith("; 0 s left")

    assert records[FULL].layers == []
    assert records["lighter"].layers == [0]
    assert records["lighter"].perplexity != records[FULL].perplexity
    assert records["zeroed"].sparsity == 0.5
    assert 0.5 < (records["meeting"].sparsity or 0) < 1
    assert records["zeroed"].perplexity not in (
        records[FULL].perplexity, records["meeting"].perplexity,
    )  # fmt: skip
    training = records["trained"].training
    assert training is not None
    assert training.steps == 1
    assert records["trained"].untrained.n == 6  # it knows nothing, and is asked no more

    findings = Findings(GRID, records)
    page = render(findings)
    assert "| zeroed | 0 | 50.0 % |" in page
    draw_all(findings, tmp_path)
    assert (tmp_path / "paper-training.svg").stat().st_size > 1000


@pytest.mark.fast
def test_what_knows_most_answers_is_asked_more(
    place: Place, easy_folder: Path, tmp_path: Path
) -> None:
    """A model that says "yes" to whatever is asked, where that is right, and where it is not."""
    models = {"smolvqa": _saying_yes(place.models("smolvqa"), tmp_path / "yes")}
    cell, numbers = Cell(FULL, INFERENCE), {}
    for answer in ("yes", "no"):
        data = tmp_path / answer / "data"
        shutil.copytree(easy_folder, data)
        path = data / "test" / "questions.json"
        questions = [it for it in json.loads(path.read_text()) if it[1] == answer]
        path.write_text(json.dumps(questions))
        there = replace(
            place, models=models.__getitem__, trained_on=f"easy-vqa:{data}",
            asked=f"easy-vqa:{data}#test", runs=tmp_path / answer,
            setup=replace(SHIPPED, few=1, many=6),
        )  # fmt: skip
        score = Bench(there, lambda *stage: None).measure(cell).untrained
        numbers[answer] = (score.types[ALL].exact, score.n)
    assert numbers == {"yes": (6, 6), "no": (0, 2)}


def _saying_yes(served: Path, folder: Path) -> Path:
    """Copy a model; its blocks add nothing, and its head follows each letter by the next."""
    shutil.copytree(served, folder / "model")
    path = folder / "model" / "model.safetensors"
    tensors = load_file(path)
    for name in tensors:
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensors[name].zero_()
    (embedding,) = (
        value for name, value in tensors.items() if name.endswith("embed_tokens.weight")
    )
    head = torch.zeros_like(embedding)
    letters = make_tokenizer()
    for before, after in pairwise([*letters(": yes")["input_ids"], letters.eos_token_id]):
        head[after] = embedding[before] / embedding[before].norm()
    tensors["language_model.lm_head.weight"] = head
    save_file(tensors, path, {"format": "pt"})
    config = json.loads((folder / "model" / "config.json").read_text())
    config["text_config"]["tie_word_embeddings"] = config["tie_word_embeddings"] = False
    (folder / "model" / "config.json").write_text(json.dumps(config))
    return folder / "model"


@pytest.mark.fast
def test_a_measured_cell_comes_out_the_same(place: Place, tmp_path: Path) -> None:
    """Another run goes on from what the first left; a record that is there is left alone."""
    cell = GRID[-1]
    for name in ("first", "second"):
        run_all((cell,), _work(place, tmp_path / name), lambda line: None)
    one, two = (read_all(tmp_path / name)["trained"] for name in ("first", "second"))
    assert one.last.right(Way.EXACT) == two.last.right(Way.EXACT)
    assert one.training is not None
    assert two.training is not None
    assert one.training.loss == two.training.loss
