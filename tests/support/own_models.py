"""A grid of a model of one's own: small random parts and data of each kind, in a folder."""

from dataclasses import dataclass
from pathlib import Path

from tiny_encoders import save_encoder
from tiny_language import make_llama, make_opt, make_tokenizer
from tiny_lessons import write_captions, write_vqa

DEPTH = 6
MAKERS = {"llama": make_llama, "opt": make_opt}


@dataclass(frozen=True)
class OwnFolders:
    """Where the parts and the data of a grid are.

    Attributes:
        medium: the type of the encoder that takes the data's media.
    """

    llm: Path
    encoder: Path
    data: str
    medium: str

    @property
    def flags(self) -> list[str]:
        """Return them as options, and few of everything."""
        return [
            "--llm", str(self.llm), "--encoder", str(self.encoder), "--data", self.data,
            "--questions", "16", "--more-questions", "4", "--pictures", "2", "--calibration", "2",
            "--warmup", "1", "--asked", "3",
        ]  # fmt: skip


def make_own(folder: Path, language: str, encoder: str, form: str, media: int = 6) -> OwnFolders:
    """Write a language model of six blocks, an encoder and data of its media."""
    llm = folder / language
    MAKERS[language](num_hidden_layers=DEPTH).save_pretrained(llm)
    make_tokenizer().save_pretrained(llm)
    write = write_vqa if form == "vqa" else write_captions
    data = write(folder / "data", encoder, media)
    return OwnFolders(llm, save_encoder(encoder, folder / "encoder"), f"{form}:{data}", encoder)
