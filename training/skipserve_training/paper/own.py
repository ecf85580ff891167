"""The paper's grid on a language model, an encoder and data of one's own: what is asked for.

Knows configurations and data sets, and no weights.
"""

import hashlib
import json
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from skipserve_policies.sizes import DecoderSizes, VisionSizes
from skipserve_training.mapping.encoders import CLIP, ENCODER_TYPES
from skipserve_training.mapping.language import LANGUAGE_MODEL_TYPES
from skipserve_training.mapping.lessons import QUESTION_FORM, LessonSource
from skipserve_training.mapping.sources import read_source, split_source
from skipserve_training.paper.exam import Exam, divide, read_exam
from skipserve_training.paper.hours import Amounts, Hours
from skipserve_training.paper.setup import Setup

_EPOCHS = 20  # as in the paper
_SAMPLE = 300  # media whose texts are measured
_LEAST_DEPTH = 4  # that has blocks to skip by every rule of the grid


@dataclass(frozen=True)
class Own:
    """What `train paper` is given in place of the models that ship.

    Attributes:
        llm, encoder: folders that transformers loads.
        data: FORM:FOLDER.
        test: what is asked about, FORM:FOLDER; None for a part of the data.
        tasks: what else alpha-SubNet keeps weights for, FORM:FOLDER each.
        layer: which of the encoder's hidden states is read; -1 is its output.
        keeps_class: whether its first row, that of the class, is.
        asked: questions that each cell is asked.
        questions: that the module is trained with; None for the paper's 20 epochs.
        more_questions: that each cell's training goes on with; None for a tenth of those.
        media: what Wanda looks at, of each task.
    """

    llm: Path
    encoder: Path
    data: str
    test: str | None = None
    tasks: tuple[str, ...] = ()
    layer: int = -1
    keeps_class: bool = True
    num_beams: int = 1
    asked: int = 5_000
    questions: int | None = None
    more_questions: int | None = None
    pictures: int = 8
    rate: float = 2e-4
    warmup: int = 100
    media: int = 128

    @property
    def name(self) -> str:
        """Return what cells call the model."""
        return f"{self.llm.name}+{self.encoder.name}"

    @cached_property
    def sources(self) -> tuple[str, str]:
        """Return what is trained on and what is asked about."""
        return divide(self.data, self.test)

    @cached_property
    def lessons(self) -> LessonSource:
        """Read what is trained on."""
        return read_source(self.sources[0])

    @cached_property
    def exam(self) -> Exam:
        """Read what is asked about."""
        return read_exam(self.lessons, self.sources[1])

    @cached_property
    def text_config(self) -> dict[str, Any]:
        """Read the configuration of the language model."""
        return _read_config("llm", self.llm, LANGUAGE_MODEL_TYPES)

    @cached_property
    def vision_config(self) -> dict[str, Any]:
        """Read the configuration of the encoder, which may be a part of CLIP's."""
        config = _read_config("encoder", self.encoder, sorted(ENCODER_TYPES))
        part = config.get("vision_config")
        return config if part is None else dict(part) | {"model_type": CLIP}

    @cached_property
    def setup(self) -> Setup:
        """Say whose answers are measured.

        Raises:
            ValueError: A folder holds no such thing, or what is asked for does not fit.
        """
        depth = DecoderSizes.from_config(self.text_config).num_layers
        if depth < _LEAST_DEPTH:
            raise ValueError(
                f"llm is {self.llm}, of {depth} blocks: the grid needs {_LEAST_DEPTH} or more."
            )
        questions = self.questions or math.ceil(
            _EPOCHS * self.lessons.questions_a_step * len(self.lessons)
        )
        return Setup(
            model=self.name,
            llm=self.llm.name,
            llm_type=self.text_config["model_type"],
            depth=depth,
            encoder=self.encoder.name,
            encoder_type=self.vision_config["model_type"],
            data=_named(self.sources[0]),
            test=_named(self.sources[1]),
            tasks=tuple(map(_named, self.all_tasks)),
            scoring=self.exam.scoring,
            num_beams=self.num_beams,
            few=self.asked,
            many=self.asked,
            questions=questions,
            more_questions=self.more_questions or math.ceil(questions / 10),
            pictures=self.pictures,
            rate=self.rate,
            warmup=self.warmup,
            media=min(self.media, len(self.lessons)),
            layer=self.layer,
            keeps_class=self.keeps_class,
            configs=_digest(self.text_config, self.vision_config),
        )

    @property
    def all_tasks(self) -> tuple[str, ...]:
        """Return all data sets that alpha-SubNet keeps weights for."""
        return (self.sources[0], *self.tasks)

    @cached_property
    def hours(self) -> Hours:
        """Estimate what cells take."""
        return Hours(self.setup, self.text_config, self.vision_config, self._amounts)

    @property
    def _amounts(self) -> Amounts:
        """Count the data; its texts are those of some media."""
        exam, lessons = self.exam, self.lessons
        probes = [probe for index in _some(len(exam)) for probe in exam.probes(index)]
        draw = random.Random(0)
        exchanges = [it for index in _some(len(lessons)) for it in lessons.exchanges(index, draw)]
        asked = [it for it in exchanges if it.question is not None]
        return Amounts(
            media=len(lessons),
            asked_media=len(exam),
            exchanges=lessons.questions_a_step,
            probes=len(probes) / len(_some(len(exam))),
            question=_mean(len(QUESTION_FORM.format(question=it.question)) for it in asked),
            answer=_mean(len(it.answer) + 1 for it in exchanges),
            pictures=VisionSizes.of_tower(self.vision_config).num_frames,
        )

    def command(self, flags: str) -> str:
        """Return the command that measures some of it; folders by their last names."""
        said = [
            f"skipserve train paper --llm {self.llm.name} --encoder {self.encoder.name}",
            f"--data {_named(self.data)}",
            *([] if self.test is None else [f"--test {_named(self.test)}"]),
            *(f"--task {_named(task)}" for task in self.tasks),
        ]
        return " ".join([*said, *self._changed, flags])

    @property
    def _changed(self) -> Iterator[str]:
        """Spell the options that are not as they are by themselves."""
        for name, flag in _FLAGS.items():
            value = getattr(self, name)
            if value != type(self).__dataclass_fields__[name].default:
                yield "--drop-class" if name == "keeps_class" else f"{flag} {value}"


_FLAGS = {
    "layer": "--layer", "keeps_class": "--drop-class", "num_beams": "--beams", "asked": "--asked",
    "questions": "--questions", "more_questions": "--more-questions", "pictures": "--pictures",
    "rate": "--rate", "warmup": "--warmup", "media": "--calibration",
}  # fmt: skip


def _some(count: int) -> range:
    """Choose some hundred of many, at equal distances."""
    return range(0, count, max(1, count // _SAMPLE))


def _mean(values: Iterable[int]) -> float:
    found = [*values]
    return sum(found) / len(found) if found else 0.0


def _named(source: str) -> str:
    form, folder, part = split_source(source)
    return f"{form}:{folder.name}{f'#{part}' if part else ''}"


def _read_config(option: str, folder: Path, types: Sequence[str]) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text())
        kind = config["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{option} is {folder}: its config.json cannot be read ({error!r})."
        ) from error
    if kind not in types:
        raise ValueError(
            f"{option} is {folder}, of the type {kind!r}: expected one of {', '.join(types)}."
        )
    return config


def _digest(*configs: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(configs, sort_keys=True).encode()).hexdigest()[:16]
