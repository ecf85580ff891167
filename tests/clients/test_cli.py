"""The command line: what it prints, what it exits with, and how little it loads."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image
from scripted_server import Scripted, ScriptedServer, event_stream
from typer.testing import CliRunner, Result

import skipserve
from skipserve_client.cli import app
from skipserve_policies.named import POLICIES_FILE

pytestmark = pytest.mark.fast

# The golden values are those of the published model: 35 + 576 + 25 prompt rows, 10 answered.
GOLDEN = ["flops", "--model", "llava-1.5-7b", "--prompt", "35+576+25", "--generate", "10"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), prog_name="skipserve")


def error_of(result: Result) -> str:
    """Return the one line of a failure that a user can mend."""
    assert result.exit_code == 1
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "picture.png"
    Image.new("RGB", (4, 4), "red").save(path)
    return str(path)


def test_ask_streams_the_answer_and_shows_the_report(
    server: ScriptedServer, stream_events: list[Any], picture: str
) -> None:
    server.answers(event_stream(stream_events))
    result = run("ask", picture, "How many?", "--url", server.url, "--skip-policy", "p")
    assert result.exit_code == 0
    answer, *report = result.stdout.splitlines()
    assert answer == "two red"
    shown = " ".join("\n".join(report).split())
    for expected in (
        "policy skip-ffn-from-16-all",
        "layers touched skip_ffn 16-18",
        "FLOPs planned 750",
        "FLOPs of full 1 K",
        "saved 25.0 %",
        "first token",
        "tokens/s",
    ):
        assert expected in shown
    body = server.received[0].body
    assert (body["skip_policy"], body["temperature"], body["stream"]) == ("p", 0.0, True)


def test_ask_json_prints_json_only(
    server: ScriptedServer, completion: dict[str, Any], picture: str
) -> None:
    server.answers(Scripted(completion))
    result = run(
        *("ask", picture, "How many?", "--url", server.url, "--json"),
        *("--max-tokens", "7", "--seed", "3", "--model", "demo"),
    )
    answer = json.loads(result.stdout)
    assert (answer["text"], answer["skip"]["policy"]) == ("two red", "skip-ffn-from-16-all")
    body = server.received[0].body
    assert (body["max_tokens"], body["seed"], body["model"]) == (7, 3, "demo")


def test_ask_takes_a_policy_of_ones_own(
    server: ScriptedServer, completion: dict[str, Any], picture: str
) -> None:
    server.answers(Scripted(completion))
    policy = {"rules": [{"action": "skip_ffn", "layers": [2], "scope": "all"}]}
    flags = ["--url", server.url, "--json", "--skip-policy"]
    assert run("ask", picture, "?", *flags, json.dumps(policy)).exit_code == 0
    assert server.received[0].body["skip_policy"] == policy
    assert "valid JSON" in error_of(run("ask", picture, "?", *flags, "{rules"))


def test_ask_reads_address_and_key_from_the_environment(
    server: ScriptedServer,
    completion: dict[str, Any],
    picture: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.answers(Scripted(completion))
    monkeypatch.setenv("SKIPSERVE_URL", server.url)
    monkeypatch.setenv("SKIPSERVE_API_KEY", "secret")
    assert run("ask", picture, "?", "--json").exit_code == 0
    assert server.received[0].headers["Authorization"] == "Bearer secret"


def test_an_error_of_the_server_is_one_line(server: ScriptedServer, picture: str) -> None:
    message = "there is no skip policy 'ful'; did you mean full?"
    error = {"message": message, "type": "t", "param": "skip_policy", "code": 404}
    server.answers(Scripted({"error": error}, 404))
    result = run("ask", picture, "?", "--url", server.url, "--skip-policy", "ful")
    assert error_of(result) == f"{message} (HTTP 404)"


def test_no_server_says_how_to_start_one() -> None:
    assert "`skipserve serve`" in error_of(run("policies", "--url", "http://127.0.0.1:9"))


def test_a_missing_picture_is_named() -> None:
    assert "nothing.png" in error_of(run("ask", "nothing.png", "?"))


def test_wrong_use_exits_with_2(picture: str) -> None:
    assert run("ask", picture).exit_code == 2
    assert run("flops", "--policy", "full", "--generate", "0").exit_code == 2
    assert run("no-such-command").exit_code == 2


def test_flops_json_has_the_contracts_form_and_the_golden_values() -> None:
    cost = json.loads(run(*GOLDEN, "--policy", "shortv-7b", "--json").stdout)
    assert set(cost) == {"policy", "full", "saved_ratio"}
    parts = {"vision", "projector", "prefill", "decode", "head", "total"}
    for side in ("policy", "full"):
        for counting in ("exact", "dense"):
            for trimming in ("untrimmed", "trimmed"):
                assert set(cost[side][counting][trimming]) == parts
    full = cost["full"]["exact"]["untrimmed"]
    assert full["prefill"] == pytest.approx(8343.7e9, rel=1e-5)
    assert full["total"] == pytest.approx(8872.0e9, rel=1e-5)
    trimmed = [cost[side]["exact"]["trimmed"]["total"] for side in ("policy", "full")]
    assert cost["saved_ratio"] == pytest.approx(1 - trimmed[0] / trimmed[1])


def test_flops_shows_a_table() -> None:
    result = run(*GOLDEN, "--policy", "shortv-7b")
    assert re.search(r"prefill +4\.57 T +8\.13 T +43\.8 %", result.stdout)


def test_each_saving_says_what_it_is_relative_to(
    server: ScriptedServer, stream_events: list[Any], picture: str
) -> None:
    listed = run("policies", "shortv-7b", "--model", "llava-1.5-7b").stdout
    counted = run(*GOLDEN, "--policy", "shortv-7b", "--cached", "30").stdout
    for table, cached in ((listed, "none are"), (counted, "30 are")):
        told = " ".join(table.split())
        assert "share of what the full model computes for a prompt of 35+576+25 tokens" in told
        assert f"of which {cached} cached, and 10 generated" in told
    stream_events[-1]["usage"]["prompt_tokens_details"]["cached_tokens"] = 32
    server.answers(event_stream(stream_events))
    told = " ".join(run("ask", picture, "?", "--url", server.url).stdout.split())
    assert "saved 25.0 % of what full computes for this request" in told
    assert "cached 32 of 40 prompt tokens, in neither count" in told


def test_the_lists_saving_is_counted_again_by_the_flops_command() -> None:
    for model in ("demo", "llava-1.5-7b"):
        listed = json.loads(run("policies", "shortv-7b", "--model", model, "--json").stdout)
        (policy,) = listed["data"]
        shape = policy["saved_for"]
        flags = ["--prompt", shape["prompt"], "--generate", str(shape["generated_tokens"])]
        cost = run("flops", "--policy", "shortv-7b", "--model", model, *flags, "--json")
        assert json.loads(cost.stdout)["saved_ratio"] == policy["saved_ratio"]
        assert (
            run("flops", "--policy", "shortv-7b", "--model", model, "--json").stdout == cost.stdout
        )
    assert "at least the last" in error_of(run(*GOLDEN, "--policy", "full", "--cached", "636"))


def test_flops_says_what_is_wrong(tmp_path: Path) -> None:
    assert "the nearest are shortv-7b" in error_of(run("flops", "--policy", "shortv"))
    assert "`skipserve policies`" in error_of(run("flops", "--policy", "qqqqqqq"))
    for shape in ("a+3", ""):
        assert "35+576+25" in error_of(run("flops", "--policy", "full", "--prompt", shape))
    assert "1 to 1000000 tokens" in error_of(
        run(*GOLDEN, "--policy", "full", "--generate", "9" * 20)
    )
    assert "llava-1.5-13b" in error_of(run("flops", "--policy", "full", "--model", "none"))
    (tmp_path / "config.json").write_text("[]")
    error_of(run("flops", "--policy", "full", "--model", str(tmp_path)))


def test_flops_takes_policies_of_an_operator_and_a_models_folder(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("mine: {rules: [{action: skip_block, layers: [1], scope: all}]}")
    config = {
        "text_config": {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128},
        "vision_config": {"image_size": 28, "patch_size": 14},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    flags = ["--model", str(tmp_path), "--policies", str(file), "--json"]
    cost = json.loads(run("flops", "--policy", "mine", *flags, "--prompt", "3+4+2").stdout)
    assert 0 < cost["saved_ratio"] < 1
    assert "shortv-7b does not fit" in error_of(run("flops", "--policy", "shortv-7b", *flags))


def test_policies_are_listed_without_a_server() -> None:
    listed = json.loads(run("policies", "--model", "llava-1.5-7b", "--json").stdout)
    assert listed["object"] == "list"
    by_name = {policy["name"]: policy for policy in listed["data"]}
    assert by_name["full"]["saved_ratio"] == 0
    assert by_name["skip-block-every-3-from-16"]["layers"] == {"skip_block": [18, 21, 24, 27, 30]}
    table = run("policies", "--model", "llava-1.5-7b").stdout
    assert "skip_block 18, 21, 24, 27, 30" in table
    assert "GQA: 60.9 of 61.9" in table


def test_the_demos_measured_quality_is_listed_with_its_sample_size() -> None:
    table = " ".join(run("policies", "--model", "demo").stdout.split())
    sized = r"\(exact match, in %, demo, n = 1200, 95 % interval \d+\.\d+-\d+\.\d+\)"
    assert re.search(rf"demo: \d+\.\d+ of \d+\.\d+ {sized}", table)


def test_policies_are_listed_from_a_server(server: ScriptedServer) -> None:
    policy: dict[str, Any] = {
        "name": "mine",
        "digest": "d",
        "layers": {},
        "scope": None,
        "saved_ratio": 0.5,
    }
    server.answers(Scripted({"object": "list", "data": [policy]}))
    listed = json.loads(run("policies", "--url", server.url, "--json").stdout)
    assert [policy["name"] for policy in listed["data"]] == ["mine"]
    assert re.search(r"mine +50\.0 %", run("policies", "--url", server.url).stdout)


def test_a_policies_file_goes_with_a_model(tmp_path: Path) -> None:
    assert "--model" in error_of(run("policies", "--policies", str(tmp_path / "mine.yaml")))
    missing = run("policies", "--model", "llava-1.5-7b", "--policies", str(tmp_path / "mine.yaml"))
    assert "cannot be read" in error_of(missing)


@pytest.fixture
def shallow(tmp_path: Path) -> str:
    """Return the folder of a model that most policies do not fit."""
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"num_hidden_layers": 20}}))
    return str(tmp_path)


REASON = "shortv-7b does not fit this model of 20 layers: it is for models with 32 layers alone"


def test_shipped_policies_that_do_not_fit_are_counted(shallow: str) -> None:
    result = run("policies", "--model", shallow)
    told = " ".join(result.stdout.split())
    assert (result.exit_code, "shortv-7b" in told, "exit-after-24" in told) == (0, False, True)
    listed = json.loads(run("policies", "--model", shallow, "--json").stdout)
    assert f"{len(listed['misfits'])} of the policies that ship do not fit" in told
    assert "this model has layers 0 to 19" in listed["misfits"]["shortv-7b"]
    assert "shortv-7b" not in {policy["name"] for policy in listed["data"]}


def test_misfits_of_ones_own_are_an_error(shallow: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "fits: {rules: [{action: skip_block, layers: [1]}]}\n"
        "deep: {rules: [{action: skip_block, layers: [20]}]}\n"
    )
    flags = ["--model", shallow, "--policies-file", str(file)]
    for result in (run("policies", *flags), run("policies", *flags, "--json")):
        assert error_of(result).startswith("deep does not fit this model of 20 layers: rule 0")
        assert "fits" in result.stdout
    assert run("policies", "fits", *flags).exit_code == 0


def test_a_misfit_that_is_asked_for_is_an_error(shallow: str) -> None:
    result = run("policies", "full", "shortv-7b", "--model", shallow)
    assert error_of(result).startswith(REASON)
    assert error_of(run("flops", "--policy", "shortv-7b", "--model", shallow)) == error_of(result)


INLINE = '{"rules": [{"action": "skip_block", "layers": [18, 21], "scope": "all"}]}'


def test_a_policy_is_read_alike_everywhere(
    server: ScriptedServer, completion: dict[str, Any], picture: str
) -> None:
    server.answers(Scripted(completion))
    for flag in ("--skip-policy", "--policy"):
        run("ask", picture, "?", "--url", server.url, "--json", flag, INLINE)
        assert server.received[-1].body["skip_policy"] == json.loads(INLINE)
        cost = json.loads(run(*GOLDEN, flag, INLINE, "--json").stdout)
        assert 0 < cost["saved_ratio"] < 1
    listed = json.loads(run("policies", INLINE, "full", "--model", "demo", "--json").stdout)
    inline, full = listed["data"]
    assert (inline["layers"], full["name"]) == ({"skip_block": [18, 21]}, "full")
    for arguments in (("flops", "--policy"), ("policies", "--model", "demo"), ("ask", "p", "?")):
        flags = ["--skip-policy"] if arguments[0] == "ask" else []
        assert "valid JSON" in error_of(run(*arguments, *flags, "{rules"))


def test_a_policy_spelt_out_wrongly_says_where() -> None:
    told = error_of(run("flops", "--policy", INLINE.replace("block", "blok")))
    assert "a policy spelt out as JSON" in told
    assert "rules.0.action" in told


def test_policies_of_a_server_are_shown_by_name(server: ScriptedServer) -> None:
    policy: dict[str, Any] = {"digest": "d", "layers": {}, "scope": None, "saved_ratio": 0.5}
    data = [policy | {"name": name} for name in ("one", "two")]
    server.answers(Scripted({"object": "list", "data": data}))
    flags = ["--url", server.url]
    assert [
        it["name"] for it in json.loads(run("policies", "two", *flags, "--json").stdout)["data"]
    ] == ["two"]
    assert "the nearest are" in error_of(run("policies", "tow", *flags))
    assert "--model" in error_of(run("policies", INLINE, *flags))


ADDED: dict[str, Any] = {
    "name": "mine",
    "digest": "d",
    "layers": {},
    "scope": None,
    "saved_ratio": 0.5,
    "added": True,
}


def test_a_policy_is_added_to_a_server(server: ScriptedServer, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"mine: {INLINE}")
    server.answers(Scripted(ADDED, 201))
    flags = ["--url", server.url, "--api-key", "k"]
    assert run("policies", "add", "mine", INLINE, *flags).stdout == "added mine (digest d)\n"
    shown = run("policies", "add", "mine", "--policies-file", str(tmp_path / "mine.yaml"), *flags)
    assert shown.exit_code == 0
    printed = json.loads(run("policies", "add", "mine", INLINE, *flags, "--json").stdout)
    assert (printed["name"], printed["added"]) == ("mine", True)
    for received in server.received:
        assert (received.method, received.path) == ("POST", "/v1/skip_policies")
        assert received.headers["Authorization"] == "Bearer k"
        assert received.body == {"name": "mine", "policy": json.loads(INLINE)}


def test_a_policy_that_cannot_be_added_is_not_sent(server: ScriptedServer, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"mine: {INLINE}")
    flags = ["--url", server.url]
    file = ["--policies-file", str(tmp_path / "mine.yaml")]
    for arguments, words in (
        (["mine"], "--policies-file"),
        (["mine", INLINE, *file], "--policies-file"),
        (["main", *file], "the nearest are mine"),
        (["mine", "full"], "not the name 'full'"),
        (["mine", '{"rulez": []}'], "rulez"),
    ):
        assert words in error_of(run("policies", "add", *arguments, *flags))
    assert not server.received


def test_a_policy_is_removed_from_a_server(server: ScriptedServer) -> None:
    server.answers(Scripted({"name": "mine", "deleted": True}))
    flags = ["--url", server.url]
    assert run("policies", "remove", "mine", *flags).stdout == "removed mine\n"
    assert json.loads(run("policies", "remove", "mi/ne", *flags, "--json").stdout)["deleted"]
    assert [(it.method, it.path) for it in server.received] == [
        ("DELETE", "/v1/skip_policies/mine"),
        ("DELETE", "/v1/skip_policies/mi%2Fne"),
    ]
    message = "the skip policy 'mine' is in use"
    error = {"message": message, "type": "conflict_error", "param": "name", "code": 409}
    server.answers(Scripted({"error": error}, 409))
    assert error_of(run("policies", "remove", "mine", *flags)) == f"{message} (HTTP 409)"


def test_an_added_policy_says_so_in_the_list(server: ScriptedServer) -> None:
    server.answers(Scripted({"object": "list", "data": [ADDED]}))
    assert "added at run time" in run("policies", "--url", server.url).stdout


def test_the_default_says_so_in_the_list(server: ScriptedServer) -> None:
    words = "runs where a request names none"
    server.answers(Scripted({"object": "list", "data": [ADDED]}))
    assert words not in run("policies", "--url", server.url).stdout
    server.answers(Scripted({"object": "list", "data": [ADDED | {"default": True}]}))
    assert words in run("policies", "--url", server.url).stdout


def test_policies_that_a_model_brings_are_known_without_a_server() -> None:
    def listed(*flags: str) -> dict[str, Any]:
        found = json.loads(run("policies", *flags, "--json").stdout)["data"]
        return {it["name"]: it for it in found}

    model = ["--model", "smolvqa-half-blocks"]
    policies = listed(*model)
    assert [name for name, it in policies.items() if it["default"]] == ["half-blocks"]
    half = policies["half-blocks"]
    assert half["layers"] == {"skip_block": list(range(2, 29, 2))}
    assert half["digest"] == policies["skip-block-every-2-from-0-all"]["digest"]
    assert half["quality"][0]["model"] == "smolvqa-half-blocks"
    assert listed("half-blocks", *model) == {"half-blocks": half}
    default = [name for name, it in listed("--model", "smolvqa").items() if it["default"]]
    assert default == ["full"]
    assert "half-blocks" not in listed("--model", "smolvqa")
    counted = json.loads(run("flops", "--policy", "half-blocks", *model, "--json").stdout)
    assert counted["saved_ratio"] == half["saved_ratio"]


def test_a_models_default_that_does_not_fit_is_told(tmp_path: Path) -> None:
    shipped = Path(next(iter(skipserve.__path__))) / "demo"
    shutil.copyfile(shipped / "config.json", tmp_path / "config.json")
    deep = "{rules: [{action: skip_ffn, layers: [99]}]}"
    (tmp_path / POLICIES_FILE).write_text(f"default: deep\npolicies: {{deep: {deep}}}\n")
    assert "layer 99" in error_of(run("policies", "--model", str(tmp_path)))
    (tmp_path / POLICIES_FILE).write_text("default: deep\n")
    told = error_of(run("policies", "--model", str(tmp_path)))
    assert told.startswith(f"{tmp_path / POLICIES_FILE}: default: there is no skip policy 'deep'")


@pytest.mark.parametrize("flag", ["--url", "--api-key"])
def test_flags_of_a_server_do_not_go_with_a_model(
    flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = error_of(run("policies", "--model", "demo", flag, "http://127.0.0.1:9"))
    assert told.startswith(f"{flag}: without effect with --model")
    monkeypatch.setenv("SKIPSERVE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("SKIPSERVE_API_KEY", "k")
    assert run("policies", "--model", "demo").exit_code == 0


def test_an_answer_that_was_cut_says_so(
    server: ScriptedServer, stream_events: list[Any], picture: str
) -> None:
    server.answers(event_stream(stream_events))
    assert "cut after" not in run("ask", picture, "?", "--url", server.url).stdout
    stream_events[3]["choices"][0]["finish_reason"] = "length"
    server.answers(event_stream(stream_events))
    told = run("ask", picture, "?", "--url", server.url, "--max-tokens", "2").stdout
    assert "cut after 2 tokens" in told
    assert "--max-tokens" in told


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("model", ["demo", "llava-1.5-7b"])
def test_the_catalog_cuts_nothing_at_any_width(
    width: int, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    listed = json.loads(run("policies", "--model", model, "--json").stdout)["data"]
    table = run("policies", "--model", model).stdout
    lines = [line.strip() for line in table.splitlines()]
    assert max(map(len, table.splitlines())) <= width
    assert "…" not in table
    for policy in listed:
        (row,) = (line for line in lines if line.split()[:1] == [policy["name"]])
        assert row.endswith("%")
    below = [line for line in table.partition("FLOPs saved:")[0].splitlines() if line]
    assert all(line.startswith(" ") for line in below)


def test_version() -> None:
    for argument in ("version", "--version"):
        assert re.fullmatch(r"\d+\.\d+.*\n", run(argument).stdout)
    told = json.loads(run("version", "--json").stdout)
    assert f"{told['version']}\n" == run("version").stdout


COMMANDS = (
    "ask",
    "chat",
    "compare",
    "load",
    "policies",
    "policies add",
    "policies remove",
    "flops",
    "version",
    "calibrate",
    "evaluate",
    "fetch",
    "keys check",
    "keys new",
    "reproduce",
    "serve",
    "train ask",
    "train demo",
    "train export",
    "train mapping",
    "train paper",
    "train tower",
)


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_names_every_flag_whole(
    command: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    found: Any = typer.main.get_command(app)
    for name in [command] if command in found.commands else command.split():
        found = found.get_command(None, name)
    # Not through the runner, for which every terminal has 80 columns.
    with found.make_context("skipserve", [], resilient_parsing=True) as context:
        text = found.get_help(context)
    flags = {flag for it in found.params for flag in (*it.opts, *it.secondary_opts)}
    assert {flag for flag in flags if flag.startswith("-")} <= set(re.split(r"[\s,;/]+", text))
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width


def test_help_lists_every_command() -> None:
    listed = run("--help").stdout.partition("Commands:")[2]
    for command in COMMANDS:
        name = command if command.startswith("policies") else command.split()[0]
        assert re.search(rf"^  {name} +[A-Z].*", listed, re.MULTILINE)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("skipserve ", {*(it.split()[0] for it in COMMANDS)}),
        ("skipserve eva", {"evaluate"}),
        ("skipserve serve --max-r", {"--max-running-requests", "--max-request-pixels"}),
        ("skipserve evaluate --policies-", {"--policies-file"}),
        ("skipserve flops --policy shor", {"shortv-7b"}),
        (
            "skipserve train ",
            {"ask", "compress", "demo", "export", "mapping", "paper", "recover", "tower"},
        ),
    ],
)
def test_the_shell_completes(
    line: str, expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_SKIPSERVE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
    assert set(run().stdout.split()) == expected


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["ask", "--help"], ["version"], ["serve", "--help"], ["evaluate", "--help"]],
)
def test_torch_is_not_loaded(arguments: list[str]) -> None:
    code = (
        "import sys; from skipserve_client.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "sys.exit(not {'torch', 'transformers'}.isdisjoint(sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.DEVNULL)
