"""What an answer must meet to count as good."""

from collections.abc import Mapping
from dataclasses import dataclass

from skipserve_client.command_group import CommandError
from skipserve_client.load.records import Record

_METRICS = ("ttft", "itl", "e2e")


@dataclass(frozen=True)
class Slo:
    """Limits in seconds, by metric: ttft, itl (the mean of a request) or e2e."""

    limits: Mapping[str, float]

    def is_met(self, record: Record) -> bool:
        """Return whether a request was answered within all limits; one token has no gap."""
        if not record.is_answered:
            return False
        times = {
            "ttft": record.ttft_seconds,
            "itl": record.mean_itl_seconds,
            "e2e": record.e2e_seconds,
        }
        return all((times[name] or 0.0) <= limit for name, limit in self.limits.items())


def read_slo(text: str) -> Slo:
    """Read `--slo`: METRIC:MILLISECONDS, with commas between them.

    Raises:
        CommandError: it is not of this form.
    """
    limits: dict[str, float] = {}
    for part in text.split(","):
        name, _, limit = (it.strip() for it in part.partition(":"))
        try:
            seconds = float(limit) / 1000
        except ValueError:
            seconds = 0.0
        if name not in _METRICS or name in limits or not 0 < seconds < float("inf"):
            raise CommandError(
                f"--slo {text}: give limits in milliseconds, such as ttft:500,itl:50,e2e:2000"
            )
        limits[name] = seconds
    return Slo(limits)
