"""The asking order: always alike, whole groups, types evenly spread."""

import pytest

from skipserve_client.evaluate.data_sets.data_set import UNPLACED
from skipserve_client.evaluate.data_sets.order import first_units
from skipserve_client.evaluate.sample import Sample

pytestmark = pytest.mark.fast


def sample(name: str, kind: str, group: str | None = None) -> Sample:
    return Sample(UNPLACED, b"", name, ("yes",), kind, name, id=name, group=group)


SAMPLES = [sample(f"{kind}{n}", kind) for kind, num in (("a", 60), ("b", 20)) for n in range(num)]


def test_the_order_of_the_file_does_not_matter() -> None:
    one, other = first_units(SAMPLES, None), first_units(reversed(SAMPLES), None)
    assert one == other
    assert [it.index for it in one] == list(range(80))
    assert [it.id for it in one] != [it.id for it in SAMPLES]


def test_any_number_of_questions_has_the_shares_of_the_whole() -> None:
    for count in (8, 20, 40):
        kinds = [it.type for it in first_units(SAMPLES, count)]
        assert abs(kinds.count("b") - count / 4) <= 1
        assert first_units(SAMPLES, count) == first_units(SAMPLES, None)[:count]


def test_groups_stay_together_in_their_order() -> None:
    grouped = [sample(f"{n}/{turn}", "a", f"group {n}") for n in range(9) for turn in range(3)]
    found = first_units(grouped, 4)
    assert len(found) == 12
    for first in range(0, 12, 3):
        ids = [it.id or "" for it in found[first : first + 3]]
        number = ids[0].split("/", maxsplit=1)[0]
        assert ids == [f"{number}/{turn}" for turn in range(3)]
