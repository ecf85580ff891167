"""What a folder of records is of: whose answers, to what, and how they came about."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Self

SMOLVQA, PATCHES = "smolvqa", "smolvqa-patches"


class Scoring(StrEnum):
    """What an answer is held against.

    ANSWER: one right answer, or any of several. VOTES: those of ten annotators, by VQAv2's
    accuracy. CAPTIONS: the full model's own caption, word for word.
    """

    ANSWER = "answer"
    VOTES = "votes"
    CAPTIONS = "captions"


@dataclass(frozen=True)
class Setup:
    """Whose answers are measured, to what; records of equal setups can be held together.

    Attributes:
        model: what cells call it.
        llm, llm_type: the language model's folder, by its last name, and its type.
        depth: the number of its blocks.
        encoder, encoder_type: the same of the encoder.
        data, test: what is trained on, and what is asked about: a form, and the folder's last name.
        tasks: what alpha-SubNet keeps weights for; fewer than two where it is not run.
        scoring: what answers are held against.
        num_beams: of the search for an answer; 1 is greedy.
        few: questions of a first look.
        many: questions of what keeps more than half of the answers there.
        questions: that the module was trained with.
        more_questions: that each cell's training goes on with.
        pictures: media of a step of a training.
        rate: the peak of its rates.
        warmup: its steps up to there.
        media: what Wanda looks at, of each task.
        layer: which of the encoder's hidden states is read; -1 is its output.
        keeps_class: whether its first row is.
        patches: another model, with a row a patch; None where there is none.
        configs: a digest of both configurations; empty for what ships.
    """

    model: str
    llm: str
    llm_type: str
    depth: int
    encoder: str
    encoder_type: str
    data: str
    test: str
    tasks: tuple[str, ...]
    scoring: Scoring
    num_beams: int
    few: int
    many: int
    questions: int
    more_questions: int
    pictures: int
    rate: float
    warmup: int
    media: int
    layer: int
    keeps_class: bool
    patches: str | None = None
    configs: str = ""

    @property
    def is_shipped(self) -> bool:
        """Say whether the models are those that ship, however they answer."""
        return self.model == SMOLVQA

    @classmethod
    def from_fields(cls, given: Mapping[str, Any]) -> Self:
        """Read what `asdict` wrote, as JSON gives it back."""
        known = dict(given) | {
            "tasks": tuple(given["tasks"]),
            "scoring": Scoring(given["scoring"]),
        }
        return cls(**known)

    def differences(self, other: "Setup") -> str:
        """Say in which fields another setup differs: its values, and those expected here."""
        ours, theirs = asdict(self), asdict(other)
        return "; ".join(
            f"{it.name} is {theirs[it.name]!r}, expected {ours[it.name]!r}"
            for it in fields(self)
            if ours[it.name] != theirs[it.name]
        )


# The models that ship, greedily: records that name no setup are of it.
SHIPPED = Setup(
    model=SMOLVQA,
    llm="SmolLM2-135M-Instruct",
    llm_type="llama",
    depth=30,
    encoder="a supervised tower of shapes",
    encoder_type="clip_vision_model",
    data="easy-vqa",
    test="easy-vqa",
    tasks=("easy-vqa", "easy-vqa-captions"),
    scoring=Scoring.ANSWER,
    num_beams=1,
    few=300,
    many=1_000,
    questions=90_000,
    more_questions=8_000,
    pictures=3,
    rate=1e-3,
    warmup=20,
    media=128,
    layer=-2,
    keeps_class=False,
    patches=PATCHES,
)
