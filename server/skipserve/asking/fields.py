"""Every field that a client may send with a chat, in three classes: the one table of them.

The forms take what is honoured. Before a form is read, `sift` takes out what changes no answer, so
that it can be told; what is left over is refused by the form, in the words of this table.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from functools import cached_property
from typing import Any

# Of any field that is known: it asks for nothing.
_NEUTRAL: tuple[object, ...] = (None, False, "", [], {})
# What is less alike is no slip of the pen.
_ALIKE = 0.7
# No client sends so many that are not known; each is compared with all that are.
_MAX_UNKNOWN = 64
_MAX_NAME = 100
_MAX_SHOWN = 32
_STRANGE = re.compile(r"[^A-Za-z0-9_.~-]+")


class Handling(StrEnum):
    """What is done about a field."""

    HONOURED = "honoured"
    WITHOUT_EFFECT = "without effect"
    REFUSED = "not supported"


@dataclass(frozen=True)
class RequestField:
    """A field that clients send.

    Attributes:
        name: as it is sent.
        handling: what is done about it.
        says: what it means here, or why it is not supported.
        neutral: values of it that change nothing, besides those that never do.
    """

    name: str
    handling: Handling
    says: str
    neutral: tuple[object, ...] = ()

    def is_ignored(self, value: object) -> bool:
        """Whether it is taken and does nothing, with this value."""
        if self.handling is Handling.WITHOUT_EFFECT:
            return True
        return self.handling is Handling.REFUSED and any(
            value == each and isinstance(value, bool) == isinstance(each, bool)
            for each in (*_NEUTRAL, *self.neutral)
        )

    @property
    def schema_of_neutral(self) -> dict[str, Any]:
        """The JSON schema of the values that change nothing."""
        return {"enum": [*_NEUTRAL, *self.neutral]}


@dataclass(frozen=True)
class FieldTable:
    """The fields of one form.

    Attributes:
        place: of the form in a request, as a prefix of its fields' names.
        rows: its fields.
        inner: the forms in its fields, or in the lists in them.
    """

    place: str
    rows: tuple[RequestField, ...]
    inner: Mapping[str, "FieldTable"] = field(default_factory=dict)

    @cached_property
    def by_name(self) -> dict[str, RequestField]:
        """The fields by their names."""
        return {row.name: row for row in self.rows}

    @cached_property
    def honoured(self) -> frozenset[str]:
        """The names of those that the form takes."""
        return frozenset(row.name for row in self.rows if row.handling is Handling.HONOURED)

    @cached_property
    def with_effect(self) -> list[str]:
        """The names of those that would change an answer."""
        rows = self.rows
        return [row.name for row in rows if row.handling is not Handling.WITHOUT_EFFECT]

    def find(self, place: Sequence[int | str]) -> RequestField | None:
        """Return the field at a place, which begins at this form; None where none is known."""
        table, names = self, [part for part in place if isinstance(part, str)]
        for name in names[:-1]:
            if name not in table.inner:
                return None
            table = table.inner[name]
        return table.by_name.get(names[-1]) if names else None

    def describe_ignored(self, schema: dict[str, Any]) -> None:
        """Add what is taken and does nothing to a form's JSON schema; for pydantic's config."""
        for row in self.rows:
            if row.handling is not Handling.HONOURED:
                limits = {} if row.handling is Handling.WITHOUT_EFFECT else row.schema_of_neutral
                schema["properties"][row.name] = {"description": row.says, **limits}

    def walk(self) -> Iterator["FieldTable"]:
        """Yield this table and those inside it."""
        yield self
        for inner in self.inner.values():
            yield from inner.walk()


def sift(
    value: Any, table: FieldTable, *, ignores_unknown: bool = False
) -> tuple[Any, tuple[str, ...]]:
    """Return a form, as JSON has it, without what changes no answer, and the names of that, sorted.

    Args:
        value: what a client sends; returned as it is where it is no mapping.
        table: the fields that it may have.
        ignores_unknown: whether fields that are not known are left out too, unless one is nearly
            called as a field that would change an answer.
    """
    sieve = _Sieve(ignores_unknown)
    sifted = sieve.sift(value, table)
    return sifted, tuple(sorted(sieve.names))


def shown_names(names: Sequence[str]) -> str:
    """Return names of fields, which may be a client's own, as a header can hold them: the first."""
    shown = [_STRANGE.sub(_escape, name[:_MAX_NAME]) for name in names[:_MAX_SHOWN]]
    return ", ".join(shown + ["..."] * (len(names) > _MAX_SHOWN))


