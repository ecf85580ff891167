"""`skipserve evaluate` from beginning to end, against a scripted server."""

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from scripted_server import Received, Scripted, ScriptedServer
from typer.testing import CliRunner, Result

from skipserve_client.cli import app
from skipserve_client.evaluate.metrics.mme import SUBTASKS

pytestmark = pytest.mark.fast

CHAT = "/v1/chat/completions"
NUM_RIDDLES = 10
Replying = Callable[[Received], Scripted]


def run(server: ScriptedServer, data: Path, *flags: str) -> Result:
    arguments = ["evaluate", "--url", server.url, "--data", str(data), *flags]
    return CliRunner().invoke(app, arguments, prog_name="skipserve")


def error_of(result: Result) -> str:
    assert result.exit_code == 1, result.output
    *_, line = result.stderr.strip().splitlines()
    return line.removeprefix("error: ")


def num_asked(server: ScriptedServer) -> int:
    return sum(received.path == CHAT for received in server.received)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


def breaks_off_after(
    server: ScriptedServer, reply: Replying, num_answers: int, answer: Replying
) -> None:
    """Let a server give an answer of another kind once it has answered so many questions."""

    def replying(received: Received) -> Scripted:
        is_over = received.path == CHAT and num_asked(server) > num_answers
        return answer(received) if is_over else reply(received)

    server.answers(replying)


def died(_: Received) -> Scripted:
    return Scripted({"error": {"message": "the engine died", "code": 500}}, 500)


def test_the_json_holds_every_answer(knowing: ScriptedServer, riddles: Path) -> None:
    result = run(knowing, riddles, "--policies", "full,half", "--json")
    found = json.loads(result.stdout)
    assert (found["data"], found["model"], found["records"]) == ("riddles.jsonl", "sphinx", None)
    assert found["policies"]["half"]["accuracy"] == 0.5
    answers = {(it["policy"], it["question"]): it["answer"] for it in found["answers"]}
    assert len(answers) == 2 * NUM_RIDDLES
    assert (answers["full", "question 1"], answers["half", "question 1"]) == ("no", "Yes.")


def test_answers_are_held_against_another_evaluations(
    knowing: ScriptedServer, riddles: Path, output: Path
) -> None:
    assert run(knowing, riddles, "--policies", "full,half", "--output", str(output)).exit_code == 0
    flags = ["--policies", "half", "--baseline", str(output), "--count", "6", "--json"]
    found = json.loads(run(knowing, riddles, *flags).stdout)
    assert (found["baseline"]["model"], found["baseline"]["n"]) == ("sphinx", 6)
    assert found["policies"]["half"]["retention"] == 0.5


def test_a_baseline_that_is_of_no_use_is_told_before_a_question_is_asked(
    knowing: ScriptedServer, riddles: Path, output: Path, tmp_path: Path
) -> None:
    flags = ["--policies", "half", "--baseline"]
    told = error_of(run(knowing, riddles, *flags, str(tmp_path / "nowhere.jsonl")))
    assert told.endswith("nowhere.jsonl cannot be read: No such file or directory")
    (tmp_path / "other").write_text("riddle\n")
    assert "line 1: is not a record" in error_of(run(knowing, riddles, *flags, f"{tmp_path}/other"))
    run(knowing, riddles, "--policies", "full", "--count", "3", "--output", str(output))
    knowing.received.clear()
    told = error_of(run(knowing, riddles, *flags, str(output)))
    assert told.startswith(f"--baseline {output}: holds no answer under full to ")
    changed = output.read_text().replace('"question_digest":"', '"question_digest":"0')
    (tmp_path / "changed").write_text(changed)
    told = error_of(run(knowing, riddles, *flags, f"{tmp_path}/changed", "--count", "3"))
    assert "holds no answer under full to " in told
    same = error_of(run(knowing, riddles, *flags, str(output), "--output", str(output)))
    assert same == f"--baseline and --output name the same file, {output}"
    assert not num_asked(knowing)


def test_answers_are_written_and_the_summary_points_to_them(
    knowing: ScriptedServer, riddles: Path, output: Path, tmp_path: Path
) -> None:
    summary = tmp_path / "summary.json"
    flags = ["--policies", "full", "--output", str(output), "--summary", str(summary), "--json"]
    printed = json.loads(run(knowing, riddles, *flags).stdout)
    assert json.loads(summary.read_text()) == printed
    assert printed["records"] == str(output)
    assert [(it["index"], it["correct"]) for it in read(output)] == [(i, True) for i in range(10)]
    assert read(output)[0]["expected"] == ["yes", "yes indeed"]


def test_a_summary_of_other_data_joins_the_first(
    knowing: ScriptedServer, riddles: Path, tmp_path: Path
) -> None:
    summary = tmp_path / "skip-quality.json"
    other = riddles.with_name("others.jsonl")
    other.write_text(riddles.read_text())
    for data in (riddles, other, riddles):
        run(knowing, data, "--policies", "full", "--summary", str(summary))
    found = json.loads(summary.read_text())["evaluations"]
    assert [it["data"] for it in found] == ["others.jsonl", "riddles.jsonl"]


