"""Tests of the file that keeps the policies which were added at run time."""

import os
from pathlib import Path

import pytest

from skipserve.asking.policy_file import PolicyFile
from skipserve.errors import StorageError
from skipserve_policies.resolve import PolicyError
from skipserve_policies.schema import SkipPolicy

pytestmark = pytest.mark.fast

MINE = {"mine": SkipPolicy.model_validate({"rules": [{"action": "skip_ffn", "layers": [5]}]})}


@pytest.fixture
def file(tmp_path: Path) -> PolicyFile:
    return PolicyFile(tmp_path / "added.yaml")


def test_what_is_written_is_read_again(file: PolicyFile) -> None:
    assert file.read(()) == {}
    file.commit(file.stage(MINE))
    assert PolicyFile(file.path).read(()) == MINE
    file.commit(file.stage({}))
    assert PolicyFile(file.path).read(()) == {}


def test_nothing_is_changed_before_the_commit(file: PolicyFile) -> None:
    file.commit(file.stage({}))
    before = file.path.read_bytes()
    staged = file.stage(MINE)
    assert file.path.read_bytes() == before
    staged.discard()
    staged.discard()
    assert os.listdir(file.path.parent) == [file.path.name]


def test_rights_and_links_stay_as_they_are(file: PolicyFile, tmp_path: Path) -> None:
    file.commit(file.stage({}))
    file.path.chmod(0o640)
    (tmp_path / "link.yaml").symlink_to(file.path)
    linked = PolicyFile(tmp_path / "link.yaml")
    assert linked.read(()) == {}
    linked.commit(linked.stage(MINE))
    assert linked.path.is_symlink()
    assert file.path.stat().st_mode & 0o777 == 0o640
    assert PolicyFile(file.path).read(()) == MINE


def test_a_file_that_somebody_else_has_changed_is_left_alone(file: PolicyFile) -> None:
    file.commit(file.stage({}))
    other = PolicyFile(file.path)
    other.read(())
    other.commit(other.stage(MINE))
    with pytest.raises(StorageError, match="somebody has edited it, or another server writes it"):
        file.stage({})
    assert PolicyFile(file.path).read(()) == MINE


def test_a_folder_that_takes_no_files(file: PolicyFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.raises(StorageError, match="Read-only file system; nothing was changed") as caught:
        file.stage(MINE)
    assert str(file.path.parent) not in caught.value.message


def test_a_disk_that_is_full_leaves_no_pieces(
    file: PolicyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(StorageError, match="No space left"):
        file.stage(MINE)
    assert not os.listdir(file.path.parent)


def test_a_file_that_cannot_be_replaced(file: PolicyFile) -> None:
    staged = file.stage(MINE)
    file.path.mkdir()
    (file.path / "full").touch()
    with pytest.raises(StorageError, match="cannot be replaced"):
        file.commit(staged)
    assert not staged.path.exists()


def test_what_cannot_be_read_is_named(file: PolicyFile, tmp_path: Path) -> None:
    file.path.write_text("mine: {rulez: []}")
    with pytest.raises(PolicyError, match=r"added\.yaml: policy 'mine': rulez"):
        file.read(())
    file.path.write_text("full: {}")
    with pytest.raises(PolicyError, match=r"added\.yaml: policy 'full': the name is taken"):
        file.read({"full"})
    with pytest.raises(PolicyError, match="there is no folder"):
        PolicyFile(tmp_path / "no" / "added.yaml").read(())


def test_whether_a_folder_takes_files_is_known_beforehand(
    file: PolicyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert file.can_be_written
    monkeypatch.setattr("os.access", lambda *_: False)
    assert not file.can_be_written
