"""One evaluation from beginning to end: questions, a server, a progress bar, a result."""

import asyncio
import signal
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from skipserve_client.client import AsyncSkipserveClient
from skipserve_client.command_group import CommandError, InterruptedCommandError, told
from skipserve_client.discovery import model_of, policies_of
from skipserve_client.errors import ClientError
from skipserve_client.evaluate.baseline import read_baseline
from skipserve_client.evaluate.own_server import own_server
from skipserve_client.evaluate.questions_by_name import questions_of
from skipserve_client.evaluate.records import Conditions, Record, RecordFile, check_conditions
from skipserve_client.evaluate.results import Evaluation
from skipserve_client.evaluate.runner import Place, Runner
from skipserve_client.evaluate.sample import Questions, Sample
from skipserve_client.policy_choice import PolicyChoice
from skipserve_client.replies import ModelInfo, PolicyInfo
from skipserve_policies.catalog import load_catalog
from skipserve_policies.named import FULL

ALL = "all"
# They end an evaluation as Ctrl-C does, which asyncio sees to.
_ENDINGS = (signal.SIGTERM, signal.SIGHUP)
_ANY_QUESTION = [{"role": "user", "content": "?"}]
_CONDITIONS = set(Conditions.model_fields)


@dataclass(frozen=True)
class Order:
    """What to evaluate.

    Attributes:
        data: "demo", "demo-steps", "easy-vqa", the name of a published data set, or the path of a
            file of questions.
        data_folder: where a published data set lies; None for where easy-VQA is kept.
        policies: what to compare; one that is called "all" stands for the server's.
        count: ask so many questions; None for all there are, 1000 of the demo's.
        url: the server to ask; None to start one.
        api_key: for that server.
        serve_flags: for the server that is started.
        concurrency: requests at a time.
        max_tokens: at most so many tokens are answered.
        output: the file of records, which an earlier run may have begun; None for none to keep.
        model_name: of the server's names, which to ask for; None for its first.
        baseline: the file of another model's records, which answers are held against; None for
            this model's own under `full`.
    """

    data: str
    data_folder: Path | None
    policies: Sequence[PolicyChoice]
    count: int | None
    url: str | None
    api_key: str | None
    serve_flags: Sequence[str]
    concurrency: int
    max_tokens: int
    output: Path | None
    model_name: str | None = None
    baseline: Path | None = None


def carry_out(order: Order) -> Evaluation:
    """Evaluate; progress goes to the error stream.

    Raises:
        CommandError: the questions or the file of records cannot be used, a server of our own
            does not start, or the run broke off; what was answered is kept then.
        ClientError: the server cannot be reached, or refuses the first request.
    """
    console = Console(stderr=True)
    with console.status("Checking the questions ..."):
        questions = questions_of(order.data, order.data_folder, order.count)
        baseline = () if order.baseline is None else read_baseline(order.baseline, questions)
    with _record_file(order.output) as file:
        try:
            with _server(order, console) as url, _progress(console) as progress:
                found = asyncio.run(_Asking(order, questions, file, progress).run(url))
                return replace(found, baseline=baseline)
        except (KeyboardInterrupt, asyncio.CancelledError) as error:
            raise InterruptedCommandError(f"stopped; {_how_to_go_on(file, order)}") from error


def scored_again(file: Path) -> Evaluation:
    """Score the answers that a file of records holds; asks nothing, and needs no data set.

    Raises:
        CommandError: it is no such file, or its policies were not asked the same questions.
    """
    if not file.is_file():
        raise CommandError(f"there is no file of records at {file}")
    with RecordFile(file) as opened:
        latest = {(record.policy, record.index): record for record in opened.records}
    if not latest:
        raise CommandError(f"{file} holds no answers")
    records = list(latest.values())
    conditions = Conditions.model_validate(records[0].model_dump(include=_CONDITIONS))
    for record in records:
        check_conditions(record, conditions, file)
    found = _by_policy(dict.fromkeys(record.policy for record in records), records)
    asked = {name: [record.index for record in own] for name, own in found.items()}
    first, *others = asked
    for name in others:
        if asked[name] != asked[first]:
            raise CommandError(
                f"{file}: {name} was not asked the questions that {first} was; the command that "
                "wrote it asks what is missing"
            )
    return Evaluation(conditions, found, {})


@contextmanager
def _record_file(output: Path | None) -> Iterator[RecordFile]:
    """Yield the file of records; one that nobody named is kept only where it may be needed."""
    if output is not None:
        with RecordFile(output) as file:
            yield file
        return
    with tempfile.NamedTemporaryFile(
        prefix="skipserve-evaluate-", suffix=".jsonl", delete=False
    ) as made:
        path = Path(made.name)
    is_needed = False
    try:
        with RecordFile(path) as file:
            yield file
    except BaseException:
        is_needed = bool(file.records)
        raise
    finally:
        if not is_needed:
            path.unlink(missing_ok=True)


def _how_to_go_on(file: RecordFile, order: Order) -> str:
    if not file.records:
        return "nothing was answered"
    more = "" if order.output is not None else f" with --output {file.path}"
    kept = f"{file.path} keeps {len(file.records)} answers"
    return f"{kept}; the same command{more} asks what is missing"


