"""A loaded model that answers questions: what `from skipserve import LLaVA` gives."""

import itertools
import logging
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Unpack

from PIL.Image import Image as Picture
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress

from skipserve.asking.auto.form import AutoPolicy
from skipserve.asking.auto.terms import Surroundings
from skipserve.asking.auto.wish import AutoWish
from skipserve.asking.processor import QuestionProcessor
from skipserve.asking.question import Prepared, Question
from skipserve.asking.terms import ImageLimits, Terms
from skipserve.budgets.client import Rights
from skipserve.engine.engine import Engine, StepResult
from skipserve.engine.limits import EngineLimits, EngineSpec
from skipserve.engine.loading import load
from skipserve.engine.reports import Failed, FailureKind, Ready, StepOutput
from skipserve.engine.request import Image
from skipserve.errors import EngineError, InvalidRequestError, SkipserveError
from skipserve.media.decode import PixelLimits
from skipserve.model.config import ModelFilesError
from skipserve.model_folder import DEMO, StartError, model_folder
from skipserve.offline.answers import Answer, GrowingAnswer
from skipserve.offline.arguments import (
    checked_count,
    checked_device,
    checked_dtype,
    checked_limits,
    checked_path,
    checked_threads,
    name_arguments,
)
from skipserve.offline.questions import (
    AnyQuestion,
    ImageSource,
    describe_image,
    list_questions,
    naming,
    read_file,
    read_image,
    read_question,
)
from skipserve.offline.sampling import Sampling, checked_sampling, generation_of
from skipserve.prompt.tokenizer_files import TokenizerFilesError
from skipserve_policies.catalog import AUTO_NAME
from skipserve_policies.faults import faults_of
from skipserve_policies.quality import load_measured
from skipserve_policies.resolve import PolicyError, ResolvedPolicy
from skipserve_policies.schema import SkipPolicy
from skipserve_policies.sizes import Modality

logger = logging.getLogger("skipserve")

_POLICY_FORMS = "a skip policy is a name or a mapping with rules"
_OUT_OF_MEMORY = (
    "the device ran out of memory; take on fewer questions at a time (max_running of limits), "
    "fewer images, or a shorter text"
)

# A name, a policy spelt out, or what one is to be chosen by.
AnyPolicy = str | SkipPolicy | Mapping[str, Any]


