"""How policies are said on a command line."""

import json

import pytest

from skipserve_client.command_group import CommandError
from skipserve_client.policy_choice import policy_names, read_policies, read_policy
from skipserve_policies.catalog import load_catalog

pytestmark = pytest.mark.fast

ONE = {"rules": [{"action": "skip_ffn", "layers": [2, 3], "scope": "all"}], "source": "a, {b}"}
TWO: dict[str, object] = {"rules": []}


def values(*texts: str) -> list[object]:
    return [choice.value for choice in read_policies(texts, "--policies")]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["full"], ["full"]),
        ([" full , half "], ["full", "half"]),
        (["full", "half,third"], ["full", "half", "third"]),
        (["full,half,full"], ["full", "half"]),
        ([json.dumps(ONE)], [ONE]),
        (
            [f"full,{json.dumps(ONE)} , half,{json.dumps(TWO, indent=1)}"],
            ["full", ONE, "half", TWO],
        ),
        ([json.dumps(["full", ONE]), "half"], ["full", ONE, "half"]),
        (['"full","half"'], ["full", "half"]),
    ],
)
def test_names_and_json_stand_side_by_side(texts: list[str], expected: list[object]) -> None:
    assert values(*texts) == expected


def test_what_is_spelt_out_has_a_label_of_its_own() -> None:
    other_order = {"source": ONE["source"], "rules": ONE["rules"]}
    one, two = read_policies([json.dumps([ONE, TWO, other_order])], "--policies")
    assert one.label.startswith("inline-")
    assert one.label != two.label


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names of policies"),
        ("full,", "names of policies"),
        (",full", "names of policies"),
        ("[1]", "names of policies"),
        ("[[{}]]", "names of policies"),
        ('""', "names of policies"),
        ("full\nhalf", "cannot name a policy"),
        ('"\\ud800"', "cannot name a policy"),
        ("{rules", "neither a name nor valid JSON"),
        ('{"rules": []} full', "a comma is missing before 'full'"),
        ("[" * 100_000, "neither a name nor valid JSON"),
    ],
)
def test_what_is_neither_is_refused_with_the_flag(text: str, message: str) -> None:
    with pytest.raises(CommandError, match=r"^--flag") as caught:
        read_policies([text], "--flag")
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["full,half", "[]", '["full", {}]'])
def test_one_policy_is_one(text: str) -> None:
    with pytest.raises(CommandError, match="--policy takes one policy, not"):
        read_policy(text, "--policy")


def test_names_that_ship_are_completed() -> None:
    assert policy_names("shortv") == ["shortv-7b"]
    assert policy_names("") == list(load_catalog())
    assert policy_names("full,shortv") == ["full,shortv-7b"]
