"""One evaluation from beginning to end: questions, a server, a progress bar, a result."""

import asyncio
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from skipserve_client.client import AsyncSkipserveClient
from skipserve_client.command_group import CommandError
from skipserve_client.evaluate.dataset import Example, demo_examples
from skipserve_client.evaluate.own_server import own_server
from skipserve_client.evaluate.question_file import file_examples
from skipserve_client.evaluate.results import Evaluation
from skipserve_client.evaluate.runner import Runner
from skipserve_client.evaluate.scenes import Split
from skipserve_policies.catalog import load_catalog

DEMO = "demo"
ALL = "all"


@dataclass(frozen=True)
class Order:
    """What to evaluate.

    Attributes:
        data: "demo", or the path of a file of questions.
        policies: names with commas between them, or "all".
        count: ask so many questions.
        url: the server to ask; None to start one.
        api_key: for that server.
        serve_flags: for the server that is started.
        concurrency: requests at a time.
        max_tokens: at most so many tokens are answered.
    """

    data: str
    policies: str
    count: int
    url: str | None
    api_key: str | None
    serve_flags: Sequence[str]
    concurrency: int
    max_tokens: int


def carry_out(order: Order) -> Evaluation:
    """Evaluate; progress goes to the error stream.

    Raises:
        CommandError: the questions cannot be read, or a server of our own does not start.
        ClientError: the server cannot be reached, or refuses a request.
    """
    console = Console(stderr=True)
    with _server(order, console) as url, _progress(console) as progress:
        return asyncio.run(_ask(order, url, progress))


async def _ask(order: Order, url: str, progress: Progress) -> Evaluation:
    task = progress.add_task("questions", total=None)
    async with AsyncSkipserveClient(url, order.api_key) as client:
        names = await _policy_names(client, order.policies)
        progress.update(task, total=order.count * len(names))
        runner = Runner(client, order.concurrency, order.max_tokens, lambda: progress.advance(task))
        return await runner.run(_examples(order), names, keeps_misfits_out=order.policies == ALL)


@contextmanager
def _server(order: Order, console: Console) -> Iterator[str]:
    """Yield the address of the given server, or of one that is started for the while."""
    if order.url is not None:
        yield order.url
        return
    # So that the server does not outlive an evaluation that is told to end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as stack:
        with console.status("Starting a server ..."):
            url = stack.enter_context(own_server(order.serve_flags))
        yield url


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


async def _policy_names(client: AsyncSkipserveClient, policies: str) -> Sequence[str]:
    """Return the names asked for; all are the server's and, to say why not, those that ship."""
    if policies == ALL:
        listed = [policy.name for policy in await client.skip_policies()]
        return list(dict.fromkeys([*listed, *load_catalog()]))
    names = dict.fromkeys(name.strip() for name in policies.split(","))
    if "" in names:
        raise CommandError("--policies takes names with commas between them, or all")
    return list(names)


def _examples(order: Order) -> Iterator[Example]:
    if order.data == DEMO:
        return demo_examples(Split.HELD_OUT, order.count)
    return file_examples(Path(order.data), order.count)
