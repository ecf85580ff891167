"""Tests of `skipserve serve` as a process: its words, signals and deaths."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from children import running
from measured_models import copy_measured
from patience import slowness
from pictures import question
from server_process import ServerProcess, is_running
from typer.testing import CliRunner

from skipserve import commands
from skipserve.app import build
from skipserve.asking.auto.terms import Surroundings
from skipserve.commands import (
    ExitCode,
    describe_auto,
    describe_default,
    example_policy,
    listen,
    reachable_url,
    serve,
)
from skipserve.settings import Settings

CHAT = "/v1/chat/completions"
# Long enough that it is still running when a signal comes.
LONG = question("Why?", temperature=0, ignore_eos=True, stream=True)
del LONG["max_tokens"]


class Asker(threading.Thread):
    """Asks in the background; `events` are the stream's data once it has ended."""

    def __init__(self, server: ServerProcess, **fields: object) -> None:
        super().__init__()
        self._server = server
        self._body = LONG | fields
        self.has_begun = threading.Event()
        self.events: list[str] = []
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            with (
                self._server.client() as client,
                client.stream("POST", CHAT, json=self._body) as reply,
            ):
                for line in reply.iter_lines():
                    if line.startswith("data: "):
                        self.events.append(line.removeprefix("data: "))
                        # After the first chunk, which only says who speaks, the engine is at work.
                        if len(self.events) == 2:
                            self.has_begun.set()
        except httpx.HTTPError as error:
            self.error = error
        finally:
            self.has_begun.set()

    @property
    def is_complete(self) -> bool:
        """Whether an answer came to its own end."""
        if self.error is not None or self.events[-1:] != ["[DONE]"]:
            return False
        return "choices" in self.last_chunk()

    def last_chunk(self) -> dict[str, Any]:
        assert self.events[-1] == "[DONE]"
        chunk: dict[str, Any] = json.loads(self.events[-2])
        return chunk


def begin(server: ServerProcess, **fields: object) -> Asker:
    asker = Asker(server, **fields)
    asker.start()
    asker.has_begun.wait()
    assert asker.error is None
    return asker


def test_a_server_drains(slow_checkpoint: Path) -> None:
    with ServerProcess(slow_checkpoint, "--log-format", "json") as server:
        askers = [begin(server, max_tokens=120) for _ in range(4)]
        server.signal(signal.SIGTERM)
        with server.client() as client:
            while (ready := client.get("/ready")).status_code != 503:
                pass
            refusal = client.post(CHAT, json=question("Too late?"))
            assert client.get("/health").status_code == 200
        for asker in askers:
            asker.join()
        code, output = server.wait()
    assert "shutting down" in ready.json()["error"]["message"]
    assert refusal.status_code == 503
    assert int(refusal.headers["Retry-After"]) > 0
    assert "shutting down" in refusal.json()["error"]["message"]
    assert refusal.headers["Connection"] == "close"
    for asker in askers:
        assert asker.last_chunk()["choices"][0]["finish_reason"] in {"stop", "length"}
    assert code == 0
    logged = [json.loads(line)["message"] for line in output.splitlines()]
    assert any("/v1/chat/completions 200" in message for message in logged)
    assert any(message.startswith("skipserve serves slow") for message in logged)
    assert "Requests that name no skip policy run full" in logged


def test_it_serves_though_nobody_reads_what_it_says(checkpoint: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "skipserve_client", "serve", "--model", str(checkpoint)]
    with (
        running([*command, "--port", str(port)], stdout=writer) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=None, trust_env=False) as client,
    ):
        os.close(writer)
        wait_for_ready(process, client)
        assert client.post(CHAT, json=question("Hi", max_tokens=1)).status_code == 200
        process.terminate()
        assert process.wait() == 0


def wait_for_ready(process: subprocess.Popen[bytes], client: httpx.Client) -> None:
    while process.poll() is None:
        with contextlib.suppress(httpx.ConnectError):
            if client.get("/ready").status_code == 200:
                return
    raise AssertionError("the server has ended")


