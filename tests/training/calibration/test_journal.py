"""The journal: what was measured is there again, and belongs to what it was measured on."""

from pathlib import Path

import pytest

from skipserve_client.command_group import CommandError
from skipserve_training.calibration.journal import Journal

pytestmark = pytest.mark.fast

ON_ONE = {"model": "one", "seed": 1}


def test_measurements_are_there_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, ON_ONE) as journal:
        journal.put("a", [1, 2.5])
        journal.put("b", {"text": "ä\n"})
    with Journal(path, ON_ONE) as journal:
        assert len(journal) == 2
        assert journal.get("a") == [1, 2.5]
        assert journal.get("b") == {"text": "ä\n"}
        assert journal.get("c") is None


@pytest.mark.parametrize("num_bytes", range(1, 9))
def test_a_line_that_was_cut_off_is_measured_again(tmp_path: Path, num_bytes: int) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, ON_ONE) as journal:
        journal.put("a", 1)
        journal.put("b", 2)
    path.write_bytes(path.read_bytes()[:-num_bytes])
    with Journal(path, ON_ONE) as journal:
        assert (journal.get("a"), journal.get("b")) == (1, None)
        journal.put("b", 3)
    with Journal(path, ON_ONE) as journal:
        assert (journal.get("a"), journal.get("b")) == (1, 3)


@pytest.mark.parametrize("conditions", [{"model": "two", "seed": 1}, {"model": "one"}])
def test_another_model_is_refused(tmp_path: Path, conditions: dict[str, object]) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, ON_ONE) as journal:
        journal.put("a", 1)
    before = path.read_bytes()
    with pytest.raises(CommandError, match=r"was made with (model|seed)"):
        Journal(path, conditions)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"[1, 2]\n", b"text\n", b'{"model": "one", "seed": 1}\n[1]\n'])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(content)
    with pytest.raises(CommandError, match="no journal"):
        Journal(path, ON_ONE)
    assert path.read_bytes() == content


def test_two_do_not_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, ON_ONE), pytest.raises(CommandError, match="another calibration"):
        Journal(path, ON_ONE)


def test_without_a_file_it_remembers(tmp_path: Path) -> None:
    with Journal(None, ON_ONE) as journal:
        journal.put("a", 1)
        assert journal.get("a") == 1
    assert not list(tmp_path.iterdir())
    with pytest.raises(CommandError, match="cannot be written"):
        Journal(tmp_path / "no" / "folder", ON_ONE)
