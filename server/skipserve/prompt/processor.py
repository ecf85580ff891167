"""From messages to the rows of a prompt: token ids and the class of each position."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from jinja2 import TemplateError

from skipserve.errors import InvalidRequestError
from skipserve.model.config import ModelConfig, ModelFilesError, read_json
from skipserve.prompt.plain_tools import in_plain_text
from skipserve.prompt.template import (
    LLAVA_TEMPLATE,
    Call,
    ChatTemplate,
    Ending,
    ImagePart,
    Message,
    TextPart,
)
from skipserve.prompt.template_files import TemplateSource, find_template
from skipserve.prompt.tokenizer import Tokenizer
from skipserve.prompt.tokenizer_files import TokenizerFiles, read_tokenizer_files
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
        max_positions: rows that the model can hold.
        vocab_size: ids that the model knows.
        end_token_ids: those that the tokenizer names; they end an answer, as the model's own do.
    """

    template: ChatTemplate
    tokenizer: Tokenizer
    bos_token: str
    image_token_id: int
    max_positions: int
    vocab_size: int
    end_token_ids: tuple[int, ...] = ()

    @classmethod
    def from_folder(cls, folder: Path, config: ModelConfig) -> Self:
        """Read template and tokenizer of a checkpoint, and try them together.

        Raises:
            ModelFilesError: a file that names special tokens or holds the template is damaged, the
                template takes no message, or an image does not become the image token.
            TokenizerFilesError: the tokenizer is missing or not supported.
        """
        files = read_tokenizer_files(folder)
        source = find_template(folder) or TemplateSource("built in", LLAVA_TEMPLATE)
        image_token = files.added.get(config.image_token_id)
        if image_token is None:
            raise ModelFilesError(
                f"image_token_index in config.json is {config.image_token_id}, and the tokenizer "
                f"has no added token of that id; it has {_listing(files.added)}"
            )
        _check_named(folder, files, config.image_token_id)
        template = _compile(source, files.names, image_token)
        reserves = {image_token, *files.names.values(), *_written(files.added.values(), template)}
        tokenizer = Tokenizer(files.definition, reserves)
        eos = tokenizer.token_id(files.names.get("eos_token", ""))
        processor = cls(
            template=template,
            tokenizer=tokenizer,
            bos_token=files.names.get("bos_token", ""),
            image_token_id=config.image_token_id,
            max_positions=config.max_positions,
            vocab_size=config.sizes.decoder.vocab_size,
            end_token_ids=() if eos is None else (eos,),
        )
        _try(processor, source, image_token, config)
        return processor

    def encode_chat(
        self,
        messages: Sequence[Message],
        num_rows: Sequence[int] = (),
        ending: Ending = Ending.ANSWER,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> EncodedPrompt:
        """Return the rows of a conversation, each image in the place of its token.

        With three rows of its one image and the ids 1 for <s> and 4 for <image>,
        `<s> a <image> b` becomes the ids 1 a 4 4 4 b and the classes TEXT TEXT VISUAL VISUAL
        VISUAL LAST.

        Args:
            messages: what is said, with the places of the images.
            num_rows: rows of each image, in the order of their places.
            ending: where the prompt ends.
            tools: functions that may be called, in OpenAI's form. Where the template does not show
                them, nor calls and their results, a plain text does.

        Raises:
            InvalidRequestError: the prompt is longer than the context, or the template does not
                take the messages or leaves out an image.
        """
        if not self.template.shows_tools:
            messages = in_plain_text(messages, tools, takes_system=self.template.takes_system)
            tools = ()
        self._check_length(messages, tools)
        ids = self._encode(messages, ending, tools)
        self._check_images(ids, len(num_rows))
        return self._expand(ids, num_rows)

    def encode_text(self, text: str, *, adds_special: bool = True) -> EncodedPrompt:
        """Return the rows of a text without a template, in which what spells a token is one.

        Args:
            text: the prompt.
            adds_special: whether the tokenizer's own tokens are put around it, where it does not
                begin with the first of them.

        Raises:
            InvalidRequestError: the text is longer than the context, empty, or holds the token of
                an image.
        """
        self._check_characters(len(text))
        text = text.encode(errors="replace").decode()
        return self.encode_ids(self._encode_text(text, adds_special=adds_special))

    def encode_ids(self, ids: Sequence[int]) -> EncodedPrompt:
        """Return the rows of token ids.

        Raises:
            InvalidRequestError: there are none or too many, or the model has no such token, or one
                is that of an image.
        """
        self._check_known(ids, "messages")
        if not ids:
            raise InvalidRequestError("the prompt has no tokens", param="messages")
        if self.image_token_id in ids:
            raise InvalidRequestError(
                f"the prompt holds the token of an image, {self.image_token_id}, and a prompt "
                "without messages brings no image: ask about images in messages",
                param="messages",
            )
        return self._expand(ids, ())

    def text_of(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, special ones by their names.

        Raises:
            InvalidRequestError: the model has no such token.
        """
        self._check_known(ids, "tokens")
        return self.tokenizer.decode(ids)

    def _check_known(self, ids: Sequence[int], param: str) -> None:
        unknown = next((index for index in ids if not 0 <= index < self.vocab_size), None)
        if unknown is not None:
            raise InvalidRequestError(
                f"there is no token {unknown}: the model's are 0 to {self.vocab_size - 1}", param
            )

    def stop_token_ids(
        self, stops: Sequence[str], asked: Sequence[int] = (), *, ignores_ends: bool = False
    ) -> tuple[int, ...]:
        """Return the tokens that end an answer besides those that the model's configuration names.

        A special token never shows in an answer's text: a stop string that spells one stands for
        the token.

        Args:
            stops: strings that end the answer.
            asked: tokens that end it.
            ignores_ends: whether those that the tokenizer names do not.

        Raises:
            InvalidRequestError: a string holds a special token and more, or the model has no such
                token.
        """
        for token_id in asked:
            if not 0 <= token_id < self.vocab_size:
                raise InvalidRequestError(
                    f"stop_token_ids holds {token_id}, and the model's tokens are 0 to "
                    f"{self.vocab_size - 1}",
                    param="stop_token_ids",
                )
        hidden = self.tokenizer.hidden_tokens
        for stop in stops:
            inside = next((word for word in hidden if word in stop), None)
            if inside is not None and stop not in hidden:
                raise InvalidRequestError(
                    f"stop is {stop!r}, but the special token {inside!r} never shows in an answer; "
                    "name it alone",
                    param="stop",
                )
        spelt = (hidden[stop] for stop in stops if stop in hidden)
        ends = () if ignores_ends else self.end_token_ids
        return tuple(sorted({*ends, *spelt, *asked}))

    def runs_of(self, word: str) -> tuple[tuple[int, ...], ...]:
        """Return the tokens that spell a word: as it stands, and behind a space if that differs.

        Source: vLLM's `update_from_tokenizer`, whose two spellings these are.

        Raises:
            InvalidRequestError: no token spells it.
        """
        bare = self.tokenizer.encode(word.lstrip(" "), adds_special=False)
        spaced = self.tokenizer.encode(" " + word.lstrip(" "), adds_special=False)
        runs = tuple(dict.fromkeys(tuple(run) for run in (bare, spaced) if run))
        if not runs or any(token_id >= self.vocab_size for run in runs for token_id in run):
            raise InvalidRequestError(
                f"bad_words has {word!r}, which the model has no tokens for", param="bad_words"
            )
        return runs

    def _check_length(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]
    ) -> None:
        """Refuse text that cannot fit, before any work that grows with its length."""
        length = 0

        def count(text: str) -> str:
            nonlocal length
            length += len(text)
            return text

        _with_texts(messages, count)
        _with_values(tools, count)
        self._check_characters(length)

    def _check_characters(self, length: int) -> None:
        longest = self.max_positions * self.tokenizer.longest_token
        if length > longest:
            raise InvalidRequestError(
                f"the text has {length} characters; with the model's context of "
                f"{self.max_positions} tokens there can be at most {longest}",
                param="messages",
            )

    def _encode(
        self, messages: Sequence[Message], ending: Ending, tools: Sequence[Mapping[str, Any]]
    ) -> list[int]:
        """Return the ids of a conversation, in which no client's text spells a reserved token."""
        guarded = _with_texts(messages, self.tokenizer.guard)
        plain = _with_texts(guarded, self.tokenizer.unguarded)
        guarded_tools = _with_values(tools, self.tokenizer.guard)
        plain_tools = _with_values(guarded_tools, self.tokenizer.unguarded)
        text = self.template.render(guarded, ending, guarded_tools)
        ids = self._encode_text(text)
        if guarded == plain and guarded_tools == plain_tools:
            return ids
        plain_text = self.template.render(plain, ending, plain_tools)
        if plain_text == self.tokenizer.unguarded(text):
            return ids
        # A template that cuts, counts or searches what a message says must see it as it is.
        plain_ids = self._encode_text(plain_text)
        reserved = self.tokenizer.reserved_in
        return plain_ids if reserved(plain_ids) == reserved(ids) else ids

    def _encode_text(self, text: str, *, adds_special: bool = True) -> list[int]:
        has_bos = bool(self.bos_token) and text.startswith(self.bos_token)
        return self.tokenizer.encode(text, adds_special=adds_special and not has_bos)

    def _check_images(self, ids: list[int], num_images: int) -> None:
        num_places = ids.count(self.image_token_id)
        if num_places != num_images:
            raise InvalidRequestError(
                f"there are {num_images} images, but the model's chat template has "
                f"places for {num_places} of them",
                param="messages",
            )

    def _expand(self, ids: Sequence[int], num_rows: Sequence[int]) -> EncodedPrompt:
        total = len(ids) + sum(num_rows) - len(num_rows)
        if total >= self.max_positions:
            raise InvalidRequestError(
                f"the prompt has {total} tokens and the model's context is "
                f"{self.max_positions}, of which the answer needs at least 1",
                param="messages",
            )
        rows: list[int] = []
        classes: list[TokenClass] = []
        counts = iter(num_rows)
        for token_id in ids:
            is_image = token_id == self.image_token_id
            count = next(counts) if is_image else 1
            rows += [token_id] * count
            classes += [TokenClass.VISUAL if is_image else TokenClass.TEXT] * count
        classes[-1] = TokenClass.LAST
        return EncodedPrompt(tuple(rows), tuple(classes))


def _with_texts(messages: Sequence[Message], change: Callable[[str], str]) -> list[Message]:
    """Return messages with each text of a client's changed."""
    return [
        Message(
            message.role,
            tuple(
                TextPart(change(part.text)) if isinstance(part, TextPart) else part
                for part in message.parts
            ),
            tuple(
                Call(change(call.id), change(call.name), change(call.arguments))
                for call in message.calls
            ),
            None if message.call_id is None else change(message.call_id),
        )
        for message in messages
    ]


def _with_values(value: Any, change: Callable[[str], str]) -> Any:
    """Return JSON with each text in it changed, the names of fields too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(name): _with_values(inner, change) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with_values(inner, change) for inner in value]
    return value


def _check_named(folder: Path, files: TokenizerFiles, image_token_id: int) -> None:
    """Make sure that the image token of the processor's files is that of the model."""
    in_processor = read_json(folder / "processor_config.json").get("image_token")
    word = files.names.get("image_token") or in_processor or "<image>"
    ids = [index for index, added in files.added.items() if added == word]
    if ids and ids != [image_token_id]:
        raise ModelFilesError(
            f"image_token_index in config.json is {image_token_id}, the token "
            f"{files.added[image_token_id]!r}; to the tokenizer and the processor images are "
            f"{word!r}, with the id {ids[0]}"
        )


def _compile(source: TemplateSource, names: Mapping[str, str], image_token: str) -> ChatTemplate:
    try:
        return ChatTemplate(source.text, names, image_token)
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        where = source.file if line is None else f"{source.file}, line {line}"
        raise ModelFilesError(f"the chat template ({where}) is broken: {error.message}") from error


def _written(words: Iterable[str], template: ChatTemplate) -> set[str]:
    """Return the added tokens that are marks of the template's, and no words or white space."""
    return {
        word
        for word in words
        if not word.isspace()
        and not word.isalnum()
        and any(word in literal for literal in template.literals)
    }


def _try(
    processor: PromptProcessor, source: TemplateSource, image_token: str, config: ModelConfig
) -> None:
    """Make sure that a question about an image becomes rows, before the first client asks one.

    Raises:
        ModelFilesError: it does not; says which file to look at.
    """
    question = [Message("user", (ImagePart(), TextPart("?")))]
    try:
        text = processor.template.render(question)
    except InvalidRequestError as error:
        raise ModelFilesError(
            f"{error.message}; it was tried with a question about an image, its content as a list "
            f"of parts and as one text (chat template: {source.file})"
        ) from error
    ids = processor.tokenizer.encode(text, adds_special=False)
    unknown = max({*ids} - {processor.image_token_id}, default=0)
    if unknown >= processor.vocab_size:
        raise ModelFilesError(
            f"the token {processor.tokenizer.token_text(unknown)!r} of a short question has the id "
            f"{unknown}, and the model's vocabulary {processor.vocab_size} (vocab_size in "
            "config.json): tokenizer and model do not belong together"
        )
    num_places = ids.count(processor.image_token_id)
    if num_places != 1:
        raise ModelFilesError(
            f"image_token_index in config.json is {processor.image_token_id}, the token "
            f"{image_token!r}; the chat template ({source.file}) writes it {num_places} times for "
            f"an image: {text[:200]!r}"
        )
    num_rows = config.sizes.rows_per_image
    if len(ids) + num_rows > config.max_positions:
        is_cut = config.max_positions < config.declared_positions
        field = "sliding_window" if is_cut else "max_position_embeddings"
        raise ModelFilesError(
            f"an image takes {num_rows} rows, a short question and an answer "
            f"{len(ids)} more, and the context has {config.max_positions} "
            f"({field} in config.json)"
        )


def _listing(added: Mapping[int, str]) -> str:
    """Return added tokens with their ids, those that speak of images first."""
    ordered = sorted(added.items(), key=lambda token: "image" not in token[1].lower())
    shown = [f"{word!r} with the id {index}" for index, word in ordered[:5]]
    return ", ".join(shown + ["..."] * (len(ordered) > 5)) or "none"