@contextmanager
def _server(order: Order, console: Console) -> Iterator[str]:
    """Yield the address of the given server, or of one that is started for the while."""
    # So that a server does not outlive an evaluation that is told to end.
    before = {number: signal.signal(number, signal.default_int_handler) for number in _ENDINGS}
    try:
        if order.url is not None:
            yield order.url
            return
        with ExitStack() as stack:
            with console.status("Starting a server ..."):
                url = stack.enter_context(own_server(order.serve_flags))
            yield url
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@dataclass(frozen=True)
class _Asking:
    """One run of the questions against a server."""

    order: Order
    questions: Questions
    file: RecordFile
    progress: Progress

    @property
    def samples(self) -> Sequence[Sample]:
        """The questions, in their order."""
        return self.questions.samples

    async def run(self, url: str) -> Evaluation:
        """Ask what the file does not hold yet, and sum up; a signal to end cancels it."""
        if (this := asyncio.current_task()) is not None:
            for number in _ENDINGS:
                asyncio.get_running_loop().add_signal_handler(number, this.cancel)
        async with AsyncSkipserveClient(url, self.order.api_key) as client:
            listed = await policies_of(client)
            asked = await model_of(client, self.order.model_name, "--model-name")
            if listed is not None and asked.weights_digest is None:
                # It is still loading; this waits until it is done.
                await client.chat(_ANY_QUESTION, max_tokens=1)
                asked = await model_of(client, self.order.model_name, "--model-name")
            choices = self._choices(listed, asked.id)
            conditions = self._conditions(asked)
            kept = self.file.kept(self.samples, [it.label for it in choices], conditions)
            _check_digests(kept.values(), listed or (), self.file)
            runner = Runner(
                client,
                conditions,
                on_record=self.file.add,
                model=asked.id if listed is None else self.order.model_name,
                has_policies=listed is not None,
            )
            try:
                left_out = await self._ask(runner, choices, kept)
            except (ClientError, CommandError) as error:
                if not self.file.records:
                    raise
                going_on = _how_to_go_on(self.file, self.order)
                raise CommandError(f"{told(error)}; {going_on}") from error
        complete = self.file.kept(self.samples, [it.label for it in choices], conditions)
        asked_under = [it.label for it in choices if it.label not in left_out]
        inline = {it.label: it.value for it in choices if it.value != it.label}
        found = _by_policy(asked_under, complete.values())
        return Evaluation(conditions, found, left_out, inline, self.samples)

    def _choices(self, listed: Sequence[PolicyInfo] | None, model: str) -> Sequence[PolicyChoice]:
        if listed is not None:
            return _expanded(self.order.policies, listed)
        if named := [it.label for it in self.order.policies if it.label not in (ALL, FULL)]:
            raise CommandError(
                f"--policies {', '.join(named)}: the server lists no skip policies; it can be "
                "measured as it is, without --policies"
            )
        return [PolicyChoice(model, model)]

    def _conditions(self, model: ModelInfo) -> Conditions:
        return Conditions(
            data=self.questions.name,
            model=model.root or model.id,
            model_digest=model.weights_digest,
            dtype=model.dtype,
            device=model.device,
            max_tokens=self.order.max_tokens,
            concurrency=self.order.concurrency,
        )

    async def _ask(
        self, runner: Runner, choices: Sequence[PolicyChoice], kept: Mapping[Place, Record]
    ) -> dict[str, str]:
        """Ask, and return the policies that the model cannot run, with the reason."""
        task = self.progress.add_task("questions", total=None)

        def take(record: Record) -> None:
            self.file.add(record)
            self.progress.advance(task)

        asking = replace(runner, on_record=take)
        counts = Counter(label for label, _ in kept)
        missing = [it for it in choices if counts[it.label] < len(self.samples)]
        left_out = await self._left_out(asking, missing)
        total = len(self.samples) * (len(choices) - len(left_out))
        self.progress.update(task, total=total, completed=len(kept))
        if kept:
            self.progress.console.print(
                f"{self.file.path} holds {len(kept)} of {total} answers",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        fitting = [choice for choice in missing if choice.label not in left_out]
        await asking.run(self.samples, fitting, kept)
        return left_out

    async def _left_out(self, runner: Runner, choices: Sequence[PolicyChoice]) -> dict[str, str]:
        """Warm the server up; return which policies it refuses that nobody asked for by name."""
        named = {choice.label for choice in self.order.policies}
        reasons = {
            choice.label: await runner.refusal(
                self.samples[0], choice, may_refuse=choice.label not in named
            )
            for choice in choices
        }
        return {label: reason for label, reason in reasons.items() if reason is not None}


def _expanded(
    choices: Sequence[PolicyChoice], listed: Sequence[PolicyInfo]
) -> Sequence[PolicyChoice]:
    """Return what to compare; all are the server's and, to say why not, those that ship."""
    everything = [*(policy.name for policy in listed), *load_catalog()]
    expanded = {
        label: PolicyChoice(label, label) if choice.label == ALL else choice
        for choice in choices
        for label in (everything if choice.label == ALL else [choice.label])
    }
    return list(expanded.values())


def _check_digests(
    records: Iterable[Record], listed: Sequence[PolicyInfo], file: RecordFile
) -> None:
    """Refuse answers under a policy whose name means something else by now."""
    digests = {policy.name: policy.digest for policy in listed}
    for record in records:
        if digests.get(record.policy, record.policy_digest) != record.policy_digest:
            raise CommandError(
                f"{file.path} holds answers under another policy that was called {record.policy}: "
                "name another file with --output"
            )


def _by_policy(policies: Iterable[str], records: Iterable[Record]) -> dict[str, list[Record]]:
    """Return each policy's records, in the order of the questions."""
    found: dict[str, list[Record]] = {policy: [] for policy in policies}
    for record in sorted(records, key=lambda record: record.index):
        if record.policy in found:
            found[record.policy].append(record)
    return found
