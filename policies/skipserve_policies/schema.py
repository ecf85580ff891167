"""What a request or a policies file says: a skip policy and its rules. Knows no model."""

import math
import re
from collections.abc import Mapping
from enum import StrEnum
from fractions import Fraction
from typing import Annotated, Any, Literal, Self

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
from pydantic_core import PydanticCustomError, PydanticKnownError

MAX_LAYERS = 1024
MAX_INTERVALS = 64
MAX_RULES = 64
MAX_ROWS = 1_000_000
MAX_QUALITIES = 64
# No form has so many.
MAX_FIELDS = 64

_POSITION_FORMS = (
    'this must be a whole number such as 16, or a share of the depth such as "50%" or "12.5%"'
)
_SHARE = r"[0-9]{1,3}(\.[0-9]{1,6})?%"


def share_of(text: str) -> Fraction:
    """Return the share of the depth that a text such as "12.5%" says, exactly."""
    return Fraction(text.removesuffix("%")) / 100


def layers_before(position: int | str, num_layers: int) -> int:
    """Return how many layers lie before a position: of a share, to the nearest, halves up."""
    if isinstance(position, int):
        return position
    return math.floor(share_of(position) * num_layers + Fraction(1, 2))


def _check_share(text: str) -> str:
    if not re.fullmatch("-?" + _SHARE, text):
        raise ValueError(_POSITION_FORMS)
    if text.startswith("-") or share_of(text) > 1:
        raise ValueError("a share of the depth lies between 0% and 100%")
    return text


_AMOUNT_FORMS = (
    'this must be a number of rows such as 192, or a share of them such as "1/3" or "33.3%"'
)
_FRACTION = r"[0-9]{1,4}/[0-9]{1,4}"


def amount_of(text: str) -> Fraction:
    """Return the share of rows that a text such as "1/3" or "12.5%" says, exactly."""
    return Fraction(text) if "/" in text else share_of(text)


def _check_amount(text: str) -> str:
    is_fraction = re.fullmatch(_FRACTION, text) and int(text.partition("/")[2])
    if not is_fraction and not re.fullmatch(_SHARE, text):
        raise ValueError(_AMOUNT_FORMS)
    if not 0 < amount_of(text) <= 1:
        raise ValueError("a share of rows lies above 0 and at most at the whole")
    return text


def _check_not_at_end(position: int | str) -> int | str:
    if isinstance(position, str) and share_of(position) == 1:
        raise ValueError("this must be below 100%, after which there is no layer")
    return position


def _check_not_at_start(position: int | str) -> int | str:
    if isinstance(position, str) and share_of(position) == 0:
        raise ValueError("this must be above 0%, before which there is no layer")
    return position


def _form_of_position(value: object) -> str | None:
    if isinstance(value, str):
        return "a share"
    return "a number" if isinstance(value, int) and not isinstance(value, bool) else None


LayerIndex = Annotated[int, Field(ge=0, lt=MAX_LAYERS, strict=True)]
LayerShare = Annotated[
    str, AfterValidator(_check_share), Field(json_schema_extra={"pattern": f"^{_SHARE}$"})
]
# A layer by its number, or by the share of the depth that lies before it.
LayerPosition = Annotated[
    Annotated[LayerIndex, Tag("a number")] | Annotated[LayerShare, Tag("a share")],
    Discriminator(
        _form_of_position,
        custom_error_type="layer_position",
        custom_error_message=_POSITION_FORMS,
    ),
]
Interval = Annotated[int, Field(ge=1, lt=MAX_LAYERS, strict=True)]
Share = Annotated[
    str,
    AfterValidator(_check_amount),
    Field(json_schema_extra={"pattern": f"^({_SHARE}|{_FRACTION})$"}),
]
# Rows by their number, or by their share of an image's.
Amount = Annotated[
    Annotated[int, Field(ge=1, le=MAX_ROWS, strict=True), Tag("a number")]
    | Annotated[Share, Tag("a share")],
    Discriminator(
        _form_of_position, custom_error_type="amount", custom_error_message=_AMOUNT_FORMS
    ),
]


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
    tuple[LayerPosition, ...],
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


# What stands in the same place and does something to an image's rows instead.
REDUCE_VISUAL = "reduce_visual"
DROP_VISUAL = "drop_visual"
_ACTIONS = (*(action.value for action in Action), REDUCE_VISUAL, DROP_VISUAL)


def _check_action(value: object) -> object:
    """Refuse what is no action, with the names of all that are."""
    if value not in _ACTIONS:
        named = [f"'{name}'" for name in _ACTIONS]
        expected = f"{', '.join(named[:-1])} or {named[-1]}"
        raise PydanticKnownError("enum", {"expected": expected})
    return value


