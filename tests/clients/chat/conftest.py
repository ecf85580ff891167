"""A server that echoes: its answer is the last question, word by word."""

import json
from typing import Any

import pytest
from PIL import Image
from scripted_server import Received, Scripted, ScriptedServer, event_stream

POLICIES = ("full", "exit-after-24")


def _listing() -> Scripted:
    policy: dict[str, Any] = {"digest": "d", "layers": {}, "scope": None, "saved_ratio": 0.5}
    return Scripted({"object": "list", "data": [policy | {"name": name} for name in POLICIES]})


@pytest.fixture
def echoing(server: ScriptedServer, stream_events: list[Any]) -> ScriptedServer:
    """Return a server that answers with the question; one that is "fail" it refuses."""

    def reply(received: Received) -> Scripted:
        if received.method == "GET":
            return _listing()
        content = received.body["messages"][-1]["content"]
        question = content if isinstance(content, str) else content[-1]["text"]
        if question == "fail":
            error = {"message": "this is too much", "param": "messages", "code": 400}
            return Scripted({"error": error}, 400)
        events = json.loads(json.dumps(stream_events))
        for event in events[1:3]:
            event["choices"][0]["delta"]["content"] = ""
        events[1]["choices"][0]["delta"]["content"] = question
        policy = received.body.get("skip_policy", "full")
        name = policy if isinstance(policy, str) else "inline"
        events[-1]["metrics"]["skip"]["policy"] = name
        return event_stream(events, is_done=question != "break")

    server.answers(reply)
    return server


@pytest.fixture
def picture(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("pictures") / "a picture.png"
    Image.new("RGB", (4, 4), "red").save(path)
    return str(path)
