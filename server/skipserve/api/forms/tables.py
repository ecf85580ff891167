"""The fields of each form but the chat's, in three classes; what is as there is not said again."""

from collections.abc import Mapping
from dataclasses import replace

from skipserve.asking.fields import (
    CHAT,
    INPUT_AUDIO,
    MESSAGE,
    XARGS,
    FieldTable,
    Handling,
    RequestField,
)


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
        "20; with `echo` of the prompt's tokens too, then not in a stream",
        add_special_tokens="whether a text gets the tokens that the tokenizer puts around one",
    ),
    *refused("the prompt goes through no template; send them to /v1/chat/completions", "messages"),
    *refused("send max_tokens", "max_completion_tokens"),
    *refused("send logprobs with their number", "top_logprobs"),
    *refused("the prompt goes through no template", "tools parallel_tool_calls"),
    *refused("the prompt goes through no template", "tool_choice", "none", "auto"),
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
        *refused("tools are counted in the usage of a reply, and by count_tokens", "tools"),
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
RESOLVE = FieldTable(
    "",
    tuple(
        honoured(
            model="the served model, or NAME@POLICY",
            skip_policy="a name from `/v1/skip_policies`, or a policy spelt out",
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
        *honoured(
            type="`text`, `image`, `tool_use` of the assistant's or `tool_result` of the user's",
            text="said as it is",
            source="the picture's file",
            id="of a call",
            name="of the function that is called",
            input="what it is called with",
            tool_use_id="the call whose result this is",
            content="the result: a text, or a list of text blocks",
            is_error="whether the call failed, which the model is told",
        ),
        *_CACHED,
        *without_effect("says nothing to the model", "caller toolset_name"),
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
_MESSAGE_TOOL = FieldTable(
    "tools.",
    (
        *honoured(
            name="its name, of letters, digits and `_.-`",
            description="what it does, for the model",
            input_schema="the JSON schema of its input, which a call then follows",
            type="`custom`: what the client runs itself",
        ),
        *_CACHED,
        *without_effect("a call always follows the schema", "strict"),
        *refused("tools are the client's to run", "allowed_callers defer_loading"),
    ),
)
_MESSAGE_CHOICE = FieldTable(
    "tool_choice.",
    tuple(
        honoured(
            type="`none`, `any`, `tool`, or `auto` where the model's chat template knows tools",
            name="of the tool that must be called",
            disable_parallel_tool_use="whether there is one call at most",
        )
    ),
)
_OUTPUT_CONFIG = FieldTable(
    "output_config.",
    (
        *honoured(format="a JSON schema that the answer follows"),
        *without_effect("the model answers at once, without reasoning before", "effort"),
    ),
    {
        "format": FieldTable(
            "output_config.format.",
            tuple(honoured(type="`json_schema`", schema="the schema")),
        )
    },
)
_ANTHROPICS = (
    *without_effect("says who asks or what for, not what; nothing is kept", "metadata"),
    *without_effect("there is one service for all", "service_tier inference_geo speed"),
    *without_effect("the model answers at once, without reasoning before", "thinking"),
    *_CACHED,
    *refused("a prompt is never cut", "context_management"),
    *refused("send output_config", "output_format"),
    *refused("the server runs no tools itself", "mcp_servers container"),
    *honoured(
        tools="functions that the answer may call",
        tool_choice="whether it must call one, and which",
        output_config="what the answer is held to",
    ),
)
_ANTHROPIC_FORMS = {
    "tools": _MESSAGE_TOOL,
    "tool_choice": _MESSAGE_CHOICE,
    "output_config": _OUTPUT_CONFIG,
}
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
    {"messages": _TURN, "system": _SYSTEM, "vllm_xargs": XARGS, **_ANTHROPIC_FORMS},
)
COUNT_TOKENS = FieldTable(
    "",
    (*_SAID, *honoured(model="the served model, or NAME@POLICY"), *_ANTHROPICS),
    {"messages": _TURN, "system": _SYSTEM, **_ANTHROPIC_FORMS},
)
_RESPONSE_PART = FieldTable(
    "input.content.",
    (
        *honoured(
            type="`input_text`, `input_image`, `input_audio`, or `output_text` of an earlier "
            "answer",
            text="said as it is",
            image_url="what `messages.content.image_url.url` of chat completions takes",
            input_audio="a sound in its place, where the model takes them",
        ),
        *without_effect("the vision tower has one resolution", "detail"),
        *without_effect("says nothing to the model", "annotations logprobs"),
        *without_effect("what can be reused is found without it", "prompt_cache_breakpoint"),
        *refused("the server keeps no files; send image_url", "file_id"),
    ),
    {"input_audio": replace(INPUT_AUDIO, place="input.content.input_audio.")},
)
_ITEM = FieldTable(
    "input.",
    (
        *honoured(
            type="`message`, `function_call` or `function_call_output`",
            role="`system`, `developer` (the same), `user` or `assistant`",
            content="a text, or a list of parts",
            call_id="of a call, or the call whose output this is",
            name="of the function that was called",
            arguments="a JSON object as text",
            output="of a call: a text, or a list of texts",
        ),
        *without_effect("says nothing to the model", "id status phase"),
    ),
    {"content": _RESPONSE_PART},
)
RESPONSE_TEXT = FieldTable(
    "text.",
    (
        *honoured(format="text, any JSON object, or JSON of a schema"),
        *without_effect("the model answers at once, without reasoning before", "verbosity"),
    ),
    {
        "format": FieldTable(
            "text.format.",
            (
                *honoured(
                    type="`text`, `json_object` or `json_schema`",
                    name="any name",
                    schema="a JSON schema, which the answer then follows",
                ),
                *without_effect("an answer always follows the schema", "strict"),
                *without_effect("the model is not shown it", "description"),
            ),
        )
    },
)
_RESPONSE_TOOL = FieldTable(
    "tools.",
    (
        *honoured(
            type="`function`",
            name="its name, of letters, digits and `_.-`",
            description="what it does, for the model",
            parameters="the JSON schema of its arguments, which a call then follows",
        ),
        *without_effect("a call always follows the schema", "strict"),
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
            text="what the answer is held to",
            tools="functions that the answer may call",
            tool_choice="`none`, `auto`, `required`, or the function that must be called; `auto` "
            "where the model's chat template knows tools",
            parallel_tool_calls="whether there may be several calls; true without it",
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
        *without_effect("the client runs all tools itself", "max_tool_calls"),
        *without_effect("events carry nothing to obscure their size", "stream_options"),
        *refused(
            "nothing is stored: send earlier output among the input",
            "previous_response_id conversation prompt background",
        ),
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
    {"input": _ITEM, "text": RESPONSE_TEXT, "vllm_xargs": XARGS, "tools": _RESPONSE_TOOL},
)
