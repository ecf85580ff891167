"""First come, first served, within one budget of rows; pages decide who has to wait again."""

from dataclasses import replace

import pytest
from engine_parts import EngineParts
from fake_decoder import make_request
from hypothesis import given
from hypothesis import strategies as st

from skipserve.engine.scheduler import Step
from skipserve.engine.sequence import NO_SEAT, Sequence

pytestmark = pytest.mark.fast


def _ids(step: Step) -> list[str]:
    return [chunk.sequence.request.id for chunk in step.chunks]


def _chunks(step: Step) -> list[tuple[str, int, int, bool]]:
    return [(c.sequence.request.id, c.start, c.stop, c.samples) for c in step.chunks]


def _add(
    parts: EngineParts, *names: str, num_text: int = 3, max_tokens: int = 4, shares: bool = False
) -> list[Sequence]:
    """Line up requests that have no page in common; those that share are all alike."""
    requests = (make_request(name, num_text=num_text, max_tokens=max_tokens) for name in names)
    return [parts.add(replace(it, cache_salt="" if shares else it.id)) for it in requests]


def test_nothing_is_scheduled_where_there_is_nothing() -> None:
    assert EngineParts().scheduler.schedule().chunks == []


def test_prompts_and_answers_share_a_step() -> None:
    parts = EngineParts()
    _add(parts, "a", num_text=5)
    parts.finish(parts.scheduler.schedule())
    _add(parts, "b", num_text=3)
    step = parts.scheduler.schedule()
    assert _chunks(step) == [("a", 7, 8, True), ("b", 0, 5, True)]
    assert [s.request.id for s in step.placed] == ["b"]
    assert step.num_rows == 6


def test_a_long_prompt_is_cut_into_chunks() -> None:
    parts = EngineParts(max_rows=4)
    _add(parts, "a", "b", num_text=5)
    chunks = []
    for _ in range(4):
        step = parts.scheduler.schedule()
        chunks.append(_chunks(step))
        parts.finish(step)
    assert chunks == [
        [("a", 0, 4, False)],
        [("a", 4, 7, True), ("b", 0, 1, False)],
        [("a", 7, 8, True), ("b", 1, 4, False)],
        [("a", 8, 9, True), ("b", 4, 7, True)],
    ]


def test_only_so_many_run_and_the_rest_comes_in_order() -> None:
    parts = EngineParts(max_running=2)
    _add(parts, "a", "b", "c", "d", max_tokens=1)
    step = parts.scheduler.schedule()
    assert _ids(step) == ["a", "b"]
    assert (parts.scheduler.num_running, parts.scheduler.num_waiting) == (2, 2)
    parts.finish(step)
    assert _ids(parts.scheduler.schedule()) == ["c", "d"]


def test_the_first_in_line_is_not_passed_by_one_that_would_fit() -> None:
    parts = EngineParts(num_pages=4)
    _add(parts, "large", num_text=7)
    parts.finish(parts.scheduler.schedule())
    _add(parts, "larger", num_text=9)
    _add(parts, "small", num_text=0)
    assert _ids(parts.scheduler.schedule()) == ["large"]


def test_an_answer_has_room_beside_its_prompt() -> None:
    """So that its keys need not be sought elsewhere; no more than it can take, though."""
    parts = EngineParts(page_size=4)
    long, short = _add(parts, "a", num_text=2, max_tokens=9), _add(parts, "b", max_tokens=1)
    parts.scheduler.schedule()
    assert (len(long[0].pages), len(short[0].pages)) == (2, 2)
    assert long[0].num_prompt == 4


def test_a_sequence_that_does_not_start_holds_nothing() -> None:
    parts = EngineParts(num_pages=4)
    _add(parts, "a", num_text=10)
    parts.finish(parts.scheduler.schedule(), publishes=True)
    (waiting,) = _add(parts, "b", num_text=10)
    parts.scheduler.schedule()
    assert waiting.seat == NO_SEAT
    assert waiting.pages == []
    assert parts.scheduler.check(parts.scheduler) == []


