"""All that is done for a question before the engine, in the time that the question has."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from skipserve.asking.asker import Asker
from skipserve.asking.processor import QuestionProcessor
from skipserve.asking.question import Prepared, Question
from skipserve.engine.reports import FailureKind, Stage
from skipserve.engine.request import Grammar
from skipserve.errors import RequestTimeoutError
from skipserve.grammar.compiler import GrammarCompiler
from skipserve.media.data_uri import EncodedImage
from skipserve.media.messages import Fitted
from skipserve.media.pool import PicturePool
from skipserve.media.remote import ImageFetcher


@dataclass(frozen=True)
class Preparation:
    """Makes questions ready for the engine. A question without pictures waits for none.

    Attributes:
        processor: what questions are prepared with.
        pictures: where pictures are decoded.
        grammars: where what answers are held to is compiled.
        fetcher: fetches those that are elsewhere; None where that is switched off.
    """

    processor: QuestionProcessor
    pictures: PicturePool
    grammars: GrammarCompiler
    fetcher: ImageFetcher | None = None

    async def close(self) -> None:
        """End what is done for questions; no other is taken. They end on their own."""
        await self.pictures.close()
        await self.grammars.close()
        if self.fetcher is not None:
            await self.fetcher.close()

    async def prepare(
        self, question: Question, asker: Asker, num_cache_tokens: int | None
    ) -> Prepared:
        """Return the request that a question becomes. Cancelling it ends what is done for it.

        Args:
            question: what is asked.
            asker: who asks.
            num_cache_tokens: positions that the engine's cache holds; None for no limit.

        Raises:
            RequestTimeoutError: its time is over before its pictures are ready.
            SkipserveError: any of those that a client can be told of, but for the engine's.
        """
        if not question.image_uris and not question.wants_grammar:
            return await self._prepare(question, asker, num_cache_tokens)
        seconds_left = self._seconds_left(question, asker)
        try:
            async with asyncio.timeout(seconds_left):
                if question.wants_grammar:
                    return await self._prepare_with_grammar(question, asker, num_cache_tokens)
                return await self._prepare(question, asker, num_cache_tokens)
        except TimeoutError as error:
            raise RequestTimeoutError(
                "the request took longer than it may while what it brings was fetched, decoded and "
                "compiled; ask for more time with timeout_seconds, or send smaller images",
                reason=FailureKind.DEADLINE,
            ) from error

    async def _prepare(
        self, question: Question, asker: Asker, num_cache_tokens: int | None
    ) -> Prepared:
        if question.image_uris:
            return await self._prepare_with_pictures(question, asker, num_cache_tokens)
        return await asyncio.to_thread(self.processor.prepare, question, asker, num_cache_tokens)

    async def _prepare_with_grammar(
        self, question: Question, asker: Asker, num_cache_tokens: int | None
    ) -> Prepared:
        begun = time.perf_counter()
        structure = await asyncio.to_thread(self.processor.structure, question, asker)
        assert structure is not None
        text = await self.grammars.compile(structure, asker.client.owner)
        seconds = time.perf_counter() - begun
        generation = replace(
            question.generation,
            grammar=Grammar(text, structure.param),
            call_form=self.processor.call_form if question.tools else None,
        )
        question = replace(question, generation=generation)
        prepared = await self._prepare(question, asker, num_cache_tokens)
        prepared.stage_seconds[Stage.COMPILE_GRAMMAR] = seconds
        return prepared

    async def _prepare_with_pictures(
        self, question: Question, asker: Asker, num_cache_tokens: int | None
    ) -> Prepared:
        begun = time.perf_counter()
        async with self._files(question, asker) as (files, fetch_seconds):
            fitted = await self.pictures.fit(files, asker.client.owner)
        seconds = time.perf_counter() - begun - fetch_seconds
        prepared = await asyncio.to_thread(self._finish, question, fitted, asker, num_cache_tokens)
        fit_seconds = sum(it.fit_seconds for it in fitted)
        prepared.stage_seconds.update(
            {Stage.DECODE_IMAGE: max(seconds - fit_seconds, 0.0), Stage.PREPROCESS: fit_seconds}
        )
        if fetch_seconds:
            prepared.stage_seconds[Stage.FETCH_IMAGE] = fetch_seconds
        return prepared

    @asynccontextmanager
    async def _files(
        self, question: Question, asker: Asker
    ) -> AsyncGenerator[tuple[list[EncodedImage], float], None]:
        """Hold the files of a question's images, and tell how long those elsewhere took."""
        images = await asyncio.to_thread(
            self.processor.read_images, question, asker, fetches=self.fetcher is not None
        )
        here = [image for image in images if isinstance(image, EncodedImage)]
        if self.fetcher is None or len(here) == len(images):
            yield here, 0.0
            return
        begun = time.perf_counter()
        async with self.fetcher.fetched(images, asker.client.owner) as files:
            yield files, time.perf_counter() - begun

    def _finish(
        self,
        question: Question,
        fitted: Sequence[Fitted],
        asker: Asker,
        num_cache_tokens: int | None,
    ) -> Prepared:
        # The digests are made here: a process that a picture has taken over would tell others.
        images = tuple(self.processor.preprocessor.image(it.pixels) for it in fitted)
        # What its pictures took is not the engine's to give again.
        question = replace(
            question,
            images=images,
            image_uris=(),
            timeout_seconds=self._seconds_left(question, asker),
        )
        return self.processor.prepare(question, asker, num_cache_tokens)

    def _seconds_left(self, question: Question, asker: Asker) -> float | None:
        seconds = self.processor.terms.times.deadline(question.timeout_seconds)
        return None if seconds is None else max(seconds + asker.asked - time.perf_counter(), 0.0)
