"""A question, into which every way to ask puts its own form, and what it is once prepared."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from skipserve.asking.auto.chosen import Chosen, Trace
from skipserve.asking.auto.wish import AutoWish
from skipserve.asking.tools import Tools
from skipserve.engine.reports import Stage
from skipserve.engine.request import Grammar, Image, Request
from skipserve.grammar.structure import CallForm, Structure
from skipserve.prompt.template import Ending, Message
from skipserve_policies.resolve import ResolvedPolicy
from skipserve_policies.schema import SkipPolicy
from skipserve_policies.sizes import Modality

# A text, or token ids.
RawPrompt = str | tuple[int, ...]
# A name, a policy spelt out, one that was resolved before, or what the server's choice must meet.
PolicyChoice = str | SkipPolicy | ResolvedPolicy | AutoWish


@dataclass(frozen=True)
class ImageUri:
    """An image, a video or a sound as a client sends it.

    Attributes:
        url: a data URI, a URL that is to be fetched, or what should have been one.
        param: the field that held it, for messages.
        modality: what the client says that it is.
    """

    url: str
    param: str
    modality: Modality = Modality.IMAGE


@dataclass(frozen=True)
class Generation:
    """How the answer is to be generated, before it is known how long the prompt is.

    Attributes:
        max_tokens: it may have so many, or fewer where fewer fit; None leaves it open.
        open_tokens: the same where that is left open; None for all that fit.
        num_choices: so many answers are wanted.
        ending: where its prompt ends.
        temperature: 0 is greedy.
        top_k: keep so many of the most probable tokens; 0 keeps all.
        top_p: then keep the smallest set of tokens that holds this much probability.
        min_p: then keep tokens at least this many times as probable as the best one.
        seed: keys the random draw; None takes one at random.
        num_top_logprobs: None for no log-probabilities, else how many alternatives to report.
        num_prompt_logprobs: the same of the prompt's tokens.
        stops: strings that end the answer and are not part of it.
        stop_token_ids: tokens that end it.
        ignores_eos: whether the tokens that end an answer by themselves do not.
        min_tokens: nothing ends it before it has so many tokens.
        presence_penalty: is taken off the logit of each token that the answer has.
        frequency_penalty: the same, as often as the answer has it.
        repetition_penalty: makes tokens of prompt and answer less probable, if it is above 1.
        logit_bias: tokens and what is added to their logits.
        bad_words: texts that the answer may not have.
        grammar: what the answer is held to; None for nothing.
        call_form: how calls of functions are written in it; None where there are none.
    """

    max_tokens: int | None = None
    open_tokens: int | None = None
    num_choices: int = 1
    ending: Ending = Ending.ANSWER
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    num_top_logprobs: int | None = None
    num_prompt_logprobs: int | None = None
    stops: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignores_eos: bool = False
    min_tokens: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    bad_words: tuple[str, ...] = ()
    grammar: Grammar | None = None
    call_form: CallForm | None = None


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        id: of the request that it becomes; its reply may show it.
        messages: what is said, with the places of the images.
        prompt: what stands in the place of messages and goes through no template; None where there
            are messages.
        prompt_param: the field that holds either, named where the fault is there.
        adds_special: whether a text gets the tokens that the tokenizer puts around one.
        image_uris: its images, videos or sounds, in the order of their places; none once they are
            fitted.
        images: the same, fitted to the model.
        generation: how the answer is to be generated.
        policy: what it is to run under; None for what `model` says, or the default.
        chosen: what the server has chosen for a question of the same request, where it chooses.
        model: the name by which the model is asked, alone or as NAME@POLICY; None for its own.
        cache_salt: only questions with the same salt share cached work.
        timeout_seconds: it may take so long in the engine, or less where less is allowed.
        priority: of a client's questions that wait the one of the lowest is begun first.
        structure: what the answer is to be held to, before it is compiled; None for nothing.
        tools: functions that it may call; None where there are none.
    """

    id: str
    messages: tuple[Message, ...] = ()
    prompt: RawPrompt | None = None
    prompt_param: str = "messages"
    adds_special: bool = True
    image_uris: tuple[ImageUri, ...] = ()
    images: tuple[Image, ...] = ()
    generation: Generation = field(default_factory=Generation)
    policy: PolicyChoice | None = None
    chosen: Chosen | None = None
    model: str | None = None
    cache_salt: str | None = None
    timeout_seconds: float | None = None
    priority: int = 0
    structure: Structure | None = None
    tools: Tools | None = None

    @property
    def wants_grammar(self) -> bool:
        """Whether there is something to compile."""
        return self.generation.grammar is None and bool(self.structure or self.tools)


@dataclass(frozen=True)
class Prepared:
    """A question that is ready for the engine; lives on without its text and pictures' files.

    Attributes:
        request: what the engine gets; of several answers the first.
        policy: what it runs under.
        model: the name by which the model was asked.
        generation: what was asked of the answer.
        stage_seconds: what the preparation took, by stage.
        chosen: the policy with the reason, where the server has chosen it.
        trace: what it is remembered by, for the choice of others.
    """

    request: Request
    policy: ResolvedPolicy
    model: str
    generation: Generation
    stage_seconds: dict[Stage, float] = field(default_factory=dict)
    chosen: Chosen | None = None
    trace: Trace | None = None

    @property
    def requests(self) -> Iterator[Request]:
        """What the engine gets for each answer that is wanted; the first tells of the prompt."""
        first = self.request
        yield first
        for choice in range(1, self.generation.num_choices):
            yield replace(
                first,
                id=f"{first.id}-{choice}",
                sampling=replace(first.sampling, choice=choice),
                plan=self.policy.plan,
                num_prompt_logprobs=None,
            )

    @property
    def has_logprobs(self) -> bool:
        """Whether log-probabilities were asked for."""
        return self.generation.num_top_logprobs is not None
