"""Free answers: those of transformers' generate, greedily and with beams, and by looking at all."""

import itertools
import math
from collections import Counter
from typing import Any

import pytest
import torch
from tiny_language import make_llama, make_opt

from skipserve_policies.resolve import resolve
from skipserve_policies.schema import SkipPolicy
from skipserve_training.mapping.features import Features
from skipserve_training.mapping.language import FrozenLanguageModel
from skipserve_training.mapping.packing import PICTURE
from skipserve_training.mapping.projectors import PatchProjector
from skipserve_training.mapping.speaking import Beams, Greedy, Speaker, Turn

pytestmark = pytest.mark.fast

END = 1
MODELS: dict[str, Any] = {"llama": make_llama, "opt": make_opt}
TEXTS = [(5, 9, 200), (5, 9), (5, 8, 77, 30), (60,), (61, 90, 91)]


def _speaker(language: FrozenLanguageModel, end: int = END) -> Speaker:
    torch.manual_seed(1)
    features = Features(torch.randn(2, 2, 8).bfloat16().view(torch.int16).numpy())
    return Speaker(language, PatchProjector(8, 32), features, end)


def _turns() -> list[Turn]:
    return [Turn(picture, (PICTURE, PICTURE, *text)) for picture in (0, 1) for text in TEXTS]


def _generate(model: Any, speaker: Speaker, turn: Turn, limit: int, num_beams: int) -> list[int]:
    """Ask transformers, each question alone and without a tree."""
    picture = speaker.projector(speaker.features.take([turn.picture]).float())
    text = torch.tensor([[token for token in turn.prompt if token != PICTURE]])
    rows = torch.cat((picture, model.get_input_embeddings()(text)), dim=1)
    said: list[int] = model.generate(
        inputs_embeds=rows, attention_mask=torch.ones(rows.shape[:2]), max_new_tokens=limit,
        num_beams=num_beams, do_sample=False, eos_token_id=speaker.end, pad_token_id=0,
    )[0].tolist()  # fmt: skip
    return said[: said.index(speaker.end) + 1] if speaker.end in said else said


@pytest.mark.parametrize("num_beams", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", MODELS)
def test_answers_are_those_of_transformers(kind: str, num_beams: int) -> None:
    """With ends that come often, so that answers end at different lengths."""
    model = MODELS[kind]().eval()
    language = FrozenLanguageModel(MODELS[kind]())
    greedy = _speaker(language).say(_turns(), 7)
    common = Counter(token for said in greedy for token in said).most_common(3)
    lengths = set()
    for end, _ in common:
        speaker = _speaker(language, end)
        with torch.inference_mode():
            expected = [_generate(model, speaker, turn, 7, num_beams) for turn in _turns()]
        said = speaker.say(_turns(), 7, num_beams)
        assert [list(tokens) for tokens in said] == expected
        lengths |= {len(tokens) for tokens in said}
    assert len(lengths) > 2


def test_beams_may_find_what_greed_does_not() -> None:
    speaker = _speaker(FrozenLanguageModel(make_llama()))
    greedy, wide = speaker.say(_turns(), 6), speaker.say(_turns(), 6, 3)
    assert any(one != two for one, two in zip(greedy, wide, strict=True))
    assert sum(_log(speaker, *it) for it in zip(_turns(), wide, strict=True)) > sum(
        _log(speaker, *it) for it in zip(_turns(), greedy, strict=True)
    )


def _log(speaker: Speaker, turn: Turn, said: tuple[int, ...]) -> float:
    with torch.inference_mode():
        logits = speaker._logits([Turn(turn.picture, turn.prompt, said[:-1])])
    logs = logits.log_softmax(-1)[range(len(said)), list(said)]
    return float(logs.sum())


def test_wide_enough_beams_see_everything() -> None:
    """Over three tokens, one of which ends an answer: against the best of all that can be said."""
    logs = torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(5)).log_softmax(-1).tolist()

    def after(said: tuple[int, ...]) -> list[float]:
        row: list[float] = logs[len(said)][said[-1] if said else 3]
        return row

    def score(said: tuple[int, ...]) -> float:
        return sum(after(said[:place])[token] for place, token in enumerate(said)) / len(said)

    whole = [
        said
        for length in (1, 2, 3)
        for said in itertools.product(range(4), repeat=length)
        if END not in said[:-1] and (length == 3 or said[-1] == END)
    ]
    search = Beams(40, 3, END)
    while not search.is_done:
        search.take([list(enumerate(after(said))) for said in search.running])
    assert search.best == max(whole, key=score)
    assert math.isclose(search._answers[0][0], max(map(score, whole)))


def test_an_answer_ends_at_its_limit() -> None:
    speaker = _speaker(FrozenLanguageModel(make_llama()), end=999)
    assert {len(said) for beams in (1, 3) for said in speaker.say(_turns(), 5, beams)} == {5}
    search = Greedy(1, END)
    search.take([[(7, -0.1), (8, -2.0)]])
    assert (search.best, search.is_done) == ((7,), True)


def test_a_plan_applies() -> None:
    policy = {"rules": [{"action": "skip_block", "layers": [0], "scope": "generated"}]}
    plan = resolve("lighter", SkipPolicy.model_validate(policy), 2).plan
    language = FrozenLanguageModel(make_llama())
    full, lighter = (_speaker(each).say(_turns(), 5) for each in (language, language.under(plan)))
    assert full != lighter
    assert [said[0] for said in full] == [said[0] for said in lighter]  # the prompt ran whole


def test_following_tells_what_would_be_said_at_each_place() -> None:
    speaker = _speaker(FrozenLanguageModel(make_llama()))
    said = speaker.say(_turns(), 5)
    turns = [
        Turn(turn.picture, turn.prompt, tokens) for turn, tokens in zip(_turns(), said, strict=True)
    ]
    followed = speaker.follow(turns)
    assert [tokens[:-1] for tokens in followed] == said
