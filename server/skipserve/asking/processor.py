"""Questions to one model, made into the engine's requests: all that is done before the engine."""

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from skipserve.asking.adjusting import adjustments_of
from skipserve.asking.answer import AnswerText
from skipserve.asking.asker import Asker
from skipserve.asking.auto.chooser import AutoChooser, Occasion
from skipserve.asking.auto.chosen import Chosen, Trace
from skipserve.asking.auto.costs import Shape
from skipserve.asking.auto.traces import conversation_of, marks_of
from skipserve.asking.auto.wish import AutoWish
from skipserve.asking.length import answer_length
from skipserve.asking.policies import PolicyFiles, PolicyRegistry
from skipserve.asking.question import Generation, PolicyChoice, Prepared, Question
from skipserve.asking.report import Reporter
from skipserve.asking.terms import Terms
from skipserve.budgets.client import Rights
from skipserve.checkpoint_notes import checkpoint_notes
from skipserve.digests import digest_of
from skipserve.engine.reports import Stage
from skipserve.engine.request import Image, Request, SamplingParams
from skipserve.errors import (
    FeatureOffError,
    InvalidRequestError,
    KeyScopeError,
    NotFoundError,
)
from skipserve.grammar.structure import CallForm, Structure
from skipserve.media.data_uri import NOUNS, EncodedImage, decode_data_uri, is_data_uri
from skipserve.media.preprocess import Preprocessor
from skipserve.media.remote import RemoteImage
from skipserve.model.config import ModelConfig
from skipserve.prompt.processor import EncodedPrompt, PromptProcessor
from skipserve.prompt.template import Ending
from skipserve_policies.catalog import AUTO_NAME
from skipserve_policies.resolve import ResolvedPolicy
from skipserve_policies.schema import Quality, SkipPolicy
from skipserve_policies.sizes import Modality

_MAX_ECHO = 100
# What holds media of a kind, in the chat's form.
_PARTS = {
    Modality.IMAGE: "image_url",
    Modality.VIDEO: "video_url",
    Modality.AUDIO: "audio_url or input_audio",
}