def test_a_published_data_set_is_asked_and_scored(
    server: ScriptedServer, reply: Replying, tmp_path: Path
) -> None:
    """MME from its files to its score: always yes is right once on each picture."""
    for subtask in SUBTASKS:
        (tmp_path / subtask).mkdir()
        Image.new("RGB", (2, 2)).save(tmp_path / subtask / "a.png")
        lines = "question 1 Yes or no?\tYes\nquestion 2 Yes or no?\tNo\n"
        (tmp_path / subtask / "a.txt").write_text(lines)
    server.answers(reply)
    flags = ["--data-folder", str(tmp_path), "--policies", "half", "--json"]
    result = run(server, Path("mme"), *flags)
    assert result.exit_code == 0, result.output
    half = json.loads(result.stdout)["policies"]["half"]
    figures = {it["metric"]: it["value"] for it in half["measures"]}
    assert figures == {"perception": 500.0, "cognition": 200.0, "accuracy": 0.5}
    assert half["details"]["OCR"] == {"accuracy": 0.5, "accuracy+": 0.0, "score": 50.0, "n": 2}


def test_a_run_that_broke_off_is_gone_on_with(
    server: ScriptedServer, reply: Replying, riddles: Path, output: Path
) -> None:
    breaks_off_after(server, reply, 2 + 7, died)
    flags = ["--policies", "full,half", "--output", str(output)]
    told = error_of(run(server, riddles, *flags))
    assert told == (
        f"the engine died (HTTP 500); {output} keeps 7 answers; the same command asks what is "
        "missing"
    )
    begun = read(output)
    assert len(begun) == 7
    server.answers(reply)
    server.received.clear()
    result = run(server, riddles, *flags)
    assert (result.exit_code, num_asked(server)) == (0, 2 + 13)
    assert f"{output} holds 7 of 20 answers" in result.stderr
    whole = read(output)
    assert whole[:7] == begun
    assert len({(it["policy"], it["index"]) for it in whole}) == len(whole) == 20


def test_a_run_that_is_complete_asks_nothing(
    knowing: ScriptedServer, riddles: Path, output: Path
) -> None:
    flags = ["--policies", "full", "--output", str(output), "--json"]
    first = run(knowing, riddles, *flags)
    knowing.received.clear()
    again = run(knowing, riddles, *flags)
    assert (again.stdout, num_asked(knowing)) == (first.stdout, 0)


def test_more_questions_and_policies_are_added(
    knowing: ScriptedServer, riddles: Path, output: Path
) -> None:
    run(knowing, riddles, "--policies", "full", "--count", "4", "--output", str(output))
    flags = ["--policies", "full,half", "--count", "6", "--output", str(output), "--json"]
    found = json.loads(run(knowing, riddles, *flags).stdout)["policies"]
    assert (found["full"]["n"], found["half"]["n"], len(read(output))) == (6, 6, 12)
    fewer = json.loads(run(knowing, riddles, *flags[:2], "--count", "2", *flags[4:]).stdout)[
        "policies"
    ]
    assert (fewer["full"]["n"], fewer["half"]["n"]) == (2, 2)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("model_digest", {"weights_digest": "other"}),
        ("dtype", {"dtype": "bfloat16"}),
        ("model", {"root": "oracle"}),
    ],
)
def test_answers_of_another_model_are_not_mixed(
    knowing: ScriptedServer,
    lists: dict[str, list[dict[str, Any]]],
    riddles: Path,
    output: Path,
    field: str,
    change: dict[str, str],
) -> None:
    flags = ["--policies", "full", "--output", str(output)]
    run(knowing, riddles, *flags)
    before = output.read_bytes()
    lists["/v1/models"][0] |= change
    told = error_of(run(knowing, riddles, *flags))
    assert f"belongs to another evaluation: its {field} is" in told
    assert output.read_bytes() == before


def test_answers_under_another_policy_of_that_name_are_not_mixed(
    knowing: ScriptedServer,
    lists: dict[str, list[dict[str, Any]]],
    riddles: Path,
    output: Path,
) -> None:
    flags = ["--policies", "half", "--output", str(output)]
    run(knowing, riddles, *flags)
    lists["/v1/skip_policies"][1]["digest"] = "other"
    assert "another policy that was called half" in error_of(run(knowing, riddles, *flags))


def test_answers_to_other_questions_are_not_mixed(
    knowing: ScriptedServer, riddles: Path, output: Path
) -> None:
    flags = ["--policies", "full", "--output", str(output)]
    run(knowing, riddles, *flags)
    riddles.write_text("".join(reversed(riddles.read_text().splitlines(keepends=True))))
    assert "another question" in error_of(run(knowing, riddles, *flags))