def _escape(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode(errors="replace"))


class _Sieve:
    """Sifts one request; what it finds is in `names`."""

    def __init__(self, ignores_unknown: bool) -> None:
        self.names: set[str] = set()
        self._ignores_unknown = ignores_unknown
        # Of all that are not known, whether they are left out.
        self._unknown: dict[tuple[str, str], bool] = {}

    def sift(self, value: Any, table: FieldTable) -> Any:
        """Sift a form, or each in a list of them; a list in the list is no form.

        What holds nothing to be left out is returned itself: most requests are of this kind.
        """
        if isinstance(value, dict):
            return self._sift_form(value, table)
        if not isinstance(value, list):
            return value
        kept = value
        for place, item in enumerate(value):
            if isinstance(item, dict) and (sifted := self._sift_form(item, table)) is not item:
                kept = list(value) if kept is value else kept
                kept[place] = sifted
        return kept

    def _sift_form(self, form: dict[str, Any], table: FieldTable) -> dict[str, Any]:
        kept = form
        if not form.keys() <= table.honoured:
            kept = self._without_ignored(form, table)
        for name, inner in table.inner.items():
            value = kept.get(name)
            if value is not None and (sifted := self.sift(value, inner)) is not value:
                kept = {**kept, name: sifted}
        return kept

    def _without_ignored(self, form: dict[str, Any], table: FieldTable) -> dict[str, Any]:
        ignored = {
            name
            for name, value in form.items()
            if name not in table.honoured and self._is_ignored(name, value, table)
        }
        self.names.update(table.place + name for name in ignored)
        return {name: value for name, value in form.items() if name not in ignored}

    def _is_ignored(self, name: str, value: object, table: FieldTable) -> bool:
        row = table.by_name.get(name)
        if row is not None:
            return row.is_ignored(value)
        return self._ignores_unknown and self._is_far_from_all(name, table)

    def _is_far_from_all(self, name: str, table: FieldTable) -> bool:
        """Whether a field that is not known is not meant as one that is."""
        key = (table.place, name)
        if key not in self._unknown and len(self._unknown) < _MAX_UNKNOWN:
            near = get_close_matches(name[:_MAX_NAME].lower(), table.with_effect, 1, _ALIKE)
            self._unknown[key] = not near
        return self._unknown.get(key, False)


def _honoured(**meanings: str) -> Iterator[RequestField]:
    for name, meaning in meanings.items():
        yield RequestField(name, Handling.HONOURED, meaning)


def _without_effect(meaning: str, names: str) -> Iterator[RequestField]:
    for name in names.split():
        yield RequestField(name, Handling.WITHOUT_EFFECT, meaning)


def _refused(reason: str, names: str, *neutral: object) -> Iterator[RequestField]:
    for name in names.split():
        yield RequestField(name, Handling.REFUSED, reason, neutral)


