"""What a policy may say, and what is refused of it before any model is known."""

import json
import re
from typing import Any

import pytest
from pydantic import ValidationError

from skipserve_policies.faults import faults_of
from skipserve_policies.schema import (
    Action,
    LayerInterval,
    LayerRange,
    Quality,
    Rule,
    Scope,
    SkipPolicy,
)

pytestmark = pytest.mark.fast

RULE = {"action": "skip_block", "layers": [1]}
POSITION = 'this must be a whole number such as 16, or a share of the depth such as "50%"'


def errors_of(form: Any) -> list[tuple[str, str]]:
    """Return (field, message) of what is wrong with a policy."""
    with pytest.raises(ValidationError) as caught:
        SkipPolicy.model_validate(form)
    return [(".".join(map(str, error["loc"])), error["msg"]) for error in caught.value.errors()]


def rule_errors(**changes: Any) -> list[tuple[str, str]]:
    return errors_of({"rules": [RULE | changes]})


def test_the_inline_form_of_a_request() -> None:
    text = """{"rules": [{"action": "skip_block", "layers": {"start": 16, "interval": 3},
                          "scope": "generated"}]}"""
    (rule,) = SkipPolicy.model_validate(json.loads(text)).rules
    assert rule == Rule(
        action=Action.SKIP_BLOCK,
        layers=LayerInterval(start=16, interval=(3,)),
        scope=Scope.GENERATED,
    )


def test_three_forms_of_layers() -> None:
    def layers(form: object) -> object:
        return Rule.model_validate(RULE | {"layers": form}).layers

    assert layers([18, 21]) == (18, 21)
    chosen = layers({"from": 16, "to": 31})
    assert isinstance(chosen, LayerRange)
    assert (chosen.first, chosen.last) == (16, 31)
    assert layers({"start": 0, "interval": [2, 3]}) == LayerInterval(start=0, interval=(2, 3))


def test_scope_is_the_papers_default() -> None:
    assert Rule.model_validate(RULE).scope is Scope.GENERATED


def test_a_policy_survives_its_own_json() -> None:
    policy = SkipPolicy.model_validate(
        {
            "description": "d",
            "quality": [{"model": "m", "dataset": "s", "metric": "a", "value": 1.5, "n": 10}],
            "rules": [
                RULE | {"layers": {"from": 1, "to": 2}},
                RULE | {"layers": {"start": 1, "interval": 2}},
                RULE | {"action": "skip_attention", "shared_norm": True},
            ],
        }
    )
    assert SkipPolicy.model_validate_json(policy.model_dump_json(by_alias=True)) == policy


@pytest.mark.parametrize(
    ("changes", "uses"),
    [
        ({"action": "parallel_ffn_attention"}, True),
        ({"action": "parallel_ffn_attention", "shared_norm": False}, False),
        ({"action": "skip_attention"}, False),
        ({"action": "skip_attention", "shared_norm": True}, True),
        ({"action": "skip_block"}, False),
    ],
)
def test_shared_norm_defaults_to_the_papers_form(changes: dict[str, Any], uses: bool) -> None:
    assert Rule.model_validate(RULE | changes).uses_shared_norm is uses


@pytest.mark.parametrize("action", ["skip_block", "skip_ffn", "parallel_blocks"])
@pytest.mark.parametrize("shared_norm", [True, False])
def test_shared_norm_where_it_has_no_meaning(action: str, shared_norm: bool) -> None:
    ((field, message),) = rule_errors(action=action, shared_norm=shared_norm)
    assert field == "rules.0.a rule"
    assert f"shared_norm has no meaning for the action {action}" in message


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"rule": []}, "rule"),
        ({"rules": [RULE | {"scop": "all"}]}, "rules.0.a rule.scop"),
        ({"rules": [RULE | {"layers": {"start": 1, "intervall": 3}}]}, "intervall"),
        (
            {"rules": [RULE | {"layers": {"from": 1, "too": 3}}]},
            "rules.0.a rule.layers.a range.too",
        ),
        (
            {"rules": [RULE | {"layers": {"first": 1, "last": 3}}]},
            "rules.0.a rule.layers.an interval.first",
        ),
        ({"quality": [{"dataset": "GQA"}]}, "quality.0.model"),
    ],
)
def test_misspelt_and_missing_fields_are_named(form: Any, field: str) -> None:
    assert any(place.endswith(field) for place, _ in errors_of(form))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action": "skip_blocks"}, "'skip_block', 'skip_ffn', 'skip_attention'"),
        ({"scope": "everything"}, "'generated', 'answer', 'prompt', 'visual' or 'all'"),
        ({"shared_norm": 1, "action": "skip_attention"}, "valid boolean"),
        ({"layers": 18}, "layers are a list such as [18, 21]"),
        ({"layers": "18"}, "layers are a list such as [18, 21]"),
        ({"layers": None}, "layers are a list such as [18, 21]"),
        ({"layers": []}, "the list is empty"),
        ({"layers": [-1]}, "greater than or equal to 0"),
        ({"layers": [1024]}, "less than 1024"),
        ({"layers": [True]}, POSITION),
        ({"layers": [1.0]}, POSITION),
        ({"layers": ["1"]}, POSITION),
        ({"layers": [None]}, POSITION),
        ({"layers": ["150%"]}, "lies between 0% and 100%"),
        ({"layers": [1] * 1025}, "at most 1024 items"),
        ({"layers": {"from": 3, "to": 2}}, "the range from 3 to 2 holds no layer"),
        ({"layers": {"from": 0, "to": 10**30}}, "less than 1024"),
        ({"layers": {"from": "50%", "to": "50%"}}, "the range from 50% to 50% holds no layer"),
        ({"layers": {"from": "60%", "to": "50.0%"}}, "from 60% to 50.0% holds no layer"),
        ({"layers": {"from": "100%", "to": "100%"}}, "below 100%, after which there is no layer"),
        ({"layers": {"from": 0, "to": "0%"}}, "above 0%, before which there is no layer"),
        ({"layers": {"start": "100.000%", "interval": 1}}, "below 100%"),
        ({"layers": {"from": 0, "to": 9, "except_every": 1}}, "greater than or equal to 2"),
        ({"layers": {"from": 0, "to": 9, "except_every": "50%"}}, "valid integer"),
        ({"layers": {"start": 0, "interval": "50%"}}, "valid integer"),
        ({"layers": {"start": 0, "interval": 0}}, "greater than or equal to 1"),
        ({"layers": {"start": -1, "interval": 1}}, "greater than or equal to 0"),
        ({"layers": {"start": 0, "interval": True}}, "valid integer"),
        ({"layers": {"start": 0, "interval": 2.5}}, "valid integer"),
        ({"layers": {"start": 0, "interval": []}}, "the list is empty"),
        ({"layers": {"start": 0, "interval": [2] * 65}}, "at most 64 items"),
    ],
)
def test_bad_values_get_one_plain_error(changes: dict[str, Any], message: str) -> None:
    ((field, said),) = rule_errors(**changes)
    assert field.startswith("rules.0.")
    assert message in said


