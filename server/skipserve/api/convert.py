"""A request's form to the engine's `Request`: the only place that looks a skip policy up."""

import math
import secrets
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from PIL.Image import Image as Picture

from skipserve.api.policies import PolicyRegistry
from skipserve.api.token_limits import cache_salt, fit_cache
from skipserve.api.wire import ChatForm, ImageContent, ResponseFormat, TextContent
from skipserve.engine.reports import Stage
from skipserve.engine.request import Image, Request, SamplingParams
from skipserve.errors import FeatureOffError, InvalidRequestError, NotFoundError
from skipserve.media.data_uri import EncodedImage, decode_data_uri
from skipserve.media.decode import PixelLimits, decode_images
from skipserve.media.preprocess import Preprocessor
from skipserve.prompt.processor import PromptProcessor
from skipserve.prompt.template import ImagePart, Message, TextPart
from skipserve_policies.resolve import ResolvedPolicy
from skipserve_policies.schema import SkipPolicy

# Fields that parse and do nothing yet, each with the value that changes nothing.
_WITHOUT_EFFECT = {
    "n": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "repetition_penalty": 1,
    "logit_bias": {},
    "response_format": ResponseFormat(),
}
_MAX_ECHO = 100


@dataclass(frozen=True)
class ImageLimits:
    """How much image a request may bring.

    Attributes:
        num_images: images of one request.
        image_bytes: bytes of one image file.
        pixels: pixels of one image and of one request.
    """

    num_images: int
    image_bytes: int
    pixels: PixelLimits


@dataclass(frozen=True)
class TimeLimits:
    """How long a request may take in the engine.

    Attributes:
        queue_seconds: its wait for the first step.
        request_seconds: all of it; a request may ask for less.
    """

    queue_seconds: float
    request_seconds: float

    def deadline(self, asked_seconds: float | None) -> float:
        """Return how long a request may take in all."""
        return min(self.request_seconds, asked_seconds or math.inf)


@dataclass(frozen=True)
class Prepared:
    """A request that is ready for the engine.

    Attributes:
        request: what the engine gets.
        policy: what it runs under.
        stops: strings that end the answer.
        stage_seconds: what the preparation took, by stage.
    """

    request: Request
    policy: ResolvedPolicy
    stops: tuple[str, ...]
    stage_seconds: dict[Stage, float] = field(default_factory=dict)

    @property
    def has_logprobs(self) -> bool:
        """Whether log-probabilities were asked for."""
        return self.request.sampling.num_top_logprobs is not None


@dataclass(frozen=True)
class Converter:
    """What requests are converted with.

    Attributes:
        model_name: the name that clients call the model by.
        prompts: the model's template and tokenizer.
        preprocessor: fits images to the model.
        policies: the policies by name.
        default_policy: runs where a request names none.
        takes_inline: whether a request may spell a policy out.
        limits: how much image a request may bring.
        times: how long a request may take.
        isolates_keys: whether each API key has a cache of its own.
    """

    model_name: str
    prompts: PromptProcessor
    preprocessor: Preprocessor
    policies: PolicyRegistry
    default_policy: str
    takes_inline: bool
    limits: ImageLimits
    times: TimeLimits
    isolates_keys: bool

    def convert(
        self,
        form: ChatForm,
        policy_header: str | None = None,
        key_digest: bytes | None = None,
        num_cache_tokens: int | None = None,
    ) -> Prepared:
        """Return the request that a form asks for. Takes a while: decodes images.

        Args:
            form: the body.
            policy_header: the header `X-Skip-Policy`.
            key_digest: of the client's API key, where it has one.
            num_cache_tokens: positions that the engine's cache holds; None for no limit.

        Raises:
            SkipserveError: any of those that a client can be told of, but for the engine's.
        """
        check_supported(form)
        policy = self._choose_policy(form, policy_header)
        encoded = list(self._encoded_images(form))
        seconds: dict[Stage, float] = {}
        with _timed(seconds, Stage.DECODE_IMAGE):
            pictures = decode_images(encoded, self.limits.pixels)
        with _timed(seconds, Stage.PREPROCESS):
            images = self._fit(pictures, encoded)
        with _timed(seconds, Stage.TOKENIZE):
            num_rows = [image.num_rows for image in images]
            prompt = self.prompts.encode_chat(messages_of(form), num_rows)
        num_prompt = len(prompt.prompt_ids)
        stops = _stops(form)
        sampling = _sampling(
            form,
            self.prompts.max_positions - num_prompt,
            self.prompts.stop_token_ids(stops, form.stop_token_ids or ()),
        )
        if num_cache_tokens is not None:
            sampling = fit_cache(form, sampling, num_prompt, num_cache_tokens)
        request = Request(
            id=f"chatcmpl-{uuid.uuid4().hex}",
            prompt_ids=prompt.prompt_ids,
            token_classes=prompt.token_classes,
            images=images,
            sampling=sampling,
            policy_name=policy.name,
            plan=policy.plan,
            cache_salt=cache_salt(form.cache_salt, key_digest if self.isolates_keys else None),
            queue_seconds=self.times.queue_seconds,
            deadline_seconds=self.times.deadline(form.timeout_seconds),
        )
        return Prepared(request, policy, stops, seconds)

    def _choose_policy(self, form: ChatForm, header: str | None) -> ResolvedPolicy:
        """Return the policy of a request: body, vllm_xargs, header, NAME@POLICY, default."""
        in_arguments = form.vllm_xargs.skip_policy if form.vllm_xargs else None
        given = next(
            (it for it in (form.skip_policy, in_arguments, header) if it is not None), None
        )
        in_model = self._policy_in_model(form.model)
        if given is not None and in_model is not None and given != in_model:
            raise InvalidRequestError(
                f"model names the skip policy {in_model[:_MAX_ECHO]!r} and skip_policy another; "
                "name one of them",
                param="skip_policy",
            )
        chosen = next(it for it in (given, in_model, self.default_policy) if it is not None)
        if isinstance(chosen, SkipPolicy):
            return self._resolve_inline(chosen)
        return self.policies.find(chosen)

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

    def _resolve_inline(self, policy: SkipPolicy) -> ResolvedPolicy:
        if not self.takes_inline:
            raise FeatureOffError(
                "policies spelt out in a request are switched off on this server; name one of "
                "/v1/skip_policies",
                param="skip_policy",
            )
        return self.policies.resolve_inline(policy)

    def _encoded_images(self, form: ChatForm) -> Iterator[EncodedImage]:
        places = [
            (f"messages[{i}].content[{j}].image_url", part)
            for i, message in enumerate(form.messages)
            if not isinstance(message.content, str)
            for j, part in enumerate(message.content)
            if isinstance(part, ImageContent)
        ]
        if len(places) > self.limits.num_images:
            raise InvalidRequestError(
                f"the messages hold {len(places)} images; at most {self.limits.num_images} are "
                "taken in a request",
                param="messages",
            )
        for place, part in places:
            yield decode_data_uri(part.image_url.url, place, self.limits.image_bytes)

    def _fit(self, pictures: list[Picture], encoded: list[EncodedImage]) -> tuple[Image, ...]:
        return tuple(
            self.preprocessor.fit(picture, image.param)
            for picture, image in zip(pictures, encoded, strict=True)
        )


