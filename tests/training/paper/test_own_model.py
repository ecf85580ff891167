"""The grid on tiny models of the paper's classes: from files to records, a page, and answers."""

import base64
from pathlib import Path

import pytest
import torch
from live_server import LiveServer
from own_models import OwnFolders, make_own
from typer.testing import CliRunner

from skipserve.settings import Settings
from skipserve_training.commands import train
from skipserve_training.mapping.ask import under
from skipserve_training.mapping.lessons import PromptForm
from skipserve_training.mapping.media import load_media
from skipserve_training.mapping.packing import Example, pack
from skipserve_training.mapping.served import open_model
from skipserve_training.mapping.training import embed
from skipserve_training.paper.page import PAGE, main
from skipserve_training.paper.records import ALL, Record, read_all
from skipserve_training.paper.setup import Scoring

CPU = torch.device("cpu")
POLICY = "skip-block-every-2-from-0-all"
RULES = {"rules": [{"action": "skip_block", "layers": {"start": 0, "interval": 2}, "scope": "all"}]}


def _run(*flags: object) -> tuple[int, str]:
    result = CliRunner().invoke(train, [*map(str, flags)])
    return result.exit_code, " ".join(result.output.replace("│", " ").split())


def _measure(folders: OwnFolders, runs: Path, *flags: object) -> dict[str, Record]:
    code, said = _run("paper", *folders.flags, "--runs", runs, *flags)
    assert code == 0, said
    assert "about" in said.split("Estimated for one H100")[0]
    return read_all(runs / "records")


def _ask(runs: Path, media: Path, *flags: object) -> str:
    code, said = _run(
        "ask",
        "--model",
        runs / "module" / "checkpoint",
        "--media",
        media,
        "--max-tokens",
        4,
        *flags,
    )
    assert code == 0, said
    return said


def test_a_module_is_trained_asked_and_trained_on(tmp_path: Path) -> None:
    """Questions about pictures, ten annotators each, for an OPT and a ViT."""
    folders, runs = make_own(tmp_path, "opt", "vit", "vqa"), tmp_path / "runs"
    records = _measure(folders, runs, "--only", "*-half-ffn-*")
    written = (runs / "module" / "checkpoint" / "config.json").stat().st_mtime_ns
    records = _measure(folders, runs, "--only", "full")
    assert (runs / "module" / "checkpoint" / "config.json").stat().st_mtime_ns == written
    full, half = records["full"], records["training-half-ffn-seed-20"]
    assert full.setup == half.setup
    assert full.setup is not None
    assert full.setup.scoring is Scoring.VOTES
    assert full.training is not None
    assert full.training.steps == 4  # 16 questions, two about each of two pictures
    assert half.training is not None
    assert half.training.steps == 1
    assert half.layers == [2, 4]
    assert half.trained is not None
    assert {*full.untrained.types} == {"number", "yes/no", ALL}
    assert full.untrained.n == 2
    assert full.untrained.types[ALL].blind == 2  # seven of ten say what all say
    assert full.untrained.loss is not None
    assert full.command.endswith("--calibration 2 --only full")

    main(runs / "records", tmp_path / "docs")
    page = (tmp_path / "docs" / PAGE).read_text()
    assert "# The paper's tables on opt" in page
    assert "(type opt, 6 blocks)" in page
    assert "VQAv2's accuracy over the answers of ten annotators" in page
    assert "touches none of 6 blocks" in page
    for absent in ("smolvqa", "SmolLM2", "easy-VQA", " 30 ", "tower of shapes"):
        assert absent not in page


@pytest.mark.fast
def test_records_of_another_model_are_refused(tmp_path: Path) -> None:
    folders, runs = make_own(tmp_path, "opt", "vit", "vqa"), tmp_path / "runs"
    _measure(folders, runs, "--only", "full")
    for change in ("--asked", "7"), ("--beams", "3"):
        code, said = _run("paper", *folders.flags, "--runs", runs, *change, "--list")
        assert code == 2
        assert "holds the record full of another setup" in said
        assert "give another --records" in said
    assert "num_beams is 1, expected 3" in said
    other = make_own(tmp_path / "other", "llama", "vit", "vqa")
    code, said = _run("paper", *other.flags, "--records", runs / "records", "--list")
    assert "llm is 'opt', expected 'llama'" in said
    code, said = _run("paper", "--records", runs / "records", "--list")
    assert code == 2
    assert "model is 'opt+encoder', expected 'smolvqa'" in said


@pytest.mark.fast
def test_everything_is_listed_without_weights(tmp_path: Path) -> None:
    folders = make_own(tmp_path, "llama", "clip_vision_model", "vqa")
    for weights in (folders.llm / "model.safetensors", folders.encoder / "model.safetensors"):
        weights.unlink()
    code, said = _run("paper", *folders.flags, "--runs", tmp_path / "runs", "--list")
    assert code == 0, said
    assert "ladder-4" in said
    assert "layer-block-05" in said
    assert "layer-block-06" not in said
    assert "left out training-alpha-subnet-50-seed-20: needs another task" in said
    assert "left out 58 cells, as full-patches: needs a module with a row a patch" in said
    assert "of one H100, for 133 cells" in said
    assert said.endswith("checkpoints and features.")


