"""The fields of each form but the chat's, in three classes; what is as there is not said again."""

from collections.abc import Mapping
from dataclasses import replace

from skipserve.asking.fields import CHAT, MESSAGE, FieldTable, Handling, RequestField


def honoured(**says: str) -> list[RequestField]:
    """Return fields that do what they say."""
    return [RequestField(name, Handling.HONOURED, meaning) for name, meaning in says.items()]


def refused(says: str, names: str, *neutral: object) -> list[RequestField]:
    """Return fields that would change an answer, and values with which they do not."""
    return [RequestField(name, Handling.REFUSED, says, neutral) for name in names.split()]


def without_effect(says: str, names: str) -> list[RequestField]:
    """Return fields that change no answer here."""
    return [RequestField(name, Handling.WITHOUT_EFFECT, says) for name in names.split()]


def like_chat(
    *rows: RequestField, drops: str = "", inner: Mapping[str, FieldTable] | None = None
) -> FieldTable:
    """Return the table of a form that takes a chat's fields but for some.

    Args:
        rows: the fields of its own, and those that are otherwise here.
        drops: those of a chat that it does not know.
        inner: the forms in its own fields.
    """
    own = {row.name: row for row in rows}
    others = (row for row in CHAT.rows if row.name not in own and row.name not in drops.split())
    table = FieldTable("", (*own.values(), *others))
    forms = {**CHAT.inner, **(inner or {})}
    return replace(table, inner={name: forms[name] for name in forms if name in table.honoured})


COMPLETIONS = like_chat(
    *honoured(
        prompt="a text, a list of texts, a list of token ids, or a list of such lists",
        max_tokens="the text may have so many tokens, or fewer where the prompt leaves fewer; 16 "
        "without it",
        echo="whether the prompt begins the text",
        logprobs="how many alternatives to report with the log-probability of each token, at most "
        "20",
        add_special_tokens="whether a text gets the tokens that the tokenizer puts around one",
    ),
    *refused("the prompt goes through no template; send them to /v1/chat/completions", "messages"),
    *refused("send max_tokens", "max_completion_tokens"),
    *refused("send logprobs with their number", "top_logprobs"),
    *refused("structured output is not supported yet", "response_format", {"type": "text"}),
    *refused("the text goes on, and is not filled in", "suffix"),
)
TOKENIZE = FieldTable(
    "",
    (
        *honoured(
            model="the served model, or NAME@POLICY",
            prompt="a text that goes through no chat template",
            messages="messages as in a chat",
            add_special_tokens="whether a prompt gets the tokens that the tokenizer puts around a "
            "text",
            add_generation_prompt="whether messages are followed by what begins the answer",
            return_token_strs="whether to tell the tokens as the vocabulary spells them",
        ),
        *refused("a request cannot bring its own chat template", "chat_template"),
        *refused("a request cannot change the chat template", "chat_template_kwargs"),
        *refused("pictures are fitted as the model was trained", "mm_processor_kwargs"),
        *refused("tools are not supported yet", "tools"),
        *refused("to go on from a message is not supported yet", "continue_final_message"),
    ),
    {"messages": MESSAGE},
)
DETOKENIZE = FieldTable(
    "",
    tuple(
        honoured(
            model="the served model, or NAME@POLICY",
            tokens="the ids of tokens",
        )
    ),
)
