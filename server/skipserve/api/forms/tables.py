"""The fields of each form but the chat's, in three classes; what is as there is not said again."""

from collections.abc import Mapping
from dataclasses import replace

from skipserve.asking.fields import CHAT, MESSAGE, XARGS, FieldTable, Handling, RequestField


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
    *refused("the prompt goes through no template", "add_generation_prompt", True),
    *refused("the text goes on always", "continue_final_message", True),
    *refused("send logprobs: their tokens have names", "return_token_ids"),
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
POLICY = FieldTable(
    "",
    tuple(
        honoured(
            name="what the policy is called from now on",
            policy="the policy, as `skip_policy` spells one out",
        )
    ),
)
_SOURCE = FieldTable(
    "messages.content.source.",
    (
        *honoured(
            type="`base64`, or `url`",
            media_type="such as `image/png`",
            data="the file in base64",
            url="a data URI, or what `messages.content.image_url.url` of chat completions takes",
        ),
    ),
)
_CACHED = without_effect("what can be reused is found without it", "cache_control")
_BLOCK = FieldTable(
    "messages.content.",
    (
        *honoured(type="`text` or `image`", text="said as it is", source="the picture's file"),
        *_CACHED,
        *without_effect("says nothing to the model", "citations"),
    ),
    {"source": _SOURCE},
)
_TURN = FieldTable(
    "messages.",
    tuple(
        honoured(
            role="`user` or `assistant`; the last is the user's",
            content="a text, or a list of blocks; neighbours of one role are one turn",
        )
    ),
    {"content": _BLOCK},
)
_SYSTEM = FieldTable(
    "system.",
    (
        *honoured(type="`text`", text="said as it is"),
        *_CACHED,
        *without_effect("says nothing to the model", "citations"),
    ),
)
_NO_TOOLS = (
    *refused("tools are not supported yet", "tools mcp_servers container"),
    *refused("tools are not supported yet", "tool_choice", {"type": "none"}, {"type": "auto"}),
)
_ANTHROPICS = (
    *without_effect("says who asks or what for, not what; nothing is kept", "metadata"),
    *without_effect("there is one service for all", "service_tier inference_geo speed"),
    *without_effect("the model answers at once, without reasoning before", "thinking"),
    *_CACHED,
    *refused("a prompt is never cut", "context_management"),
    *refused("structured output is not supported yet", "output_config output_format"),
    *_NO_TOOLS,
)
_OWN = tuple(
    row
    for row in CHAT.rows
    if row.name
    in {
        *("model", "skip_policy", "vllm_xargs", "cache_salt", "timeout_seconds"),
        *("temperature", "top_p", "top_k", "min_p", "seed"),
    }
)
_SAID = honoured(messages="what is said", system="what is said before, a text or a list of blocks")
MESSAGES = FieldTable(
    "",
    (
        *_SAID,
        *honoured(
            max_tokens="the answer may have so many tokens, or fewer where the prompt leaves fewer",
            stop_sequences="the answer ends before any of these, at most 4",
            stream="whether the answer comes as server-sent events",
        ),
        *_OWN,
        *_ANTHROPICS,
        *refused("send stop_sequences", "stop"),
    ),
    {"messages": _TURN, "system": _SYSTEM, "vllm_xargs": XARGS},
)
COUNT_TOKENS = FieldTable(
    "",
    (*_SAID, *honoured(model="the served model, or NAME@POLICY"), *_ANTHROPICS),
    {"messages": _TURN, "system": _SYSTEM},
)
_RESPONSE_PART = FieldTable(
    "input.content.",
    (
        *honoured(
            type="`input_text`, `input_image`, or `output_text` of an earlier answer",
            text="said as it is",
            image_url="what `messages.content.image_url.url` of chat completions takes",
        ),
        *without_effect("the vision tower has one resolution", "detail"),
        *without_effect("says nothing to the model", "annotations logprobs"),
        *without_effect("what can be reused is found without it", "prompt_cache_breakpoint"),
        *refused("the server keeps no files; send image_url", "file_id"),
    ),
)
_ITEM = FieldTable(
    "input.",
    (
        *honoured(
            type="`message`",
            role="`system`, `developer` (the same), `user` or `assistant`",
            content="a text, or a list of parts",
        ),
        *without_effect("says nothing to the model", "id status phase"),
    ),
    {"content": _RESPONSE_PART},
)
RESPONSE_TEXT = FieldTable(
    "text.",
    (
        *refused("structured output is not supported yet", "format", {"type": "text"}),
        *without_effect("the model answers at once, without reasoning before", "verbosity"),
    ),
)
RESPONSES = FieldTable(
    "",
    (
        *honoured(
            input="a text of the user's, or messages, earlier output among them",
            instructions="what is said before",
            max_output_tokens="the answer may have so many tokens, or fewer where the prompt "
            "leaves fewer",
            stream="whether the answer comes as server-sent events",
            include="`message.output_text.logprobs`: the log-probability of each token; "
            "`reasoning.encrypted_content` is taken, and there is none",
            top_logprobs="how many alternatives to report with it, at most 20",
            text="what the text must be like: free text",
        ),
        *_OWN,
        *without_effect("nothing is stored: the reply says `false`", "store"),
        *without_effect(
            "says who asks or what for, not what; nothing is kept",
            "user metadata safety_identifier",
        ),
        *without_effect(
            "what can be reused is found without it",
            "prompt_cache_key prompt_cache_retention prompt_cache_options",
        ),
        *without_effect("there is one service for all", "service_tier"),
        *without_effect("the model answers at once, without reasoning before", "reasoning"),
        *without_effect("no tools are given", "parallel_tool_calls max_tool_calls"),
        *without_effect("events carry nothing to obscure their size", "stream_options"),
        *refused(
            "nothing is stored: send earlier output among the input",
            "previous_response_id conversation prompt background",
        ),
        *refused("tools are not supported yet", "tools"),
        *refused("tools are not supported yet", "tool_choice", "none", "auto"),
        *refused("a prompt is never cut", "context_management"),
        *refused("a prompt is never cut", "truncation", "disabled"),
        *refused("nothing is moderated", "moderation"),
        *refused("send max_output_tokens", "max_tokens max_completion_tokens"),
        *refused("send input", "messages"),
        *refused("send text.format", "response_format", {"type": "text"}),
        # sglang-router adds them.
        *refused("chat completions and completions take it", "priority", 0),
        *refused("chat completions and completions take it", "repetition_penalty", 1),
    ),
    {"input": _ITEM, "text": RESPONSE_TEXT, "vllm_xargs": XARGS},
)
