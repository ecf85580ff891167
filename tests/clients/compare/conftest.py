"""A server whose answers depend on the policy."""

import json
from typing import Any

import pytest
from PIL import Image
from scripted_server import Received, Scripted, ScriptedServer, event_stream

ANSWERS = {"full": "two red", "half": "two red", "exit": "two blue squares"}


@pytest.fixture
def choosing(server: ScriptedServer, stream_events: list[Any]) -> ScriptedServer:
    """Return a server that knows the policies of `ANSWERS`, and says "none" under inline ones."""
    policy: dict[str, Any] = {"digest": "d", "layers": {}, "scope": None, "saved_ratio": 0.5}
    listing = {"object": "list", "data": [policy | {"name": name} for name in ANSWERS]}

    def reply(received: Received) -> Scripted:
        if received.method == "GET":
            return Scripted(listing)
        asked = received.body["skip_policy"]
        events = json.loads(json.dumps(stream_events))
        first, second = (event["choices"][0]["delta"] for event in events[1:3])
        first["content"] = ANSWERS[asked] if isinstance(asked, str) else "none"
        second["content"] = ""
        return event_stream(events)

    server.answers(reply)
    return server


@pytest.fixture
def picture(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    Image.new("RGB", (4, 4), "red").save(path)
    return str(path)
