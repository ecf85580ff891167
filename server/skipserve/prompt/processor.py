"""From messages to the rows of a prompt: token ids and the class of each position."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from skipserve.errors import InvalidRequestError
from skipserve.model.config import ModelConfig, read_json
from skipserve.prompt.template import ChatTemplate, ImagePart, Message, TextPart
from skipserve.prompt.tokenizer import Tokenizer
from skipserve_policies.plan import TokenClass


@dataclass(frozen=True)
class EncodedPrompt:
    """The rows of a prompt.

    Attributes:
        prompt_ids: one id a row; at a visual row the id of the image token.
        token_classes: one class a row; the last row is LAST.
    """

    prompt_ids: tuple[int, ...]
    token_classes: tuple[TokenClass, ...]


@dataclass(frozen=True)
class PromptProcessor:
    """A checkpoint's chat template and tokenizer.

    Attributes:
        template: messages to text.
        tokenizer: text to ids.
        bos_token: what a prompt begins with, or "".
        image_token_id: stands for one image before its rows are put in.
        num_image_tokens: rows of one image.
        max_positions: rows that the model can hold.
    """

    template: ChatTemplate
    tokenizer: Tokenizer
    bos_token: str
    image_token_id: int
    num_image_tokens: int
    max_positions: int

    @classmethod
    def from_folder(cls, folder: Path, config: ModelConfig) -> Self:
        """Read template and tokenizer of a checkpoint.

        Raises:
            ModelFilesError: a file that names the special tokens or holds the template is damaged.
            TokenizerFilesError: the tokenizer is missing or not supported.
        """
        names = special_tokens(folder)
        return cls(
            template=ChatTemplate.from_folder(folder, names),
            tokenizer=Tokenizer.from_folder(folder),
            bos_token=names.get("bos_token", ""),
            image_token_id=config.image_token_id,
            num_image_tokens=config.sizes.vision.num_tokens,
            max_positions=config.max_positions,
        )

    def encode_chat(self, messages: Sequence[Message]) -> EncodedPrompt:
        """Return the rows of a conversation, each image in the place of its token.

        With three rows an image and the ids 1 for <s> and 4 for <image>,
        `<s> a <image> b` becomes the ids 1 a 4 4 4 b and the classes TEXT TEXT VISUAL VISUAL
        VISUAL LAST.

        Raises:
            InvalidRequestError: the prompt is longer than the context, or the template does not
                take the messages or leaves out an image.
        """
        self._check_length(messages)
        text = self.template.render([self._guarded(message) for message in messages])
        has_bos = bool(self.bos_token) and text.startswith(self.bos_token)
        ids = self.tokenizer.encode(text, adds_special=not has_bos)
        self._check_images(ids, messages)
        return self._expand(ids)

    def _check_length(self, messages: Sequence[Message]) -> None:
        """Refuse text that cannot fit, before any work that grows with its length."""
        length = sum(
            len(part.text)
            for message in messages
            for part in message.parts
            if isinstance(part, TextPart)
        )
        longest = self.max_positions * self.tokenizer.longest_token
        if length > longest:
            raise InvalidRequestError(
                f"the messages hold {length} characters; with the model's context of "
                f"{self.max_positions} tokens there can be at most {longest}",
                param="messages",
            )

    def _guarded(self, message: Message) -> Message:
        parts = tuple(
            TextPart(self.tokenizer.guard(part.text)) if isinstance(part, TextPart) else part
            for part in message.parts
        )
        return Message(message.role, parts)

    def _check_images(self, ids: list[int], messages: Sequence[Message]) -> None:
        num_images = sum(
            isinstance(part, ImagePart) for message in messages for part in message.parts
        )
        num_places = ids.count(self.image_token_id)
        if num_places != num_images:
            raise InvalidRequestError(
                f"the messages hold {num_images} images, but the model's chat template has "
                f"places for {num_places} of them",
                param="messages",
            )

    def _expand(self, ids: list[int]) -> EncodedPrompt:
        num_images = ids.count(self.image_token_id)
        num_rows = len(ids) + num_images * (self.num_image_tokens - 1)
        if num_rows >= self.max_positions:
            raise InvalidRequestError(
                f"the prompt has {num_rows} tokens and the model's context is "
                f"{self.max_positions}, of which the answer needs at least 1",
                param="messages",
            )
        rows: list[int] = []
        classes: list[TokenClass] = []
        for token_id in ids:
            is_image = token_id == self.image_token_id
            count = self.num_image_tokens if is_image else 1
            rows += [token_id] * count
            classes += [TokenClass.VISUAL if is_image else TokenClass.TEXT] * count
        classes[-1] = TokenClass.LAST
        return EncodedPrompt(tuple(rows), tuple(classes))


def special_tokens(folder: Path) -> dict[str, str]:
    """Return the named special tokens of a checkpoint: `bos_token`, `eos_token`, ..."""
    named: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        for key, value in read_json(folder / name).items():
            content = value.get("content") if isinstance(value, dict) else value
            if key.endswith("_token") and isinstance(content, str):
                named[key] = content
    return named
