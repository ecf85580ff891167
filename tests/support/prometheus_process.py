"""Runs a real Prometheus on a free loopback port, and asks it."""

import contextlib
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import programs
from children import running
from patience import Patience

_WAIT_SECONDS = 30
_POLL_SECONDS = 0.1


def program(name: str) -> str:
    """Return where `prometheus` or `promtool` is; do without the test where it is missing."""
    return programs.find(name, "apt-get install prometheus")


class PrometheusProcess:
    """A Prometheus that runs while the context lasts.

    Attributes:
        url: where it listens.

    Args:
        config: its configuration.
        storage: an empty folder.
    """

    def __init__(self, config: Path, storage: Path) -> None:
        self._command = [
            program("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={storage}",
            "--web.listen-address=127.0.0.1:0",
        ]
        self.url = ""

    def __enter__(self) -> "PrometheusProcess":
        with contextlib.ExitStack() as stack:
            process = stack.enter_context(running(self._command, stderr=subprocess.PIPE, text=True))
            self.url = self._read_url(process)
            self._client = stack.enter_context(
                httpx.Client(base_url=self.url, timeout=None, trust_env=False)
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @staticmethod
    def _read_url(process: subprocess.Popen[str]) -> str:
        assert process.stderr is not None
        said = url = ""
        # It listens before it answers, and says little after that: its pipe does not fill.
        for line in process.stderr:
            said += line
            if found := re.search(r'"Listening on" address=(\S+)', line):
                url = f"http://{found.group(1)}"
            if "Server is ready to receive web requests" in line:
                return url
        raise AssertionError(f"Prometheus ended before it was ready: {said}")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series that an expression gives now, each with its labels and value.

        Raises:
            AssertionError: the expression cannot be evaluated.
        """
        reply = self._client.post("/api/v1/query", data={"query": expression})
        answer = reply.json()
        assert answer["status"] == "success", f"{answer.get('error')}: {expression}"
        # So many results hold one sample a series, but for a lone number.
        assert answer["data"]["resultType"] == "vector", expression
        series: list[dict[str, Any]] = answer["data"]["result"]
        return series

    def wait_for(self, expression: str) -> list[dict[str, Any]]:
        """Return the series that an expression gives, once it gives any.

        Raises:
            AssertionError: it gives none for long.
        """
        patience = Patience(_WAIT_SECONDS)
        while not patience.is_over:
            if found := self.query(expression):
                return found
            # It tells nobody when it has scraped: one can only ask again.
            time.sleep(_POLL_SECONDS)
        raise AssertionError(f"no series for long: {expression}")

    def rules(self) -> list[dict[str, Any]]:
        """Return all rules with their health."""
        groups = self._client.get("/api/v1/rules").raise_for_status().json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]
