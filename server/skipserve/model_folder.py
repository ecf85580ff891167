"""The folder of a model, by the name that a user gives it."""

from importlib.resources import files
from pathlib import Path

DEMO = "demo"


class StartError(Exception):
    """What is asked for cannot be started; the message is for whoever starts it."""


def model_folder(model: str) -> Path:
    """Return the folder of a model: that of the demo, or the one that is named.

    Raises:
        StartError: there is no such folder.
    """
    folder = Path(str(files("skipserve") / DEMO)) if model == DEMO else Path(model).expanduser()
    if not folder.is_dir():
        raise StartError(
            f"there is no model folder {model}: name {DEMO!r}, or the folder of a LLaVA-1.5 "
            "checkpoint in Hugging Face format"
        )
    return folder.resolve()
