"""Tests of the forms that questions and images come in."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import data_uri, encode, image_part, random_picture
from PIL import Image

from skipserve.errors import InvalidRequestError, SkipserveError, UnusableImageError
from skipserve.media.data_uri import EncodedImage
from skipserve.media.decode import decode_image
from skipserve.offline.questions import (
    AnyQuestion,
    Conversation,
    ImageSource,
    Question,
    describe_image,
    list_questions,
    naming,
    read_image,
    read_question,
)
from skipserve.prompt.template import ImagePart, Message, TextPart

pytestmark = pytest.mark.fast

PICTURE = random_picture(5, 4)
LIMIT = 1000


def name_case(value: object) -> str:
    """Return what stands for a value in a test's name, the same in every process."""
    return value[:30] if isinstance(value, str) else type(value).__name__


def asked(text: str, *images: ImageSource) -> Conversation:
    places = tuple(ImagePart() for _ in images)
    return Conversation((Message("user", (*places, TextPart(text))),), images)


@pytest.mark.parametrize(
    ("question", "read"),
    [
        ("Why?", asked("Why?")),
        (("a.png", "Why?"), asked("Why?", "a.png")),
        ((Path("a.png"), "Why?"), asked("Why?", Path("a.png"))),
        ((b"GIF8", "Why?"), asked("Why?", b"GIF8")),
        ((PICTURE, "Why?"), asked("Why?", PICTURE)),
        ((["a.png", b"GIF8"], "Why?"), asked("Why?", "a.png", b"GIF8")),
        ((("a.png", "b.png"), "Why?"), asked("Why?", "a.png", "b.png")),
        (([], "Why?"), asked("Why?")),
        (Question("Why?"), asked("Why?")),
        (Question("Why?", ("a.png", PICTURE)), asked("Why?", "a.png", PICTURE)),
        (Question("Why?", "a.png"), asked("Why?", "a.png")),
        ([{"role": "user", "content": "Why?"}], asked("Why?")),
    ],
)
def test_forms_of_a_question(question: AnyQuestion, read: Conversation) -> None:
    assert read_question(question) == read


