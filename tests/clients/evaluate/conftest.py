"""What the tests of an evaluation share: riddles, and a scripted server that knows some of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from scripted_server import Received, Scripted, ScriptedServer

NUM_RIDDLES = 10


@pytest.fixture
def riddles(tmp_path: Path) -> Path:
    """Return a file of questions whose right answers are yes, no, yes, no, ..."""
    Image.new("RGB", (2, 2)).save(tmp_path / "picture.png")
    lines = [
        {
            "image": "picture.png",
            "question": f"question {index}",
            "answer": "no" if index % 2 else ["yes", "yes indeed"],
            "type": "odd" if index % 2 else "even",
        }
        for index in range(NUM_RIDDLES)
    ]
    path = tmp_path / "riddles.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


Lists = dict[str, list[dict[str, Any]]]


@pytest.fixture
def lists() -> Lists:
    """Return what the server lists, for a test to change."""
    policy: dict[str, Any] = {"layers": {}, "scope": None, "saved_ratio": 0.0}
    named = [policy | {"name": name, "digest": name} for name in ("full", "half")]
    model = {"root": "sphinx", "weights_digest": "w", "dtype": "float32", "device": "cpu"}
    return {
        "/v1/skip_policies": named,
        "/v1/models": [model | {"id": "sphinx"}, model | {"id": "sphinx@half"}],
    }


def _answer(received: Received, completion: dict[str, Any]) -> Scripted:
    """Answer right under full, always yes under half and inline, and refuse all others."""
    policy = received.body["skip_policy"]
    name = policy if isinstance(policy, str) else "inline"
    if name not in {"full", "half", "inline"}:
        error = {"message": f"{name} does not fit", "param": "skip_policy", "code": 400}
        return Scripted({"error": error}, 400)
    question = received.body["messages"][0]["content"][1]["text"]
    text = "no" if name == "full" and int(question.split()[1]) % 2 == 1 else "Yes."
    choice = completion["choices"][0] | {"message": {"content": text}}
    planned = 1000 if name == "full" else 750
    skip = completion["metrics"]["skip"] | {"digest": name, "planned_flops": planned}
    metrics = completion["metrics"] | {"skip": skip}
    return Scripted(completion | {"choices": [choice], "metrics": metrics})


Replying = Callable[[Received], Scripted]


@pytest.fixture
def reply(completion: dict[str, Any], lists: Lists) -> Replying:
    """Return how the knowing server replies, for a test that wants something else now and then."""

    def replying(received: Received) -> Scripted:
        if received.path in lists:
            return Scripted({"object": "list", "data": lists[received.path]})
        return _answer(received, completion)

    return replying


@pytest.fixture
def knowing(server: ScriptedServer, reply: Replying) -> ScriptedServer:
    server.answers(reply)
    return server
