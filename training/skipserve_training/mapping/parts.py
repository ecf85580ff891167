"""The parts that answer questions about media, put together."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from skipserve_training.mapping.encoders import TransformersEncoder
from skipserve_training.mapping.language import FrozenLanguageModel
from skipserve_training.mapping.projectors import Projector


@dataclass(frozen=True)
class Parts:
    """What answers questions about media.

    Attributes:
        language: frozen.
        encoder: frozen.
        projector: in fp32, trained or to be trained.
        tokenizer: the language model's, which knows the token of an image.
    """

    language: FrozenLanguageModel
    encoder: TransformersEncoder
    projector: Projector
    tokenizer: PreTrainedTokenizerBase
