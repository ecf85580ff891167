"""A model's folder with measured quality beside its weights, as an evaluation leaves it."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from skipserve.model.config import ModelConfig
from skipserve_policies.named import load_policies
from skipserve_policies.quality import QUALITY_FILE
from skipserve_policies.resolve import resolve_for


def copy_measured(
    checkpoint: Path, parent: Path, weights_digest: str, kept: Mapping[str, float]
) -> Path:
    """Copy a checkpoint under its own name, and write what its policies keep of `full`'s accuracy.

    Args:
        checkpoint: the folder.
        parent: where the copy goes.
        weights_digest: what was measured.
        kept: of each policy, the lower end of its retention's interval; `full` is written besides.
    """
    folder = shutil.copytree(checkpoint, parent / checkpoint.name)
    sizes, named = ModelConfig.from_folder(folder).sizes, load_policies(folder).by_name
    policies = {
        name: {
            "digest": resolve_for(name, named[name], sizes).digest,
            "accuracy": share,
            "n": 100,
            "beside_full": {"retention": {"value": share, "low": share, "high": 1.0}},
        }
        for name, share in {"full": 1.0, **kept}.items()
    }
    summary = {"data": "scenes", "model_digest": weights_digest, "policies": policies}
    (folder / QUALITY_FILE).write_text(json.dumps(summary))
    return folder
