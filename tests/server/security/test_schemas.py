"""Schemas and grammars that are made to be costly (S42): refused or answered, and nobody waits."""

from typing import Any

import httpx
import pytest
from pictures import question

CHAT = "/v1/chat/completions"
RULES = "\n".join(f"r{at}: r{(at * 7 + 1) % 500} r{(at * 11) % 500} |" for at in range(500))


def deep(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


NASTY: dict[str, dict[str, Any]] = {
    "deep": {"json": deep(400)},
    "wide": {"json": {"properties": {f"p{it}": {"type": "string"} for it in range(900)}}},
    "huge": {"json": {"enum": ["x" * 80 + str(it) for it in range(1000)]}},
    "branches": {
        "json": {
            "allOf": [
                {"anyOf": [{"properties": {f"a{i}{j}": {}}} for i in range(4)]} for j in range(12)
            ]
        }
    },
    "items": {"json": {"type": "array", "minItems": 10**6, "items": {"type": "integer"}}},
    "length": {"json": {"type": "string", "minLength": 10**9}},
    "itself": {"json": {"$ref": "#"}},
    "circle": {
        "json": {
            "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
            "$ref": "#/$defs/a",
        }
    },
    "endless": {
        "json": {
            "$defs": {"a": {"properties": {"a": {"$ref": "#/$defs/a"}}, "required": ["a"]}},
            "$ref": "#/$defs/a",
        }
    },
    "remote": {"json": {"$ref": "http://127.0.0.1:9/schema.json"}},
    "file": {"json": {"$ref": "file:///etc/passwd"}},
    "nothing": {"json": {"enum": []}},
    "no choice": {"choice": []},
    "no letter": {"regex": "[^\\s\\S]"},
    "backtracking": {"regex": "(a+)+(a|a)*(a|aa)+b"},
    "repetitions": {"regex": "a{1000000}"},
    "nested repetitions": {"regex": "((a{1,1000}){1,1000}){1,1000}"},
    "brackets": {"regex": "(" * 5000 + "a" + ")" * 5000},
    "ambiguous": {"grammar": 'start: s\ns: s s s s s s s s | "a" | ""'},
    "rules": {"grammar": f"start: r0\n{RULES}"},
    "loop": {"grammar": "start: a\na: b\nb: a"},
}
REFUSED = {
    *("deep", "huge", "branches", "itself", "circle", "remote", "file", "nothing", "no choice"),
    *("no letter", "repetitions", "brackets", "loop"),
}


@pytest.mark.parametrize("name", NASTY)
def test_s42_what_is_made_to_be_costly(client: httpx.Client, name: str) -> None:
    """It is refused by its field, or answered; the server goes on, and knows it the next time."""
    for _ in range(2):
        asked = question("Hi", structured_outputs=NASTY[name], max_tokens=12)
        reply = client.post(CHAT, json=asked)
        assert reply.status_code == 400 or (reply.status_code == 200 and name not in REFUSED)
        if reply.status_code == 400:
            assert reply.json()["error"]["param"] == "structured_outputs"
    assert client.get("/health").status_code == 200
    assert client.post(CHAT, json=question("Hi", max_tokens=2)).status_code == 200