class Reducer(StrEnum):
    """How an image's rows are reduced before the decoder sees them.

    Sources: visionzip, arXiv 2412.04467; vispruner, arXiv 2412.01818; divprune, arXiv 2503.02175.
    The other two are controls: rows taken at random, and the grid of patches averaged to a coarser
    one.
    """

    VISIONZIP = "visionzip"
    VISPRUNER = "vispruner"
    DIVPRUNE = "divprune"
    RANDOM = "random"
    DOWNSAMPLE = "downsample"


class Dropper(StrEnum):
    """How visual rows are chosen that leave inside the decoder.

    Sources: vtw, arXiv 2405.05803; fastv, arXiv 2403.06764; dart, arXiv 2502.11494; pyramiddrop,
    arXiv 2410.17247; sparsevlm, arXiv 2410.04417, as in version 1.5 of its code: it merges some of
    the rows that leave into fewer. The last is a control: rows taken at random.
    """

    VTW = "vtw"
    FASTV = "fastv"
    DART = "dart"
    PYRAMIDDROP = "pyramiddrop"
    SPARSEVLM = "sparsevlm"
    RANDOM = "random"


class Positions(StrEnum):
    """What rows are turned by behind a layer before which others have left.

    KEPT: their places in the whole prompt. RENUMBERED: their places among those that are left.
    """

    KEPT = "kept"
    RENUMBERED = "renumbered"


class Scope(StrEnum):
    """Which tokens a rule touches."""

    GENERATED = "generated"
    ANSWER = "answer"
    PROMPT = "prompt"
    VISUAL = "visual"
    ALL = "all"


def check_number_of_fields(value: object) -> object:
    """Refuse a mapping of so many fields that to tell each unknown one would cost too much."""
    if isinstance(value, Mapping) and len(value) > MAX_FIELDS:
        raise PydanticCustomError(
            "too_many_fields",
            "this has {number} fields, more than any form: send at most {most}",
            {"number": len(value), "most": MAX_FIELDS},
        )
    return value


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    _check_number_of_fields = model_validator(mode="before")(check_number_of_fields)


class LayerRange(_Form):
    """Layers `from` to `to`, both ends included, counted from 0.

    An end may be a share of the depth: a cut through the stack, after which the range begins or
    before which it ends. So "0%" to "50%" and "50%" to "100%" are all layers, each once.

    Attributes:
        except_every: leaves out the layers that are divisible by it.
    """

    first: Annotated[LayerPosition, AfterValidator(_check_not_at_end)] = Field(alias="from")
    last: Annotated[LayerPosition, AfterValidator(_check_not_at_start)] = Field(alias="to")
    except_every: Annotated[int, Field(ge=2, lt=MAX_LAYERS, strict=True)] | None = None

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        match self.first, self.last:
            case int(first), int(last):
                is_empty = first > last
            case str(first), str(last):
                is_empty = share_of(first) >= share_of(last)
            case _:  # only a depth can tell
                is_empty = False
        if is_empty:
            raise ValueError(f"the range {self} holds no layer")
        return self

    def __str__(self) -> str:
        """Return it as errors speak of it."""
        exception = f" except every {self.except_every}" if self.except_every else ""
        return f"from {self.first} to {self.last}{exception}"


def _as_list(value: object) -> object:
    return value if isinstance(value, (list, tuple)) else [value]


class LayerInterval(_Form):
    """The paper's rule: layer l of L is touched iff start < l < L - 1 and l % interval == 0.

    One interval, or a list of them: it cuts the stack into equal segments, one interval each.
    `start` may be a share of the depth: it stands for the layer that follows this cut.
    Source: arXiv 2410.09454, section 3, and its released code.
    """

    start: Annotated[LayerPosition, AfterValidator(_check_not_at_end)]
    interval: Annotated[
        Intervals, BeforeValidator(_as_list, json_schema_input_type=Interval | Intervals)
    ]


def _form_of_layers(value: object) -> str | None:
    """Tell which form layers are written in, so that an error speaks of that form alone.

    The name of a form is none of a field: errors leave it out of the way to what is wrong.
    """
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, Mapping):
        return "a range" if value.keys() & {"from", "to", "except_every"} else "an interval"
    if isinstance(value, LayerRange):
        return "a range"
    return "an interval" if isinstance(value, LayerInterval) else None


Layers = Annotated[
    Annotated[LayerList, Tag("a list")]
    | Annotated[LayerRange, Tag("a range")]
    | Annotated[LayerInterval, Tag("an interval")],
    Discriminator(
        _form_of_layers,
        custom_error_type="layers_form",
        custom_error_message=(
            'layers are a list such as [18, 21], a range such as {"from": 16, "to": 31} or '
            '{"from": "50%", "to": "100%"}, or a rule such as {"start": 16, "interval": 3}'
        ),
    ),
]

