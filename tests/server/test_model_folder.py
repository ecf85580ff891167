"""Names of models, and whatever else they may lead to."""

import json
import re
import shutil
from pathlib import Path

import pytest
from tiny_llava import make_checkpoint

from skipserve.model_folder import DEMO, StartError, model_folder
from skipserve.pretrained import places
from skipserve.settings import Settings
from skipserve_client.offline import SHIPPED

pytestmark = pytest.mark.fast

DOWNLOAD = "hf download llava-hf/llava-1.5-7b-hf --local-dir llava-1.5-7b-hf"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4096\n"


def refusal(model: Path | str) -> str:
    """Return the line with which a model is refused."""
    with pytest.raises(StartError) as refused:
        model_folder(str(model))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_checkpoint_and_the_demo(tmp_path: Path) -> None:
    assert model_folder(str(make_checkpoint(tmp_path))) == tmp_path.resolve()
    assert (model_folder(DEMO) / "model.safetensors").is_file()


def test_a_pretrained_model_is_where_it_was_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert refusal("smolvqa") == "smolvqa is not here yet: `skipserve fetch smolvqa` gets it"
    fetched = make_checkpoint(tmp_path / "skipserve" / "smolvqa")
    shipped = tmp_path / "shipped"
    for name in places.PRETRAINED:
        (shipped / name).mkdir(parents=True)
        (shipped / name / "SHA256SUMS").write_text(f"sums of {name}")
    monkeypatch.setattr(places, "trained_folder", lambda name: shipped / name)
    assert "was made of another version: `skipserve fetch smolvqa`" in refusal("smolvqa")
    stamp = places.trained_stamp([shipped / "smolvqa"])
    (fetched / "fetched-from.txt").write_text(f"{stamp} and a package")
    assert model_folder("smolvqa") == fetched.resolve()


def test_a_model_that_goes_on_from_another_is_of_another_version_with_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(places, "trained_folder", lambda name: tmp_path / "shipped" / name)
    own, base = (tmp_path / "shipped" / name for name in ("smolvqa-wanda-50", "smolvqa"))
    for folder in (own, base):
        folder.mkdir(parents=True)
        (folder / "SHA256SUMS").write_text("sums")
    fetched = make_checkpoint(tmp_path / "skipserve" / own.name)
    (fetched / "fetched-from.txt").write_text(f"{places.trained_stamp([own, base])} and a package")
    assert model_folder(own.name) == fetched.resolve()
    (base / "SHA256SUMS").write_text("others")
    assert "was made of another version" in refusal(own.name)


@pytest.mark.parametrize(
    "name",
    [
        "llava-hf/llava-1.5-7b-hf",
        "llava-hf/llava-1.5-7b-hf/",
        "https://huggingface.co/llava-hf/llava-1.5-7b-hf",
    ],
)
def test_a_name_on_the_hub(name: str) -> None:
    assert f"there is no model folder {name}" in refusal(name)
    assert f"{DOWNLOAD}, then name the folder llava-1.5-7b-hf" in refusal(name)


@pytest.mark.parametrize("name", ["gpt-4o", "/models/llava", "./models/llava", "~/llava", "a/b/c"])
def test_a_path_that_leads_nowhere_is_not_taken_for_a_name_on_the_hub(name: str) -> None:
    assert "'demo'" in refusal(name)
    assert "hub" not in refusal(name)


@pytest.mark.parametrize("name", ["~no-such-user/llava", "x" * 5000])
def test_what_can_be_no_path(name: str) -> None:
    assert refusal(name).startswith(f"the model folder {name} cannot be read: ")


def test_a_file_of_a_checkpoint(tmp_path: Path) -> None:
    told = refusal(make_checkpoint(tmp_path) / "model.safetensors")
    assert told.endswith(
        f"is a file; name the folder that the checkpoint is in, such as {tmp_path}"
    )


def test_gguf(tmp_path: Path) -> None:
    (tmp_path / "llava.Q4_K_M.gguf").write_bytes(b"GGUF")
    (tmp_path / "README.md").write_text("# LLaVA")
    assert "is a GGUF file" in refusal(tmp_path / "llava.Q4_K_M.gguf")
    assert "holds a model in GGUF" in refusal(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert "holds a model in GGUF" in refusal(tmp_path)


def test_gguf_beside_safetensors_is_left_alone(tmp_path: Path) -> None:
    (make_checkpoint(tmp_path) / "llava.gguf").write_bytes(b"GGUF")
    model_folder(str(tmp_path))


def test_an_empty_folder(tmp_path: Path) -> None:
    assert "is empty" in refusal(tmp_path)
    assert DOWNLOAD in refusal(tmp_path)


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert "no config.json" in refusal(tmp_path)
    assert DOWNLOAD in refusal(tmp_path)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"]
)
def test_pointers_of_git_lfs_in_place_of_files(tmp_path: Path, name: str) -> None:
    (make_checkpoint(tmp_path) / name).write_text(POINTER)
    assert f"Git LFS's pointers in place of files ({name}): run git lfs pull" in refusal(tmp_path)


def test_an_adapter(tmp_path: Path) -> None:
    config = {"peft_type": "LORA", "base_model_name_or_path": "llava-hf/llava-1.5-7b-hf"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    told = refusal(tmp_path)
    assert "holds an adapter (adapter_config.json), which is not applied" in told
    assert "merge it into llava-hf/llava-1.5-7b-hf" in told
    assert "move" not in told
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": null}')
    assert "merge it into its base" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_beside_the_weights_is_not_ignored(tmp_path: Path, name: str) -> None:
    (make_checkpoint(tmp_path) / name).write_text("{}")
    assert f"move {name} away" in refusal(tmp_path)


def test_a_damaged_adapter(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{")
    assert "adapter_config.json cannot be read as JSON" in refusal(tmp_path)


def test_a_pipeline_of_diffusers(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text("{}")
    assert "a pipeline of diffusers" in refusal(tmp_path)


@pytest.mark.parametrize("below", ["llava", "snapshots/0123abcd"])
def test_a_folder_above_the_checkpoint(tmp_path: Path, below: str) -> None:
    """The second is how the hub's cache keeps a model."""
    make_checkpoint(tmp_path / "models--llava-hf--llava" / below)
    assert f"there is one in {tmp_path}/models--llava-hf--llava/{below}" in refusal(
        tmp_path / "models--llava-hf--llava"
    )


def test_files_may_be_links_as_in_the_hub_s_cache(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "blobs")
    (tmp_path / "snapshot").mkdir()
    for file in (tmp_path / "blobs").iterdir():
        (tmp_path / "snapshot" / file.name).symlink_to(file)
    assert model_folder(str(tmp_path / "snapshot")) == (tmp_path / "snapshot").resolve()
    shutil.rmtree(tmp_path / "blobs")
    assert "has links that lead nowhere (chat_template.jinja, " in refusal(tmp_path / "snapshot")


def test_all_speak_of_the_same_models_that_ship() -> None:
    names = {DEMO, *places.PRETRAINED}
    assert set(SHIPPED) == names
    assert names <= set(re.split(r"[ ,]+", str(Settings.model_fields["model"].description)))
    for name in places.PRETRAINED:
        folders = places.trained_folders(name)
        assert tuple("/".join(it.parts[-2:]) for it in folders) == SHIPPED[name]