@contextmanager
def _timed(seconds: dict[Stage, float], stage: Stage) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - begun


def check_supported(form: ChatForm) -> None:
    """Refuse a form that asks for what does not work yet, or contradicts itself.

    Raises:
        InvalidRequestError: names the field.
    """
    for name, neutral in _WITHOUT_EFFECT.items():
        if getattr(form, name) not in (None, neutral):
            raise _unsupported(name)
    both = form.max_tokens, form.max_completion_tokens
    if None not in both and both[0] != both[1]:
        raise InvalidRequestError(
            f"max_tokens is {both[0]} and max_completion_tokens is {both[1]}; send one of them",
            param="max_tokens",
        )
    if form.top_logprobs is not None and not form.logprobs:
        raise InvalidRequestError("top_logprobs needs logprobs: true", param="top_logprobs")
    if form.stream_options is not None and not form.stream:
        raise InvalidRequestError("stream_options needs stream: true", param="stream_options")


def _unsupported(name: str) -> InvalidRequestError:
    return InvalidRequestError(f"{name} is not supported yet; leave it out", param=name)


def messages_of(form: ChatForm) -> list[Message]:
    """Return the messages of a form as the chat template takes them, with the images' places."""
    return [
        Message(message.role.value, (TextPart(message.content),))
        if isinstance(message.content, str)
        else Message(
            message.role.value,
            tuple(
                TextPart(part.text) if isinstance(part, TextContent) else ImagePart()
                for part in message.content
            ),
        )
        for message in form.messages
    ]


def _sampling(form: ChatForm, num_left: int, stop_token_ids: tuple[int, ...]) -> SamplingParams:
    """Return how to sample; `num_left` is what the prompt leaves of the context."""
    wanted = form.max_completion_tokens or form.max_tokens
    if wanted is not None and wanted > num_left:
        raise InvalidRequestError(
            f"the answer may have {wanted} tokens, but the prompt leaves {num_left} of the "
            "model's context",
            param="max_completion_tokens" if form.max_completion_tokens else "max_tokens",
        )
    return SamplingParams(
        max_tokens=wanted or num_left,
        temperature=1.0 if form.temperature is None else form.temperature,
        top_k=max(form.top_k or 0, 0),  # -1 keeps all, as in vLLM
        top_p=1.0 if form.top_p is None else form.top_p,
        min_p=form.min_p or 0.0,
        seed=secrets.randbits(63) if form.seed is None else form.seed,
        num_top_logprobs=(form.top_logprobs or 0) if form.logprobs else None,
        stop_token_ids=stop_token_ids,
    )


def _stops(form: ChatForm) -> tuple[str, ...]:
    if form.stop is None:
        return ()
    return (form.stop,) if isinstance(form.stop, str) else form.stop
