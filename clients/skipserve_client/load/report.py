"""How a load looks in a terminal while it runs and when it is done, and as JSON."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from skipserve_client.load.figures import Figures, Spread, figures_of
from skipserve_client.load.records import Record
from skipserve_client.load.running import Run
from skipserve_client.load.slo import Slo
from skipserve_client.tables import format_share

SCHEMA = "skipserve.load/1"

# Below, it is a token here and there that has no text.
_BUNDLED = 1.1
# Of a core: beyond, what is measured may be this process and not the server.
_BUSY = 0.7
# Beyond, the load is another one than was asked for.
_LATE_SECONDS = 0.01
# What is shown while the load runs is that of the latest requests.
_LATEST = 500
_COLUMNS = ("mean", "p50", "p90", "p95", "p99", "max")


@dataclass(frozen=True)
class Report:
    """What came of a load.

    Attributes:
        run: the load, at its end.
        about: what says which load it was: `kind`, `schema`, the server, the flags.
        way: the same in words.
        slo: what is good, as it was written and as it is read; None for no goodput.
        is_interrupted: whether it was ended early.
    """

    run: Run
    about: Mapping[str, Any]
    way: str
    slo: tuple[str, Slo] | None
    is_interrupted: bool

    @property
    def whole(self) -> Figures:
        """The figures of all requests."""
        return self._figures(self.run.records)

    @property
    def by_policy(self) -> dict[str, Figures]:
        """The figures of each policy's requests."""
        found: dict[str, list[Record]] = {}
        for record in self.run.records:
            found.setdefault(record.policy, []).append(record)
        return {label: self._figures(records) for label, records in sorted(found.items())}

    @property
    def lag(self) -> Spread | None:
        """How late requests were sent; None in a closed loop."""
        return Spread.of(record.lag_seconds for record in self.run.records)

    @property
    def delays(self) -> Spread | None:
        """How late this process came to what was due; None for a load that ended at once."""
        return Spread.of(self.run.delays_seconds)

    @property
    def warnings(self) -> Iterator[str]:
        """What makes the figures doubtful."""
        if self.run.cpu_share > _BUSY:
            share = format_share(self.run.cpu_share)
            yield (
                f"this client used {share} of a core and may be what was measured: let several "
                "share the load"
            )
        if (delays := self.delays) is not None and delays.p99 > _LATE_SECONDS:
            yield f"this client came up to {_ms(delays.p99)} ms late (p99) to see what had come"
        if (lag := self.lag) is not None and lag.p99 > _LATE_SECONDS:
            yield f"requests were sent up to {_ms(lag.p99)} ms late (p99), which their times hold"
        if self.is_interrupted:
            yield f"ended early: {self.run.num_running} requests were under way and do not count"

    def as_json(self) -> dict[str, Any]:
        """Return the form that `--json` prints."""
        return {
            **self.about,
            "seconds": self.run.seconds,
            "is_interrupted": self.is_interrupted,
            "num_unfinished": self.run.num_running,
            "client": {
                "cpu_share": self.run.cpu_share,
                "delay_seconds": None if self.delays is None else asdict(self.delays),
                "lag_seconds": None if self.lag is None else asdict(self.lag),
            },
            "warnings": list(self.warnings),
            "all": asdict(self.whole),
            "by_policy": {label: asdict(it) for label, it in self.by_policy.items()},
        }

    def shown(self) -> Group:
        """Return what a terminal shows."""
        by_policy = self.by_policy
        whole = self.whole
        parts: list[Text | Table] = [Text(line) for line in self._head(whole)]
        if whole.answered:
            parts.append(times_table(whole))
        if len(by_policy) > 1:
            parts.append(_policies_table(by_policy))
        parts += [Text(f"warning: {line}", "yellow") for line in self.warnings]
        return Group(*parts)

    def _figures(self, records: Sequence[Record]) -> Figures:
        return figures_of(records, self.run.seconds, None if self.slo is None else self.slo[1])

    def _head(self, whole: Figures) -> Iterator[str]:
        yield f"{whole.requests} requests in {self.run.seconds:.1f} s, {self.way}"
        yield f"{whole.answered} answered{_told_errors(whole)}"
        yield (
            f"{whole.answers_per_second:.2f} answers/s, {whole.output_tokens_per_second:.1f} "
            f"tokens/s, {whole.cached_tokens} of {whole.prompt_tokens} prompt tokens cached"
        )
        if whole.flops_saved is not None:
            yield f"FLOPs saved: {format_share(whole.flops_saved)} of what full computes"
        if (whole.tokens_per_chunk or 0) >= _BUNDLED:
            yield (
                f"{whole.tokens_per_chunk:.2f} tokens a chunk: those of one share the time since "
                "the chunk before"
            )
        if self.slo is not None and whole.goodput is not None:
            good = whole.goodput
            share = format_share(good.share)
            yield f"goodput at {self.slo[0]}: {share}, {good.per_second:.2f} answers/s"


def _told_errors(figures: Figures) -> str:
    parts = []
    if figures.rejected:
        parts.append(f", {figures.rejected} rejected")
    if figures.failed:
        parts.append(f", {figures.failed} failed")
    codes = ", ".join(f"{code}: {count}" for code, count in figures.errors.items())
    return "".join(parts) + (f" ({codes})" if codes else "")


def times_table(figures: Figures) -> Table:
    """Return the times of answers in milliseconds."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("ms", no_wrap=True)
    for title in _COLUMNS:
        table.add_column(title, justify="right", no_wrap=True)
    spreads = {"first token": figures.ttft, "between tokens": figures.itl, "end": figures.e2e}
    for name, spread in spreads.items():
        if spread is not None:
            table.add_row(name, *(_ms(getattr(spread, column)) for column in _COLUMNS))
    return table


def _policies_table(by_policy: Mapping[str, Figures]) -> Table:
    has_goodput = any(figures.goodput is not None for figures in by_policy.values())
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("policy", overflow="fold")
    titles = ["ok", "first p50", "p99", "end p50", "p99", *(["good"] if has_goodput else [])]
    for title in titles:
        table.add_column(title, justify="right")
    for label, it in by_policy.items():
        times = [
            "" if spread is None else _ms(value)
            for spread in (it.ttft, it.e2e)
            for value in ((spread.p50, spread.p99) if spread else (0.0, 0.0))
        ]
        good = [format_share(it.goodput.share)] if it.goodput is not None else []
        table.add_row(label, f"{it.answered}/{it.requests}", *times, *good)
    return table


def _ms(seconds: float) -> str:
    """Return milliseconds with three digits: 4.56, 45.6, 456, 4560."""
    value = 1000 * seconds
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"


def line_of(run: Run, elapsed: float) -> str:
    """Return how a load goes, in a line."""
    figures = _latest(run.records, elapsed)
    parts = [f"{elapsed:.0f} s: {run.num_sent} sent, {run.num_running} under way"]
    parts.append(f"{sum(it.is_answered for it in run.records)} answered")
    refused = sum(not it.is_answered for it in run.records)
    parts += [f"{refused} not"] if refused else []
    if figures.ttft is not None:
        parts.append(f"first token p50 {_ms(figures.ttft.p50)} ms, p99 {_ms(figures.ttft.p99)} ms")
    return ", ".join(parts)


def live_view(run: Run, elapsed: float) -> Group:
    """Return how a load goes, for a terminal: the times are those of the latest requests."""
    return Group(Text(line_of(run, elapsed)), times_table(_latest(run.records, elapsed)))


def _latest(records: Sequence[Record], elapsed: float) -> Figures:
    return figures_of(records[-_LATEST:], elapsed, None)