def test_without_a_file_answers_are_kept_where_a_run_breaks_off(
    server: ScriptedServer,
    reply: Replying,
    riddles: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(kept))
    server.answers(reply)
    assert run(server, riddles, "--policies", "full").exit_code == 0
    assert list(kept.iterdir()) == []
    breaks_off_after(server, reply, 0, died)
    server.received.clear()
    assert error_of(run(server, riddles, "--policies", "full")) == "the engine died (HTTP 500)"
    assert list(kept.iterdir()) == []
    breaks_off_after(server, reply, 1 + 3, died)
    server.received.clear()
    told = error_of(run(server, riddles, "--policies", "full"))
    (file,) = kept.iterdir()
    assert f"the same command with --output {file} asks what is missing" in told
    assert len(read(file)) == 3


def test_a_key_that_is_refused_in_between_is_no_fault_of_a_question(
    server: ScriptedServer, reply: Replying, riddles: Path, output: Path
) -> None:
    breaks_off_after(server, reply, 1 + 3, lambda _: Scripted({"error": {"message": "no"}}, 401))
    told = error_of(run(server, riddles, "--policies", "full", "--output", str(output)))
    assert told.startswith("no (HTTP 401); give the key with --api-key, or in SKIPSERVE_API_KEY; ")
    assert f"{output} keeps 3 answers" in told


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's file without room")
@pytest.mark.parametrize("flag", ["--summary", "--plot"])
def test_what_was_found_is_shown_though_a_file_cannot_be_written(
    knowing: ScriptedServer, riddles: Path, tmp_path: Path, flag: str
) -> None:
    file = tmp_path / "full.svg"
    file.symlink_to("/dev/full")
    result = run(knowing, riddles, "--policies", "full", "--json", flag, str(file))
    assert error_of(result) == f"{flag} {file} cannot be written: No space left on device"
    assert len(json.loads(result.stdout)["answers"]) == NUM_RIDDLES


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_being_told_to_end_loses_nothing(
    server: ScriptedServer, reply: Replying, riddles: Path, output: Path, ending: signal.Signals
) -> None:
    def interrupt(received: Received) -> Scripted:
        signal.pthread_kill(threading.main_thread().ident or 0, ending)
        return reply(received)

    breaks_off_after(server, reply, 1 + 4, interrupt)
    # Whoever runs the tests may ignore it, as a shell does for what it starts in the background.
    usual = signal.default_int_handler if ending is signal.SIGINT else signal.SIG_DFL
    before = signal.signal(ending, usual)
    try:
        result = run(server, riddles, "--policies", "full", "--output", str(output))
        assert (result.exit_code, signal.getsignal(ending)) == (130, usual)
    finally:
        signal.signal(ending, before)
    kept = read(output)
    assert 4 <= len(kept) < NUM_RIDDLES
    told = f"error: stopped; {output} keeps {len(kept)} answers; the same command asks what is"
    assert result.stderr.startswith(told)


def test_a_policy_spelt_out_is_named_and_shown(knowing: ScriptedServer, riddles: Path) -> None:
    policy = '{"rules": [{"action": "skip_ffn", "layers": [1, 2]}]}'
    result = run(knowing, riddles, "--policies", f"full,{policy},half", "--json")
    found = json.loads(result.stdout)
    full, label, half = found["policies"]
    assert (full, half, found["inline"]) == ("full", "half", {label: json.loads(policy)})


def test_all_policies_are_the_servers_and_misfits_are_told(
    knowing: ScriptedServer, riddles: Path
) -> None:
    found = json.loads(run(knowing, riddles, "--json").stdout)
    assert list(found["policies"]) == ["full", "half"]
    assert "shortv-7b does not fit" in found["left_out"].values()
    assert "does not fit" in error_of(run(knowing, riddles, "--policies", "all,shortv-7b"))


def test_faults_in_the_data_are_found_before_anything_is_asked(
    knowing: ScriptedServer, riddles: Path
) -> None:
    riddles.write_text(riddles.read_text() + "{oops\n\n{}\n")
    result = run(knowing, riddles)
    assert result.exit_code == 1
    lines = result.stderr.strip().splitlines()
    assert [line.rpartition("jsonl, ")[2].partition(":")[0] for line in lines] == [
        "line 11",
        "line 13",
    ]
    assert knowing.received == []


def test_a_server_that_still_loads_is_waited_for(
    server: ScriptedServer,
    reply: Replying,
    lists: dict[str, list[dict[str, Any]]],
    riddles: Path,
    output: Path,
) -> None:
    lists["/v1/models"][0]["weights_digest"] = None

    def replying(received: Received) -> Scripted:
        if received.path == CHAT and "skip_policy" not in received.body:
            lists["/v1/models"][0]["weights_digest"] = "w"
            received.body["skip_policy"] = "full"
            received.body["messages"] = [{"content": [{}, {"text": "question 0"}]}]
        return reply(received)

    server.answers(replying)
    run(server, riddles, "--policies", "full", "--output", str(output))
    assert {it["model_digest"] for it in read(output)} == {"w"}


def test_the_address_comes_from_the_environment_too(
    knowing: ScriptedServer, riddles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "SKIPSERVE_URL", knowing.url)
    arguments = ["evaluate", "--data", str(riddles), "--policies", "full"]
    result = CliRunner().invoke(app, arguments, prog_name="skipserve")
    assert (result.exit_code, num_asked(knowing)) == (0, 1 + NUM_RIDDLES)
