"""What the client's tests share: a scripted server, and replies to script it with."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from scripted_server import ScriptedServer


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as scripted:
        thread = threading.Thread(target=scripted.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield scripted
        scripted.shutdown()
        thread.join()


SKIP = {
    "policy": "skip-ffn-from-16-all",
    "digest": "abc",
    "layers": {"skip_ffn": [16, 17, 18]},
    "planned_flops": 750,
    "full_flops": 1000,
    "saved_ratio": 0.25,
}


@pytest.fixture
def completion() -> dict[str, Any]:
    """A whole reply of the server."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "demo",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "two red"},
                "finish_reason": "stop",
                "logprobs": {
                    "content": [
                        {
                            "token": "two",
                            "logprob": -0.1,
                            "bytes": [116, 119, 111],
                            "top_logprobs": [{"token": "two", "logprob": -0.1, "bytes": []}],
                        },
                        {"token": " red", "logprob": -0.2, "bytes": [], "top_logprobs": []},
                    ]
                },
            }
        ],
        "usage": {
            "prompt_tokens": 40,
            "completion_tokens": 2,
            "total_tokens": 42,
            "prompt_tokens_details": {"cached_tokens": 0, "multimodal_tokens": 36},
        },
        "metrics": {
            "queue_seconds": 0.001,
            "time_to_first_token_seconds": 0.02,
            "inter_token_latency_seconds": None,
            "duration_seconds": 0.03,
            "skip": SKIP,
        },
    }


@pytest.fixture
def stream_events(completion: dict[str, Any]) -> list[Any]:
    """The same reply, as the events of a stream; the last one is left for the test to add."""
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "demo"}
    logprobs = completion["choices"][0]["logprobs"]["content"]

    def chunk(delta: dict[str, str], reason: str | None = None, *given: Any) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return base | {"choices": [choice | {"logprobs": {"content": list(given)}}]}

    return [
        chunk({"role": "assistant"}),
        chunk({"content": "two"}, None, logprobs[0]),
        chunk({"content": " red"}, None, logprobs[1]),
        chunk({}, "stop"),
        base | {"choices": [], "usage": completion["usage"], "metrics": completion["metrics"]},
    ]