IMAGE_URL = FieldTable(
    "messages.content.image_url.",
    (
        *_honoured(
            url="a data URI: `data:image/png;base64,...`; an http or https URL where "
            "`--media-hosts` or `--allow-any-media-host` allows it"
        ),
        *_without_effect("the vision tower has one resolution", "detail"),
        *_without_effect("what the file holds counts", "format"),
    ),
)
VIDEO_URL = FieldTable(
    "messages.content.video_url.",
    tuple(
        _honoured(
            url="a data URI of an animated GIF, WebP or PNG (`data:image/gif;base64,...`) or of "
            "JPEG pictures in base64 with commas between (`data:video/jpeg;base64,...,...`); a URL "
            "as above. Eight frames are shown"
        )
    ),
)
AUDIO_URL = FieldTable(
    "messages.content.audio_url.",
    tuple(_honoured(url="a data URI of a WAV file, `data:audio/wav;base64,...`; a URL as above")),
)
INPUT_AUDIO = FieldTable(
    "messages.content.input_audio.",
    tuple(_honoured(data="a WAV file in base64", format="`wav`")),
)
PART = FieldTable(
    "messages.content.",
    (
        *_honoured(
            type="`text`, and what the model takes of `image_url`, `video_url`, `audio_url` and "
            "`input_audio`",
            text="said as it is",
            image_url="a picture in its place",
            video_url="a video in its place",
            audio_url="a sound in its place",
            input_audio="the same",
        ),
        *_without_effect("pictures are known by their pixels alone", "uuid"),
        *_without_effect("what can be reused is found without it", "cache_control"),
        *_without_effect("says nothing to the model", "annotations"),
    ),
    {
        "image_url": IMAGE_URL,
        "video_url": VIDEO_URL,
        "audio_url": AUDIO_URL,
        "input_audio": INPUT_AUDIO,
    },
)
TOOL_CALL = FieldTable(
    "messages.tool_calls.",
    (
        *_honoured(id="by which its result names it", type="`function`", function="the function"),
        *_without_effect("says nothing to the model", "index"),
    ),
    {
        "function": FieldTable(
            "messages.tool_calls.function.",
            tuple(_honoured(name="its name", arguments="a JSON object as text")),
        )
    },
)
MESSAGE = FieldTable(
    "messages.",
    (
        *_honoured(
            role="`system`, `developer` (the same), `user`, `assistant` or `tool`",
            content="a text, or a list of parts; may be missing beside `tool_calls`",
            tool_calls="functions that the assistant has called",
            tool_call_id="of a tool's message: the call whose result it is",
        ),
        *_without_effect("the chat template shows roles alone", "name"),
        *_without_effect("what can be reused is found without it", "cache_control"),
        *_without_effect("says nothing to the model", "annotations id status"),
        *_refused("send tool_calls", "function_call"),
        *_refused("send the request's tools", "tools"),
        *_refused("the model does not speak; what it is to hear is a part", "audio"),
        *_refused("the model has no words for a refusal; say it as content", "refusal"),
        *_refused(
            "the model does not reason before it answers; say it as content",
            "reasoning reasoning_content thinking",
        ),
    ),
    {"content": PART, "tool_calls": TOOL_CALL},
)
_NAMED = "its name, of letters, digits and `_.-`"
JSON_SCHEMA = FieldTable(
    "response_format.json_schema.",
    (
        *_honoured(name="any name", schema="a JSON schema, which the answer then follows"),
        *_without_effect("an answer always follows the schema", "strict"),
        *_without_effect("the model is not shown it", "description"),
    ),
)
RESPONSE_FORMAT = FieldTable(
    "response_format.",
    tuple(
        _honoured(
            type="`text`, `json_object` or `json_schema`", json_schema="the schema, with its name"
        )
    ),
    {"json_schema": JSON_SCHEMA},
)
STRUCTURED_OUTPUTS = FieldTable(
    "structured_outputs.",
    (
        *_honoured(
            json="a JSON schema, or its text",
            json_object="`true`: any JSON object",
            regex="an expression in Rust's syntax that the whole answer matches",
            choice="texts, one of which is the answer",
            grammar="a context-free grammar as GBNF or Lark",
        ),
        *_without_effect(
            "JSON is spelt in one way: a space behind each comma and colon, none else",
            "disable_any_whitespace",
        ),
        *_refused("JSON is spelt in one way", "whitespace_pattern"),
        *_refused("a schema says itself what it takes", "disable_additional_properties"),
        *_refused("send grammar", "structural_tag"),
    ),
)
FUNCTION = FieldTable(
    "tools.function.",
    (
        *_honoured(
            name=_NAMED,
            description="what it does, for the model",
            parameters="the JSON schema of its arguments, which a call then follows",
        ),
        *_without_effect("a call always follows the schema", "strict"),
    ),
)
TOOL = FieldTable(
    "tools.",
    (
        *_honoured(type="`function`", function="the function"),
        *_without_effect("what can be reused is found without it", "cache_control"),
    ),
    {"function": FUNCTION},
)
STREAM_OPTIONS = FieldTable(
    "stream_options.",
    (
        *_honoured(
            include_usage="whether a stream ends with the usage",
            continuous_usage_stats="with that, whether each chunk has the usage so far",
        ),
        *_without_effect("chunks carry nothing to obscure their size", "include_obfuscation"),
    ),
)
XARGS = FieldTable("vllm_xargs.", tuple(_honoured(skip_policy="as the field of that name")))