@dataclass(frozen=True)
class QuestionProcessor:
    """What questions to one model are prepared with, and its answers are put together with.

    Attributes:
        model_name: the name that the model is asked by.
        terms: on what terms questions are taken.
        prompts: the model's template and tokenizer.
        preprocessor: fits images to the model.
        policies: the policies by name.
        reporter: counts what an answer took.
        auto: chooses the policy of questions that leave it to the server.
        notes: what whoever starts the model should know of its files.
    """

    model_name: str
    terms: Terms
    prompts: PromptProcessor
    preprocessor: Preprocessor
    policies: PolicyRegistry
    reporter: Reporter
    auto: AutoChooser
    notes: tuple[str, ...] = ()

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        name: str,
        terms: Terms,
        measured: Mapping[str, tuple[Quality, ...]] | None = None,
    ) -> Self:
        """Read a model's files, all but the weights, and the policies that it can run.

        Args:
            folder: the checkpoint's.
            name: the name that the model is asked by.
            terms: on what terms questions are taken.
            measured: quality of policies that was measured on the model, by digest.

        Raises:
            ModelFilesError: the folder does not hold a model that can be run.
            TokenizerFilesError: its tokenizer is missing or not supported.
            PolicyMisfitError: policies of the model's or the operator's files name layers that the
                model lacks.
            PolicyError: such a file cannot be used, or a policy in it contradicts itself.
        """
        config = ModelConfig.from_folder(folder)
        files = PolicyFiles(folder, terms.policies, terms.added_policies, terms.keeps_misfits)
        policies = PolicyRegistry.from_files(files, config.sizes, terms.listing, measured)
        return cls(
            model_name=name,
            terms=terms,
            prompts=PromptProcessor.from_folder(folder, config),
            preprocessor=Preprocessor.from_config(config, terms.images.pixels.image_pixels),
            policies=policies,
            reporter=Reporter(config.sizes),
            auto=AutoChooser(policies, config.sizes, terms.auto),
            notes=tuple(checkpoint_notes(folder, config)),
        )

    def prepare(
        self,
        question: Question,
        asker: Asker | None = None,
        num_cache_tokens: int | None = None,
    ) -> Prepared:
        """Return the request that a question becomes.

        Args:
            question: what is asked, with its images fitted.
            asker: who asks; None for nobody in particular.
            num_cache_tokens: positions that the engine's cache holds; None for no limit.

        Raises:
            SkipserveError: any of those that a client can be told of, but for the engine's.
        """
        asker = asker or Asker()
        seconds: dict[Stage, float] = {}
        wanted = self.wanted_policy(question.policy, question.model, asker.client.rights)
        if isinstance(wanted, AutoWish):
            chosen = question.chosen or self._choose(question, wanted, asker, num_cache_tokens)
            policy = chosen.policy
        else:
            chosen, policy = None, wanted
        images = tuple(image.reduced(policy.reduction) for image in question.images)
        with _timed(seconds, Stage.TOKENIZE):
            prompt = self.encode(question, policy)
        with _blaming(question.prompt_param):
            sampling = self._sampling(question.generation, prompt, num_cache_tokens)
        unplanned = Request(
            id=question.id,
            prompt_ids=prompt.prompt_ids,
            token_classes=prompt.token_classes,
            images=images,
            sampling=sampling,
            policy_name=policy.label,
            plan=policy.plan,
            cache_salt=cache_salt(question.cache_salt, asker.isolation),
            queue_seconds=self.terms.times.queue_seconds,
            deadline_seconds=self.terms.times.deadline(question.timeout_seconds),
            priority=question.priority,
            owner=asker.client.owner_number,
            narrowing=policy.narrowing,
            num_prompt_logprobs=question.generation.num_prompt_logprobs,
        )
        request = replace(
            unplanned,
            plan=policy.plan_for(scores=unplanned.num_scored > 0),
            planned_flops=self.reporter.bound(policy, unplanned),
        )
        model = question.model or self.model_name
        generation = question.generation
        if question.prompt is not None:
            # It goes on with the prompt's own text.
            generation = replace(generation, ending=Ending.CONTINUED)
        trace = trace_of(question, prompt, images, asker) if self.auto.is_asked else None
        return Prepared(request, policy, model, generation, seconds, chosen, trace)

    def encode(self, question: Question, policy: ResolvedPolicy | None = None) -> EncodedPrompt:
        """Return the rows of a question's prompt; its images may still be as a client sent them.

        Args:
            question: what is asked.
            policy: what it is to run under, which may leave fewer rows of an image; None for one
                that leaves all.

        Raises:
            InvalidRequestError: it is longer than the context, or does not go with the model's
                template or vocabulary.
        """
        self.check_media(question)
        num_images = len(question.images or question.image_uris)
        with _blaming(question.prompt_param):
            match question.prompt:
                case None:
                    reduction = policy.reduction if policy else None
                    num_rows = reduction.num_rows if reduction else self.preprocessor.num_rows
                    return self.prompts.encode_chat(
                        question.messages,
                        [num_rows] * num_images,
                        question.generation.ending,
                        question.tools.shown if question.tools else (),
                    )
                case str() as text:
                    return self.prompts.encode_text(text, adds_special=question.adds_special)
                case ids:
                    return self.prompts.encode_ids(ids)

    def structure(self, question: Question, asker: Asker) -> Structure | None:
        """Return what a question's answer is to be held to; None for nothing.

        Raises:
            SkipserveError: that contradicts itself or is over a limit, or the policy is at fault.
        """
        self.wanted_policy(question.policy, question.model, asker.client.rights)
        structure = question.structure
        if question.tools is not None:
            if structure is not None:
                raise InvalidRequestError(
                    f"an answer that may call tools cannot be held to {structure.param}: leave "
                    "tools or that out, or have none called",
                    structure.param,
                )
            structure = question.tools.structure(self.call_form)
        if structure is not None:
            structure.check()
        return structure

    @property
    def call_form(self) -> CallForm:
        """How the model writes calls of functions."""
        return CallForm.TAGGED if self.prompts.template.shows_tools else CallForm.LIST

    def prompt_text(self, question: Question) -> str:
        """Return the text of a prompt that is no messages: a client's own, or that of its ids."""
        prompt = question.prompt or ""
        return prompt if isinstance(prompt, str) else self.prompts.text_of(prompt)

    def read_images(
        self, question: Question, asker: Asker | None = None, *, fetches: bool = False
    ) -> list[EncodedImage | RemoteImage]:
        """Return a question's images, unless what is cheap to find is wrong with it.

        Args:
            question: what is asked.
            asker: who asks; None for nobody in particular.
            fetches: whether an image may be elsewhere; else each is a file.

        Raises:
            SkipserveError: its policy or an image's URI is at fault, or it has too many images.
        """
        asker = asker or Asker()
        self.wanted_policy(question.policy, question.model, asker.client.rights)
        self.check_media(question)
        uris, limits, modality = question.image_uris, self.terms.images, self.preprocessor.modality
        if len(uris) > limits.num_images:
            raise InvalidRequestError(
                f"the messages hold {len(uris)} {NOUNS[modality]}s; at most {limits.num_images} "
                "are taken in a request",
                param=question.prompt_param,
            )
        return [
            RemoteImage(uri.url, uri.param)
            if fetches and not is_data_uri(uri.url)
            else decode_data_uri(uri.url, uri.param, limits.image_bytes, modality)
            for uri in uris
        ]

    def check_media(self, question: Question) -> None:
        """Make sure that a question brings nothing that the model does not take.

        Raises:
            InvalidRequestError: it does; names the field and what the model takes.
        """
        taken = self.preprocessor.modality
        for uri in question.image_uris:
            if uri.modality is not taken:
                raise InvalidRequestError(
                    f"this is a part of the kind {uri.modality}, and the model takes "
                    f"{NOUNS[taken]}s: parts of the type {_PARTS[taken]}",
                    param=uri.param,
                )

    def answer_text(self, prepared: Prepared, choice: int = 0) -> AnswerText:
        """Return what puts the text of an answer together, of one of several."""
        tokenizer = self.prompts.tokenizer
        return AnswerText(tokenizer, prepared.generation, choice, prepared.request)

    @property
    def default_policy(self) -> str:
        """The policy of questions that name none: the operator's, else the model's own."""
        return self.terms.default_policy or self.policies.default

    def wanted_policy(
        self, given: PolicyChoice | None, model: str | None, rights: Rights
    ) -> ResolvedPolicy | AutoWish:
        """Return the policy that is given, else the one in "NAME@POLICY", else the default.

        Args:
            given: a policy or its name, or what the server is to choose one by.
            model: the name by which the model is asked.
            rights: what whoever asks may ask for.

        Raises:
            SkipserveError: there is no such policy or model, or it may not be asked for, or nothing
                that may be chosen meets what is asked for.
        """
        in_model = self._policy_in_model(model)
        given = AutoWish() if given == AUTO_NAME else given
        if given is not None and in_model is not None and not _agree(given, in_model):
            raise InvalidRequestError(
                f"model names the skip policy {in_model[:_MAX_ECHO]!r} and skip_policy another; "
                "name one of them",
                param="skip_policy",
            )
        choices = (given, in_model, self.default_policy)
        chosen = next(it for it in choices if it is not None)
        if chosen == AUTO_NAME:
            chosen = AutoWish()
        if isinstance(chosen, AutoWish):
            self.auto.check(chosen, rights)
            return chosen
        if isinstance(chosen, SkipPolicy):
            return self._resolve_inline(chosen, rights)
        found = chosen if isinstance(chosen, ResolvedPolicy) else self.policies.find(chosen)
        if not rights.has(found.name):
            is_default = given is None and in_model is None
            raise KeyScopeError(
                f"this API key may not use the skip policy {found.name!r}"
                + (", the server's default" if is_default else "")
                + f"; it may use {', '.join(sorted(rights.policies or ()))}",
                param="skip_policy",
            )
        return found

    def counted_policy(self, model: str | None, rights: Rights) -> ResolvedPolicy | None:
        """Return the policy by which tokens are counted; None, for all rows, if it is not chosen.

        Raises:
            SkipserveError: as `wanted_policy` does.
        """
        wanted = self.wanted_policy(None, model, rights)
        return wanted if isinstance(wanted, ResolvedPolicy) else None

    def _choose(
        self, question: Question, wish: AutoWish, asker: Asker, num_cache_tokens: int | None
    ) -> Chosen:
        """Choose the policy of a question that leaves it to the server.

        Raises:
            SkipserveError: nothing that may be chosen meets what is asked for, or the question is
                at fault.
        """
        prompt = self.encode(question)
        with _blaming(question.prompt_param):
            sampling = self._sampling(question.generation, prompt, num_cache_tokens)
        shape = Shape(
            prompt.token_classes,
            question.images,
            sampling.max_tokens,
            is_scored=question.generation.num_prompt_logprobs is not None,
        )
        trace = trace_of(question, prompt, question.images, asker)
        elapsed = time.perf_counter() - asker.asked
        occasion = Occasion(wish, asker.client.rights, shape, trace, elapsed)
        return self.auto.choose(occasion)

    def policy_name(self, given: PolicyChoice | None, model: str | None) -> str | None:
        """Return the name that `wanted_policy` looks up; None for a policy that is spelt out.

        Raises:
            NotFoundError: the model is not the one that is served.
        """
        chosen = given if given is not None else self._policy_in_model(model)
        if chosen is None:
            return self.default_policy
        return chosen if isinstance(chosen, str) else None

    def _policy_in_model(self, model: str | None) -> str | None:
        """Return the policy in "NAME@POLICY".

        Raises:
            NotFoundError: NAME is not the model that is served.
        """
        if model is None or model == self.model_name:
            return None
        if not model.startswith(self.model_name + "@"):
            raise NotFoundError(
                f"there is no model {model[:_MAX_ECHO]!r}; this server has {self.model_name!r}",
                param="model",
            )
        return model.removeprefix(self.model_name + "@")

    def _resolve_inline(self, policy: SkipPolicy, rights: Rights) -> ResolvedPolicy:
        if not self.terms.takes_inline:
            raise FeatureOffError(
                "policies spelt out in a request are switched off on this server; name one of "
                f"{self.terms.listing}",
                param="skip_policy",
            )
        if not rights.takes_inline:
            raise KeyScopeError(
                f"this API key may not spell skip policies out; name one of {self.terms.listing}",
                param="skip_policy",
            )
        return self.policies.resolve_inline(policy)

    def _sampling(
        self, wanted: Generation, prompt: EncodedPrompt, num_cache_tokens: int | None
    ) -> SamplingParams:
        stop_token_ids = self.prompts.stop_token_ids(
            wanted.stops, wanted.stop_token_ids, ignores_ends=wanted.ignores_eos
        )
        return SamplingParams(
            max_tokens=answer_length(
                wanted, len(prompt.prompt_ids), self.prompts.max_positions, num_cache_tokens
            ),
            temperature=wanted.temperature,
            top_k=wanted.top_k,
            top_p=wanted.top_p,
            min_p=wanted.min_p,
            seed=secrets.randbits(63) if wanted.seed is None else wanted.seed,
            num_top_logprobs=wanted.num_top_logprobs,
            ends_at_eos=not wanted.ignores_eos,
            stop_token_ids=stop_token_ids,
            adjustments=adjustments_of(wanted, self.prompts),
        )


