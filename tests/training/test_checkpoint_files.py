"""The files beside weights."""

import json
import subprocess
from pathlib import Path

import pytest

from skipserve_training.checkpoint_files import versions, write_checksums, write_record

pytestmark = pytest.mark.fast


def test_checksums_check(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"w")
    write_record(tmp_path, {"seed": 1})
    write_checksums(tmp_path)
    assert json.loads((tmp_path / "training-record.json").read_text()) == {"seed": 1}
    names = {line.split()[1] for line in (tmp_path / "SHA256SUMS").read_text().splitlines()}
    assert names == {"weights", "training-record.json"}
    command = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0


def test_versions_are_those_installed() -> None:
    found = versions(("torch",))
    assert set(found) == {"python", "torch"}
    assert found["torch"][0].isdigit()
