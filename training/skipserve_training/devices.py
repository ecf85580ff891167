"""Turns the word of a flag into a device."""

import torch


def find_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" is a GPU where there is one.

    Raises:
        ValueError: The name is not one of the three.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"The device {name!r} is unknown: expected auto, cpu or cuda.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