@pytest.mark.fast
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--encoder", "x"], "--encoder has no effect without --llm"),
        (["--more-questions", "5"], "--more-questions has no effect without --llm"),
        (["--drop-class"], "--drop-class has no effect without --llm"),
        (["--data", "vqa:/nowhere", "--only", "full"], "the models that ship need easy-vqa:FOLDER"),
        (["--llm", "x"], "--encoder is missing"),
        (["--llm", "x", "--encoder", "y"], "--data is missing"),
        (["--llm", "/x", "--encoder", "y", "--data", "vqa:z"], "llm is /x: its config.json cannot"),
    ],
)
def test_options_that_do_not_fit_are_named(flags: list[str], said: str, tmp_path: Path) -> None:
    code, output = _run("paper", "--records", tmp_path, *flags)
    assert code == 2
    assert said in output


@pytest.mark.slow
def test_videos_are_told_of(tmp_path: Path) -> None:
    """Captions of frames, for an OPT and a TimeSformer, with beams."""
    folders, runs = make_own(tmp_path, "opt", "timesformer", "captions"), tmp_path / "runs"
    patterns = ("full", "training-half-blocks-seed-20")
    for pattern in patterns:
        records = _measure(folders, runs, "--beams", 3, "--only", pattern)
    full = records["full"]
    assert full.untrained.types[ALL].exact == full.untrained.n == 1  # its own captions
    assert full.untrained.loss is not None
    assert all(record.setup == full.setup for record in records.values())
    main(runs / "records", tmp_path / "docs")
    page = (tmp_path / "docs" / PAGE).read_text()
    assert "Here 3 beams are followed, in the paper 3; the server follows one." in page
    assert "not judged: no quality of captions was measured" in page
    video = tmp_path / "data" / "media" / "1"
    assert _ask(runs, video) != _ask(runs, video, "--policy", "skip-block-every-2-from-0-all")
    _ask(runs, video, "--beams", 3)


@pytest.mark.slow
def test_sounds_are_asked_about(tmp_path: Path) -> None:
    """Questions about sounds of 16 kHz, for a LLaMA and an AST, on shared and pruned weights."""
    kind = "audio-spectrogram-transformer"
    folders, runs = make_own(tmp_path, "llama", kind, "vqa"), tmp_path / "runs"
    other = make_own(tmp_path / "other", "llama", kind, "captions")
    records = {}
    for pattern in ("full", "training-alpha-subnet-50-seed-20", "ladder-4"):
        records = _measure(folders, runs, "--task", other.data, "--only", pattern)
    assert 0.5 < (records["training-alpha-subnet-50-seed-20"].sparsity or 0) < 1
    assert records["ladder-4"].layers == [4, 5]
    sound = tmp_path / "data" / "media" / "1.wav"
    assert _ask(runs, sound, "--question", "is it red?") != ""
    code, said = _run(
        "ask", "--model", runs / "module" / "checkpoint", "--media", tmp_path, "--question", "a"
    )
    assert code == 2
    assert "frames: expected at least 8" in said


@pytest.mark.slow
def test_pictures_are_asked_about_over_http(tmp_path: Path) -> None:
    """What was trained is served, and answers as in the training."""
    folders, runs = make_own(tmp_path, "opt", "clip_vision_model", "vqa"), tmp_path / "runs"
    _measure(folders, runs, "--only", "full", "--layer", "-2", "--drop-class")
    checkpoint, picture = runs / "module" / "checkpoint", tmp_path / "data" / "media" / "1.png"
    url = f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"
    parts = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "is it red?"},
    ]
    body = {
        "model": "checkpoint", "messages": [{"role": "user", "content": parts}], "max_tokens": 2,
        "temperature": 0, "ignore_eos": True, "skip_policy": POLICY, "logprobs": True,
        "top_logprobs": 5,
    }  # fmt: skip
    settings = Settings(model=str(checkpoint), dtype="float32", port=0)
    with LiveServer(settings) as server, server.client() as client:
        reply = client.post("/v1/chat/completions", json=body).json()
    assert reply["metrics"]["skip"]["policy"] == POLICY
    served = reply["choices"][0]["logprobs"]["content"]

    model = under(open_model(checkpoint, torch.float32, CPU), POLICY, RULES)
    features = model.encoder.encode([load_media(picture)])
    prompt = PromptForm(model.tokenizer, 10, ()).prompt("is it red?")
    said: tuple[int, ...] = ()
    for token in served:
        batch = pack([[Example(prompt, (*said, 0), 0)]])
        with torch.inference_mode():
            rows = embed(model.language, model.projector, features, batch)
            hidden = model.language.hidden(rows, batch).flatten(0, 1)[batch.rows]
            expected = model.language.logits(hidden)[-1].log_softmax(-1).topk(5)
        found = [it["logprob"] for it in token["top_logprobs"]]
        assert found == pytest.approx(expected.values.tolist(), abs=1e-3)
        said += (int(expected.indices[0]),)
    assert len(said) == 2
