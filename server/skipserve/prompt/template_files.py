"""Where a checkpoint keeps its chat template. Renders nothing."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skipserve.model.config import ModelFilesError, read_json

_DEFAULT = "default"
_MORE = "additional_chat_templates"


@dataclass(frozen=True)
class TemplateSource:
    """A chat template as it stands in a file.

    Attributes:
        file: the file's name.
        text: the Jinja template.
    """

    file: str
    text: str


def find_template(folder: Path) -> TemplateSource | None:
    """Return the chat template of a checkpoint; None where it has none.

    Of several, the one that transformers' processor takes: `processor_config.json`, then
    `chat_template.json`, then `chat_template.jinja`, then the default among
    `additional_chat_templates`; behind them the tokenizer's own.

    Raises:
        ModelFilesError: a file is damaged, or names several templates and no default.
    """
    for name in ("processor_config.json", "chat_template.json"):
        if found := _in_json(folder / name):
            return found
    if (folder / "chat_template.jinja").is_file():
        return _in_jinja(folder, "chat_template.jinja")
    names = sorted(path.stem for path in (folder / _MORE).glob("*.jinja"))
    if names:
        _check_has_default(names, str(folder / _MORE))
        return _in_jinja(folder, f"{_MORE}/{_DEFAULT}.jinja")
    return _in_json(folder / "tokenizer_config.json")


def _in_jinja(folder: Path, name: str) -> TemplateSource:
    try:
        return TemplateSource(name, (folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFilesError(f"{folder / name} cannot be read as text: {error}") from error


def _in_json(path: Path) -> TemplateSource | None:
    value = read_json(path).get("chat_template")
    if value is None:
        return None
    return TemplateSource(path.name, _default_of(value, path))


def _default_of(value: Any, path: Path) -> str:
    """Return the default of one template, or of several by name or as `[{name, template}]`."""
    if isinstance(value, str):
        return value
    named = _by_name(value)
    if not named or not all(isinstance(text, str) for text in named.values()):
        raise ModelFilesError(
            f"chat_template in {path} must be a text, texts by name, or a list of "
            '{"name": ..., "template": ...}'
        )
    _check_has_default(named, f"chat_template in {path}")
    return str(named[_DEFAULT])


def _check_has_default(names: Collection[object], place: str) -> None:
    if _DEFAULT not in names:
        raise ModelFilesError(
            f"{place} holds {', '.join(map(str, names))} and no {_DEFAULT!r}; "
            f"name the one to serve {_DEFAULT!r}"
        )


def _by_name(value: Any) -> Mapping[Any, Any]:
    if isinstance(value, dict):
        return value
    entries = value if isinstance(value, list) else []
    if not all(isinstance(entry, dict) for entry in entries):
        return {}
    return {entry.get("name"): entry.get("template") for entry in entries}