@pytest.mark.parametrize("second", [None, signal.SIGINT])
def test_the_grace_ends(slow_checkpoint: Path, second: signal.Signals | None) -> None:
    with ServerProcess(
        slow_checkpoint, "--grace-seconds", "0.2" if second is None else "60"
    ) as server:
        asker = begin(server)
        server.signal(signal.SIGTERM)
        if second is not None:
            server.signal(second)
        code, _ = server.wait()
        asker.join()
    assert code == ExitCode.REQUESTS_LOST
    assert not asker.is_complete
    error = asker.last_chunk()["error"]
    assert (error["code"], error["type"]) == (503, "overloaded_error")


def test_the_engine_dies(slow_checkpoint: Path) -> None:
    with (
        ServerProcess(slow_checkpoint, "--stall-seconds", "86400") as server,
        server.client() as client,
    ):
        asker = begin(server)
        client.get("/health").raise_for_status()
        os.kill(server.engine_id, signal.SIGKILL)
        asker.join()
        assert client.get("/health").status_code == client.get("/ready").status_code == 503
        metrics = client.get("/metrics").text
        code, output = server.wait()
    assert code != 0
    assert "stopping: the engine has died: SIGKILL" in output
    assert 'skipserve_errors_total{code="500",model="slow"} 1.0' in metrics
    error = asker.last_chunk()["error"]
    assert (error["code"], error["type"]) == (500, "server_error")


def test_the_engine_hangs(checkpoint: Path) -> None:
    with ServerProcess(checkpoint, "--stall-seconds", f"{slowness():.2f}") as server:
        engine = server.engine_id
        with server.client() as client:
            assert client.get("/health").status_code == 200
            os.kill(engine, signal.SIGSTOP)
            while client.get("/health").status_code == 200:
                pass
            for reply in (client.get("/ready"), client.post(CHAT, json=question("Hi"))):
                assert reply.status_code == 503
                assert "the engine makes no progress" in reply.json()["error"]["message"]
        code, _ = server.wait()
    assert code != 0
    assert not is_running(engine)


def test_no_engine_outlives_its_server(checkpoint: Path) -> None:
    with ServerProcess(checkpoint) as server:
        engine = server.engine_id
        server.signal(signal.SIGKILL)
        server.wait()
        while is_running(engine):
            pass


def refused(capsys: pytest.CaptureFixture[str], **flags: Any) -> str:
    """Return what `serve` says, called in this process, whose own logging stays as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "set_up_logging", lambda *, as_json: None)
        with pytest.raises(typer.Exit) as caught:
            serve(**flags)
    assert caught.value.exit_code == 2
    return capsys.readouterr().err


def test_ray_wants_its_extra(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "skipserve.ray.launch", None)
    assert "pip install 'skipserve[ray]'" in refused(capsys, ray=True)


def test_ray_listens_where_one_can(capsys: pytest.CaptureFixture[str]) -> None:
    """It is found out before a cluster is started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = refused(capsys, ray=True, port=taken.getsockname()[1])
    assert "cannot listen on" in said


