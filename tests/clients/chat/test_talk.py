"""What a talk remembers, and what it forgets."""

from collections.abc import Iterator

import pytest
from scripted_server import ScriptedServer

from skipserve_client import ApiError, ConnectionFailedError, PictureError, SkipserveClient
from skipserve_client.chat.talk import Talk
from skipserve_client.policy_choice import PolicyChoice

pytestmark = pytest.mark.fast


@pytest.fixture
def talk(echoing: ScriptedServer) -> Iterator[Talk]:
    with SkipserveClient(echoing.url) as client:
        yield Talk(client, {"temperature": 0.0})


def bodies(server: ScriptedServer) -> list[list[dict[str, object]]]:
    return [it.body["messages"] for it in server.received]


def ignore(_: str) -> None:
    pass


def test_each_question_carries_what_was_said(echoing: ScriptedServer, talk: Talk) -> None:
    pieces: list[str] = []
    for question in ("one", "two"):
        talk.ask(question, pieces.append)
    assert pieces == ["one", "two"]
    first = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "one"}]
    assert bodies(echoing) == [first[:1], [*first, {"role": "user", "content": "two"}]]


def test_pictures_go_along_once(echoing: ScriptedServer, talk: Talk, picture: str) -> None:
    talk.show(picture)
    talk.show(picture)
    talk.ask("one", ignore)
    talk.ask("two", ignore)
    first, second = bodies(echoing)
    content = first[0]["content"]
    assert isinstance(content, list)
    assert [part["type"] for part in content] == ["image_url", "image_url", "text"]
    assert second[0]["content"] == content
    assert second[2]["content"] == "two"
    with pytest.raises(PictureError):
        talk.show("/nowhere.png")


@pytest.mark.parametrize(
    ("question", "error"), [("fail", ApiError), ("break", ConnectionFailedError)]
)
def test_what_failed_was_not_asked(
    talk: Talk, picture: str, question: str, error: type[Exception]
) -> None:
    talk.show(picture)
    with pytest.raises(error):
        talk.ask(question, ignore)
    assert (talk.messages, talk.turns, len(talk.pictures)) == ([], [], 1)
    talk.ask("one", ignore)
    assert [it["role"] for it in talk.messages] == ["user", "assistant"]


def test_an_answer_that_was_stopped_is_kept_as_far_as_it_came(talk: Talk) -> None:
    def stop(_: str) -> None:
        raise KeyboardInterrupt

    turn = talk.ask("one", stop)
    assert (turn.text, turn.answer) == ("one", None)
    assert turn.in_a_line().startswith("stopped after")
    assert turn.as_json()["is_stopped"]
    assert talk.messages[-1]["content"] == "one"


def test_one_that_was_stopped_before_its_first_text_is_not(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(talk.client, "stream_chat", stop)
    with pytest.raises(KeyboardInterrupt):
        talk.ask("one", ignore)
    assert (talk.messages, talk.turns) == ([], [])


def test_the_policy_and_the_options_go_with_each_question(
    echoing: ScriptedServer, talk: Talk
) -> None:
    talk.ask("one", ignore)
    talk.policy = PolicyChoice("inline-1", {"rules": []})
    talk.ask("two", ignore)
    first, second = (it.body for it in echoing.received)
    assert "skip_policy" not in first
    assert (second["skip_policy"], second["temperature"]) == ({"rules": []}, 0.0)
    assert talk.options == {"temperature": 0.0}


def test_a_turn_in_a_line(talk: Talk) -> None:
    line = talk.ask("one", ignore).in_a_line()
    assert line.startswith("[full] 2 tokens, ")
    assert line.endswith("FLOPs saved 25.0 %")


def test_a_reset_forgets_all(talk: Talk, picture: str) -> None:
    talk.ask("one", ignore)
    talk.show(picture)
    talk.reset()
    assert (talk.messages, talk.turns, talk.pictures) == ([], [], [])


def test_the_whole_talk_as_json(talk: Talk) -> None:
    talk.ask("one", ignore)
    whole = talk.as_json()
    assert (whole["schema"], whole["messages"]) == ("skipserve.chat/1", talk.messages)
    (turn,) = whole["turns"]
    assert (turn["question"], turn["text"], turn["skip"]["saved_ratio"]) == ("one", "one", 0.25)
    assert turn["seconds"] >= turn["first_token_seconds"] > 0
