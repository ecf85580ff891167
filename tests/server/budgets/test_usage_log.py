"""Tests of the usage log: lines of JSON, moved files, and disks that do not take them."""

import json
import stat
from io import FileIO
from pathlib import Path

import pytest

from skipserve.budgets.usage_log import UsageLog

pytestmark = pytest.mark.fast


def lines(path: Path) -> list[object]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_records_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    for number in range(2):
        log = UsageLog(path)
        log.write({"key": f"team\n{number}"})
        log.write({"key": None})
        log.close()
    assert lines(path) == [{"key": "team\n0"}, {"key": None}, {"key": "team\n1"}, {"key": None}]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_was_moved_away_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    log = UsageLog(path)
    log.write({"n": 1})
    while not path.read_text():
        pass
    path.rename(tmp_path / "usage.1")
    log.reopen()
    log.write({"n": 2})
    log.close()
    assert lines(tmp_path / "usage.1") == [{"n": 1}]
    assert lines(path) == [{"n": 2}]


def test_where_it_cannot_be_made_anew_the_old_file_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = UsageLog(folder / "usage")
    folder.rename(tmp_path / "moved")
    log.reopen()
    log.write({"n": 1})
    log.close()
    assert lines(tmp_path / "moved" / "usage") == [{"n": 1}]
    assert "stays with its old file" in caplog.text


def test_what_cannot_be_written_stands_in_the_server_s_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = UsageLog(tmp_path / "usage")
    log._file.close()
    log._file = FileIO("/dev/full", "w")
    log.write({"n": 1})
    log.close()
    log.write({"n": 2})
    assert "No space left" in caplog.text
    assert '{"n": 1}' in caplog.text
    assert '{"n": 2}' in caplog.text


def test_a_disk_that_stands_still_holds_nobody_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skipserve.budgets.usage_log._MAX_WAITING", 2)
    monkeypatch.setattr("threading.Thread.start", lambda _: None)
    log = UsageLog(tmp_path / "usage")
    for number in range(3):
        log.write({"n": number})
    log.reopen()
    log._file.close()
    assert caplog.text.count("the disk is too slow") == 1
    assert '{"n": 2}' in caplog.text


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        UsageLog(tmp_path / "no" / "usage")