_DEFAULT_SHARED_NORM = {Action.PARALLEL_FFN_ATTENTION: True, Action.SKIP_ATTENTION: False}


class Rule(_Form):
    """One action on some layers, for the tokens of one scope."""

    action: Annotated[Action, BeforeValidator(_check_action, json_schema_input_type=Action)]
    layers: Layers
    scope: Scope = Scope.GENERATED
    shared_norm: bool | None = Field(
        default=None,
        strict=True,
        description=(
            "Feed the FFN through the attention's norm, as the paper's LLaMA code does; in a "
            "decoder of OPT's type through both norms, as its OPT code does. "
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


# The parameters of one reducer alone.
_OWN_PARAMETERS = {
    "contextual": Reducer.VISIONZIP,
    "important": Reducer.VISPRUNER,
    "seed": Reducer.RANDOM,
}


class ReduceVisual(_Form):
    """Fewer rows of each image go on to the decoder: its prompt is shorter, nothing else changes.

    Attributes:
        keep: how many rows of an image are left.
    """

    action: Literal["reduce_visual"]
    method: Reducer
    keep: Amount
    contextual: Amount | None = Field(
        default=None,
        description="Of visionzip: how many of the rows that are kept are means of others, or the "
        'share of them that is. Default "5/32", the 10 of 64 of its paper.',
    )
    important: Share | None = Field(
        default=None,
        description="Of vispruner: the share of the rows that are kept for the attention that they "
        'get; the others are kept for being unlike. Default "50%".',
    )
    seed: Annotated[int, Field(ge=0, lt=2**31, strict=True)] | None = Field(
        default=None, description="Of random: with the image, keys the choice. Default 0."
    )

    @model_validator(mode="after")
    def _check_parameters(self) -> Self:
        for name, method in _OWN_PARAMETERS.items():
            if getattr(self, name) is not None and self.method is not method:
                raise ValueError(f"{name} has no meaning for the method {self.method.value}")
        return self


# Before which blocks rows leave, and how many of an image's go on, as the papers have it.
DEFAULT_STAGES: dict[Dropper, dict[str, str]] = {
    Dropper.VTW: {"50%": "0%"},
    Dropper.FASTV: {"6.25%": "50%"},
    Dropper.DART: {"6.25%": "1/3"},
    Dropper.PYRAMIDDROP: {"25%": "1/2", "50%": "1/4", "75%": "1/8"},
    Dropper.SPARSEVLM: {"9.375%": "25/48", "21.875%": "25/72", "50%": "55/288"},
    Dropper.RANDOM: {"6.25%": "50%"},
}
_DROP_BY_STEPS = (Dropper.PYRAMIDDROP, Dropper.SPARSEVLM)

# The longest list of layers before which rows leave.
MAX_STAGES = 16
Befores = Annotated[
    tuple[LayerPosition, ...],
    Field(max_length=MAX_STAGES, fail_fast=True, json_schema_extra=MIN_ITEMS),
    NotEmpty,
]
Keeps = Annotated[
    tuple[Amount, ...],
    Field(max_length=MAX_STAGES, fail_fast=True, json_schema_extra=MIN_ITEMS),
    NotEmpty,
]


class DropVisual(_Form):
    """Visual rows leave inside the decoder: before a block, those of the prompt that count least.

    What blocks below have stored of them stays. Which rows leave is settled once, at the prompt.

    Attributes:
        before: the block before which rows leave, or a list of such blocks, ascending.
        keep: how many visual rows of an image go on there, or one such amount a block.
    """

    action: Literal["drop_visual"]
    method: Dropper
    before: (
        Annotated[
            Befores, BeforeValidator(_as_list, json_schema_input_type=LayerPosition | Befores)
        ]
        | None
    ) = Field(
        default=None,
        description='Default: vtw "50%"; fastv, dart and random "6.25%", which is 2 of 32; '
        'pyramiddrop "25%", "50%", "75%"; sparsevlm "9.375%", "21.875%", "50%", which are 3, 7 and '
        "16.",
    )
    keep: (
        Annotated[Keeps, BeforeValidator(_as_list, json_schema_input_type=Amount | Keeps)] | None
    ) = Field(
        default=None,
        description="Not of vtw, which keeps none. A number of rows of each image, or a share of "
        'them; of sparsevlm, beside those that are merged. Default: fastv and random "50%", dart '
        '"1/3", pyramiddrop "1/2", "1/4", "1/8", sparsevlm "25/48", "25/72", "55/288".',
    )
    positions: Positions | None = Field(
        default=None,
        description="Whether rows are turned by their places in the whole prompt, or among those "
        "that are left. Default: pyramiddrop and sparsevlm renumbered, others kept.",
    )
    seed: Annotated[int, Field(ge=0, lt=2**31, strict=True)] | None = Field(
        default=None, description="Of random: with the image, keys the choice. Default 0."
    )

    @model_validator(mode="after")
    def _check_parameters(self) -> Self:
        if self.seed is not None and self.method is not Dropper.RANDOM:
            raise ValueError(f"seed has no meaning for the method {self.method.value}")
        if self.keep is not None and self.method is Dropper.VTW:
            raise ValueError("keep has no meaning for the method vtw, which keeps no visual row")
        if self.method not in _DROP_BY_STEPS and len(self.before or (0,)) > 1:
            raise ValueError(f"{self.method.value} drops rows before one block: name one")
        if self.keep is not None and len(self.keep) != self.num_stages:
            raise ValueError(
                f"keep has {len(self.keep)} amounts for {self.num_stages} blocks: one each"
            )
        if self.keep is None and self.num_stages != len(DEFAULT_STAGES[self.method]):
            raise ValueError(f"with {self.num_stages} blocks, keep must say one amount for each")
        return self

    @property
    def num_stages(self) -> int:
        """Before how many blocks rows leave."""
        return len(self.before or DEFAULT_STAGES[self.method])

    @property
    def stages(self) -> tuple[tuple[int | str, int | str], ...]:
        """The blocks before which rows leave and what is kept there, the defaults filled in."""
        default = DEFAULT_STAGES[self.method]
        keep = self.keep or tuple(default.values())
        return tuple(zip(self.before or tuple(default), keep, strict=True))


_TAGS = {REDUCE_VISUAL: "a reduction", DROP_VISUAL: "a drop"}


def _form_of_rule(value: object) -> str:
    """Tell which form a rule is written in; what names no action is told of the usual form's."""
    action = value.get("action") if isinstance(value, Mapping) else getattr(value, "action", None)
    return _TAGS.get(action, "a rule") if isinstance(action, str) else "a rule"


AnyRule = Annotated[
    Annotated[Rule, Tag("a rule")]
    | Annotated[ReduceVisual, Tag("a reduction")]
    | Annotated[DropVisual, Tag("a drop")],
    Discriminator(_form_of_rule),
]


class Quality(_Form):
    """A measured quality of a policy; never a guess.

    Attributes:
        model: what it was measured on.
        dataset: what it was measured with.
        metric: what was measured, with its unit.
        value: the result under the policy.
        full: the result of the full model, where it is known.
        n: how many samples, where it is known.
        low: where the value's 95 % interval begins, where it is known.
        high: where it ends.
        retention_low: the share of what the full model reaches that is kept at least: where the 95
            % interval of that share begins, 1 for as much, where it is known.
        model_digest: sha256 of the weights that it was measured on, where it is known.
        source: who measured it.
    """

    model: str = Field(max_length=100)
    dataset: str = Field(max_length=100)
    metric: str = Field(max_length=100)
    value: float = Field(allow_inf_nan=False, strict=True)
    full: float | None = Field(default=None, allow_inf_nan=False, strict=True)
    n: int | None = Field(default=None, ge=1, strict=True)
    low: float | None = Field(default=None, allow_inf_nan=False, strict=True)
    high: float | None = Field(default=None, allow_inf_nan=False, strict=True)
    retention_low: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        strict=True,
        description="The share of what the full model reaches that is kept at least: where its 95 "
        "% interval begins. `auto` chooses by it.",
    )
    model_digest: str | None = Field(
        default=None, max_length=64, description="sha256 of the weights that it was measured on."
    )
    source: str = Field(default="", max_length=300)


class SkipPolicy(_Form):
    """A stanza of a policies file, or the inline policy of a request.

    A policy without rules runs the full model.

    Attributes:
        num_layers: the depth of the model whose layers were measured; no other model may run it.
    """

    description: str = Field(default="", max_length=1000)
    source: str = Field(default="", max_length=1000)
    quality: Annotated[tuple[Quality, ...], Field(max_length=MAX_QUALITIES, fail_fast=True)] = ()
    num_layers: Annotated[int, Field(ge=1, le=MAX_LAYERS, strict=True)] | None = Field(
        default=None,
        description="The depth of the only models that this policy is meant for. Default: any.",
    )
    rules: Annotated[tuple[AnyRule, ...], Field(max_length=MAX_RULES, fail_fast=True)] = ()

    @property
    def reduces_images(self) -> bool:
        """Whether a rule takes rows of images away before the decoder."""
        return any(isinstance(rule, ReduceVisual) for rule in self.rules)

    @property
    def removes_rows(self) -> bool:
        """Whether a rule takes rows of images away: more than the depth then decides what runs."""
        return any(isinstance(rule, ReduceVisual | DropVisual) for rule in self.rules)