def test_what_cannot_be_served_is_said(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(checkpoint)
    assert "no model folder gpt-4o" in refused(capsys, model="gpt-4o")
    assert "port" in refused(capsys, port=70_000)
    assert "'ful'" in refused(capsys, model=model, default_skip_policy="ful")
    assert "nothing.yaml" in refused(capsys, model=model, config="nothing.yaml")
    monkeypatch.setenv("SKIPSERVE_DTYPE", "int3")
    assert "dtype" in refused(capsys, model=model)


def test_a_variable_at_fault_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("skipserve_port", "http")
    told = "port: this must be a whole number"
    assert refused(capsys) == f"{told} (in skipserve_port)\n"
    assert refused(capsys, port="x") == f"{told}\n"


@pytest.mark.fast
def test_what_runs_by_default_is_said(settings: Settings, half_checkpoint: Path) -> None:
    def said(**changes: object) -> str:
        built = build(settings.model_copy(update=changes))
        return describe_default(built.serving.processor)

    begun = "Requests that name no skip policy run"
    assert said() == f"{begun} full"
    told = f"{begun} exit-after-24, as --default-skip-policy says: "
    assert said(default_skip_policy="exit-after-24").startswith(told)
    told = rf"{begun} half, this model's own default \(skip-policies\.yaml\): \d\d\.\d % of a"
    assert re.match(told, said(model=str(half_checkpoint)))
    assert (
        said(model=str(half_checkpoint), default_skip_policy="full")
        == f"{begun} full, as --default-skip-policy says"
    )


@pytest.mark.fast
def test_what_auto_chooses_among_is_said(
    settings: Settings, checkpoint: Path, tmp_path: Path
) -> None:
    def said(**changes: object) -> str:
        serving = build(settings.model_copy(update=changes)).serving
        serving.processor.auto.watch(lambda: Surroundings("w"))
        return describe_auto(serving.processor.auto)

    assert said().startswith("auto runs full: no policy was measured on these weights")
    kept = {"exit-after-24": 0.96, "skip-block-every-3-from-16": 0.99}
    model = str(copy_measured(checkpoint, tmp_path, "w", kept))
    assert said(model=model) == (
        "auto chooses the cheapest of 2 policies that keep 0.98 of what the full model reaches, "
        "while requests wait of 3 that keep 0.95"
    )
    default = build(settings.model_copy(update={"default_skip_policy": "auto"})).serving.processor
    assert describe_default(default).startswith("Requests that name no skip policy get one chosen")
    assert example_policy(default) is None


@pytest.mark.fast
def test_a_policy_to_try_is_named_unless_one_runs_unasked(
    settings: Settings, half_checkpoint: Path
) -> None:
    def named(**changes: object) -> str | None:
        return example_policy(build(settings.model_copy(update=changes)).serving.processor)

    assert named() == "skip-block-every-3-from-16"
    assert named(default_skip_policy="exit-after-24") is None
    assert named(model=str(half_checkpoint)) is None
    assert named(model=str(half_checkpoint), default_skip_policy="full") == named()


def test_a_port_that_is_taken(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = refused(capsys, model=str(checkpoint), port=port)
    assert told.startswith(f"cannot listen on 127.0.0.1:{port}: Address already in use; `ss -ltnp")
    assert told.endswith('--port 0; with make: make serve ARGS="--port 0"\n')
    look = re.findall(r"`(ss .*)`", told)[0].split()
    assert look == ["ss", "-ltnp", "sport", "=", f":{port}"]


@pytest.mark.fast
@pytest.mark.parametrize(
    ("host", "shown"),
    [("192.0.2.1", "192.0.2.1"), ("2001:db8::1", r"\[2001:db8::1\]"), ("no-such.invalid", None)],
)
def test_a_host_that_is_none_of_ours(host: str, shown: str | None) -> None:
    with pytest.raises(OSError, match=f"on {shown or host}:8000: .*; --host takes an address"):
        listen(host, 8000)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("host", "reachable"),
    [
        *(("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("0.0.0.0", "127.0.0.1")),
        *(("0", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::1]"), ("::0", "[::1]")),
    ],
)
def test_where_a_listener_is_found(host: str, reachable: str) -> None:
    with listen(host, 0) as listener:
        url = reachable_url(listener)
        assert re.fullmatch(rf"http://{re.escape(reachable)}:\d+", url)
        address = httpx.URL(url)
        socket.create_connection((address.host, address.port or 0)).close()


def test_a_model_without_weights_is_one_line(checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "empty")
    (folder / "model.safetensors").unlink()
    with pytest.raises(AssertionError) as caught, ServerProcess(folder):
        pass
    assert "stopping: there is no model.safetensors in empty" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_a_key_in_a_flag_is_warned_of_without_it() -> None:
    (warning,) = commands._key_warning({"api_key": ["my-secret"], "port": 1})
    assert "SKIPSERVE_API_KEY" in warning
    assert "my-secret" not in warning
    assert not list(commands._key_warning({"port": 1}))


def test_help_lists_every_setting() -> None:
    app = typer.Typer()
    app.command()(serve)
    shown = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, ["--help"]).output
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')}" in shown


@pytest.mark.fast
def test_replies_do_not_wait_for_acknowledgements() -> None:
    with listen("127.0.0.1", 0) as listener:
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
