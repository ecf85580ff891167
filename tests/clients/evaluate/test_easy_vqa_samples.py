"""easy-VQA as questions of an evaluation: which are asked, in what order, and what blind is."""

import json
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from scripted_server import Received, Scripted, ScriptedServer
from typer.testing import CliRunner, Result

from skipserve_client.cli import app
from skipserve_client.command_group import CommandError
from skipserve_client.evaluate import easy_vqa_samples
from skipserve_client.evaluate.easy_vqa import read_easy_vqa
from skipserve_client.evaluate.easy_vqa_samples import cache_folder, easy_vqa_questions
from skipserve_client.evaluate.sample import Sample
from skipserve_client.evaluate.scoring import GradedAnswer, Score, score

pytestmark = pytest.mark.fast

Entries = list[list[Any]]
COLOURS = ("red", "blue", "green")
NUM_PICTURES = 20


def questions_on(image: int) -> Entries:
    """Return what is asked of a circle of one colour: mostly what is not there, as published."""
    colour = COLOURS[image % len(COLOURS)]
    asked: Entries = [["what color is the shape?", colour, image]]
    asked.append([f"what is the {colour} shape?", "circle", image])
    for named in COLOURS:
        is_there = named == colour
        asked.append([f"is there a {named} shape?", "yes" if is_there else "no", image])
        asked.append([f"is there not a {named} shape?", "no" if is_there else "yes", image])
    return asked


def write_split(folder: Path, num_pictures: int) -> None:
    (folder / "images").mkdir(parents=True)
    for image in range(num_pictures):
        Image.new("RGB", (4, 4), COLOURS[image % 3]).save(folder / "images" / f"{image}.png")
    entries = [entry for image in range(num_pictures) for entry in questions_on(image)]
    (folder / "questions.json").write_text(json.dumps(entries))


@pytest.fixture
def easy(tmp_path: Path) -> Path:
    """Return a folder that holds a data set of easy-VQA's form, as its package is unpacked."""
    root = tmp_path / "easy"
    write_split(root / "easy_vqa" / "data" / "train", 4)
    write_split(root / "easy_vqa" / "data" / "test", NUM_PICTURES)
    return root


def asked_file(folder: Path) -> Path:
    return folder / "easy_vqa" / "data" / "test" / "questions.json"


def blindly(samples: list[Sample]) -> Score:
    """Score somebody who always says yes."""
    return score(GradedAnswer.of(it.type, it.answers, "yes", it.part, it.blind) for it in samples)


def test_every_question_of_the_test_split_is_asked_once(easy: Path) -> None:
    found = easy_vqa_questions(easy)
    assert re.fullmatch(r"easy-vqa-[0-9a-f]{8}", found.name)
    asked = {(it.question, it.answers, Path(str(it.image)).stem) for it in found.samples}
    expected = [entry for image in range(NUM_PICTURES) for entry in questions_on(image)]
    assert asked == {(text, (answer,), str(image)) for text, answer, image in expected}
    assert [it.index for it in found.samples] == list(range(len(expected)))


def test_types_and_whether_what_is_named_is_there(easy: Path) -> None:
    kinds = Counter((it.type, it.part) for it in easy_vqa_questions(easy).samples)
    assert kinds == {
        ("colour", None): 20,
        ("shape", None): 20,
        ("yes/no positive", "present"): 20,
        ("yes/no positive", "absent"): 40,
        ("yes/no negated", "present"): 20,
        ("yes/no negated", "absent"): 40,
    }


def test_any_number_of_questions_has_the_types_in_proportion(easy: Path) -> None:
    whole = easy_vqa_questions(easy).samples
    of_all = Counter((it.type, it.part) for it in whole)
    for count in (8, 24, 57, 100):
        some = easy_vqa_questions(easy, count).samples
        assert list(some) == list(whole[:count])
        found = Counter((it.type, it.part) for it in some)
        for kind, number in of_all.items():
            assert abs(found[kind] - count * number / len(whole)) <= 1
    assert len({str(it.image) for it in whole[:20]}) > 10


def test_the_order_does_not_depend_on_the_files(easy: Path) -> None:
    before = [(it.question, it.image) for it in easy_vqa_questions(easy).samples]
    entries = json.loads(asked_file(easy).read_text())
    random.Random(1).shuffle(entries)
    asked_file(easy).write_text(json.dumps(entries))
    assert [(it.question, it.image) for it in easy_vqa_questions(easy).samples] == before


def test_majority_is_what_training_says_to_the_same_words(easy: Path) -> None:
    result = blindly(list(easy_vqa_questions(easy).samples))
    types = result.types
    assert types["colour"].majority == 7 / 20  # "red" is the commonest in training
    assert types["shape"].majority == 1.0
    # Two of the four pictures of training are red; of answers that are as common, "yes" is first.
    assert types["yes/no positive, present"].majority == 7 / 20
    assert types["yes/no positive, absent"].majority == 27 / 40
    assert types["yes/no positive"].majority == (7 + 27) / 60
    assert types["yes/no positive"].accuracy == 20 / 60
    total = sum(it.majority * it.n for name, it in types.items() if ", " not in name)
    assert result.majority == pytest.approx(total / result.n)


def test_words_that_training_never_had_have_no_blind_answer(easy: Path) -> None:
    asked_file(easy).write_text('[["is there a teal shape?", "no", 0]]')
    (sample,) = easy_vqa_questions(easy).samples
    assert sample.blind == ""
    assert blindly([sample]).majority == 0


