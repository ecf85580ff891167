"""What a request or a policies file says: a skip policy and its rules. Knows no model."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)
from pydantic.config import JsonDict

MAX_LAYERS = 1024
MAX_INTERVALS = 64
MAX_RULES = 64
MAX_QUALITIES = 64

LayerIndex = Annotated[int, Field(ge=0, lt=MAX_LAYERS, strict=True)]
Interval = Annotated[int, Field(ge=1, lt=MAX_LAYERS, strict=True)]


def _check_not_empty(items: tuple[Any, ...]) -> tuple[Any, ...]:
    if not items:
        raise ValueError("the list is empty")
    return items


# Pydantic's own min_length counts the valid items: a wrong one would be reported twice.
NotEmpty = AfterValidator(_check_not_empty)
MIN_ITEMS: JsonDict = {"minItems": 1}
Intervals = Annotated[
    tuple[Interval, ...],
    Field(max_length=MAX_INTERVALS, fail_fast=True, json_schema_extra=MIN_ITEMS),
    NotEmpty,
]
LayerList = Annotated[
    tuple[LayerIndex, ...],
    Field(max_length=MAX_LAYERS, fail_fast=True, json_schema_extra=MIN_ITEMS),
    NotEmpty,
]


class Action(StrEnum):
    """What a rule does to the blocks that it touches."""

    SKIP_BLOCK = "skip_block"
    SKIP_FFN = "skip_ffn"
    SKIP_ATTENTION = "skip_attention"
    PARALLEL_FFN_ATTENTION = "parallel_ffn_attention"
    PARALLEL_BLOCKS = "parallel_blocks"


class Scope(StrEnum):
    """Which tokens a rule touches."""

    GENERATED = "generated"
    ANSWER = "answer"
    PROMPT = "prompt"
    VISUAL = "visual"
    ALL = "all"


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LayerRange(_Form):
    """Layers `from` to `to`, both ends included, counted from 0."""

    first: LayerIndex = Field(alias="from")
    last: LayerIndex = Field(alias="to")

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.first > self.last:
            raise ValueError(f"the range from {self.first} to {self.last} holds no layer")
        return self


def _as_list(value: object) -> object:
    return value if isinstance(value, (list, tuple)) else [value]


class LayerInterval(_Form):
    """The paper's rule: layer l of L is touched iff start < l < L - 1 and l % interval == 0.

    One interval, or a list of them: it cuts the stack into equal segments, one interval each.
    Source: arXiv 2410.09454, section 3, and its released code.
    """

    start: LayerIndex
    interval: Annotated[
        Intervals, BeforeValidator(_as_list, json_schema_input_type=Interval | Intervals)
    ]


def _form_of_layers(value: object) -> str | None:
    """Tell which form layers are written in, so that an error speaks of that form alone."""
    if isinstance(value, (list, tuple)):
        return "list"
    if isinstance(value, Mapping):
        return "range" if value.keys() & {"from", "to"} else "interval"
    if isinstance(value, LayerRange):
        return "range"
    return "interval" if isinstance(value, LayerInterval) else None


Layers = Annotated[
    Annotated[LayerList, Tag("list")]
    | Annotated[LayerRange, Tag("range")]
    | Annotated[LayerInterval, Tag("interval")],
    Discriminator(
        _form_of_layers,
        custom_error_type="layers_form",
        custom_error_message=(
            'layers are a list such as [18, 21], a range such as {"from": 16, "to": 31}, '
            'or a rule such as {"start": 16, "interval": 3}'
        ),
    ),
]

_DEFAULT_SHARED_NORM = {Action.PARALLEL_FFN_ATTENTION: True, Action.SKIP_ATTENTION: False}


class Rule(_Form):
    """One action on some layers, for the tokens of one scope."""

    action: Action
    layers: Layers
    scope: Scope = Scope.GENERATED
    shared_norm: bool | None = Field(
        default=None,
        strict=True,
        description=(
            "Feed the FFN through the attention's norm, as the paper's LLaMA code does. "
            "For parallel_ffn_attention (default true) and skip_attention (default false)."
        ),
    )

    @model_validator(mode="after")
    def _check_norm(self) -> Self:
        if self.shared_norm is not None and self.action not in _DEFAULT_SHARED_NORM:
            raise ValueError(f"shared_norm has no meaning for the action {self.action.value}")
        return self

    @property
    def uses_shared_norm(self) -> bool:
        """Whether the FFN reads through the attention's norm, the default filled in."""
        if self.shared_norm is None:
            return _DEFAULT_SHARED_NORM.get(self.action, False)
        return self.shared_norm


class Quality(_Form):
    """A measured quality of a policy; never a guess.

    Attributes:
        model: what it was measured on.
        dataset: what it was measured with.
        metric: what was measured, with its unit.
        value: the result under the policy.
        full: the result of the full model, where it is known.
        n: how many samples, where it is known.
        source: who measured it.
    """

    model: str = Field(max_length=100)
    dataset: str = Field(max_length=100)
    metric: str = Field(max_length=100)
    value: float = Field(allow_inf_nan=False, strict=True)
    full: float | None = Field(default=None, allow_inf_nan=False, strict=True)
    n: int | None = Field(default=None, ge=1, strict=True)
    source: str = Field(default="", max_length=300)


class SkipPolicy(_Form):
    """A stanza of a policies file, or the inline policy of a request.

    A policy without rules runs the full model.
    """

    description: str = Field(default="", max_length=1000)
    source: str = Field(default="", max_length=1000)
    quality: Annotated[tuple[Quality, ...], Field(max_length=MAX_QUALITIES)] = ()
    rules: Annotated[tuple[Rule, ...], Field(max_length=MAX_RULES)] = ()
