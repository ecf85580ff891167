"""The forms of `POST /tokenize` and `/detokenize`, which are vLLM's: texts to tokens and back."""

from typing import Annotated

from pydantic import ConfigDict, Field

from skipserve.api.forms.completions import TokenIds
from skipserve.api.forms.tables import DETOKENIZE, TOKENIZE
from skipserve.api.replies import Reply
from skipserve.api.wire import BodyForm, Flag, Name
from skipserve.asking.messages import Messages, Text, image_uris, template_messages
from skipserve.asking.question import Generation, Question
from skipserve.errors import InvalidRequestError
from skipserve.prompt.template import Ending


class TokenizeForm(BodyForm):
    """The body of `POST /tokenize`: a prompt, or messages."""

    model_config = ConfigDict(json_schema_extra=TOKENIZE.describe_ignored)
    field_table = TOKENIZE

    model: Name | None = Field(default=None, examples=[None])
    prompt: Text | None = Field(
        default=None, description="A text that goes through no chat template.", examples=[None]
    )
    messages: Messages | None = Field(
        default=None,
        description="Messages as in /v1/chat/completions. An image is all its rows, each with the "
        "token of an image.",
        examples=[[{"role": "user", "content": "How many red squares are there?"}]],
    )
    add_special_tokens: Flag | None = Field(
        default=None,
        description="Whether a prompt gets the tokens that the tokenizer puts around a text; true "
        "without it. What messages get says the chat template.",
    )
    add_generation_prompt: Flag = Field(
        default=True, description="Whether messages are followed by what begins the answer."
    )
    return_token_strs: Flag = False


class TokenizeReply(Reply):
    """The reply of `POST /tokenize`."""

    count: int
    max_model_len: int
    tokens: tuple[int, ...]
    token_strs: tuple[str, ...] | None = Field(description="As the vocabulary spells them.")


class DetokenizeForm(BodyForm):
    """The body of `POST /detokenize`."""

    field_table = DETOKENIZE

    model: Name | None = Field(default=None, examples=[None])
    tokens: Annotated[TokenIds, Field(examples=[[1, 29871]])]


class DetokenizeReply(Reply):
    """The reply of `POST /detokenize`."""

    prompt: str = Field(description="The text, special tokens by their names.")


def read_tokenize(form: TokenizeForm) -> Question:
    """Return the question whose prompt is meant.

    Raises:
        InvalidRequestError: there is no prompt and no messages, or both, or a field that goes with
            the other.
    """
    if (form.prompt is None) == (form.messages is None):
        raise InvalidRequestError("send either prompt or messages", param="prompt")
    if form.prompt is not None:
        adds_special = form.add_special_tokens is not False
        return Question(id="", prompt=form.prompt, prompt_param="prompt", adds_special=adds_special)
    if form.add_special_tokens:
        raise InvalidRequestError(
            "which special tokens messages get says the chat template; leave it out",
            param="add_special_tokens",
        )
    messages = form.messages or ()
    ending = Ending.ANSWER if form.add_generation_prompt else Ending.MESSAGE
    return Question(
        id="",
        messages=template_messages(messages),
        image_uris=image_uris(messages),
        generation=Generation(ending=ending),
    )
