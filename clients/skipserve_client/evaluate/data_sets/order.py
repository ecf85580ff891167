"""The order in which a published data set is asked, so that its first so many stand for all."""

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from skipserve_client.evaluate.sample import Sample


def first_units(samples: Iterable[Sample], count: int | None) -> tuple[Sample, ...]:
    """Return the questions of the first `count` units, all for None, numbered anew.

    A unit is a question, or the questions of one group, which stay together in their order. The
    files themselves follow pictures and subtasks, so units are shuffled once and for all, by a hash
    of what they are called, with the types evenly spread: the first so many have about the share of
    each type that the whole has.
    """
    units: dict[str, list[Sample]] = {}
    for sample in samples:
        units.setdefault(sample.group or f"question {sample.id}", []).append(sample)
    by_type: dict[str, list[str]] = {}
    for name in sorted(units, key=_lot):
        by_type.setdefault(units[name][0].type, []).append(name)
    places = {
        name: ((rank + 0.5) / len(names), kind)
        for kind, names in by_type.items()
        for rank, name in enumerate(names)
    }
    chosen = sorted(places, key=places.__getitem__)[:count]
    asked = [sample for name in chosen for sample in units[name]]
    return tuple(replace(sample, index=index) for index, sample in enumerate(asked))


def _lot(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
