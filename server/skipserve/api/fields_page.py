"""The page about fields, docs/fields.md: `python -m skipserve.api.fields_page` prints it."""

import json
import sys
from collections.abc import Iterator

from skipserve.api import paths
from skipserve.api.forms import tables
from skipserve.asking.fields import CHAT, FieldTable, Handling, RequestField

_BEFORE = """\
# Fields of a request

Every field of `POST /v1/chat/completions` that clients are known to send, in three classes. This
page is made from the code and never edited: `python -m skipserve.api.fields_page > docs/fields.md`.

- **Honoured**: it does here what its name says.
- **Without effect on the answer here**: taken, and named in the reply's header `X-Ignored-Fields`.
- **Not supported**: it would change the answer, so it is an error with status 400 that names it.
  With a value that asks for nothing (`null`, `false`, `""`, `[]`, `{}` or those of the table) it is
  taken and named like the others.

Any other field is an error that names the nearest field there is. `--unknown-fields ignore` takes
those too and names them, unless one is called nearly as a field that would change the answer:
`skip_polcy` is an error always. The header names 32 fields at most, and percent-encodes what is
neither letter nor digit in them; `messages.name` stands for the field `name` of any message.

The forms of the other routes are below.
"""
# By their paths, the forms of which the page says how they differ from a chat's.
OTHERS = {
    paths.COMPLETIONS: tables.COMPLETIONS,
    paths.RESPONSES: tables.RESPONSES,
    paths.MESSAGES: tables.MESSAGES,
    paths.COUNT_TOKENS: tables.COUNT_TOKENS,
    paths.TOKENIZE: tables.TOKENIZE,
    paths.DETOKENIZE: tables.DETOKENIZE,
    paths.POLICIES: tables.POLICY,
    paths.RESOLVE: tables.RESOLVE,
}
_TITLES = {
    Handling.HONOURED: "Honoured",
    Handling.WITHOUT_EFFECT: "Without effect on the answer here",
    Handling.REFUSED: "Not supported",
}


def page() -> str:
    """Return the page."""
    lines = [_BEFORE]
    for handling, title in _TITLES.items():
        lines += [f"## {title}", "", *_rows(handling), ""]
    for path, table in OTHERS.items():
        lines += [f"## `POST {path}`", "", *_differences(table), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _differences(table: FieldTable) -> Iterator[str]:
    """Yield what a form has otherwise than a chat, or all where it is another form altogether."""
    is_like_chat = table.by_name.keys() >= CHAT.by_name.keys()
    yield _line("field", "", "why, or meaning")
    yield "|---" * 3 + "|"
    for inner in table.walk():
        if not any(inner is of_chat for of_chat in CHAT.walk()):
            for row in inner.rows:
                if not (is_like_chat and row == CHAT.by_name.get(row.name)):
                    yield _line(f"`{inner.place}{row.name}`", row.handling.value, row.says)
    yield ""
    yield "All else is as in a chat." if is_like_chat else "It knows no other fields."


def _rows(handling: Handling) -> Iterator[str]:
    is_refused = handling is Handling.REFUSED
    head = ("field", "why", "values that are taken") if is_refused else ("field", "meaning")
    yield _line(*head)
    yield "|---" * len(head) + "|"
    for table in CHAT.walk():
        for row in table.rows:
            if row.handling is handling:
                cells = (f"`{table.place}{row.name}`", row.says)
                yield _line(*cells, _neutral(row)) if is_refused else _line(*cells)


def _neutral(row: RequestField) -> str:
    return ", ".join(f"`{json.dumps(value)}`" for value in row.neutral)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


if __name__ == "__main__":
    sys.stdout.write(page())
