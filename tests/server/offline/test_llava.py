"""Tests of asking a model without a server: the demo, and the server's own tiny one."""

import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from live_server import LiveServer
from media_models import (
    AST,
    TIMESFORMER,
    VIT,
    film,
    make_media_model,
    media_uri,
    noise,
    video_file,
    wav_file,
)
from pictures import data_uri, encode, image_part, question, random_picture
from PIL.Image import Image, new
from safetensors.torch import load_file, save_file
from tiny_llava import make_checkpoint
from tiny_opt import OptShape

from skipserve import Answer, LLaVA, Question, SkipserveError
from skipserve.engine.limits import EngineLimits
from skipserve.engine.reports import FinishReason
from skipserve.errors import (
    EngineError,
    InvalidRequestError,
    NotFoundError,
    PolicyFitError,
    UnusableImageError,
)
from skipserve.model.llava import Llava
from skipserve.model_folder import StartError
from skipserve.offline.questions import AnyQuestion
from skipserve.settings import Settings
from skipserve_client.evaluate.dataset import demo_examples
from skipserve_client.evaluate.scenes import Split
from skipserve_policies.schema import Action, Rule, SkipPolicy
from skipserve_policies.sizes import MappingSizes

COUNT = "How many red squares are there?"
DESCRIBE = "Describe the picture."
POLICIES = ("full", "skip-block-every-3-from-16", "skip-block-every-3-from-0-all", "exit-after-24")
OPT_350M = OptShape(is_post_norm=True, word_size=24)
PICTURE = Path(__file__).parents[3] / "docs" / "picture.png"


@pytest.fixture(scope="module")
def llava() -> LLaVA:
    return LLaVA(num_threads=1)