class LLaVA:
    """A model that answers many questions at once, in this process and without HTTP.

        llava = LLaVA("demo")
        answers = llava.generate(
            [("docs/picture.png", "How many red squares are there?")],
            skip_policy="skip-block-every-3-from-16",
        )
        print(answers[0].text)

    Calls from several threads wait for each other: one of them computes at a time.

    Args:
        model: "demo", a pretrained model that has been fetched, or the folder of a LLaVA-1.5
            checkpoint in Hugging Face format.
        device: "auto", or a device as torch names it.
        dtype: "auto" for the checkpoint's, "float32", "bfloat16" or "float16".
        num_threads: CPU threads, for all of torch in this process; None leaves them as they are.
        policies: a YAML file that adds skip policies, which must fit the model.
        limits: how much the engine takes on at once.
        max_image_pixels: width times height of one image.

    Raises:
        StartError: an argument is at fault, or the model or the policies file cannot be used.
        EngineError: there is no such device, or too little memory.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = DEMO,
        *,
        device: str = "auto",
        dtype: str = "auto",
        num_threads: int | None = None,
        policies: str | os.PathLike[str] | None = None,
        limits: EngineLimits | None = None,
        max_image_pixels: int = 40_000_000,
    ) -> None:
        folder = model_folder(str(checked_path("model", model)))
        file = None if policies is None else checked_path("policies", policies)
        spec = EngineSpec(
            folder,
            checked_device(device),
            checked_dtype(dtype),
            checked_threads(num_threads),
            checked_limits(limits),
        )
        max_pixels = checked_count("max_image_pixels", max_image_pixels)
        images = ImageLimits(PixelLimits(max_pixels, max_pixels))
        terms = Terms("the attribute policies", images, policies=file)
        try:
            measured = load_measured(folder, folder.name)
            self._processor = QuestionProcessor.from_folder(folder, folder.name, terms, measured)
            self._engine, ready = _load_engine(spec)
        except (ModelFilesError, TokenizerFilesError, PolicyError) as error:
            raise StartError(str(error)) from error
        for note in self._processor.notes:
            logger.warning(note)
        self._processor.auto.watch(lambda: Surroundings(ready.weights_digest))
        self._turn = threading.Lock()
        # Never one twice: what is left of a call that failed is not taken for the next one's.
        self._ids = map("question-{}".format, itertools.count())

    @property
    def policies(self) -> list[str]:
        """The names of the skip policies that fit the model."""
        return list(self._processor.policies.resolved)

    @property
    def default_policy(self) -> str:
        """The name of the skip policy of questions that are asked under none."""
        return self._processor.default_policy

    def generate(
        self,
        questions: Iterable[AnyQuestion],
        *,
        skip_policy: AnyPolicy | Sequence[AnyPolicy] | None = None,
        progress: bool = False,
        **sampling: Unpack[Sampling],
    ) -> list[Answer]:
        """Answer questions, as many of them at a time as the engine takes on.

        All questions are read and checked before the first is begun. Their pictures stay in
        memory until the last is answered, as the model takes them: 340 kB for each that differs,
        with LLaVA-1.5.

        Args:
            questions: each a text, a tuple of an image (or a list of images) and a text, a
                `Question`, or a list of messages in OpenAI's form. An image is a path, the bytes
                of a picture file, a PIL image, or a data URI; where the model takes videos or
                sounds, a path, the bytes or a data URI of one of those.
            skip_policy: a name, a `SkipPolicy` or the mapping that spells one out, or "auto" or
                {"auto": {"min_quality": 0.97}} for the cheapest that was measured to keep so much;
                or a list with one of these for each question. None for the model's default, `full`
                unless its folder says otherwise.
            progress: whether to show a bar on standard error.
            sampling: see `skipserve.offline.sampling.Sampling`; greedy without any.

        Returns:
            The answers, in the order of the questions.

        Raises:
            InvalidRequestError: a question, a policy or a keyword is at fault; says which.
            UnusableImageError: a picture cannot be read; says which.
            NotFoundError: there is no such policy; names the nearest.
            EngineError: the engine failed, or the model's output is not a number; it can be used
                again.
            TypeError: there is no such keyword.
        """
        asked = list_questions(questions)
        options = checked_sampling(sampling)
        chosen = self.default_policy if skip_policy is None else skip_policy
        policies = self._choose_policies(chosen, len(asked))
        images: dict[bytes, Image] = {}
        prepared = [
            self._prepare(index, *pair, options, images)
            for index, pair in enumerate(zip(asked, policies, strict=True))
        ]
        with self._turn:
            return self._answer(prepared, progress)

    def _choose_policies(
        self, choice: AnyPolicy | Sequence[AnyPolicy], count: int
    ) -> list[ResolvedPolicy | AutoWish]:
        if isinstance(choice, str | SkipPolicy | Mapping):
            return [self._find_policy(choice)] * count
        if isinstance(choice, bytes) or not isinstance(choice, Sequence):
            raise InvalidRequestError(
                f"skip_policy is of type {type(choice).__name__}; {_POLICY_FORMS}, or a list with "
                "one for each question",
                param="skip_policy",
            )
        if len(choice) != count:
            raise InvalidRequestError(
                f"there are {len(choice)} skip policies for {count} questions; "
                "give one for all, or one for each",
                param="skip_policy",
            )
        policies: list[ResolvedPolicy | AutoWish] = []
        for index, each in enumerate(choice):
            with naming(f"skip_policy[{index}]"):
                policies.append(self._find_policy(each))
        return policies

    def _find_policy(self, choice: AnyPolicy) -> ResolvedPolicy | AutoWish:
        if isinstance(choice, str):
            return self._processor.wanted_policy(choice, None, Rights())
        try:
            if isinstance(choice, Mapping) and AUTO_NAME in choice:
                return AutoPolicy.model_validate(choice).wish
            return self._processor.policies.resolve_inline(SkipPolicy.model_validate(choice))
        except ValidationError as error:
            form = AutoPolicy if error.title == AutoPolicy.__name__ else SkipPolicy
            fault = faults_of(error, form, choice)[0]
            told = fault if fault.place else f"this is of type {type(choice).__name__}"
            raise InvalidRequestError(f"{_POLICY_FORMS}; {told}", param="skip_policy") from error

    def _prepare(
        self,
        index: int,
        question: AnyQuestion,
        policy: ResolvedPolicy | AutoWish,
        sampling: Sampling,
        images: dict[bytes, Image],
    ) -> Prepared:
        """Return a question as the engine takes it; `images` gathers pictures by their digest."""
        with naming(f"questions[{index}]"):
            conversation = read_question(question)
            asked = Question(
                id=next(self._ids),
                messages=conversation.messages,
                images=tuple(self._fit(source, images) for source in conversation.images),
                generation=generation_of(sampling, index),
                policy=policy,
            )
            return self._processor.prepare(asked, None, self._engine.num_cache_tokens)

    def _fit(self, source: ImageSource, images: dict[bytes, Image]) -> Image:
        preprocessor = self._processor.preprocessor
        with naming(describe_image(source, preprocessor.modality)):
            max_pixels = self._processor.terms.images.pixels.image_pixels
            if isinstance(source, Picture) or preprocessor.modality is Modality.IMAGE:
                image = preprocessor.fit(read_image(source, max_pixels), "images")
            else:
                image = preprocessor.read(read_file(source, preprocessor.modality), max_pixels)
        return images.setdefault(image.digest, image)

    def _answer(self, prepared: Sequence[Prepared], shows_progress: bool) -> list[Answer]:
        answers = {each.request.id: GrowingAnswer(each, self._processor) for each in prepared}
        try:
            for index, each in enumerate(prepared):
                with naming(f"questions[{index}]"):
                    self._engine.add(each.request)
            self._run(answers, shows_progress)
        except BaseException:
            # Whatever it was, Ctrl-C among it: the next call finds an engine without work.
            self._engine.drop_running()
            for request_id in answers:
                self._engine.cancel(request_id)
            raise
        return [answer.finish() for answer in answers.values()]

    def _run(self, answers: Mapping[str, GrowingAnswer], shows_progress: bool) -> None:
        with Progress(console=Console(stderr=True), disable=not shows_progress) as bar:
            task = bar.add_task("Answering", total=len(answers))
            while self._engine.has_work:
                result = self._step()
                for output in result.outputs:
                    bar.advance(task, self._take(output, answers[output.request_id]))
                for failed in result.failed:
                    raise _failure(failed, list(answers).index(str(failed.request_id)))

    def _step(self) -> StepResult:
        try:
            return self._engine.step()
        except SkipserveError:
            raise
        except Exception as error:
            raise EngineError(f"the engine failed while it ran the questions: {error}") from error

    def _take(self, output: StepOutput, answer: GrowingAnswer) -> bool:
        """Take a step of an answer; return whether that ended it."""
        answer.push(output)
        if answer.is_over and output.finish_reason is None:
            self._engine.cancel(output.request_id)
        return answer.is_over


def _load_engine(spec: EngineSpec) -> tuple[Engine, Ready]:
    try:
        return load(spec, name_arguments)
    except EngineError as error:
        raise EngineError(name_arguments(error.message)) from error
    except (RuntimeError, MemoryError) as error:
        raise EngineError(f"the model cannot be loaded on {spec.device}: {error}") from error


def _failure(failed: Failed, index: int) -> EngineError:
    """Return what ends a call because a step could not answer one of its questions."""
    is_memory = failed.kind is FailureKind.OUT_OF_MEMORY
    place = f"questions[{index}]"
    return EngineError(f"{place}: {_OUT_OF_MEMORY if is_memory else failed.message}", place)
