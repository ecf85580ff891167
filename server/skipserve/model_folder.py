"""The folder of a model, by the name that a user gives it; what else that may lead to is told."""

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from skipserve.model.config import WHERE_TO_GET_ONE, ModelFilesError, read_json
from skipserve.pretrained.places import PRETRAINED, cache_folder, is_current
from skipserve_policies.named import POLICIES_FILE

DEMO = "demo"

# What the small text files begin with that Git keeps in place of large ones.
_LFS_MARK = b"version https://git-lfs"

# What of a checkpoint is read.
_SUFFIXES = (".json", ".jinja", ".safetensors", POLICIES_FILE)

_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")

# A name on the Hugging Face hub, or its address.
_HUB_NAME = re.compile(r"(https://huggingface\.co/)?(?P<name>\w[\w.-]*/\w[\w.-]*)/?")


class StartError(Exception):
    """What is asked for cannot be started; the message is for whoever starts it."""


def model_folder(model: str) -> Path:
    """Return the folder of a model: that of the demo, a pretrained one, or the one that is named.

    Raises:
        StartError: there is no such folder, or it is that of something else; says what to do.
    """
    if model == DEMO:
        return Path(str(files("skipserve") / DEMO)).resolve()
    if model in PRETRAINED:
        return _fetched_folder(model)
    try:
        place = Path(model).expanduser()
        if place.is_file():
            raise StartError(_describe_file(place))
        if not place.is_dir():
            raise StartError(_describe_absence(model))
        folder = place.resolve()
        fault = next(_faults(folder), None)
    except (OSError, RuntimeError, ModelFilesError) as error:
        raise StartError(f"the model folder {model} cannot be read: {error}") from error
    if fault is not None:
        raise StartError(fault)
    return folder


def _fetched_folder(model: str) -> Path:
    folder = cache_folder() / model
    if not (folder / "config.json").is_file():
        raise StartError(f"{model} is not here yet: `skipserve fetch {model}` gets it")
    if not is_current(folder, model):
        raise StartError(
            f"{folder} was made of another version: `skipserve fetch {model}` makes it anew"
        )
    return folder.resolve()


def _describe_file(file: Path) -> str:
    if file.suffix == ".gguf":
        return f"{file} is a GGUF file, which is not read. {WHERE_TO_GET_ONE}"
    return f"{file} is a file; name the folder that the checkpoint is in, such as {file.parent}"


def _describe_absence(model: str) -> str:
    absence = (
        f"there is no model folder {model}: name {DEMO!r}, or the folder of a LLaVA-1.5 "
        "checkpoint in Hugging Face format"
    )
    found = _HUB_NAME.fullmatch(model)
    if found is None:
        return absence
    name = found["name"]
    folder = name.partition("/")[2]
    return (
        f"{absence}. If it is a name on the Hugging Face hub, download it first: "
        f"hf download {name} --local-dir {folder}, then name the folder {folder}"
    )


def _faults(folder: Path) -> Iterator[str]:
    """Yield what shows that a folder is no checkpoint to be served, what matters most first."""
    names = {entry.name for entry in folder.iterdir()}
    if not names:
        yield f"{folder} is empty: there is no config.json in it. {WHERE_TO_GET_ONE}"
    read = sorted(name for name in names if name.endswith(_SUFFIXES))
    dangling = [name for name in read if not (folder / name).exists()]
    if dangling:
        yield (
            f"{folder} has links that lead nowhere ({', '.join(dangling[:3])}): copy or mount what "
            "they lead to as well, or download it with hf download --local-dir"
        )
    pointers = [name for name in read if _is_lfs_pointer(folder / name)]
    if pointers:
        yield (
            f"{folder} has Git LFS's pointers in place of files ({', '.join(pointers[:3])}): run "
            "git lfs pull in it, or download it with hf download"
        )
    adapters = [name for name in _ADAPTER_FILES if name in names]
    if adapters:
        yield _describe_adapter(folder, adapters[0])
    if any(name.endswith(".gguf") for name in names) and not list(folder.glob("*.safetensors")):
        yield f"{folder} holds a model in GGUF, which is not read. {WHERE_TO_GET_ONE}"
    if "config.json" not in names:
        yield _describe_without_config(folder, names)


def _is_lfs_pointer(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return opened.read(len(_LFS_MARK)) == _LFS_MARK


def _describe_adapter(folder: Path, name: str) -> str:
    base = read_json(folder / "adapter_config.json").get("base_model_name_or_path") or "its base"
    advice = f"merge it into {base} (merge_and_unload of peft), and name the folder of the result"
    if (folder / "config.json").is_file():
        advice += f". To serve the model without the adapter, move {name} away"
    return f"{folder} holds an adapter ({name}), which is not applied: {advice}"


def _describe_without_config(folder: Path, names: set[str]) -> str:
    if "model_index.json" in names:
        return f"{folder} holds a pipeline of diffusers, which is not served. {WHERE_TO_GET_ONE}"
    below = sorted(
        config.parent
        for pattern in ("*/config.json", "*/*/config.json")
        for config in folder.glob(pattern)
    )
    if below:
        found = ", ".join(str(path) for path in below[:3])
        return f"there is no config.json in {folder}, but there is one in {found}: name that folder"
    return f"there is no config.json in {folder}. {WHERE_TO_GET_ONE}"