CHAT = FieldTable(
    "",
    (
        *_honoured(
            messages="what is said",
            model="the served model, or NAME@POLICY",
            skip_policy="a name from `/v1/skip_policies`, a policy spelt out, or `auto`, by which "
            "the server chooses one",
            vllm_xargs="vLLM's place for fields that OpenAI's form does not have",
            cache_salt="only requests with the same salt share cached work",
            timeout_seconds="the request ends with status 408 after so long in the engine",
            max_completion_tokens="the answer may have so many tokens, or fewer where the prompt "
            "leaves fewer",
            max_tokens="the same",
            temperature="0 takes the most probable token each time; 1 without it",
            top_p="keep the smallest set of tokens that holds this much probability",
            top_k="keep so many of the most probable tokens; 0 and -1 keep all",
            min_p="keep tokens at least this many times as probable as the best one",
            seed="makes sampling repeatable",
            stop="the answer ends before any of these: one text, or at most 4",
            stop_token_ids="the answer ends before any of these tokens",
            logprobs="whether to report the log-probability of each token",
            top_logprobs="how many alternatives to report with it, at most 20",
            prompt_logprobs="how many alternatives to report with the log-probability of each "
            "token of the prompt, at most 20; not in a stream, nor where the policy drops visual "
            "rows by what the prompt's last row looks at",
            n="so many answers, at most 16; each is drawn anew, the first as it would be alone",
            presence_penalty="is taken off the logit of each token that the answer has, -2 to 2",
            frequency_penalty="the same, as often as the answer has it",
            repetition_penalty="divides the logits of tokens of prompt and answer, or multiplies "
            "those that are negative; up to 10",
            logit_bias="tokens and what is added to their logits, -100 to 100",
            bad_words="the answer has none of these texts: each token that would complete one, "
            "spelt as it stands or behind a space, is forbidden",
            min_tokens="no end token, stop token or stop string ends the answer before",
            ignore_eos="whether the model's end tokens do not end the answer",
            priority="of its client's requests that wait the lowest starts first; 0 without it",
            response_format="what the answer is held to: text, any JSON object, or a JSON schema",
            structured_outputs="the same as vLLM says it: JSON, an expression, a choice, a grammar",
            tools="functions that the answer may call",
            tool_choice="`none`, `auto`, `required`, or the function that must be called; `auto` "
            "where the model's chat template knows tools",
            parallel_tool_calls="whether there may be several calls; true without it",
            add_generation_prompt="whether the prompt ends where an answer begins; true without it",
            continue_final_message="whether the answer goes on with the last message, the "
            "assistant's; wants `add_generation_prompt: false`",
            return_token_ids="whether to tell the tokens of prompt and answer: "
            "`prompt_token_ids`, `token_ids`",
            stream="whether the answer comes as server-sent events",
            stream_options="what a stream carries besides the answer",
        ),
        *_without_effect(
            "says who asks or what for, not what; nothing is kept",
            "user metadata store safety_identifier request_id rid",
        ),
        *_without_effect(
            "what can be reused is found without it",
            "prompt_cache_key prompt_cache_retention cache_prompt cache_control keep_alive",
        ),
        *_without_effect("there is one service for all", "service_tier"),
        *_without_effect(
            "the model answers at once, without reasoning before",
            "reasoning_effort reasoning verbosity include_reasoning separate_reasoning "
            "stream_reasoning reasoning_format thinking thinking_token_budget",
        ),
        *_without_effect("one engine answers", "data_parallel_rank"),
        *_without_effect(
            "`usage` and `metrics` always tell",
            "return_cached_tokens_details timings_per_token return_progress",
        ),
        *_refused("answers are text", "modalities", ["text"]),
        *_refused("the model does not speak; what it is to hear is a part", "audio"),
        *_refused("a predicted answer is not used", "prediction"),
        *_refused("the server searches no web", "web_search_options plugins"),
        *_refused("send tools", "functions"),
        *_refused("send tool_choice", "function_call", "none", "auto"),
        *_refused("a request cannot change how tools are shown", "tool_prompt tool_stream"),
        *_refused(
            "send structured_outputs or response_format",
            "guided_json guided_regex guided_choice guided_grammar "
            "guided_json_object guided_decoding_backend guided_whitespace_pattern "
            "structural_tag json_schema grammar regex ebnf choice response_schema",
        ),
        *_refused("special tokens never show in an answer", "skip_special_tokens", True),
        *_refused("an answer is spelt as its tokens are", "spaces_between_special_tokens", True),
        *_refused(
            "an answer ends before its stop string", "include_stop_str_in_output no_stop_trim"
        ),
        *_refused("stop strings are no expressions", "stop_regex"),
        *_refused("answers are sampled, not searched for", "use_beam_search"),
        *_refused("answers are sampled, not searched for", "best_of", 1),
        *_refused("answers are sampled, not searched for", "length_penalty", 1),
        *_refused(
            "this way to sample is not supported",
            "typical_p typical_p_min top_n_sigma min_keep mirostat dynatemp_range "
            "xtc_probability dry_multiplier smoothing_factor top_a tfs_z epsilon_cutoff "
            "eta_cutoff penalty_alpha samplers sampling_seed repetition_detection",
        ),
        *_refused("send repetition_penalty", "repeat_penalty repetition_context_size", 1),
        *_refused("send max_tokens", "max_new_tokens n_predict num_predict max_length"),
        *_refused("send min_tokens", "min_new_tokens min_length", 0),
        *_refused("only some tokens to be allowed is not supported", "allowed_token_ids"),
        *_refused(
            "a request brings no code", "logits_processors custom_logit_processor custom_params"
        ),
        *_refused("a request cannot bring its own chat template", "chat_template"),
        *_refused(
            "a request cannot change the chat template", "chat_template_kwargs documents guideline"
        ),
        *_refused("the chat template begins a prompt", "add_special_tokens"),
        *_refused("the prompt is not repeated in the answer", "echo"),
        *_refused(
            "a prompt is never cut", "truncate_prompt_tokens truncation truncate", -1, "disabled"
        ),
        *_refused("the prompt is made from messages", "prompt input_ids prompt_embeds suffix"),
        *_refused("tokens are told as texts", "return_tokens_as_token_ids"),
        *_refused("the model's inside is not told", "return_hidden_states return_routed_experts"),
        *_refused(
            "pictures are fitted as the model was trained",
            "mm_processor_kwargs media_io_kwargs max_dynamic_patch min_dynamic_patch",
        ),
        *_refused("send cache_salt", "extra_key"),
        *_refused("there are no adapters of weights", "lora_path lora_request adapter_id"),
        *_refused(
            "the server keeps no sessions",
            "session_params conversation id_slot previous_response_id",
        ),
        *_refused(
            "prompts and answers are computed in one place",
            "kv_transfer_params bootstrap_host bootstrap_port bootstrap_room",
        ),
        *_refused("this server has one model", "models route provider transforms fallbacks"),
        *_refused("send these fields at the top", "extra_body options"),
        *_refused("send response_format", "format"),
    ),
    {
        "messages": MESSAGE,
        "stream_options": STREAM_OPTIONS,
        "vllm_xargs": XARGS,
        "response_format": RESPONSE_FORMAT,
        "structured_outputs": STRUCTURED_OUTPUTS,
        "tools": TOOL,
    },
)
