"""`skipserve keys`: makes keys, and checks the file that names them."""

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel, TypeAdapter, ValidationError
from rich.console import Console

from skipserve.budgets.keys import KeyEntry, KeysFileError, Name, digest_of_key, make_key, read_keys
from skipserve_client.options import AsJson, print_json
from skipserve_policies.faults import faults_of

keys = typer.Typer(no_args_is_help=True, help="Make API keys, and check the file that names them.")


@keys.command()
def new(
    name: Annotated[str, typer.Argument(help="What usage and metrics call it.")],
    admin: Annotated[
        bool,
        typer.Option(
            "--admin",
            help="It may see the metrics and what each key has used, and add skip policies.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a key: print it, which nobody can do again, and the lines for the keys file."""
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError as error:
        raise typer.BadParameter(f"{name!r}: {faults_of(error, BaseModel)[0]}") from error
    key = make_key()
    if as_json:
        print_json({"key": key, "name": name, "sha256": digest_of_key(key).hex(), "admin": admin})
        return
    typer.echo(f"# the key, for whoever asks: {key}", err=True)
    typer.echo("# the lines for --api-keys-file, under keys:", err=True)
    typer.echo(f'  - name: "{name}"\n    sha256: "{digest_of_key(key).hex()}"')
    if admin:
        typer.echo("    admin: true")


@keys.command()
def check(
    file: Annotated[Path, typer.Argument(help="A keys file.")], as_json: AsJson = False
) -> None:
    """Say who is named in a keys file, or what is wrong with it; its policies are not looked up."""
    try:
        entries = read_keys(file, policies=None)
    except KeysFileError as error:
        console = Console(stderr=True)
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    if as_json:
        print_json({"keys": [_told(entry) for entry in entries]})
        return
    for entry in entries:
        rights = "admin" if entry.admin else "client"
        limits = entry.limits.model_dump(exclude_none=True)
        told = ", ".join(f"{name} {value}" for name, value in limits.items())
        typer.echo(f"{entry.name}: {rights}, {told or 'no limits'}")


def _told(entry: KeyEntry) -> dict[str, Any]:
    limits = entry.limits.model_dump(exclude_none=True)
    return {"name": entry.name, "admin": entry.admin, "limits": limits}
