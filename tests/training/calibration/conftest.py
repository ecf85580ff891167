"""A small random model, and questions about pictures that it can be asked."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

if TYPE_CHECKING:
    from skipserve.asking.processor import QuestionProcessor
    from skipserve_training.calibration.probe import Probe
    from skipserve_training.calibration.questions import Drawn

# Imports stand in the fixtures, for what they lead to imports Triton, before which tests choose
# who runs kernels.
NUM_RANKING, NUM_CONFIRMING = 4, 6


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_llava import make_checkpoint  # noqa: PLC0415

    return make_checkpoint(tmp_path_factory.mktemp("calibrated") / "tiny", num_layers=4, seed=5)


@pytest.fixture(scope="session")
def riddles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of questions about pictures, each of another colour."""
    folder = tmp_path_factory.mktemp("riddles")
    lines = []
    for index in range(NUM_RANKING + NUM_CONFIRMING):
        colour = (25 * index, 255 - 20 * index, 40)
        Image.new("RGB", (30, 20), colour).save(folder / f"{index}.png")
        question = "what is in " + "the " * (index % 3) + "picture?"
        lines.append({"image": f"{index}.png", "question": question, "answer": "a square"})
    path = folder / "riddles.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="session")
def drawn(riddles: Path) -> "Drawn":
    from skipserve_training.calibration.questions import draw  # noqa: PLC0415

    return draw(str(riddles), None, NUM_RANKING, NUM_CONFIRMING)


@pytest.fixture(scope="session")
def processor(tiny_folder: Path) -> "QuestionProcessor":
    from skipserve.asking.processor import QuestionProcessor  # noqa: PLC0415
    from skipserve.asking.terms import ImageLimits, Terms  # noqa: PLC0415
    from skipserve.media.decode import PixelLimits  # noqa: PLC0415

    terms = Terms("the catalog", ImageLimits(PixelLimits(10**6, 10**6)))
    return QuestionProcessor.from_folder(tiny_folder, "tiny", terms)


@pytest.fixture(scope="session")
def probe(tiny_folder: Path, processor: "QuestionProcessor", drawn: "Drawn") -> "Probe":
    from skipserve.engine.limits import EngineLimits, EngineSpec  # noqa: PLC0415
    from skipserve_training.calibration.probe import load_probe  # noqa: PLC0415

    spec = EngineSpec(tiny_folder, "cpu", "float32", limits=EngineLimits(kv_cache_bytes=2**24))
    made, _ = load_probe(spec, processor, drawn, max_tokens=6)
    return made