def test_the_last_one_goes_when_pages_run_out() -> None:
    """Two of 6 prompt tokens, 3 pages each at first, and one page left to grow."""
    parts = EngineParts(num_pages=7)
    first, second = _add(parts, "a", "b", num_text=4, max_tokens=9)
    while parts.scheduler.num_preemptions == 0:
        parts.finish(parts.scheduler.schedule())
    assert first.seat != NO_SEAT
    assert (second.seat, second.pages, second.num_computed) == (NO_SEAT, [], 0)
    num_before = len(second.generated_ids)
    assert num_before > 0
    while second.seat == NO_SEAT:
        parts.finish(parts.scheduler.schedule())
    # Prompt and answer are computed again, as far as no page of them was kept.
    assert second.num_computed == 6 + num_before
    assert parts.scheduler.check(parts.scheduler) == []


def test_a_preempted_sequence_finds_its_own_pages_again() -> None:
    parts = EngineParts(num_pages=7)
    _, second = _add(parts, "a", "b", num_text=4, max_tokens=9)
    while parts.scheduler.num_preemptions == 0:
        parts.finish(parts.scheduler.schedule(), publishes=True)
    assert second.num_cached == 0
    while second.seat == NO_SEAT:
        step = parts.scheduler.schedule()
        parts.finish(step, publishes=True)
    (start,) = (chunk.start for chunk in step.chunks if chunk.sequence is second)
    assert start > 0
    assert second.num_cached == 0, "what is reported is what the first run found"


def test_a_second_prompt_starts_behind_the_pages_that_it_shares() -> None:
    parts = EngineParts()
    (first,) = _add(parts, "a", num_text=7, shares=True)
    parts.finish(parts.scheduler.schedule(), publishes=True)
    (second,) = _add(parts, "b", num_text=7, shares=True)
    step = parts.scheduler.schedule()
    assert step.chunks[-1].start == 8 == second.num_cached
    assert second.pages[:2] == first.pages[:2]
    assert second.pages[2] != first.pages[2]
    assert second.num_published == 2


def test_a_prompt_waits_for_pages_that_are_being_computed_and_others_pass() -> None:
    parts = EngineParts(max_rows=14)
    first, second, *_ = _add(parts, "a", "b", num_text=9, shares=True)
    _add(parts, "c", num_text=1)
    step = parts.scheduler.schedule()
    assert _ids(step) == ["a", "c"]
    parts.finish(step, publishes=True)
    assert _ids(parts.scheduler.schedule()) == ["a", "c", "b"]
    assert second.num_cached == 8
    assert second.pages[:2] == first.pages[:2]


def test_a_prompt_does_not_wait_for_one_that_went_back_to_wait() -> None:
    parts = EngineParts(max_rows=4)
    first, second = _add(parts, "a", "b", num_text=9, shares=True)
    parts.finish(parts.scheduler.schedule(), publishes=True)
    assert second.seat == NO_SEAT
    parts.scheduler.end(first)
    step = parts.scheduler.schedule()
    assert [chunk[:2] for chunk in _chunks(step)] == [("b", 4)]


def test_answers_go_before_a_long_prompt_that_came_earlier() -> None:
    """The held-back prompt starts after the younger one, and has more rows than a step."""
    parts = EngineParts(max_rows=12)
    _add(parts, "a", num_text=8, shares=True)
    parts.add(replace(make_request("long", num_text=30), cache_salt=""))
    _add(parts, "young", num_text=0, max_tokens=9)
    parts.finish(parts.scheduler.schedule(), publishes=True)
    for _ in range(3):
        step = parts.scheduler.schedule()
        assert "young" in _ids(step)
        assert "long" in _ids(step)
        parts.finish(step, publishes=True)


def test_nobody_waits_where_nothing_is_reused() -> None:
    parts = EngineParts(reuses_prefixes=False)
    _add(parts, "a", "b", num_text=9, shares=True)
    assert _ids(parts.scheduler.schedule()) == ["a", "b"]


