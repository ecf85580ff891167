"""Bodies that cost a server more than their share, each of one fault that is repeated."""

import random
from collections.abc import Callable

CHAT = "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}
MIB = 2**20
_USER = b'{"role": "user", "content": "Hi"}'
_MESSAGES = b'"messages": [' + _USER + b"]"
_PICTURE = b"data:image/png;base64,"


def _filled(head: bytes, item: bytes, tail: bytes, num_bytes: int) -> bytes:
    """Return a body of about so many bytes that repeats an item."""
    return head + item * ((num_bytes - len(head) - len(tail)) // len(item)) + tail


def _repeats(head: bytes, item: bytes, tail: bytes) -> Callable[[int], bytes]:
    return lambda num_bytes: _filled(head, item, tail, num_bytes)


def _unknown_fields(num_bytes: int) -> bytes:
    names = (b'"k%07d":1,' % number for number in range(num_bytes // 13))
    return b"{" + b"".join(names) + _MESSAGES + b"}"


def _noise(num_bytes: int) -> bytes:
    """Return signs of JSON in an order that a seed decides."""
    signs = random.Random(7).choices(b'[]{}",:\\0ae \n', k=min(num_bytes, MIB))
    return (bytes(signs) * (num_bytes // len(signs) + 1))[:num_bytes]


_POLICY = b', "skip_policy": {"rules": ['
_RULE = b'{"action": "skip_block", "layers": ['
# Each makes a body of about so many bytes.
HOSTILE_BODIES: dict[str, Callable[[int], bytes]] = {
    "messages": _repeats(b'{"messages": [', b"1,", b"1]}"),
    "messages of objects": _repeats(b'{"messages": [', b"{},", b"1]}"),
    "content": _repeats(b'{"messages": [{"role": "user", "content": [', b"{},", b"1]}]}"),
    "stop": _repeats(b"{" + _MESSAGES + b', "stop": [', b"1,", b"1]}"),
    "stop_token_ids": _repeats(b"{" + _MESSAGES + b', "stop_token_ids": [', b'"",', b"1]}"),
    "rules": _repeats(b"{" + _MESSAGES + _POLICY, b"[],", b"1]}}"),
    "layers": _repeats(b"{" + _MESSAGES + _POLICY + _RULE, b'"",', b"1]}]}}"),
    "xargs": _repeats(b"{" + _MESSAGES + b', "vllm_xargs": {"skip_policy": [', b"1,", b"1]}}"),
    "schema": _repeats(
        b"{" + _MESSAGES + b', "response_format": {"json_schema": {"a": [', b"[],", b"1]}}}"
    ),
    "unknown fields": _unknown_fields,
    "repeated field": _repeats(b"{", b'"n":1,', _MESSAGES + b"}"),
    "depth": _repeats(b"", b"[", b""),
    "depth of objects": _repeats(b"", b'{"a":', b""),
    "quotes": _repeats(b"{", b'"', b"}"),
    "spaces": _repeats(b"{", b" ", _MESSAGES + b"}"),
    "digits": _repeats(b'{"n": [', b"9" * 4200 + b",", b"1]}"),
    "text": _repeats(b'{"messages": [{"role": "user", "content": "', b"a ", b'"}]}'),
    "escapes": _repeats(b'{"messages": [{"role": "user", "content": "', b'\\"', b'"}]}'),
    "wide text": _repeats(b'{"messages": "', "\U0001f600".encode(), b'"}'),
    "text like a picture": _repeats(b'{"messages": "' + _PICTURE, b"\\n", b'"}'),
    "escaped picture": _repeats(b'{"messages": "' + _PICTURE, b"\\u002BAA", b'"}'),
    "picture": _repeats(b'{"messages": "' + _PICTURE, b"AAAA", b'"}'),
    "pictures": _repeats(b'{"messages": [', b'"data:image/png;base64,",', b"1]}"),
    "noise": _noise,
}