@pytest.fixture(scope="module")
def picture() -> Image:
    return next(demo_examples(Split.HELD_OUT, 1)).image


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test if the model computes anything."""

    def compute(*_: object) -> None:
        raise AssertionError("the model was used")

    monkeypatch.setattr(Llava, "encode_images", compute)
    monkeypatch.setattr(Llava, "forward", compute)


def texts(answers: list[Answer]) -> list[str]:
    return [answer.text for answer in answers]


def check_words(error: Exception) -> None:
    """Check that a message speaks of what whoever writes Python has given."""
    for word in ("/v1/", "HTTP", "--", "request", "body", "max_completion_tokens", "Input should"):
        assert word not in re.sub(r"hf download .*", "", str(error))


def refused(llava: LLaVA, questions: list[Any], **options: Any) -> SkipserveError:
    with pytest.raises(SkipserveError) as caught:
        llava.generate(questions, **options)
    return caught.value


def test_the_picture_of_the_readme(llava: LLaVA) -> None:
    policy = "skip-block-every-3-from-16"
    (answer,) = llava.generate([(PICTURE, COUNT)], skip_policy=policy, max_tokens=16)
    assert answer.text == "2"
    assert answer.finish_reason is FinishReason.STOP
    assert len(answer.token_ids) == 2  # the end token too
    assert answer.logprobs is None
    assert answer.skip.policy == policy
    assert answer.skip.layers == {"skip_block": (18, 21, 24, 27, 30)}


def test_answers_are_the_servers(checkpoint: Path, client: httpx.Client) -> None:
    """Three ways to the same answer, over HTTP and not."""
    url = data_uri(encode(random_picture(40, 30)))
    policy = "skip-block-every-3-from-0-all"
    options: dict[str, Any] = {"max_tokens": 8, "logprobs": True, "top_logprobs": 2}
    body = question("What is it?", url, temperature=0, skip_policy=policy, **options)
    reply = client.post("/v1/chat/completions", json=body).json()
    turn = {"role": "user", "content": [image_part(url), {"type": "text", "text": "What is it?"}]}
    for asked in ([(random_picture(40, 30), "What is it?")], [[turn]]):
        (answer,) = LLaVA(checkpoint, num_threads=1).generate(asked, skip_policy=policy, **options)
        choice = reply["choices"][0]
        assert answer.text == choice["message"]["content"]
        assert answer.finish_reason == choice["finish_reason"]
        assert answer.skip.digest == reply["metrics"]["skip"]["digest"]
        assert answer.num_prompt_tokens == reply["usage"]["prompt_tokens"]
        assert len(answer.token_ids) == reply["usage"]["completion_tokens"]
        assert answer.logprobs is not None
        for ours, theirs in zip(answer.logprobs, choice["logprobs"]["content"], strict=True):
            assert ours.token == theirs["token"]
            assert ours.logprob == pytest.approx(theirs["logprob"], abs=1e-3)
            assert len(ours.top_logprobs) == 2


def test_a_decoder_of_opts_type_answers_as_its_server(tmp_path: Path, settings: Settings) -> None:
    """Nine requests at once, under three policies, and one by one."""
    make_checkpoint(tmp_path, num_layers=10, opt=OPT_350M, tie=True)
    picture = random_picture(40, 30)
    policies = ("full", "skip-ffn-every-3-from-16-all", "parallel-blocks-every-3-from-16-all")
    asked = [(policy, text) for policy in policies for text in ("What is it?", "No.", "Which one?")]
    options: dict[str, Any] = {"max_tokens": 5, "logprobs": True}
    llava = LLaVA(tmp_path, num_threads=1)
    answers = [
        llava.generate([(picture, text)], skip_policy=policy, **options)[0]
        for policy, text in asked
    ]
    opt_settings = settings.model_copy(update={"model": str(tmp_path)})
    with (
        LiveServer(opt_settings) as server,
        server.client() as client,
        ThreadPoolExecutor() as pool,
    ):

        def ask(policy: str, text: str) -> Any:
            fields = {"temperature": 0, "skip_policy": policy, **options}
            body = question(text, data_uri(encode(picture)), **fields)
            return client.post("/v1/chat/completions", json=body).json()["choices"][0]

        replies = list(pool.map(lambda it: ask(*it), asked))
    logprobs = [[it.logprob for it in answer.logprobs or ()] for answer in answers]
    for reply, answer, expected in zip(replies, answers, logprobs, strict=True):
        assert reply["message"]["content"] == answer.text
        found = [it["logprob"] for it in reply["logprobs"]["content"]]
        assert found == pytest.approx(expected, abs=1e-3)
    assert len({expected[1] for expected in logprobs}) == len(asked)


def test_a_mixed_batch_answers_as_one_by_one(llava: LLaVA) -> None:
    """Short and long answers, all policies in one call: each comes back in its place."""
    asked: list[Question] = []
    policies: list[str] = []
    for index, example in enumerate(demo_examples(Split.HELD_OUT, 12)):
        asked.append(Question(DESCRIBE if index % 3 == 1 else example.question, (example.image,)))
        policies.append(POLICIES[index % len(POLICIES)])
    together = llava.generate((each for each in asked), skip_policy=policies, max_tokens=40)
    for one, policy, answer in zip(asked, policies, together, strict=True):
        (alone,) = llava.generate([one], skip_policy=policy, max_tokens=40)
        assert answer.text == alone.text
        assert answer.token_ids == alone.token_ids
        assert answer.skip.policy == policy
    assert len(set(texts(together))) > 6


def test_several_images_and_none(llava: LLaVA, picture: Image) -> None:
    one, two, none = llava.generate([(picture, COUNT), ([picture] * 2, COUNT), COUNT], max_tokens=2)
    num_rows = two.num_prompt_tokens - one.num_prompt_tokens
    assert num_rows > 30
    assert one.num_prompt_tokens - none.num_prompt_tokens >= num_rows


@pytest.mark.parametrize("opt", [None, OptShape(), OPT_350M], ids=["llama", "opt", "opt-350m"])
def test_a_model_with_a_mapping_module(tmp_path: Path, opt: OptShape | None) -> None:
    """A picture takes as many rows as the module has queries, under any policy and in any batch."""
    sizes = MappingSizes(num_queries=3, hidden_size=16, num_layers=2, num_heads=2, ffn_size=24)
    make_checkpoint(tmp_path, mapping=sizes, num_layers=6, opt=opt)
    llava = LLaVA(tmp_path, num_threads=1)
    pictures = [random_picture(40, 30), new("RGB", (30, 40), "red")]
    asked = [(picture, text) for picture in pictures for text in ("What is it?", "No.")]
    rule = Rule(action=Action.SKIP_BLOCK, layers=(2, 3), scope="visual")
    policies: list[str | SkipPolicy] = [
        "full",
        "skip-block-every-3-from-0-all",
        SkipPolicy(rules=(rule,)),
    ]
    for policy in policies:
        alone = [llava.generate([it], skip_policy=policy, max_tokens=6)[0] for it in asked]
        together = llava.generate(asked, skip_policy=policy, max_tokens=6)
        assert texts(together) == texts(alone)
        for answer in together:
            assert re.search(r"\+3\+", answer.skip.saved_for.prompt)
            before, rows, after = map(int, answer.skip.saved_for.prompt.split("+"))
            assert before + rows + after == answer.num_prompt_tokens
    (both,) = llava.generate([([*pictures], "Which?")], max_tokens=1)
    assert both.skip.saved_for.prompt.split("+")[1::2] == ["3", "3"]


def test_nothing_is_asked(llava: LLaVA) -> None:
    assert llava.generate([]) == []
    assert llava.generate(iter(()), skip_policy=[]) == []


def test_a_stop_string_across_tokens(llava: LLaVA) -> None:
    (whole,) = llava.generate([(PICTURE, DESCRIBE)], logprobs=True)
    assert whole.logprobs is not None
    ends = [len("".join(t.token for t in whole.logprobs[: n + 1])) for n in range(3)]
    stop = whole.text[ends[1] - 2 : ends[1] + 1]
    options: Any = {"stop": ["nowhere", stop], "logprobs": True}
    stopped, other = llava.generate([(PICTURE, DESCRIBE), (PICTURE, COUNT)], **options)
    assert stopped.text == whole.text[: whole.text.index(stop)]
    assert stopped.finish_reason is FinishReason.STOP
    assert stopped.token_ids == whole.token_ids[:3]
    assert stopped.logprobs is not None
    assert 0 < len(stopped.logprobs) < 3
    assert other.text == "2"
    # The request that was stopped is gone from the engine.
    assert texts(llava.generate([(PICTURE, COUNT)])) == ["2"]


def test_a_token_that_ends_answers(llava: LLaVA) -> None:
    (whole,) = llava.generate([(PICTURE, DESCRIBE)])
    ids = whole.token_ids
    at = next(place for place in range(2, len(ids)) if ids[place] not in ids[:place])
    (stopped,) = llava.generate([(PICTURE, DESCRIBE)], stop_token_ids=[0, ids[at]])
    assert stopped.token_ids == whole.token_ids[: at + 1]
    assert stopped.finish_reason is FinishReason.STOP
    (shorter,) = llava.generate([(PICTURE, DESCRIBE)], max_tokens=at)
    assert stopped.text == shorter.text


def test_a_special_token_ends_answers_by_its_word(llava: LLaVA) -> None:
    (whole,) = llava.generate([(PICTURE, DESCRIBE)])
    (same,) = llava.generate([(PICTURE, DESCRIBE)], stop=["</s>", "<image>"])
    assert same.token_ids == whole.token_ids


def test_tokens_run_out(llava: LLaVA) -> None:
    (answer,) = llava.generate([(PICTURE, DESCRIBE)], max_tokens=3)
    assert answer.finish_reason is FinishReason.LENGTH
    assert len(answer.token_ids) == 3


def test_log_probabilities(llava: LLaVA) -> None:
    (answer,) = llava.generate([(PICTURE, DESCRIBE)], max_tokens=5, logprobs=True, top_logprobs=3)
    assert answer.logprobs is not None
    assert "".join(token.token for token in answer.logprobs).strip() == answer.text
    for token in answer.logprobs:
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].logprob == token.logprob <= 0


def test_samples_differ_and_come_again(llava: LLaVA, picture: Image) -> None:
    options: Any = {"temperature": 2.0, "seed": 1, "max_tokens": 12}
    samples = texts(llava.generate([(picture, DESCRIBE)] * 4, **options))
    assert len(set(samples)) > 1
    assert texts(llava.generate([(picture, DESCRIBE)] * 4, **options)) == samples
    assert texts(llava.generate([(picture, DESCRIBE)] * 4, temperature=0.0)) != samples


def test_what_is_saved(llava: LLaVA) -> None:
    full, skipped = llava.generate([(PICTURE, COUNT)] * 2, skip_policy=["full", "exit-after-24"])
    assert full.skip.saved_ratio == 0
    assert full.skip.planned_flops == full.skip.full_flops
    assert 0.1 < skipped.skip.saved_ratio < 0.3
    assert skipped.skip.planned_flops < skipped.skip.full_flops


def test_policies_spelt_out(llava: LLaVA) -> None:
    rule = {"action": "skip_ffn", "layers": [20, 21], "scope": "all"}
    as_object = SkipPolicy(rules=(Rule.model_validate(rule),))
    answers = llava.generate([(PICTURE, COUNT)] * 2, skip_policy=[as_object, {"rules": [rule]}])
    for answer in answers:
        assert answer.text == "2"
        assert answer.skip.policy == "inline"
        assert answer.skip.layers == {Action.SKIP_FFN.value: (20, 21)}


def test_the_policies(llava: LLaVA, tmp_path: Path) -> None:
    assert set(POLICIES) < set(llava.policies)
    file = tmp_path / "policies.yaml"
    file.write_text("mine: {rules: [{action: skip_ffn, layers: [9], scope: all}]}")
    mine = LLaVA(num_threads=1, policies=file)
    assert mine.policies == [*llava.policies, "mine"]
    assert mine.generate([(PICTURE, COUNT)], skip_policy="mine")[0].skip.policy == "mine"


def test_a_policy_is_chosen(llava: LLaVA) -> None:
    wishes: list[Any] = ["auto", {"auto": {"min_quality": 0.995}}]
    usual, best = llava.generate([(PICTURE, COUNT)] * 2, skip_policy=wishes)
    assert usual.skip.requested == best.skip.requested == "auto"
    assert usual.skip.chosen_because is not None
    assert (usual.skip.chosen_because.quality or 0) >= 0.98
    assert usual.skip.saved_ratio > 0
    assert best.skip.policy == "full"
    with pytest.raises(InvalidRequestError, match=r"auto\.min_qualty"):
        llava.generate([COUNT], skip_policy={"auto": {"min_qualty": 0.9}})


def test_a_models_own_default_runs_where_none_is_asked_for(
    checkpoint: Path, half_checkpoint: Path
) -> None:
    half = LLaVA(half_checkpoint, num_threads=1)
    assert (half.default_policy, half.policies[-2:]) == ("half", ["half", "whole"])
    options: dict[str, Any] = {"max_tokens": 4, "ignore_eos": True}
    (own,) = half.generate(["Why?"], **options)
    (full,) = half.generate(["Why?"], skip_policy="full", **options)
    assert (own.skip.policy, full.skip.policy) == ("half", "full")
    assert own.skip.layers == {Action.SKIP_BLOCK.value: tuple(range(2, 31, 2))}
    whole = LLaVA(checkpoint, num_threads=1)
    assert whole.default_policy == "full"
    (same,) = whole.generate(["Why?"], **options)
    assert (same.skip.policy, same.token_ids) == ("full", full.token_ids)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("asked", "kind", "told"),
    [
        (None, InvalidRequestError, "questions[1]: a question is a text"),
        ("nowhere.png", InvalidRequestError, "questions[1]: this is a picture without a text"),
        (("nowhere.png", COUNT), UnusableImageError, "questions[1]: image nowhere.png: "),
        ((b"GIF8", COUNT), UnusableImageError, "questions[1]: an image: the image"),
        ((new("RGB", (0, 5)), COUNT), UnusableImageError, "the image is empty: it is 0 x 5"),
        (
            (encode(new("1", (20_000, 20_000))), COUNT),
            UnusableImageError,
            "questions[1]: an image: the image is too large: it is 20000 x 20000 pixels, and at "
            "most 10000 pixels",
        ),
        ((random_picture(900, 1), COUNT), UnusableImageError, "questions[1]: an image: "),
        ("why " * 200, InvalidRequestError, "questions[1]: the prompt has"),
    ],
    ids=["type", "text", "path", "bytes", "empty", "large", "thin", "long"],
)
def test_a_bad_question_is_named(
    checkpoint: Path, asked: Any, kind: type[SkipserveError], told: str
) -> None:
    llava = LLaVA(checkpoint, num_threads=1, max_image_pixels=10_000)
    error = refused(llava, [COUNT, asked])
    assert isinstance(error, kind)
    assert told in str(error)
    assert error.param == "questions[1]"
    check_words(error)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("options", "kind", "told"),
    [
        ({"skip_policy": "skip-blok-every-3-from-16"}, NotFoundError, POLICIES[1]),
        ({"skip_policy": ["full", "nope"]}, NotFoundError, "skip_policy[1]: there is no skip"),
        ({"skip_policy": ["full"]}, InvalidRequestError, "1 skip policies for 2 questions"),
        ({"skip_policy": {"rulez": []}}, InvalidRequestError, "rulez"),
        ({"skip_policy": ["full", 7]}, InvalidRequestError, "skip_policy[1]: a skip policy is"),
        ({"skip_policy": 7}, InvalidRequestError, "skip_policy is of type int"),
        ({"skip_policy": b"full"}, InvalidRequestError, "skip_policy is of type bytes"),
        ({"skip_policy": iter(["full"])}, InvalidRequestError, "skip_policy is of type list_iter"),
        ({"max_tokens": "5"}, InvalidRequestError, "max_tokens is '5'"),
        (
            {"skip_policy": {"rules": [{"action": "skip_ffn", "layers": [99]}]}},
            PolicyFitError,
            "layer 99 does not exist",
        ),
        ({"max_tokens": 0}, InvalidRequestError, "questions[0]: max_tokens is 0"),
        ({"presence_penalty": 3.0}, InvalidRequestError, "presence_penalty is 3.0"),
        ({"logit_bias": {9999: 1.0}}, InvalidRequestError, "names the token 9999"),
        ({"temperature": -1.0}, InvalidRequestError, "questions[0]: temperature is -1"),
        ({"top_p": 0.0}, InvalidRequestError, "questions[0]: top_p is 0"),
        ({"stop": ""}, InvalidRequestError, "stop is ''"),
        ({"stop": "</s> "}, InvalidRequestError, "'</s>' never shows"),
        ({"stop_token_ids": [9999]}, InvalidRequestError, "holds 9999"),
        ({"stop_token_ids": "a"}, InvalidRequestError, "must hold token ids"),
        ({"top_logprobs": 2}, InvalidRequestError, "needs logprobs=True"),
        ({"prompt_logprobs": 21}, InvalidRequestError, "questions[0]: prompt_logprobs is 21"),
        ({"prompt_logprobs": 1.5}, InvalidRequestError, "prompt_logprobs is 1.5"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_bad_keyword(
    llava: LLaVA, options: dict[str, Any], kind: type[SkipserveError], told: str
) -> None:
    error = refused(llava, [COUNT, COUNT], **options)
    assert isinstance(error, kind)
    assert told in str(error)
    check_words(error)


@pytest.mark.usefixtures("untouched")
def test_a_single_question_is_no_list(llava: LLaVA) -> None:
    singles: list[Any] = [COUNT, Question(COUNT), (str(PICTURE), COUNT), [str(PICTURE), COUNT]]
    for single in (*singles, [{"role": "user", "content": COUNT}], PICTURE, None):
        with pytest.raises(InvalidRequestError, match="questions") as caught:
            llava.generate(single)
        check_words(caught.value)


@pytest.fixture(scope="module")
def no_numbers(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> LLaVA:
    """A model whose head gives no numbers."""
    folder = shutil.copytree(checkpoint, tmp_path_factory.mktemp("nan") / "tiny")
    file = folder / "model.safetensors"
    weights = load_file(file)
    (head,) = (name for name in weights if name.endswith("lm_head.weight"))
    save_file(weights | {head: torch.full_like(weights[head], torch.nan)}, file)
    return LLaVA(folder, num_threads=1)


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0}, {"logprobs": True}], ids=str)
def test_weights_that_are_no_numbers(no_numbers: LLaVA, options: dict[str, Any]) -> None:
    error = refused(no_numbers, [COUNT, COUNT], **options)
    assert isinstance(error, EngineError)
    assert str(error) == "questions[0]: the model's output is not a number"
    check_words(error)


def test_memory_that_runs_out_ends_the_call(llava: LLaVA, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out(*_: object) -> None:
        raise torch.OutOfMemoryError

    with monkeypatch.context() as scarce:
        scarce.setattr(Llava, "forward", run_out)
        error = refused(llava, [COUNT, DESCRIBE])
    assert isinstance(error, EngineError)
    assert "questions[1]: the device ran out of memory; take on fewer questions" in str(error)
    check_words(error)
    assert texts(llava.generate([(PICTURE, COUNT)])) == ["2"]


def test_a_refused_question_leaves_nothing_behind(llava: LLaVA) -> None:
    """The engine refuses the last: the first, which it has taken in, is forgotten."""
    too_long = COUNT + " why" * 900
    error = refused(llava, [(PICTURE, COUNT), too_long], max_tokens=500)
    assert str(error).startswith("questions[1]: ")
    assert texts(llava.generate([(PICTURE, COUNT)])) == ["2"]


@pytest.mark.parametrize(
    ("raised", "told"), [(RuntimeError("no luck"), EngineError), (KeyboardInterrupt(), None)]
)
def test_it_can_be_used_after_a_failure(
    llava: LLaVA,
    monkeypatch: pytest.MonkeyPatch,
    raised: BaseException,
    told: type[BaseException] | None,
) -> None:
    forward = Llava.forward
    calls: Iterator[int] = iter(range(100))

    def fails_at_last(model: Llava, *arguments: Any) -> Any:
        if next(calls) == 2:
            raise raised
        return forward(model, *arguments)

    asked = [(PICTURE, DESCRIBE), (PICTURE, COUNT)]
    expected = texts(llava.generate(asked))
    with monkeypatch.context() as broken:
        broken.setattr(Llava, "forward", fails_at_last)
        with pytest.raises(told or type(raised)) as caught:
            llava.generate(asked)
    assert caught.value is raised or caught.value.__cause__ is raised
    assert texts(llava.generate(asked)) == expected


def test_threads_take_turns(llava: LLaVA) -> None:
    asked = [(PICTURE, DESCRIBE), (PICTURE, COUNT)]
    expected = texts(llava.generate(asked))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: texts(llava.generate(asked)), range(8)))
    assert found == [expected] * 8


@pytest.mark.parametrize(
    "limits",
    [
        EngineLimits(max_running=2, max_batch_tokens=64, reuses_prefixes=False),
        EngineLimits(looks_ahead=True),
    ],
    ids=["narrow", "looks_ahead"],
)
def test_limits_change_no_answer(llava: LLaVA, picture: Image, limits: EngineLimits) -> None:
    other = LLaVA(num_threads=1, limits=limits)
    asked: list[AnyQuestion] = [
        (PICTURE, COUNT),
        Question(DESCRIBE, (picture,)),
        (PICTURE, DESCRIBE),
    ]
    for stop in ("nowhere", ","):
        expected = llava.generate(asked, stop=stop)
        assert texts(other.generate(asked, stop=stop)) == texts(expected)


def test_questions_about_one_picture_share_its_prompt() -> None:
    llava = LLaVA(num_threads=1)
    (first,) = llava.generate([(PICTURE, COUNT)])
    again = llava.generate([(PICTURE, COUNT), (PICTURE, DESCRIBE)])
    assert first.num_cached_tokens == 0
    assert [answer.num_cached_tokens > 30 for answer in again] == [True, True]
    assert again[0].text == first.text
    apart = LLaVA(num_threads=1, limits=EngineLimits(reuses_prefixes=False))
    assert [it.num_cached_tokens for _ in "ab" for it in apart.generate([(PICTURE, COUNT)])] == [
        0,
        0,
    ]


def test_what_stands_in_for_missing_files_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (make_checkpoint(tmp_path) / "chat_template.jinja").unlink()
    LLaVA(tmp_path, device="cpu", limits=EngineLimits(kv_cache_bytes=10**6))
    shortage, stands_in = (record.message for record in caplog.records)
    assert stands_in == "there is no chat template: that of LLaVA-1.5 stands in"
    # It takes all that the model can use: 512 positions of four layers.
    assert re.search(r"for which it needs kv_cache_bytes=\d{7}$", shortage)


def test_the_bar(llava: LLaVA, capsys: pytest.CaptureFixture[str]) -> None:
    llava.generate([COUNT], max_tokens=2)
    assert capsys.readouterr() == ("", "")
    llava.generate([COUNT], max_tokens=2, progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "100%" in shown.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"model": "nowhere"}, "there is no model folder nowhere"),
        ({"model": PICTURE.parent}, "config.json"),
        ({"dtype": "float23"}, "it must be one of auto, float32"),
        ({"policies": "nowhere.yaml"}, "nowhere.yaml: cannot be read"),
        ({"policies": 5}, "policies is 5"),
        ({"model": None}, "model is None"),
        ({"device": "gpu"}, "device is 'gpu'"),
        ({"limits": {}}, "limits is {}"),
        ({"num_threads": 0}, "num_threads is 0"),
        ({"max_image_pixels": 0}, "max_image_pixels is 0"),
        ({"limits": EngineLimits(kv_cache_bytes=1)}, "set at least kv_cache_bytes="),
    ],
)
def test_what_cannot_be_loaded(options: dict[str, Any], told: str) -> None:
    with pytest.raises((StartError, EngineError)) as caught:
        LLaVA(**options)
    assert told in str(caught.value)
    check_words(caught.value)


def test_a_policy_of_a_file_that_does_not_fit(tmp_path: Path) -> None:
    file = tmp_path / "policies.yaml"
    file.write_text("deep: {rules: [{action: skip_ffn, layers: [99]}]}")
    with pytest.raises(StartError, match=r"policy 'deep' does not fit this model: .* layer 99"):
        LLaVA(policies=file)


@pytest.mark.parametrize(
    ("kind", "files", "media_type", "part"),
    [
        (AST, (wav_file(noise(4000)), wav_file(noise(4000, 1))), "audio/wav", "audio_url"),
        (TIMESFORMER, (video_file(film(9)), video_file(film(9, 1))), "image/webp", "video_url"),
    ],
)
def test_sounds_and_videos_are_asked_about(
    kind: str, files: tuple[bytes, bytes], media_type: str, part: str, tmp_path: Path
) -> None:
    """As a path, as bytes, as a data URI and in messages; a picture is not."""
    llava = LLaVA(model=make_media_model(tmp_path / "model", kind), num_threads=1)
    path, uri = tmp_path / "file", media_uri(files[0], media_type)
    path.write_bytes(files[0])
    parts = [{"type": part, part: {"url": uri}}, {"type": "text", "text": "What?"}]
    asked: list[AnyQuestion] = [
        *((source, "What?") for source in (path, files[0], uri)),
        [{"role": "user", "content": parts}],
        (files[1], "What?"),
    ]
    answers = llava.generate(asked, max_tokens=4, ignore_eos=True, temperature=0, logprobs=True)
    *same, other = [[token.logprob for token in it.logprobs or ()] for it in answers]
    assert all(it == pytest.approx(same[0], abs=1e-4) for it in same)
    assert other != pytest.approx(same[0], abs=1e-4)
    noun = "sound" if kind == AST else "video"
    error = refused(llava, [(new("RGB", (8, 8)), "What?")])
    assert f"the model takes {noun}s, and this is a picture" in str(error)
    error = refused(llava, [(PICTURE, "What?")])
    assert f"questions[0]: {noun} {PICTURE}" in str(error)
    error = refused(llava, [(data_uri(b"x", "image/jpeg"), "What?")])
    assert f"the declared type of a {noun} must be one of" in str(error)


def test_pictures_are_seen_by_a_vit(tmp_path: Path, picture: Image) -> None:
    llava = LLaVA(model=make_media_model(tmp_path / "model", VIT), num_threads=1)
    other = new("RGB", (20, 30), "red")
    asked: list[AnyQuestion] = [(picture, "What?"), (encode(picture), "What?"), (other, "What?")]
    answers = llava.generate(asked, max_tokens=4, ignore_eos=True, temperature=0, logprobs=True)
    one, same, another = [[token.logprob for token in it.logprobs or ()] for it in answers]
    assert same == pytest.approx(one, abs=1e-4)
    assert another != pytest.approx(one, abs=1e-4)
    assert "declared type of an image" in str(refused(llava, [("data:audio/wav;base64,AA", "?")]))
