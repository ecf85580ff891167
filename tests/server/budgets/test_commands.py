"""Tests of `skipserve keys`."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from skipserve.budgets.commands import keys
from skipserve.budgets.keys import digest_of_key, read_keys

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("flags", [(), ("--admin",)])
def test_a_new_key_and_its_lines(tmp_path: Path, flags: tuple[str, ...]) -> None:
    made = CliRunner().invoke(keys, ["new", "1e5", *flags])
    assert made.exit_code == 0
    path = tmp_path / "keys.yaml"
    path.write_text(f"keys:\n{made.stdout}")
    [entry] = read_keys(path, None)
    assert entry.name == "1e5"
    assert entry.admin == bool(flags)
    key = made.stderr.splitlines()[0].rpartition(" ")[2]
    assert entry.sha256 == (digest_of_key(key).hex(),)
    assert key not in made.stdout


def test_a_name_that_cannot_be(tmp_path: Path) -> None:
    refused = CliRunner().invoke(keys, ["new", "other"])
    assert refused.exit_code == 2
    assert "this name is taken" in refused.stderr


def test_a_file_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(
        f"keys: [{{name: a, sha256: {'ab' * 32}, limits: {{queued: 2, concurrent: 3}}}},"
        f" {{name: ops, sha256: {'cd' * 32}, admin: true, policies: [mine]}}]"
    )
    checked = CliRunner().invoke(keys, ["check", str(path)])
    assert checked.stdout == "a: client, concurrent 3, queued 2\nops: admin, no limits\n"
    path.write_text("keys: [{name: a}]")
    broken = CliRunner().invoke(keys, ["check", str(path)])
    assert broken.exit_code == 1
    assert "keys.0.sha256: this field is missing" in broken.stderr


def test_both_tell_machines(tmp_path: Path) -> None:
    made = json.loads(CliRunner().invoke(keys, ["new", "ops", "--admin", "--json"]).stdout)
    assert (made["name"], made["admin"]) == ("ops", True)
    assert made["sha256"] == digest_of_key(made["key"]).hex()
    path = tmp_path / "keys.yaml"
    path.write_text(f"keys: [{{name: ops, sha256: {made['sha256']}, limits: {{queued: 2}}}}]")
    told = json.loads(CliRunner().invoke(keys, ["check", str(path), "--json"]).stdout)
    assert told == {"keys": [{"name": "ops", "admin": False, "limits": {"queued": 2}}]}
