"""The command-line options that several benchmarks have."""

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[str, typer.Option(help="demo, small, deep, or a folder.")]
Models = Annotated[str, typer.Option(help="demo, small, deep, or folders; commas between.")]
Dtype = Annotated[str, typer.Option(help="As torch names it.")]
Device = Annotated[str, typer.Option(help="As torch names it.")]
Repeats = Annotated[int, typer.Option(min=1, help="Timed turns; one more, the first, warms up.")]
Threads = Annotated[int, typer.Option(min=1, help="Of the arithmetic; two on busy cores are slow.")]
Output = Annotated[Path, typer.Option(help="The JSON file.")]
