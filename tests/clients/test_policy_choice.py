"""How policies are said on a command line."""

import json

import pytest

from skipserve_client.command_group import CommandError
from skipserve_client.policy_choice import (
    policy_names,
    read_policies,
    read_policy,
    read_weighted_policies,
)
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


def weights(*texts: str) -> list[tuple[object, float]]:
    found = read_weighted_policies(texts, "--policies")
    return [(choice.value, weight) for choice, weight in found.items()]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["full=3,exit-after-24=1"], [("full", 3.0), ("exit-after-24", 1.0)]),
        (["full", "half=0.5"], [("full", 1.0), ("half", 0.5)]),
        ([f"{json.dumps(ONE)}=2, half"], [(ONE, 2.0), ("half", 1.0)]),
        ([f"half=2,{json.dumps(ONE)},{json.dumps(TWO)}=4"], [("half", 2.0), (ONE, 1), (TWO, 4)]),
        (['"full"=2'], [("full", 2.0)]),
        ([], []),
    ],
)
def test_policies_with_weights(texts: list[str], expected: list[tuple[object, float]]) -> None:
    assert weights(*texts) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("full=", "no weight"),
        ("full=x", "no weight"),
        ("full=0", "no weight"),
        ("full=-1", "no weight"),
        ("full=inf", "no weight"),
        ("full=nan", "no weight"),
        ("=3", "takes names"),
        ("[]", "with their weights"),
        ('["full", "half"]', "with their weights"),
        ("full=1,full=2", "named twice"),
        ("full=1,", "takes names"),
        ("{}=1 half", "no weight"),
        ("{} half", "a comma is missing"),
    ],
)
def test_weights_that_are_none(text: str, told: str) -> None:
    with pytest.raises(CommandError, match=told):
        weights(text)
