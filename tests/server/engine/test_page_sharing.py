"""Two requests share just the pages whose rows were computed alike, for all pairs of policies.

The oracle is the reference decoder, which follows the rules of a policy word by word: pages are
alike iff their rows store K/V at the same layers, with the same bits.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest
import torch
from catalog_parts import skipping_policies
from reference_llava import ReferenceDecoder, steps_of_policy
from torch import Tensor

from skipserve.engine.page_keys import PageKeys, find_visual
from skipserve.engine.pages import PageKey, PagePool
from skipserve.engine.plans import PlanTable
from skipserve.engine.request import Image, Request, SamplingParams
from skipserve_policies.plan import TokenClass
from skipserve_policies.resolve import ResolvedPolicy, resolve
from skipserve_policies.schema import SkipPolicy

pytestmark = pytest.mark.fast

NUM_LAYERS = 32
PAGE = 4
IMAGE_ID = 4
TOKENS_PER_IMAGE = 9
TEXT, VISUAL, LAST, GENERATED = TokenClass

# Text, an image that begins and ends inside a page, text; the answer; what is asked next.
# The last row of the prompt fills a page.
BEFORE, AFTER = tuple(range(20, 30)), tuple(range(30, 43))
PROMPT = (*BEFORE, *(IMAGE_ID,) * TOKENS_PER_IMAGE, *AFTER)
ANSWER = tuple(range(50, 59))
FOLLOW_UP = tuple(range(60, 66))
# The last token of an answer is not computed.
NUM_COMPUTED = len(PROMPT) + len(ANSWER) - 1

# What the catalog leaves out: other scopes, and what happens at the top of the stack.
EXTRA_RULES: dict[str, dict[str, object]] = {
    "answer": {"action": "skip_ffn", "layers": [17, 20], "scope": "answer"},
    "prompt": {"action": "skip_block", "layers": [17, 20], "scope": "prompt"},
    "top-ffn": {"action": "skip_ffn", "layers": [31], "scope": "generated"},
    "top-parallel": {"action": "parallel_ffn_attention", "layers": [31], "scope": "all"},
    "top-attention": {"action": "skip_attention", "layers": [31], "scope": "answer"},
    "top-pair": {"action": "parallel_blocks", "layers": [30], "scope": "generated"},
    "top-pair-all": {"action": "parallel_blocks", "layers": [30], "scope": "all"},
    "top-frozen": {"action": "skip_block", "layers": [30], "scope": "prompt"},
}
CATALOG = skipping_policies()
EXTRA = {name: SkipPolicy.model_validate({"rules": [r]}) for name, r in EXTRA_RULES.items()}
POLICIES = {name: resolve(name, p, NUM_LAYERS) for name, p in (CATALOG | EXTRA).items()}
EVERY_PAIR = [(one, other) for one in POLICIES for other in POLICIES]


class Recorder(ReferenceDecoder):
    """The reference decoder, with the keys and values of all rows; keys before their rotation."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, num_heads=2, num_kv_heads=2)
        self.projected: list[Tensor] = []

    def _heads(self, name: str, x: Tensor, num_heads: int) -> Tensor:
        heads: Tensor = super()._heads(name, x, num_heads)
        if not name.endswith("q_proj"):
            self.projected.append(heads)
        return heads

    def keys_and_values(self, policy: ResolvedPolicy, classes: tuple[TokenClass, ...]) -> Tensor:
        """Return what all rows project at all layers, [T, L, 2, K, C] float64."""
        ids = torch.tensor((*PROMPT, *ANSWER, *FOLLOW_UP))
        generator = torch.Generator().manual_seed(0)
        features = torch.randn(TOKENS_PER_IMAGE, 32, generator=generator)
        self.projected.clear()
        steps = steps_of_policy(policy.policy, NUM_LAYERS)
        self.logits(self.embed(ids, ids == IMAGE_ID, features), classes, steps)
        projected: Tensor = torch.stack(self.projected, dim=1).unflatten(1, (NUM_LAYERS, 2))
        return projected


@dataclass(frozen=True)
class Turn:
    """A request under a policy, or the same tokens as the prompt of the next turn.

    Attributes:
        rows: for each row, the bits of all that it stores and where.
        keys: of its full pages.
    """

    rows: tuple[bytes, ...]
    keys: tuple[PageKey, ...]

    @property
    def pages(self) -> list[tuple[bytes, ...]]:
        """The rows of each full page."""
        return [self.rows[i * PAGE : (i + 1) * PAGE] for i in range(len(self.keys))]


def _request(policy: ResolvedPolicy, prompt: tuple[int, ...], image: str, salt: str) -> Request:
    classes = [VISUAL if token_id == IMAGE_ID else TEXT for token_id in prompt]
    return Request(
        id=policy.name,
        prompt_ids=prompt,
        token_classes=(*classes[:-1], LAST),
        images=(Image(b"", hashlib.sha256(image.encode()).digest(), TOKENS_PER_IMAGE),),
        sampling=SamplingParams(max_tokens=len(ANSWER)),
        policy_name=policy.name,
        plan=policy.plan,
        cache_salt=salt,
    )