def test_the_last_prompt_row_is_always_computed() -> None:
    parts = EngineParts()
    _add(parts, "a", num_text=6, shares=True)
    parts.finish(parts.scheduler.schedule(), publishes=True)
    (second,) = _add(parts, "b", num_text=6, shares=True)
    parts.scheduler.schedule()
    assert second.num_cached == 4, "8 prompt rows are two pages, but the last row is needed"


@pytest.mark.parametrize("started", [True, False])
def test_a_removed_sequence_gives_all_back(started: bool) -> None:
    parts = EngineParts(max_running=1)
    first, second = _add(parts, "a", "b")
    parts.scheduler.schedule()
    parts.scheduler.end(first if started else second)
    if started:
        assert parts.pool.num_used == 0
        assert _ids(parts.scheduler.schedule()) == ["b"]
    assert parts.scheduler.check(parts.scheduler) == []


def test_a_token_that_is_not_read_yet_can_be_fed() -> None:
    """The next step can be made before the tokens of the last one are known."""
    parts = EngineParts()
    (sequence,) = _add(parts, "a", num_text=1, max_tokens=2)
    parts.scheduler.schedule()
    step = parts.scheduler.schedule()
    assert [chunk[1:] for chunk in _chunks(step)] == [(3, 4, True)]
    assert sequence.num_unread == 2
    assert parts.scheduler.schedule().chunks == []


@given(st.data())
def test_steps_keep_the_budget_and_everyone_gets_done(data: st.DataObject) -> None:
    max_rows = data.draw(st.integers(1, 12))
    parts = EngineParts(num_pages=data.draw(st.integers(8, 24)), max_rows=max_rows, max_running=3)
    sizes = data.draw(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 6)), max_size=6))
    sequences = [
        parts.add(make_request(str(i), num_text=num_text, max_tokens=max_tokens))  # some share
        for i, (num_text, max_tokens) in enumerate(sizes)
    ]
    for _ in range(400):
        step = parts.scheduler.schedule()
        if not step.chunks:
            break
        assert step.num_rows == sum(c.stop - c.start for c in step.chunks) <= max_rows
        assert parts.scheduler.check(parts.scheduler) == []
        parts.finish(step, publishes=True)
    assert [len(s.generated_ids) for s in sequences] == [max_tokens for _, max_tokens in sizes]
    assert (parts.pool.num_used, parts.tables.num_free) == (0, 3)


def test_a_step_that_did_not_run_is_taken_back() -> None:
    """Whoever is over by then stays away; the others keep what they have and their order."""
    parts = EngineParts(max_rows=9)
    first, over, last = _add(parts, "a", "b", "c")
    parts.finish(parts.scheduler.schedule())
    parts.scheduler.end(over)
    over.is_over = True
    step = parts.scheduler.schedule()
    assert _ids(step) == ["a", "c"]
    step.add(over, over.num_tokens)
    parts.scheduler.take_back(step)
    assert (parts.scheduler.num_running, parts.pool.num_used) == (0, 0)
    assert [(s.num_tokens, s.num_computed, s.seat) for s in (first, last)] == [
        (6, 0, NO_SEAT),
        (5, 0, NO_SEAT),
    ]
    assert parts.scheduler.num_preemptions == 2
    assert list(parts.scheduler) == [first, last]
    assert parts.scheduler.check([first, last]) == []
    again = parts.scheduler.schedule()
    assert [chunk[:3] for chunk in _chunks(again)] == [("a", 0, 6), ("c", 0, 3)]


def test_the_check_finds_what_is_wrong() -> None:
    parts = EngineParts(max_running=3)
    first, second = _add(parts, "a", "b")
    parts.scheduler.schedule()
    assert parts.scheduler.check([first]) != []
    parts.tables.pages[first.seat, 0] += 1
    assert "page table" in " ".join(parts.scheduler.check([first, second]))
    parts.tables.pages[first.seat, 0] -= 1
    first.seat, seat = second.seat, first.seat
    assert "seats" in " ".join(parts.scheduler.check([first, second]))
    first.seat = seat
    parts.pool.release(first.pages)
    assert "holds" in " ".join(parts.scheduler.check([first, second]))