# What may stand neither for a number nor for a share.
NO_PLACES: tuple[Any, ...] = (
    *(True, 0.5, None, [50], {}, "", "%", "50", "half", "abc%", "50 %", " 50%", "50%\n", "50%%"),
    *("5e1%", "+50%", "1/2%", "50.%", ".5%", "50,5%", "0x1%", "nan%", "\u0665\u0660%", "1000%"),
    *("0.1234567%", "9" * 2**20 + "%"),
)
NO_SHARES = ("150%", "-1%", "-0%", "100.000001%")


@pytest.mark.parametrize("field", ["from", "to", "start"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        *((value, POSITION) for value in NO_PLACES),
        *((value, "a share of the depth lies between 0% and 100%") for value in NO_SHARES),
    ],
)
def test_a_bad_place_of_a_layer_is_one_fault_at_its_field(
    field: str, value: object, message: str
) -> None:
    layers: dict[str, Any] = {"from": 0, "to": 31}
    if field == "start":
        layers = {"interval": 3}
    stanza = {"rules": [RULE | {"layers": layers | {field: value}}]}
    with pytest.raises(ValidationError) as caught:
        SkipPolicy.model_validate(stanza)
    (fault,) = map(str, faults_of(caught.value, SkipPolicy, stanza))
    assert fault.startswith(f"rules.0.layers.{field}: {message}")


def test_shares_are_kept_as_they_were_written() -> None:
    stanza = {"rules": [RULE | {"layers": {"from": "12.50%", "to": "100%", "except_every": 4}}]}
    policy = SkipPolicy.model_validate(stanza)
    (rule,) = policy.rules
    assert isinstance(rule, Rule)
    chosen = rule.layers
    assert isinstance(chosen, LayerRange)
    assert (chosen.first, chosen.last, chosen.except_every) == ("12.50%", "100%", 4)
    assert SkipPolicy.model_validate_json(policy.model_dump_json(by_alias=True)) == policy


@pytest.mark.parametrize("num_layers", [0, -1, 1025, True, 32.0, "32"])
def test_a_depth_that_no_model_has(num_layers: object) -> None:
    ((field, _),) = errors_of({"num_layers": num_layers})
    assert field == "num_layers"


def test_hostile_sizes() -> None:
    assert errors_of({"rules": [RULE] * 65})
    assert errors_of({"description": "x" * 1001})
    assert errors_of({"source": "x" * 1001})
    quality = {"model": "m", "dataset": "d", "metric": "a", "value": 1}
    assert errors_of({"quality": [quality] * 65})
    assert errors_of({"quality": [quality | {"model": "m" * 101}]})


@pytest.mark.parametrize("form", [None, [], "full", 3, {"rules": {}}, {"rules": [[]]}])
def test_forms_that_are_no_policy(form: object) -> None:
    assert errors_of(form)


@pytest.mark.parametrize(
    "changes",
    [
        {"value": float("nan")},
        {"value": float("inf")},
        {"value": True},
        {"value": "97.7"},
        {"full": float("nan")},
        {"n": 0},
        {"n": True},
    ],
)
def test_a_quality_is_a_number(changes: dict[str, Any]) -> None:
    form = {"model": "m", "dataset": "d", "metric": "a", "value": 1}
    assert Quality.model_validate(form).full is None
    with pytest.raises(ValidationError):
        Quality.model_validate(form | changes)


def test_policies_are_frozen() -> None:
    with pytest.raises(ValidationError):
        SkipPolicy().description = "changed"  # type: ignore[misc]


def test_the_json_schema_shows_every_form_of_layers() -> None:
    schema = json.dumps(Rule.model_json_schema())
    for name in ("LayerRange", "LayerInterval", '"interval"', '"from"', '"array"', '"integer"'):
        assert name in schema
    places = Rule.model_json_schema()["$defs"]["LayerRange"]["properties"]["from"]["oneOf"]
    assert [place["type"] for place in places] == ["integer", "string"]
    for text, is_share in {"50%": True, "12.5%": True, "50": False, "-1%": False}.items():
        assert bool(re.search(places[1]["pattern"], text)) is is_share
