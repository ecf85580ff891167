"""How a metric is declared: what operators are told of it. Knows none of ours."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Generic, TypeVar

from prometheus_client import Counter, Gauge, Histogram

Family = TypeVar("Family", Counter, Gauge, Histogram)


@dataclass(frozen=True)
class Label:
    """A label of metrics; its values are a closed set.

    Attributes:
        name: as Prometheus knows it.
        values: an enumeration, whose series begin at 0, or words that say what they are.
    """

    name: str
    values: type[StrEnum] | str


class Table:
    """Metrics, as attributes that are called as the metrics are.

    Attributes:
        PREFIX: of their names.
    """

    PREFIX: ClassVar[str]


@dataclass(eq=False)
class Metric(Generic[Family]):
    """A metric, declared as an attribute of a table.

    Attributes:
        family: counter, gauge or histogram.
        meaning: what it counts or shows.
        advice: what to look at when it moves.
        labels: besides the model.
        unit: of its value, or of what a histogram observes; the last word of its name unless given.
        buckets: of a histogram.
        name: as Prometheus knows it.
    """

    family: type[Family]
    meaning: str
    advice: str
    labels: tuple[Label, ...] = ()
    unit: str = ""
    buckets: tuple[float, ...] = ()
    name: str = field(init=False)

    def __set_name__(self, table: type[Table], name: str) -> None:
        self.unit = self.unit or name.rpartition("_")[2]
        self.name = f"{table.PREFIX}{name}{'_total' if self.family is Counter else ''}"


def declared(table: type[Table]) -> list[Metric[Any]]:
    """Return the metrics of a table, in its order."""
    return [it for it in vars(table).values() if isinstance(it, Metric)]
