"""The choice of a policy for whole requests: rights, what is measured, warm, said before, slow."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest

from skipserve.asking.auto.choice import Reason
from skipserve.asking.auto.chooser import AutoChooser, Occasion
from skipserve.asking.auto.chosen import Chosen, Trace
from skipserve.asking.auto.costs import Shape
from skipserve.asking.auto.terms import AutoTerms, Surroundings, Unmet
from skipserve.asking.auto.traces import Conversation, marks_of
from skipserve.asking.auto.wish import AutoWish
from skipserve.asking.policies import PolicyRegistry
from skipserve.budgets.client import Rights
from skipserve.engine.reports import Stage
from skipserve.engine.request import Image
from skipserve.errors import KeyScopeError, PolicyFitError, UnavailableError
from skipserve.prompt.processor import EncodedPrompt
from skipserve_policies.catalog import load_catalog
from skipserve_policies.flops import prompt_classes
from skipserve_policies.plan import TokenClass
from skipserve_policies.resolve import resolve_for
from skipserve_policies.schema import Quality
from skipserve_policies.sizes import KNOWN_MODELS

pytestmark = pytest.mark.fast

SIZES, CATALOG, WEIGHTS = KNOWN_MODELS["llava-1.5-7b"], load_catalog(), "w"
DECODE, PROMPT, REDUCED = "skip-block-every-3-from-16", "exit-after-24", "visionzip-64"
KEPT = {"full": 1.0, DECODE: 0.99, PROMPT: 0.96, REDUCED: 0.9}
PICTURE = Image(b"", b"p" * 32, SIZES.rows_per_image)
EVERYBODY = Rights()


def quality(low: float | None, weights: str = WEIGHTS, data: str = "scenes") -> Quality:
    return Quality(
        model="m", dataset=data, metric="in %", value=9.0, retention_low=low, model_digest=weights
    )


def registry_of(
    kept: Mapping[str, float | tuple[Quality, ...]], default: str = "full"
) -> PolicyRegistry:
    measured = {
        resolve_for(name, CATALOG[name], SIZES).digest: it
        if isinstance(it, tuple)
        else (quality(it),)
        for name, it in kept.items()
    }
    return PolicyRegistry(CATALOG, SIZES, "the list", measured, default=default)


class Server:
    """A chooser, how its server stands, and what it is asked."""

    def __init__(
        self,
        kept: Mapping[str, float | tuple[Quality, ...]] = KEPT,
        terms: AutoTerms | None = None,
        default: str = "full",
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.around = Surroundings(WEIGHTS, 100_000)
        self.policies = registry_of(kept, default)
        self.chooser = AutoChooser(self.policies, SIZES, terms or AutoTerms(), clock)
        self.chooser.watch(lambda: self.around)

    def occasion(
        self,
        wish: AutoWish | None = None,
        rights: Rights = EVERYBODY,
        conversation: Conversation | None = None,
        root: bytes = b"",
        num_after: int = 20,
        **shape: Any,
    ) -> Occasion:
        segments = [
            (TokenClass.TEXT, 16),
            (TokenClass.VISUAL, SIZES.rows_per_image),
            (TokenClass.TEXT, num_after),
        ]
        classes = prompt_classes(segments)
        prompt = EncodedPrompt(tuple(range(len(classes))), classes)
        trace = Trace(root, marks_of(prompt, [PICTURE], root), conversation or Conversation(None))
        return Occasion(wish or AutoWish(), rights, Shape(classes, (PICTURE,), 8, **shape), trace)

    def choose(self, wish: AutoWish | None = None, rights: Rights = EVERYBODY, **of: Any) -> Chosen:
        return self.chooser.choose(self.occasion(wish, rights, **of))

    def run(self, name: str, seconds: float = 1.0, num_choices: int = 1, **of: Any) -> Occasion:
        """Let a request run under a policy, chosen by the server or not, and end."""
        occasion = self.occasion(**of)
        policy = self.policies.find(name)
        images = [it.reduced(policy.reduction) for it in occasion.shape.images]
        request = SimpleNamespace(images=images, token_classes=occasion.shape.prompt, num_scored=0)
        account: Any = SimpleNamespace(
            prepared=SimpleNamespace(
                request=request,
                policy=policy,
                trace=occasion.trace,
                chosen=Chosen(policy, self.chooser.choose(occasion).because),
            ),
            choices=[None] * num_choices,
            num_generated=8,
            num_cached=0,
            stage_seconds={Stage.PREFILL: seconds / 2, Stage.DECODE: seconds / 2},
            elapsed_seconds=seconds,
        )
        self.chooser.settle(account)
        return occasion


def of(chosen: Chosen) -> tuple[str, Reason]:
    return chosen.policy.name, chosen.because.reason


def test_the_cheapest_that_is_measured_to_keep_enough() -> None:
    server = Server()
    assert of(server.choose()) == (DECODE, Reason.CHEAPEST)
    assert of(server.choose(AutoWish(0.95))) == (PROMPT, Reason.CHEAPEST)
    told = server.choose(AutoWish(0.97, 500)).because
    assert (told.min_quality, told.quality, told.max_latency_ms) == (0.97, 0.99, 500)
    assert (told.expected_latency_ms, told.expected_cached_tokens) == (None, 0)


def test_no_request_goes_under_the_operators_floor() -> None:
    chosen = Server().choose(AutoWish(0.5))
    assert of(chosen) == (PROMPT, Reason.CHEAPEST)
    assert chosen.because.min_quality == 0.95
    assert of(Server(terms=AutoTerms(min_quality=0.5)).choose(AutoWish(0.5)))[0] == REDUCED


def test_without_a_measurement_on_these_weights_it_is_full() -> None:
    for server in (
        Server({}),
        Server({DECODE: (quality(0.99, "other"),)}),
        Server({DECODE: (quality(None),)}),
    ):
        chosen = server.choose(AutoWish(0.5))
        assert of(chosen) == ("full", Reason.UNMEASURED)
        assert (chosen.because.quality, chosen.because.min_quality) == (None, None)
    server = Server()
    server.around = Surroundings(None)
    assert of(server.choose()) == ("full", Reason.UNMEASURED)
    assert of(Server({}, default=DECODE).choose()) == (DECODE, Reason.UNMEASURED)


def test_of_several_data_sets_the_worst_counts() -> None:
    both = (quality(0.99), quality(0.97, data="other"))
    assert of(Server({DECODE: both}).choose())[0] == "full"
    assert of(Server({DECODE: both[:1]}).choose())[0] == DECODE


def test_full_keeps_all_unless_it_was_measured_beside_another_model() -> None:
    assert Server({DECODE: 0.9}).choose().because.quality == 1
    beside_another = Server({"full": 0.1, DECODE: 0.96})
    chosen = beside_another.choose()
    # What no policy reaches is not asked for where the request does not say.
    assert (chosen.policy.name, chosen.because.min_quality) == (DECODE, 0.96)


def test_only_what_the_operator_lets_be_chosen() -> None:
    terms = AutoTerms(policies=("full", PROMPT))
    assert of(Server(terms=terms).choose())[0] == "full"
    assert of(Server(terms=terms).choose(AutoWish(0.9)))[0] == PROMPT


def test_a_key_gets_one_of_its_own_policies() -> None:
    server = Server()
    assert of(server.choose(rights=Rights(frozenset({"full", PROMPT}))))[0] == "full"
    assert of(server.choose(rights=Rights(frozenset({"auto"}))))[0] == DECODE
    unmeasured = Rights(frozenset({"fastv-64"}))
    with pytest.raises(KeyScopeError, match="none that it may use, fastv-64, was measured"):
        server.choose(rights=unmeasured)
    assert not server.chooser.can_choose(unmeasured)


def test_what_nothing_keeps_is_refused_or_as_the_operator_set() -> None:
    rights, wish = Rights(frozenset({PROMPT, REDUCED})), AutoWish(0.97)
    with pytest.raises(PolicyFitError, match=r"keeps at least 0\.97.*'exit-after-24', keeps 0\.96"):
        Server().choose(wish, rights)
    nearest = Server(terms=AutoTerms(unmet=Unmet.NEAREST))
    assert of(nearest.choose(wish, rights)) == (PROMPT, Reason.UNMET)
    whole = Server(terms=AutoTerms(unmet=Unmet.FULL))
    with pytest.raises(KeyScopeError):
        whole.choose(wish, rights)
    narrow = Server(terms=AutoTerms(unmet=Unmet.FULL, policies=(PROMPT,)))
    assert of(narrow.choose(wish)) == ("full", Reason.UNMET)


def test_a_latency_that_nothing_meets() -> None:
    server = Server()
    server.run("full", seconds=10)
    with pytest.raises(PolicyFitError, match="expected to answer in 5 ms"):
        server.choose(AutoWish(max_latency_ms=5))
    # Enough but for those that wait.
    server.around = Surroundings(WEIGHTS, 100_000, wait_seconds=3)
    with pytest.raises(UnavailableError, match="3000 ms behind others") as caught:
        server.choose(AutoWish(max_latency_ms=11_000), root=b"cold")
    assert caught.value.retry_after_seconds == 3
    nearest = Server(terms=AutoTerms(unmet=Unmet.NEAREST))
    nearest.run("full", seconds=10)
    assert of(nearest.choose(AutoWish(max_latency_ms=5), root=b"cold")) == (PROMPT, Reason.UNMET)


def test_what_is_refused_is_tried_again_after_a_while() -> None:
    now = [0.0]
    server = Server(clock=lambda: now[0])
    server.run("full", seconds=10)
    late = AutoWish(max_latency_ms=5)
    with pytest.raises(PolicyFitError):
        server.choose(late)
    now[0] = 6.0
    because = server.choose(late).because
    assert (because.reason, because.expected_latency_ms) == (Reason.CHEAPEST, None)
    with pytest.raises(PolicyFitError):
        server.choose(late)


def test_a_latency_lowers_the_quality_to_the_floor_and_not_a_quality_that_was_asked_for() -> None:
    server = Server()
    server.run("full", seconds=10)
    expected = server.choose(AutoWish(0.98), root=b"cold").because.expected_latency_ms
    assert expected is not None
    tight = expected - 100
    chosen = server.choose(AutoWish(max_latency_ms=tight), root=b"cold")
    assert of(chosen) == (PROMPT, Reason.LATENCY)
    assert chosen.because.min_quality == 0.95
    with pytest.raises(PolicyFitError):
        server.choose(AutoWish(0.98, tight), root=b"cold")


def test_pressure_begins_and_ends_with_a_band_between() -> None:
    server = Server()

    def chosen(wait_seconds: float) -> tuple[str, Reason]:
        server.around = replace(server.around, wait_seconds=wait_seconds)
        return of(server.choose())

    calm, pressed = (DECODE, Reason.CHEAPEST), (PROMPT, Reason.PRESSURE)
    waits = {0.0: calm, 0.9: calm, 1.0: pressed, 0.3: pressed, 0.25: calm, 0.8: calm}
    assert {wait: chosen(wait) for wait in waits} == waits


def test_a_conversation_keeps_its_policy() -> None:
    server = Server()
    server.run(PROMPT, conversation=Conversation(b"first"))
    later = Conversation(b"second", (b"first",))
    assert of(server.choose(conversation=later)) == (PROMPT, Reason.CONVERSATION)
    assert of(server.choose(AutoWish(0.98), conversation=later))[0] == DECODE
    other = Conversation(b"second", (b"another",))
    assert server.choose(conversation=other).because.reason is not Reason.CONVERSATION


def test_pages_that_are_there_are_part_of_the_cost() -> None:
    server = Server()
    server.run("full", num_after=200)
    chosen = server.choose(AutoWish(0.95), num_after=200)
    # What skips in answers alone shares the prompt's pages with full; the other would compute all.
    assert of(chosen) == (DECODE, Reason.WARM)
    assert chosen.because.expected_cached_tokens == 16 + SIZES.rows_per_image + 192
    assert of(server.choose(AutoWish(0.95), num_after=200, root=b"bob"))[0] == PROMPT


def test_nothing_is_warm_where_pages_are_not_reused() -> None:
    server = Server(terms=AutoTerms(reuses_pages=False))
    server.run("full", num_after=200)
    assert server.choose(num_after=200).because.expected_cached_tokens == 0


def test_a_prompt_that_is_scored_is_computed_whole_and_by_what_can_score_it() -> None:
    server = Server({"full": 1.0, DECODE: 0.99, "fastv-64": 0.985})
    assert of(server.choose())[0] == "fastv-64"
    server.run(DECODE)
    chosen = server.choose(is_scored=True)
    assert of(chosen)[0] == DECODE
    assert chosen.because.expected_cached_tokens == 0