def _agree(given: PolicyChoice, in_model: str) -> bool:
    """Whether a request says the same policy in both places."""
    return in_model == AUTO_NAME if isinstance(given, AutoWish) else given == in_model


def trace_of(
    question: Question, prompt: EncodedPrompt, images: Sequence[Image], asker: Asker
) -> Trace:
    """Return what a question is remembered by: to whoever asks, and what shares cached work."""
    salt = cache_salt(question.cache_salt, asker.isolation)
    root = digest_of(asker.client.owner_number.to_bytes(8, "big"), salt.encode())
    return Trace(
        root,
        marks_of(prompt, images, root),
        conversation_of(question.messages, question.images, root),
    )


@contextmanager
def _blaming(param: str) -> Iterator[None]:
    """Name the field of the form that holds what is said, where the fault is in that."""
    try:
        yield
    except InvalidRequestError as error:
        if error.param == "messages":
            error.param = param
        raise


@contextmanager
def _timed(seconds: dict[Stage, float], stage: Stage) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - begun


def cache_salt(own: str | None, isolation: bytes | None) -> str:
    """Return the salt of a request: requests of one salt share what they computed.

    Args:
        own: what the client asks for.
        isolation: what whoever asks is kept apart by; None where all share a cache.
    """
    if isolation is None:
        return own or ""
    return digest_of(isolation, (own or "").encode()).hex()
