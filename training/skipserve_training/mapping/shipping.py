"""Writes what ships of a model that goes on from another: what differs, and what is told of it."""

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from skipserve.model.weights import weights_digest
from skipserve.pretrained.joining import TRAINED_WEIGHTS, WEIGHTS, derive
from skipserve.pretrained.packed_masks import PACKED_MASKS, write_packed
from skipserve.pretrained.places import RECORD
from skipserve_policies.named import POLICIES_FILE
from skipserve_policies.schema import SkipPolicy
from skipserve_training.checkpoint_files import write_checksums
from skipserve_training.compression.mask_files import read_masks
from skipserve_training.mapping.recovery import write_default
from skipserve_training.mapping.rewriting import COMPRESSION_RECORD
from skipserve_training.mapping.served import CHECKPOINT_FOLDER, PROJECTOR_WEIGHTS

_CARD = "README.md"
_WRITTEN = (TRAINED_WEIGHTS, PACKED_MASKS, POLICIES_FILE, COMPRESSION_RECORD, RECORD)


@dataclass(frozen=True)
class Shipment:
    """What is to ship.

    Attributes:
        run: the folder of a finished `recover`.
        base: the folder of the model that it went on from, whole.
        masks: the file of what was zeroed before; None for nothing.
        policy_name: what the policy is called that it was trained under; None for as in the run.
        description: what that policy does.
    """

    run: Path
    base: Path
    masks: Path | None = None
    policy_name: str | None = None
    description: str = ""


def ship(shipment: Shipment, out: Path) -> None:
    """Write what makes the run's checkpoint of its base, byte for byte, with checksums.

    A card and measured qualities that `out` holds already are left, and summed with the rest.

    Raises:
        ValueError: The run is not finished, or base and masks do not make what it trained.
    """
    record = _read_record(shipment.run)
    if not (shipment.base / WEIGHTS).is_file():
        raise ValueError(f"base: {shipment.base} has no {WEIGHTS}.")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as beside:
        draft, whole = Path(beside) / "draft", Path(beside) / "whole"
        draft.mkdir()
        _write(shipment, record, draft)
        derive(draft, shipment.base, whole)
        found = weights_digest(whole)
        if found != record["weights_sha256"]:
            raise ValueError(
                f"The model {shipment.base} and what the run {shipment.run} trained do not make "
                f"its weights: their SHA-256 is {found}, expected {record['weights_sha256']}; base "
                "is another model's, or masks are missing or others'."
            )
        _replace(draft, out)
    write_checksums(out)


def _replace(draft: Path, out: Path) -> None:
    """Put what was written in the place of what an earlier call has left."""
    for name in _WRITTEN:
        (out / name).unlink(missing_ok=True)
    for path in draft.iterdir():
        if path.name != _CARD or not (out / _CARD).exists():
            shutil.copyfile(path, out / path.name)


def _read_record(run: Path) -> dict[str, Any]:
    if not (run / RECORD).is_file() or not (run / PROJECTOR_WEIGHTS).is_file():
        raise ValueError(
            f"run: {run} holds no finished training: expected {RECORD} and {PROJECTOR_WEIGHTS}."
        )
    record: dict[str, Any] = json.loads((run / RECORD).read_text())
    return record


def _write(shipment: Shipment, record: dict[str, Any], folder: Path) -> None:
    shutil.copyfile(shipment.run / PROJECTOR_WEIGHTS, folder / TRAINED_WEIGHTS)
    for name in (RECORD, COMPRESSION_RECORD, _CARD):
        path = shipment.run / CHECKPOINT_FOLDER / name
        if path.is_file():
            shutil.copyfile(path, folder / name)
    if shipment.masks is not None:
        masks = read_masks(shipment.masks, _shapes(shipment.base / WEIGHTS))
        write_packed(masks, folder / PACKED_MASKS)
    job = record["job"]
    policy = SkipPolicy.model_validate({"description": shipment.description} | job["policy"])
    write_default(folder, shipment.policy_name or job["policy_name"], policy)


def _shapes(weights: Path) -> dict[str, torch.Size]:
    with safe_open(weights, "pt") as opened:
        return {it: torch.Size(opened.get_slice(it).get_shape()) for it in opened.keys()}  # noqa: SIM118