def page_keys(
    policy: ResolvedPolicy,
    prompt: tuple[int, ...] = PROMPT,
    answer: tuple[int, ...] = (),
    image: str = "cat",
    salt: str = "",
) -> tuple[PageKey, ...]:
    """Return the keys of all pages that are full."""
    token_ids = np.array((*prompt, *answer), dtype=np.int64)
    request = _request(policy, prompt, image, salt)
    digests = PlanTable(policy.plan.num_layers).acquire(policy.plan).kv_digests
    keys = PageKeys(request, digests, PAGE, find_visual(request, IMAGE_ID))
    return tuple(keys.key(i, token_ids) for i in range(len(token_ids) // PAGE))


def stored_rows(
    policy: ResolvedPolicy, classes: tuple[TokenClass, ...], projected: Tensor
) -> tuple[bytes, ...]:
    """Return the bits of what each row stores, with the layers."""
    rows = []
    for token_class, row in zip(classes, projected, strict=True):
        stores_kv = torch.tensor(policy.plan.kv[token_class])
        rows.append(bytes(policy.plan.kv[token_class]) + row[stores_kv].numpy().tobytes())
    return tuple(rows)


def _turns(recorder: Recorder, num_prompt: int) -> Iterator[tuple[str, Turn]]:
    """Run the conversation under every policy, its first rows being the prompt."""
    tokens = (*PROMPT, *ANSWER, *FOLLOW_UP)
    prompt, answer = tokens[:num_prompt], tokens[num_prompt:]
    classes = [VISUAL if token_id == IMAGE_ID else TEXT for token_id in prompt]
    all_classes = (*classes[:-1], LAST, *(GENERATED,) * len(answer))
    for name, policy in POLICIES.items():
        rows = stored_rows(policy, all_classes, recorder.keys_and_values(policy, all_classes))
        yield name, Turn(rows, page_keys(policy, prompt, answer))


@pytest.fixture(scope="module")
def recorder(checkpoint: Path) -> Recorder:
    return Recorder(checkpoint)


@pytest.fixture(scope="module")
def first_turns(recorder: Recorder) -> dict[str, Turn]:
    """The prompt and its answer, by policy."""
    return dict(_turns(recorder, len(PROMPT)))


@pytest.fixture(scope="module")
def next_turns(recorder: Recorder) -> dict[str, Turn]:
    """All of it as a prompt."""
    return dict(_turns(recorder, len(PROMPT) + len(ANSWER) + len(FOLLOW_UP)))


def num_matched(published: tuple[PageKey, ...], asked: tuple[PageKey, ...]) -> int:
    """Return how many pages a pool that has seen some finds again."""
    pool = PagePool(len(published), PAGE)
    pages = pool.allocate(len(published))
    for page, key in zip(pages, published, strict=True):
        pool.publish(page, key)
    pool.release(pages)
    return len(pool.match(asked))


def num_alike(one: Turn, other: Turn, most: int) -> int:
    """Return how many of the first pages hold the same bits at the same layers."""
    both = list(zip(one.pages, other.pages, strict=True))[:most]
    return len(list(takewhile(lambda pages: pages[0] == pages[1], both)))


def test_one_prompt_shares_the_pages_that_are_computed_alike(first_turns: dict[str, Turn]) -> None:
    most = (len(PROMPT) - 1) // PAGE
    counts = set()
    for one, other in EVERY_PAIR:
        wanted = num_alike(first_turns[one], first_turns[other], most)
        found = num_matched(first_turns[one].keys, first_turns[other].keys[:most])
        assert found == wanted, (one, other)
        counts.add(found)
    # Nothing, the text before the image, all.
    assert counts == {0, 2, most}


def test_an_answer_that_comes_back_as_text_is_shared_where_it_was_computed_alike(
    first_turns: dict[str, Turn], next_turns: dict[str, Turn]
) -> None:
    most = NUM_COMPUTED // PAGE
    counts = set()
    for one, other in EVERY_PAIR:
        wanted = num_alike(first_turns[one], next_turns[other], most)
        found = num_matched(first_turns[one].keys[:most], next_turns[other].keys)
        assert found == wanted, (one, other)
        counts.add(found)
    # Nothing, the text before the image, the prompt without its last row and with it, all.
    assert counts == {0, 2, 7, 8, most}


def _in_scope(scope: str) -> list[str]:
    return [name for name, policy in POLICIES.items() if policy.scope == scope]


@pytest.mark.parametrize(
    "name", sorted({*_in_scope("generated"), *_in_scope("answer")} - {"top-attention"})
)
def test_policies_for_the_answer_share_the_whole_prompt_with_full(name: str) -> None:
    asked = page_keys(POLICIES[name])[:7]
    assert num_matched(page_keys(POLICIES["full"]), asked) == 7


@pytest.mark.parametrize("name", _in_scope("visual"))
def test_policies_for_the_image_share_the_text_before_it_with_full(name: str) -> None:
    assert num_matched(page_keys(POLICIES["full"]), page_keys(POLICIES[name])) == 2


@pytest.mark.parametrize("name", CATALOG)
def test_another_image_shares_the_text_before_it(name: str) -> None:
    published = page_keys(POLICIES[name])
    assert num_matched(published, page_keys(POLICIES[name], image="dog")) == 2
    assert num_matched(published, page_keys(POLICIES[name])) == 8


@pytest.mark.parametrize("name", CATALOG)
def test_another_salt_shares_nothing(name: str) -> None:
    published = page_keys(POLICIES[name], salt="a")
    assert num_matched(published, page_keys(POLICIES[name], salt="b")) == 0
    assert num_matched(published, page_keys(POLICIES[name])) == 0
