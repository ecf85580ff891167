"""The group of all `skipserve` commands: heavy ones load late, errors are one line."""

import errno
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

from skipserve_client.errors import ApiError, ClientError, ConnectionFailedError
from skipserve_policies.faults import plain_cause
from skipserve_policies.resolve import PolicyError

# The extra that brings what a command needs, where the light client does not have it.
_EXTRAS = {"train": "train", "calibrate": "train", "reproduce": "train", "evaluate": "evaluate"}
_UNAUTHORIZED = 401
# What a command exits with that was told to end, by the habit of shells.
INTERRUPTED = 130

_ANY_LENGTH = 10_000


class CommandError(Exception):
    """A command cannot do what was asked; its text says what would help, in a line a fault."""

    exit_code = 1


class InterruptedCommandError(CommandError):
    """A command was told to end before it was done; the shell's code for that is 130."""

    exit_code = INTERRUPTED


class PlainCommand(TyperCommand):
    """A command whose help cuts no name, however narrow the terminal, as typer's boxes do.

    Its flags stand under the titles of their `rich_help_panel`.
    """

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and flags, by title."""
        titled: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                kind = f"{parameter.param_type_name.capitalize()}s"
                title = getattr(parameter, "rich_help_panel", None) or kind
                titled.setdefault(title, []).append(record)
        for title, records in titled.items():
            with formatter.section(title):
                formatter.write_dl(records)


class CommandGroup(TyperGroup):
    """The commands of this package, and those of the entry-point group `skipserve.commands`.

    A command may be called by two words, and another by the first of them alone, which takes
    arguments of its own: `policies add`, and `policies`.

    The latter are imported when they are invoked or listed. An entry point is a function, which
    becomes a command (with its `command_mixin`, where it has one), or a `typer.Typer`, which
    becomes a group of commands.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands of one word, those of entry points last."""
        own = (name for name in super().list_commands(ctx) if " " not in name)
        return [*own, *sorted(_found())]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command by name, imported where it is an entry point's; None if unknown."""
        if command := super().get_command(ctx, cmd_name):
            return command
        entry_point = _found().get(cmd_name)
        return _load(entry_point) if entry_point else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that is asked for; where there is none, name the nearest."""
        pair = " ".join(args[:2])
        if (of_two_words := self.commands.get(pair)) is not None and len(args) > 1:
            return pair, of_two_words, args[2:]
        if args and self.get_command(ctx, args[0]) is None:
            near = get_close_matches(args[0], self.list_commands(ctx), n=1)
            if near and not ctx.resilient_parsing:
                ctx.fail(f"No such command {args[0]!r}; is it {near[0]}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write every command with its whole first sentence."""
        names = dict.fromkeys((*super().list_commands(ctx), *self.list_commands(ctx)))
        commands = [(name, self.get_command(ctx, name)) for name in names]
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, command.get_short_help_str(_ANY_LENGTH)) for name, command in commands]
            )

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an error of the kinds that a user can mend is one red line."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = plain_cause(error) or error.message
            raise
        except ConnectionFailedError as error:
            _complain(f"{error}; start one with `skipserve serve`, or give its address with --url")
        except (CommandError, KeyboardInterrupt) as error:
            _complain(str(error) or "stopped")
            raise typer.Exit(getattr(error, "exit_code", INTERRUPTED)) from error
        except (ClientError, PolicyError) as error:
            _complain(told(error))
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # whoever read has read enough
            _complain(f"{error.filename or 'the output'}: {error.strerror or error}")
        except ModuleNotFoundError as error:
            _complain(_missing(ctx.invoked_subcommand or "", error))
        raise typer.Exit(1)


def _found() -> Mapping[str, EntryPoint]:
    return {found.name: found for found in entry_points(group="skipserve.commands")}


def _load(entry_point: EntryPoint) -> Any:
    try:
        loaded = entry_point.load()
    except ModuleNotFoundError as error:
        return _absent(entry_point.name, _missing(entry_point.name, error))
    if isinstance(loaded, typer.Typer):
        loaded.rich_markup_mode = None
        group = typer.main.get_group(loaded)
        group.name = entry_point.name
        return group
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(entry_point.name, cls=_command_class(loaded))(loaded)
    return typer.main.get_command(app)


def _command_class(loaded: Any) -> type[TyperCommand]:
    mixin = getattr(loaded, "command_mixin", None)
    return PlainCommand if mixin is None else type("Command", (mixin, PlainCommand), {})


def _absent(name: str, message: str) -> Any:
    """Return the stand-in for a command whose packages are not installed; it takes anything."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    anything = {"ignore_unknown_options": True, "allow_extra_args": True}

    @app.command(name, help=f"Not installed: {message}", context_settings=anything)
    def absent() -> None:
        raise CommandError(message)

    return typer.main.get_command(app)


def _missing(command: str, error: ModuleNotFoundError) -> str:
    extra = _EXTRAS.get(command, "server")
    return f"{command} needs the module {error.name}: run pip install 'skipserve[{extra}]'"


def told(error: Exception) -> str:
    """Return what an error says, and how a command is given a key where the server wants one."""
    if isinstance(error, ApiError) and error.status == _UNAUTHORIZED:
        return f"{error}; give the key with --api-key, or in SKIPSERVE_API_KEY"
    return str(error)


def _complain(message: str) -> None:
    Console(stderr=True).print(
        f"[bold red]error:[/] [red]{escape(message)}[/]", highlight=False, soft_wrap=True
    )
