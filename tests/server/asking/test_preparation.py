"""Tests of the time that a question has, and of its pictures on their way."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
from pictures import data_uri, encode, question, random_picture

from skipserve.api.forms.chat import read_chat
from skipserve.api.wire import ChatForm
from skipserve.app import Built, pool_spec
from skipserve.asking.asker import Asker
from skipserve.asking.preparation import Preparation
from skipserve.asking.question import Prepared
from skipserve.asking.terms import TimeLimits
from skipserve.budgets.client import Client
from skipserve.engine.reports import Stage
from skipserve.errors import NotFoundError, RequestTimeoutError
from skipserve.grammar.compiler import GrammarCompiler
from skipserve.grammar.structure import Structure
from skipserve.media.data_uri import EncodedImage
from skipserve.media.messages import Fitted
from skipserve.media.places import Owner
from skipserve.media.pool import PicturePool
from skipserve.settings import Settings

URLS = [data_uri(encode(random_picture(30, 20, seed=seed))) for seed in (0, 1)]


@dataclass
class FakeCompiler:
    """Makes a grammar of each shape by repeating it, or none ever."""

    is_stuck: bool = False

    async def compile(self, structure: Structure, owner: Owner) -> str:
        if self.is_stuck:
            await asyncio.Event().wait()
        return f"{structure.shape} for {owner!r}"


NO_GRAMMARS = cast(GrammarCompiler, None)


@dataclass
class FakePool:
    """Decodes here, or never."""

    fit_here: Callable[[EncodedImage], bytes]
    is_stuck: bool = False
    owners: list[Owner] = field(default_factory=list)
    is_cancelled: bool = False

    async def fit(self, images: Sequence[EncodedImage], owner: Owner) -> list[Fitted]:
        self.owners.append(owner)
        try:
            if self.is_stuck:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.is_cancelled = True
            raise
        return [Fitted(self.fit_here(image), 600, 0.0) for image in images]


@pytest.fixture
def pool(idle: Built) -> FakePool:
    preprocessor = idle.serving.processor.preprocessor
    return FakePool(lambda image: preprocessor.read(image, 10**6).pixels)


def prepare(
    built: Built, pool: Any, *urls: str, waited: float = 0.0, times: TimeLimits | None = None,
    compiler: FakeCompiler | None = None, **fields: Any,
) -> Prepared:  # fmt: skip
    processor = built.serving.processor
    compiler = compiler or FakeCompiler()
    if times is not None:
        processor = replace(processor, terms=replace(processor.terms, times=times))
    asked = read_chat(ChatForm.model_validate(question("Hi", *urls, **fields)))
    asker = Asker(Client("somebody"), None, time.perf_counter() - waited)
    grammars = cast(GrammarCompiler, compiler)
    preparation = Preparation(processor, cast(PicturePool, pool), grammars)
    return asyncio.run(preparation.prepare(asked, asker, None))


@pytest.mark.fast
def test_pictures_are_fitted_in_their_order(idle: Built, pool: FakePool) -> None:
    prepared = prepare(idle, pool, *URLS)
    files = idle.serving.processor.read_images(
        read_chat(ChatForm.model_validate(question("Hi", *URLS)))
    )
    fitted = [pool.fit_here(it) for it in files if isinstance(it, EncodedImage)]
    assert [it.pixels for it in prepared.request.images] == fitted
    assert pool.owners == ["somebody"]
    stages = {Stage.DECODE_IMAGE, Stage.PREPROCESS, Stage.TOKENIZE}
    assert prepared.stage_seconds.keys() == stages


@pytest.mark.fast
def test_text_waits_for_no_picture(idle: Built, pool: FakePool) -> None:
    pool.is_stuck = True
    assert prepare(idle, pool).request.images == ()
    assert pool.owners == []


@pytest.mark.fast
@pytest.mark.parametrize(
    ("times", "fields"),
    [
        (TimeLimits(), {"timeout_seconds": 0.3}),
        (TimeLimits(request_seconds=0.3), {}),
        (TimeLimits(request_seconds=0.3), {"timeout_seconds": 100}),
    ],
)
def test_a_question_s_time_ends_its_wait_for_pictures(
    idle: Built, pool: FakePool, times: TimeLimits, fields: dict[str, Any]
) -> None:
    pool.is_stuck = True
    with pytest.raises(RequestTimeoutError, match="timeout_seconds"):
        prepare(idle, pool, *URLS, times=times, **fields)
    assert pool.is_cancelled


@pytest.mark.fast
def test_the_engine_gets_the_time_that_is_left(idle: Built, pool: FakePool) -> None:
    times = TimeLimits(request_seconds=1000)
    seconds = prepare(idle, pool, *URLS, waited=600, times=times).request.deadline_seconds
    assert seconds is not None
    assert seconds < 400
    assert prepare(idle, pool, waited=600, times=times).request.deadline_seconds == 1000
    assert prepare(idle, pool, *URLS, times=TimeLimits()).request.deadline_seconds is None


@pytest.mark.fast
def test_what_is_cheap_to_find_is_found_before_pictures(idle: Built, pool: FakePool) -> None:
    with pytest.raises(NotFoundError):
        prepare(idle, pool, *URLS, skip_policy="nope")
    assert pool.owners == []


def test_a_pool_of_processes_gives_the_same(
    idle: Built, pool: FakePool, settings: Settings
) -> None:
    async def run() -> tuple[bytes, ...]:
        processor = idle.serving.processor
        processes = PicturePool(pool_spec(settings, processor.preprocessor.kind))
        asked = read_chat(ChatForm.model_validate(question("Hi", *URLS)))
        try:
            prepared = await Preparation(processor, processes, NO_GRAMMARS).prepare(
                asked, Asker(Client("a"), None, time.perf_counter()), None
            )
        finally:
            await processes.close()
        return tuple(image.digest for image in prepared.request.images)

    expected = tuple(it.digest for it in prepare(idle, pool, *URLS).request.images)
    assert asyncio.run(run()) == expected


ANY_OBJECT: dict[str, Any] = {"response_format": {"type": "json_object"}}


@pytest.mark.fast
@pytest.mark.parametrize("urls", [(), URLS])
def test_what_an_answer_is_held_to_is_compiled_first(
    idle: Built, pool: FakePool, urls: Sequence[str]
) -> None:
    prepared = prepare(idle, pool, *urls, **ANY_OBJECT)
    adjustments = prepared.request.sampling.adjustments
    assert adjustments is not None
    assert adjustments.grammar is not None
    assert "object" in adjustments.grammar.text
    assert "somebody" in adjustments.grammar.text
    assert adjustments.grammar.param == "response_format"
    assert len(prepared.request.images) == len(urls)
    assert Stage.COMPILE_GRAMMAR in prepared.stage_seconds


@pytest.mark.fast
def test_a_question_s_time_ends_its_wait_for_a_grammar(idle: Built, pool: FakePool) -> None:
    stuck = FakeCompiler(is_stuck=True)
    with pytest.raises(RequestTimeoutError, match="timeout_seconds"):
        prepare(idle, pool, compiler=stuck, timeout_seconds=0.2, **ANY_OBJECT)


@pytest.mark.fast
def test_a_policy_is_looked_up_before_a_grammar_is_compiled(idle: Built, pool: FakePool) -> None:
    stuck = FakeCompiler(is_stuck=True)
    with pytest.raises(NotFoundError):
        prepare(idle, pool, compiler=stuck, skip_policy="nope", **ANY_OBJECT)