def test_a_conversation() -> None:
    turns: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [image_part("a.png"), {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": "A dog."},
        {"role": "user", "content": [{"type": "text", "text": "And?"}, image_part("b.png")]},
    ]
    assert read_question(turns) == Conversation(
        messages=(
            Message("system", (TextPart("Be brief."),)),
            Message("user", (ImagePart(), TextPart("What?"))),
            Message("assistant", (TextPart("A dog."),)),
            Message("user", (TextPart("And?"), ImagePart())),
        ),
        images=("a.png", "b.png"),
    )


@pytest.mark.parametrize(
    ("question", "told"),
    [
        (None, "of type NoneType"),
        (7, "int"),
        (("a.png", "b.png", "Why?"), "tuple with 3 parts, and several images go into a list"),
        ({"role": "user", "content": "Why?"}, "a list of their own: [[message], [message]]"),
        *((source, "a picture without a text") for source in (b"GIF8", Path("a"), PICTURE)),
        (("Why?", PICTURE), "of type Image; the image goes first"),
        (["a.png", "Why?"], "an image and its text are a tuple, (image, text)"),
        ([PICTURE, "Why?"], "an image and its text are a tuple, (image, text)"),
        (("a.png", 7), "the text is of type int"),
        (Question(b"Why?"), "the text is of type bytes"),  # type: ignore[arg-type]
        ([], "here the list is empty"),
        ([{"role": "cook", "content": "Why?"}], "message 0.role: this must be one of system, dev"),
        (
            [{"role": "user", "content": "Why?", "nmae": "Ann"}],
            "message 0.nmae: this field is not known",
        ),
        (
            [{"role": "user", "content": [{"type": "video"}]}],
            "message 0.content.0: a part is {",
        ),
    ],
    ids=name_case,
)
def test_what_is_no_question(question: Any, told: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read_question(question)
    assert "a question is a text, a tuple" in caught.value.message
    assert told in caught.value.message


@pytest.mark.parametrize(
    "question",
    ["\ud800?", ("a.png", "\udcff"), Question("\ud800"), [{"role": "user", "content": "\ud800"}]],
    ids=ascii,
)
def test_a_text_is_unicode(question: Any) -> None:
    with pytest.raises(InvalidRequestError, match="text is not valid Unicode"):
        read_question(question)


@pytest.mark.parametrize(
    "text", ["a.png", "a/B.JPEG", "https://127.0.0.1/a.webp", "data:image/png;base64,AAAA"]
)
def test_a_picture_is_never_asked_as_a_text(text: str, tmp_path: Path) -> None:
    file = tmp_path / "a picture"
    file.touch()
    for picture in (text, str(file)):
        with pytest.raises(InvalidRequestError, match=r"with a tuple, \(image, text\)"):
            read_question(picture)
        with pytest.raises(InvalidRequestError, match="it goes first"):
            read_question(("Why?", picture))
        assert read_question(Question(picture)) == asked(picture)


@pytest.mark.parametrize(
    "text", ["What is in a.png?", "What is a.png", "", "png", "a\nb.png", "\0", "x" * 10_000]
)
def test_a_text_may_speak_of_pictures(text: str) -> None:
    assert read_question(text) == asked(text)


@pytest.mark.parametrize(
    ("questions", "told"),
    [
        ("Why?", "put it into a list: [question]"),
        (Question("Why?"), "put it into a list: [question]"),
        (("a.png", "Why?"), "write [(image, text)] for one"),
        ((PICTURE, "Why?"), "write [(image, text)] for one"),
        ((["a.png"], "Why?"), "write [(image, text)] for one"),
        (("Why?", "How?"), "[text, text] for two"),
        (b"GIF8", "ask about it with [(image, text)]"),
        (Path("a.png"), "ask about it with [(image, text)]"),
        (PICTURE, "ask about it with [(image, text)]"),
        ({"role": "user", "content": "Why?"}, "[[message]]"),
        ({"image": "a.png", "question": "Why?"}, "questions is a mapping"),
        ({"Why?", "How?"}, "a set, which has no order"),
        (None, "of type NoneType; it must be a list"),
        (7, "of type int; it must be a list"),
    ],
    ids=name_case,
)
def test_what_is_no_list_of_questions(questions: Any, told: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        list_questions(questions)
    assert caught.value.message.startswith("questions is ")
    assert told in caught.value.message
    assert caught.value.param == "questions"


def test_several_questions_come_in_many_ways() -> None:
    pairs = (("a.png", "Why?"), ("b.png", "How?"))
    assert list_questions(pairs) == list_questions(iter(pairs)) == list(pairs)
    assert list_questions(("a", "b", "c")) == ["a", "b", "c"]
    assert list_questions(("Why?", ("a.png", "How?"))) == ["Why?", ("a.png", "How?")]
    assert list_questions([]) == list_questions(()) == []


def test_an_image_is_the_same_from_everywhere(tmp_path: Path) -> None:
    content = encode(PICTURE)
    path = tmp_path / "a.png"
    path.write_bytes(content)
    for source in (path, str(path), content, PICTURE, data_uri(content), Image.open(path)):
        assert read_image(source, LIMIT).tobytes() == PICTURE.tobytes()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK"])
def test_a_pil_image_is_read_as_its_file_is(mode: str) -> None:
    content = encode(random_picture(5, 4, mode), "TIFF" if mode == "CMYK" else "PNG")
    opened = Image.open(io.BytesIO(content))
    if mode == "CMYK":
        assert read_image(opened, LIMIT).tobytes() == opened.convert("RGB").tobytes()
    else:
        decoded = decode_image(EncodedImage(content, ""), LIMIT)
        assert read_image(opened, LIMIT).tobytes() == decoded.tobytes()


def test_a_photograph_is_turned_upright() -> None:
    turned_left = Image.Exif()
    turned_left[0x0112] = 6
    content = encode(PICTURE, exif=turned_left)
    assert read_image(content, LIMIT).size == (4, 5)
    assert read_image(Image.open(io.BytesIO(content)), LIMIT).size == (4, 5)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (b"no picture", "cannot be decoded"),
        ("data:image/png;base64,AAAA", "cannot be decoded"),
        ("data:text/plain;base64,AAAA", "declared type"),
        ("nowhere.png", "cannot be read: No such file"),
        (".", "cannot be read: Is a directory"),
        ("a\0b", "cannot be read"),
        ("http://127.0.0.1/a.png", "images are not fetched from the web"),
        ("HTTPS://127.0.0.1/a.png", "images are not fetched from the web"),
        (encode(random_picture(40, 30)), "too large: it is 40 x 30 pixels"),
        (random_picture(40, 30), "too large: it is 40 x 30 pixels"),
        (Image.new("RGB", (0, 0)), "is empty: it is 0 x 0 pixels"),
        (Image.open(io.BytesIO(encode(PICTURE)[:60])), "is cut off"),
        (b"", "the image file is empty"),
        (np.zeros((3, 3, 3), np.uint8), "of type ndarray, which PIL.Image.fromarray may"),
        (io.BytesIO(b"GIF8"), "of type BytesIO, whose read() may give the bytes"),
        (None, "of type NoneType"),
        (7, "of type int"),
    ],
    ids=name_case,
)
def test_what_is_no_image(source: Any, told: str) -> None:
    with pytest.raises(UnusableImageError) as caught:
        read_image(source, LIMIT)
    assert told in caught.value.message


def test_images_by_name() -> None:
    assert describe_image("docs/a.png") == "image docs/a.png"
    assert describe_image(Path("docs/a.png")) == "image docs/a.png"
    for source in (b"GIF8", PICTURE, data_uri(b"GIF8")):
        assert describe_image(source) == "an image"


def test_errors_name_their_place() -> None:
    with pytest.raises(UnusableImageError) as caught, naming("questions[3]"), naming("image a.png"):
        raise UnusableImageError("it is broken", "images")
    assert caught.value.message == "questions[3]: image a.png: it is broken"
    assert caught.value.param == "questions[3]"
    assert isinstance(caught.value.__cause__, SkipserveError)
