"""Tests of the keys file: what it says, and what is told where it is wrong."""

import hashlib
import json
from pathlib import Path

import pytest

from skipserve.budgets.keys import KeysFileError, digest_of_key, make_key, read_keys

pytestmark = pytest.mark.fast

A, B = ("ab" * 32, "1f" * 32)
POLICIES = ("full", "exit-after-24")


def written(folder: Path, text: str, name: str = "keys.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_what_a_file_says(tmp_path: Path) -> None:
    text = f"""
keys:
  - name: team-a
    sha256: {A}
    limits: {{requests_per_minute: 60, tokens_per_minute: 1000, flops_per_minute: 1.5e15}}
    policies: [full]
  - {{name: ops, sha256: ["{B}", "{"C" * 64}"], admin: true, limits: {{concurrent: 2, queued: 1}}}}
"""
    team, ops = read_keys(written(tmp_path, text), POLICIES)
    assert (team.name, team.sha256, team.policies) == ("team-a", (A,), ("full",))
    assert team.limits.flops_per_minute == 1_500_000_000_000_000
    assert (team.limits.concurrent, team.admin, team.takes_inline) == (None, False, False)
    assert (ops.sha256, ops.admin, ops.takes_inline) == ((B, "c" * 64), True, True)
    assert (ops.limits.concurrent, ops.limits.queued) == (2, 1)


@pytest.mark.parametrize(("indent", "number"), [("\t", "1e15"), ("  ", "1000000000000000")])
def test_json_is_read_too(tmp_path: Path, indent: str, number: str) -> None:
    form = {"keys": [{"name": "a", "sha256": A, "limits": {"flops_per_minute": 17}}]}
    text = json.dumps(form, indent=indent).replace("17", number)
    [entry] = read_keys(written(tmp_path, text, "keys.json"), POLICIES)
    assert entry.limits.flops_per_minute == 10**15


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "this must be a mapping with the fields keys"),
        ("keys: [", "is not valid YAML"),
        ("keys: []", "keys: this must not be empty"),
        ("keys: {a: 1}", "keys: this must be a list"),
        ("keys: [{name: a}]", "keys.0.sha256: this field is missing"),
        (f"keys: [{{sha256: {A}}}]", "keys.0.name: this field is missing"),
        (f"keys: [{{name: other, sha256: {A}}}]", "keys.0.name: this name is taken"),
        (f"keys: [{{name: a b, sha256: {A}}}]", "keys.0.name: a name has at most 64"),
        (f"keys: [{{name: 7, sha256: {A}}}]", "keys.0.name: this must be a text"),
        ("keys: [{name: a, sha256: sk-secret}]", "keys.0.sha256: this must be sha256"),
        ("keys: [{name: a, sha256: []}]", "keys.0: sha256 and policies must not be empty"),
        (f"keys: [{{name: a, sha256: {A}, limit: {{}}}}]", "keys.0.limit: .*is it limits"),
        (f"keys: [{{name: a, sha256: {A}, admin: 1}}]", "keys.0.admin: this must be true or"),
        (
            f"keys: [{{name: a, sha256: {A}, limits: {{tokens_per_minute: 0}}}}]",
            "keys.0.limits.tokens_per_minute: this must be at least 1",
        ),
        (
            f"keys: [{{name: a, sha256: {A}, limits: {{flops_per_minute: 1.5}}}}]",
            "keys.0.limits.flops_per_minute: this must be a whole number",
        ),
        (
            f"keys: [{{name: a, sha256: {A}, limits: {{flops_per_minute: .inf}}}}]",
            "keys.0.limits.flops_per_minute: this must be a whole number",
        ),
        (f"keys: [{{name: a, sha256: {A}}}, {{name: a, sha256: {B}}}]", "the name a stands twice"),
        (f"keys: [{{name: a, sha256: {A}}}, {{name: b, sha256: {A}}}]", "the sha256 abab.* twice"),
        (
            f"keys: [{{name: a, sha256: {A}, policies: [ful]}}]",
            "keys.0.policies: there is no skip policy 'ful'; the nearest are full",
        ),
    ],
)
def test_what_is_wrong_is_told_with_file_and_field(tmp_path: Path, text: str, told: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(KeysFileError, match=told) as caught:
        read_keys(path, POLICIES)
    assert str(path) in str(caught.value)
    assert "sk-secret" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(KeysFileError, match="No such file"):
        read_keys(tmp_path / "none.yaml", POLICIES)
    path = tmp_path / "keys.yaml"
    path.write_bytes(b"keys: \xff")
    with pytest.raises(KeysFileError, match="cannot be read"):
        read_keys(path, POLICIES)


def test_policies_need_not_be_looked_up(tmp_path: Path) -> None:
    path = written(tmp_path, f"keys: [{{name: a, sha256: {A}, policies: [mine]}}]")
    [entry] = read_keys(path, None)
    assert entry.policies == ("mine",)


def test_a_key_is_new_each_time_and_known_by_its_sha256() -> None:
    assert make_key() != make_key()
    assert len(make_key()) > 40
    assert digest_of_key("sk-é") == hashlib.sha256("sk-é".encode()).digest()
