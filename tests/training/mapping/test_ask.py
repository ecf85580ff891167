"""Answers about files of each kind, under a policy, by the command."""

from pathlib import Path

import pytest
import torch
from tiny_encoders import ENCODERS, save_encoder
from tiny_language import make_opt, make_tokenizer
from typer.testing import CliRunner

from skipserve_policies.sizes import MappingSizes
from skipserve_training.commands import train
from skipserve_training.mapping.ask import ask, under
from skipserve_training.mapping.encoders import TransformersEncoder
from skipserve_training.mapping.export import export_trained, export_whole
from skipserve_training.mapping.language import load_language_model, load_tokenizer
from skipserve_training.mapping.media import load_media
from skipserve_training.mapping.parts import Parts
from skipserve_training.mapping.projectors import ProjectorType, make_projector
from skipserve_training.mapping.served import open_model

pytestmark = pytest.mark.fast

CPU = torch.device("cpu")
POLICIES = "lighter:\n  rules:\n    - {action: skip_block, layers: [0], scope: all}\n"


def _checkpoint(kind: str, folder: Path) -> Path:
    language = folder / "opt"
    make_opt().save_pretrained(language)
    make_tokenizer().save_pretrained(language)
    torch.manual_seed(1)
    sizes = MappingSizes(num_queries=3, hidden_size=16, num_layers=1, num_heads=2, ffn_size=16)
    parts = Parts(
        load_language_model(language, torch.bfloat16, CPU),
        TransformersEncoder(save_encoder(kind, folder / "encoder"), CPU),
        make_projector(ProjectorType.MAPPING, 32, 32, sizes),
        load_tokenizer(language),
    )
    export_trained(parts, 3, folder / "trained")
    export_whole(folder / "trained", parts, folder / "checkpoint")
    return folder / "checkpoint"


def _media(kind: str, folder: Path, seed: int) -> Path:
    ENCODERS[kind].write_media(folder / f"media-{seed}", seed)
    (path,) = folder.glob(f"media-{seed}*")
    return path


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_file_is_answered_about(kind: str, tmp_path: Path) -> None:
    """By transformers' own generation behind the module's rows."""
    model = open_model(_checkpoint(kind, tmp_path), torch.float32, CPU)
    path = _media(kind, tmp_path, 1)
    said = ask(model, path, "is it?", limit=4, num_beams=2)
    rows = model.projector(model.encoder.encode([load_media(path)]).bfloat16().float())
    text = torch.tensor([model.tokenizer("Question: is it? Answer:")["input_ids"]])
    embeds = torch.cat((rows, model.language.embed(text)), dim=1)
    language = model.language._model
    generated = language.generate(
        inputs_embeds=embeds, attention_mask=torch.ones(embeds.shape[:2]), max_new_tokens=4,
        num_beams=2, do_sample=False,
    )  # fmt: skip
    assert said == str(model.tokenizer.decode(generated[0], skip_special_tokens=True)).strip()


def test_a_policy_applies_and_a_medium_is_told_of(tmp_path: Path) -> None:
    model, path = open_model(_checkpoint("vit", tmp_path), torch.float32, CPU), tmp_path
    picture = _media("vit", path, 1)
    rules = {"rules": [{"action": "skip_block", "layers": [0], "scope": "all"}]}
    told, lighter, asked = (
        ask(model, picture, None),
        ask(under(model, "lighter", rules), picture, None),
        ask(model, picture, "is it?"),
    )
    assert len({told, lighter, asked}) == 3


def test_the_command_says_what_the_model_says(tmp_path: Path) -> None:
    checkpoint, policies = _checkpoint("vit", tmp_path), tmp_path / "policies.yaml"
    policies.write_text(POLICIES)
    picture = _media("vit", tmp_path, 1)
    flags = ["--model", str(checkpoint), "--media", str(picture), "--policies", str(policies)]
    flags += ["--policy", "lighter", "--beams", "2", "--max-tokens", "3", "--question", "is it?"]
    result = CliRunner().invoke(train, ["ask", *flags])
    assert result.exit_code == 0, result.output
    rules = {"rules": [{"action": "skip_block", "layers": [0], "scope": "all"}]}
    model = under(open_model(checkpoint, torch.bfloat16, CPU), "lighter", rules)
    assert result.output.strip() == ask(model, picture, "is it?", limit=3, num_beams=2)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--policy", "lightr"], "policy: 'lightr' is unknown"),
        (["--policy", "vtw-half"], "takes rows of images away"),
        (["--media", "/nowhere.png"], "/nowhere.png cannot be read"),
        (["--model", "/nowhere"], "there is no model folder /nowhere"),
    ],
)
def test_bad_options_are_named(flags: list[str], said: str, tmp_path: Path) -> None:
    picture = _media("vit", tmp_path, 1)
    command = ["ask", "--model", str(_checkpoint("vit", tmp_path)), "--media", str(picture)]
    result = CliRunner().invoke(train, [*command, *flags])
    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("│", " ").split())
