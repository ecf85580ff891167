"""Tests of the plain words for what pydantic finds wrong."""

from typing import Any

import pytest
from bad_forms import check_words, spoilt
from pydantic import BaseModel, Field, ValidationError

from skipserve_policies.faults import Fault, faults_of
from skipserve_policies.schema import SkipPolicy

pytestmark = pytest.mark.fast

POLICY: dict[str, Any] = {
    "description": "d",
    "source": "s",
    "quality": [{"model": "m", "dataset": "d", "metric": "a", "value": 1.5, "full": 2.0, "n": 10}],
    "rules": [
        {"action": "skip_block", "layers": {"from": 1, "to": 2}, "scope": "all"},
        {"action": "skip_ffn", "layers": {"start": 1, "interval": [2, 3]}},
        {"action": "skip_attention", "layers": [3], "shared_norm": True},
    ],
}


def told_of(form: object) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        SkipPolicy.model_validate(form)
    return [str(fault) for fault in faults_of(caught.value, SkipPolicy, form)]


def test_no_word_of_pydantics_is_told_of_a_policy() -> None:
    SkipPolicy.model_validate(POLICY)
    kinds: set[str] = set()
    forms: list[object] = [None, [], "full", {1: 2}, *spoilt(POLICY)]
    for form in forms:
        try:
            SkipPolicy.model_validate(form)
        except ValidationError as error:
            kinds |= check_words(error, SkipPolicy, form)
    assert len(kinds) > 15


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"action": "skip_block", "layer": [1]}, "layer: this field is not known; is it layers?"),
        ({"action": "skip_block", "layers": {"from": 1, "too": 3}}, "layers.too: this field is"),
        ({"action": "skip_block", "layers": {"start": 1, "intervall": 3}}, "is it interval?"),
        ({"action": "skip_block", "layers": [1], "zzz": 1}, "zzz: this field is not known"),
        ({"action": "SKIP_BLOCKS", "layers": [1]}, "is it skip_block?"),
        ({"action": 5, "layers": [1]}, "action: this must be one of skip_block, skip_ffn, "),
        ({"action": "skip_block", "layers": [-1]}, "layers.0: this must be at least 0"),
        ({"action": "skip_block", "layers": [1024]}, "layers.0: this must be below 1024"),
        ({"action": "skip_block", "layers": {"from": 3, "to": 2}}, "layers: the range from 3 to 2"),
        (
            {"action": "skip_block", "layers": [1], "shared_norm": True},
            "rules.0: shared_norm has no meaning for the action skip_block",
        ),
        (7, "rules.0: this must be a mapping with the fields action, layers, scope, shared_norm"),
    ],
)
def test_one_slip_is_one_fault_with_its_place(rule: object, told: str) -> None:
    (only,) = told_of({"rules": [rule]})
    assert only.startswith("rules.0")
    assert told in only


def test_a_misspelt_field_hides_no_other_that_is_missing() -> None:
    assert told_of({"rules": [{"layer": [1]}]}) == [
        "rules.0.action: this field is missing",
        "rules.0.layer: this field is not known; is it layers?",
    ]


def test_limits_are_written_as_people_write_them() -> None:
    class Form(BaseModel):
        share: float = Field(le=2)
        name: str = Field(min_length=1)

    with pytest.raises(ValidationError) as caught:
        Form.model_validate({"share": 3, "name": ""})
    assert faults_of(caught.value, Form) == [
        Fault(("share",), "this must be at most 2"),
        Fault(("name",), "this must not be empty"),
    ]
