"""The `skipserve chat` command."""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from skipserve_client.calls import DEFAULT_URL
from skipserve_client.chat.talk import Talk
from skipserve_client.client import SkipserveClient
from skipserve_client.command_group import CommandError, told
from skipserve_client.discovery import check_choices
from skipserve_client.errors import ApiError, ClientError
from skipserve_client.options import (
    ApiKey,
    MaxTokens,
    ModelName,
    Seed,
    Temperature,
    Url,
    chat_options,
)
from skipserve_client.policy_choice import SkipPolicyFlag, read_policy
from skipserve_policies.resolve import PolicyError

_PROMPT = "> "
_HELP = """\
/policy POLICY   answer under this skip policy from now on: a name, or JSON
/policy          say which policy is asked for
/picture FILE    show this picture with the next question
/reset           forget what was said and shown
/save FILE       write the talk as JSON
/help            show this list
/quit            end the talk, as Ctrl-D does; Ctrl-C stops an answer"""

# Ends the talk.
_QUIT = {"/quit", "/exit"}


def chat(  # noqa: PLR0913, PLR0917 (an argument a flag)
    pictures: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PICTURE]...", help="Shown with the first question."),
    ] = None,
    skip_policy: SkipPolicyFlag = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    model: ModelName = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = 0.0,
    seed: Seed = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object a turn, and nothing else.")
    ] = False,
) -> None:
    """Talk with the model about pictures; /help in the talk lists what else can be typed.

    Questions that come through a pipe are asked line by line: the answers go to the output, all
    else to the error stream, and a question that failed makes the exit code 1.
    """
    options = chat_options(temperature, model, max_tokens, seed)
    policies = [] if skip_policy is None else [read_policy(skip_policy, "--skip-policy")]
    with SkipserveClient(url, api_key) as client:
        # Also where no policy is named: a server that is not there is told of before the talk.
        check_choices(policies, client.skip_policies(), "--skip-policy")
        talk = Talk(client, options, policies[0] if policies else None)
        for picture in pictures or ():
            talk.show(picture)
        _carry_on(_Session(talk, sys.stdin.isatty(), as_json))


def _carry_on(session: "_Session") -> None:
    """Take lines until they end.

    Raises:
        CommandError: some that came through a pipe could not be carried out.
    """
    if session.is_typed:
        session.note("/help lists what can be typed; Ctrl-D ends the talk")
        lines = typed_lines(session.note)
    else:
        lines = _piped_lines()
    num_failed = sum(not session.take(line) for line in _until_quit(lines))
    if num_failed and not session.is_typed:
        raise CommandError(f"{num_failed} of the lines could not be carried out")


def _until_quit(lines: Iterator[str]) -> Iterator[str]:
    for line in map(str.strip, lines):
        if line in _QUIT:
            return
        if line:
            yield line


def typed_lines(note: Callable[[str], None]) -> Iterator[str]:
    """Yield what is typed, with the line editing and the history of readline where it is there."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401, PLC0415
    while True:
        try:
            yield _input()
        except EOFError:
            typer.echo(err=True)
            return
        except KeyboardInterrupt:
            typer.echo(err=True)
            note("/quit or Ctrl-D ends the talk")
        except UnicodeDecodeError:
            note("this is not valid UTF-8")


def _input() -> str:
    if sys.stdout.isatty():
        return input(_PROMPT)
    # Python would write the prompt among the answers.
    typer.echo(_PROMPT, nl=False, err=True)
    return input()


def _piped_lines() -> Iterator[str]:
    """Yield lines; bytes that are no text are kept, for they are the fault of one line alone."""
    for line in sys.stdin.buffer:
        yield line.decode(errors="surrogateescape")


@dataclass
class _Session:
    """A talk, and where its answers are shown.

    Attributes:
        is_typed: whether a person types the lines, for whom Ctrl-C stops an answer alone.
    """

    talk: Talk
    is_typed: bool
    as_json: bool
    _is_in_line: bool = False

    def take(self, line: str) -> bool:
        """Carry out a line, and return whether it could be.

        Raises:
            KeyboardInterrupt: an answer was stopped that nobody waits for at a terminal.
        """
        try:
            line.encode()
            if line.startswith("/"):
                self._obey(*line.partition(" ")[::2])
            else:
                self._ask(line)
        except UnicodeEncodeError:
            self._fail(CommandError("the line is not valid UTF-8"))
        except (ClientError, CommandError, PolicyError) as error:
            self._fail(error)
        except KeyboardInterrupt:
            if not self.is_typed:
                raise
            self.note("stopped; the question is forgotten")
        else:
            return True
        return False

    def note(self, text: str) -> None:
        """Tell something that is no answer."""
        self._tell(text, "dim")

    def _ask(self, question: str) -> None:
        turn = self.talk.ask(question, self._show)
        if self.as_json:
            typer.echo(_in_a_line(turn.as_json()))
        elif not turn.text:
            typer.echo()
        self.note(turn.in_a_line())
        if turn.answer is None and not self.is_typed:
            raise KeyboardInterrupt

    def _show(self, piece: str) -> None:
        if not self.as_json:
            typer.echo(piece, nl=False)
            self._is_in_line = True

    def _tell(self, text: str, style: str) -> None:
        if self._is_in_line:
            typer.echo()
            self._is_in_line = False
        Console(stderr=True).print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def _fail(self, error: Exception) -> None:
        if self.as_json:
            about: dict[str, Any] = {"message": told(error)}
            if isinstance(error, ApiError):
                about |= {"status": error.status, "param": error.param}
            typer.echo(_in_a_line({"error": about}))
        self._tell(f"error: {told(error)}", "red")

    def _obey(self, command: str, argument: str) -> None:
        """Carry out a command of the talk.

        Raises:
            CommandError: there is none of that name, or it cannot be carried out.
            ClientError: the server, which is asked for its policies, or a picture is at fault.
        """
        commands: dict[str, Callable[[str], None]] = {
            "/policy": self._choose,
            "/picture": self._picture,
            "/reset": self._reset,
            "/save": self._save,
            "/help": self._help,
        }
        if command not in commands:
            raise CommandError(f"there is no {command}; /help lists what can be typed")
        commands[command](argument.strip())

    def _help(self, _: str) -> None:
        self.note(_HELP)

    def _choose(self, text: str) -> None:
        if text:
            policy = read_policy(text, "/policy")
            check_choices([policy], self.talk.client.skip_policies(), "/policy")
            self.talk.policy = policy
        chosen = self.talk.policy
        self.note("the server's default" if chosen is None else f"policy {chosen.label}")

    def _picture(self, path: str) -> None:
        if not path:
            raise CommandError("/picture takes the name of a file")
        self.talk.show(os.path.expanduser(path))
        self.note(f"goes along with the next question: {len(self.talk.pictures)} in all")

    def _reset(self, _: str) -> None:
        self.talk.reset()
        self.note("nothing was said, and nothing is shown")

    def _save(self, path: str) -> None:
        if not path:
            raise CommandError("/save takes the name of a file")
        text = json.dumps(self.talk.as_json(), indent=2, ensure_ascii=False)
        try:
            Path(os.path.expanduser(path)).write_text(text + "\n", "utf-8")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise CommandError(f"/save {path}: {reason}") from error
        self.note(f"{len(self.talk.turns)} turns are in {path}")


def _in_a_line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