@pytest.mark.parametrize("inner", ["", "easy_vqa", "easy_vqa/data"])
def test_the_folder_may_be_any_of_the_package(easy: Path, inner: str) -> None:
    assert easy_vqa_questions(easy / inner) == easy_vqa_questions(easy)


# --- where it is kept


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a cache"))
    return tmp_path / "a cache" / "skipserve" / "easy-vqa-1.0"


def told(call: Callable[[], object]) -> str:
    with pytest.raises(CommandError) as caught:
        call()
    return str(caught.value)


def test_what_to_type_where_it_is_missing(cache: Path) -> None:
    assert cache_folder() == cache
    message = told(easy_vqa_questions)
    assert message.startswith(f"easy-VQA is not at {cache}: type `")
    assert f"-m pip install --no-deps --target '{cache}' easy-vqa==1.0`" in message
    assert message.endswith("--data-folder")


def test_what_is_kept_must_be_as_published(
    cache: Path, easy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.parent.mkdir(parents=True)
    easy.rename(cache)
    assert "does not hold easy-vqa==1.0 as it was published: remove it" in told(easy_vqa_questions)
    train, test = (read_easy_vqa(cache, split) for split in ("train", "test"))
    monkeypatch.setattr(easy_vqa_samples, "_PINNED", easy_vqa_samples._digest(train, test))
    assert easy_vqa_questions().name == "easy-vqa"
    Image.new("RGB", (4, 4), "white").save(cache / "easy_vqa/data/test/images/3.png")
    assert "as it was published" in told(easy_vqa_questions)


def test_half_of_it_is_to_be_removed(cache: Path) -> None:
    cache.mkdir(parents=True)
    message = told(easy_vqa_questions)
    assert "does not hold easy-VQA" in message
    assert "remove that folder; type `" in message


# --- folders that cannot be used


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "holds no question"),
        ("{", "is no file of easy-VQA's questions"),
        ("5", "is no file of easy-VQA's questions"),
        ('[["is it?", "yes"]]', "is no file of easy-VQA's questions"),
        ('[["is it?", "maybe", 0]]', "the answer 'maybe' is none of the 13"),
        ('[[7, "yes", 0]]', "the question 7 is not a text"),
        ('[["is it?", "yes", "x"]]', "is no file of easy-VQA's questions"),
        ('[["is it?", "yes", 99]]', "has no picture 99.png"),
    ],
)
def test_questions_that_cannot_be_read(easy: Path, text: str, message: str) -> None:
    asked_file(easy).write_text(text)
    said = told(lambda: easy_vqa_questions(easy))
    assert said.startswith("easy-VQA cannot be read: ")
    assert message in said


def test_pictures_that_cannot_be_read(easy: Path) -> None:
    images = easy / "easy_vqa" / "data" / "test" / "images"
    (images / "cover.png").write_bytes(b"no picture of a question")
    easy_vqa_questions(easy)
    (images / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    assert "3.png is broken" in told(lambda: easy_vqa_questions(easy))


def test_a_folder_without_it(tmp_path: Path) -> None:
    assert "does not hold easy-VQA" in told(lambda: easy_vqa_questions(tmp_path))
    assert "does not hold easy-VQA" in told(lambda: easy_vqa_questions(tmp_path / "none"))


# --- the command


@pytest.fixture
def yes_man(
    server: ScriptedServer, completion: dict[str, Any], lists: dict[str, Any]
) -> ScriptedServer:
    """Return a server that answers yes to all."""

    def replying(received: Received) -> Scripted:
        if received.path in lists:
            return Scripted({"object": "list", "data": lists[received.path]})
        choice = completion["choices"][0] | {"message": {"content": "yes"}}
        skip = completion["metrics"]["skip"] | {"digest": received.body["skip_policy"]}
        metrics = completion["metrics"] | {"skip": skip}
        return Scripted(completion | {"choices": [choice], "metrics": metrics})

    server.answers(replying)
    return server


def run(*flags: str) -> Result:
    return CliRunner().invoke(app, ["evaluate", *flags], prog_name="skipserve")


def test_the_command_asks_and_says_what_blind_is(
    yes_man: ScriptedServer, easy: Path, tmp_path: Path
) -> None:
    output = tmp_path / "answers.jsonl"
    flags = ["--data", "easy-vqa", "--data-folder", str(easy), "--url", yes_man.url]
    flags += ["--policies", "full", "--count", "24", "--output", str(output)]
    result = run(*flags, "--json")
    found = json.loads(result.stdout)
    full = found["policies"]["full"]
    expected = blindly(list(easy_vqa_questions(easy, 24).samples))
    assert (full["accuracy"], full["majority"]) == (expected.accuracy, expected.majority)
    assert full["low"] < full["accuracy"] < full["high"]
    assert full["types"]["yes/no positive, present"]["accuracy"] == 1.0
    assert full["types"]["yes/no negated, present"]["accuracy"] == 0.0
    first = json.loads(output.read_text().splitlines()[0])
    assert first["data"] == found["data"] == easy_vqa_questions(easy).name
    assert {"part", "blind", "type", "id"} <= first.keys()
    table = run(*flags).stdout
    assert f"{100 * expected.majority:.1f} % would be right without the pictures" in table
    sent = [it.body for it in yes_man.received if it.path == "/v1/chat/completions"]
    assert len(sent) == 1 + 24
    image, text = sent[-1]["messages"][0]["content"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    assert text["text"].endswith("?")


def test_a_folder_goes_with_this_data_alone(easy: Path) -> None:
    result = run("--data-folder", str(easy), "--url", "http://127.0.0.1:9")
    assert result.exit_code == 1
    assert "--data-folder: without effect but with --data easy-vqa" in result.stderr
