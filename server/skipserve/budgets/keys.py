"""The keys file: who may ask, and how much of what. Keys themselves are not in it."""

import hashlib
import re
import secrets
from collections.abc import Collection, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from skipserve_policies.catalog import nearest_names
from skipserve_policies.faults import faults_of
from skipserve_policies.strict_yaml import load_yaml

# How metrics call all clients that have no name in the file.
OTHER = "other"
_KEY_BYTES = 32
_PREFIX = "sk-"
_LARGEST = 2**62
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")


class KeysFileError(ValueError):
    """The keys file is missing or broken; the text names the file and the field."""


def _whole(value: Any) -> Any:
    """Take 5e15 as a whole number, which is a text in YAML and a fraction in JSON."""
    if isinstance(value, str | float):
        try:
            number = Decimal(str(value))
        except InvalidOperation:
            return value
        if number.is_finite() and abs(number) <= _LARGEST and number == int(number):
            return int(number)
    return value


def _one_or_several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(
            "a name has at most 64 letters, digits, '.', '_' and '-', and begins with a letter or "
            "digit"
        )
    if name == OTHER:
        raise ValueError(f"this name is taken: metrics call those without a name {OTHER}")
    return name


def _check_digest(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise ValueError("this must be sha256 of the key, 64 hexadecimal digits")
    return digest.lower()


Limit = Annotated[int, Field(strict=True, ge=1, le=_LARGEST), BeforeValidator(_whole)]
Name = Annotated[str, AfterValidator(_check_name)]
Digest = Annotated[str, AfterValidator(_check_digest)]


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KeyLimits(_Form):
    """How much one key may use; what is left out has no limit."""

    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    flops_per_minute: Limit | None = None
    concurrent: Limit | None = Field(None, description="Requests under way.")
    queued: Limit | None = Field(None, description="Requests that wait for their first token.")


class KeyEntry(_Form):
    """A key, or several that are one to us, as while one takes another's place."""

    name: Name
    sha256: Annotated[tuple[Digest, ...], BeforeValidator(_one_or_several)]
    admin: bool = Field(False, strict=True)
    limits: KeyLimits = KeyLimits()
    policies: tuple[str, ...] | None = Field(
        None, description="The skip policies that it may use; all if not set."
    )
    inline_policies: bool | None = Field(
        None,
        strict=True,
        description="Whether it may spell policies out; if not set, where it may use all.",
    )

    @model_validator(mode="after")
    def _check_empty(self) -> Self:
        if not self.sha256 or self.policies == ():
            raise ValueError("sha256 and policies must not be empty lists")
        return self

    @property
    def takes_inline(self) -> bool:
        """Whether it may spell policies out."""
        return self.policies is None if self.inline_policies is None else self.inline_policies


class KeysFile(_Form):
    """What the file says."""

    keys: tuple[KeyEntry, ...]

    @model_validator(mode="after")
    def _check_list(self) -> Self:
        # A limit of the tuples' length would complain of items that are wrong besides.
        if not self.keys:
            raise ValueError("keys: this must not be empty, or nobody could ask")
        for what, values in (
            ("the name", [entry.name for entry in self.keys]),
            ("the sha256", [digest for entry in self.keys for digest in entry.sha256]),
        ):
            if twice := sorted({value for value in values if values.count(value) > 1}):
                raise ValueError(f"{what} {twice[0]} stands twice")
        return self


def read_keys(path: Path, policies: Collection[str] | None) -> tuple[KeyEntry, ...]:
    """Return what a keys file says.

    Args:
        path: the file, in YAML or, where it is named so, in JSON.
        policies: the names that there are; None where they are not looked up.

    Raises:
        KeysFileError: it cannot be read, or a field cannot be followed.
    """
    try:
        text = path.read_text("utf-8")
        # JSON may be indented with tabs; else all of it is YAML too.
        given = load_yaml(text.replace("\t", " ") if path.suffix == ".json" else text)
    except OSError as error:
        raise KeysFileError(f"the keys file {path}: {error.strerror}") from error
    except ValueError as error:
        raise KeysFileError(f"the keys file {path} cannot be read: {error}") from error
    try:
        entries = KeysFile.model_validate(given).keys
    except ValidationError as error:
        faults = "; ".join(map(str, faults_of(error, KeysFile, given)))
        raise KeysFileError(f"the keys file {path}: {faults}") from error
    if policies is not None:
        _check_policies(path, entries, policies)
    return entries


def _check_policies(path: Path, entries: Sequence[KeyEntry], policies: Collection[str]) -> None:
    for index, entry in enumerate(entries):
        for name in entry.policies or ():
            if name not in policies:
                nearest = ", ".join(nearest_names(name, policies))
                raise KeysFileError(
                    f"the keys file {path}: keys.{index}.policies: there is no skip policy "
                    f"{name!r}; the nearest are {nearest}"
                )


def digest_of_key(key: str) -> bytes:
    """Return what a key is known by."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def make_key() -> str:
    """Return a key that nobody can guess."""
    return _PREFIX + secrets.token_urlsafe(_KEY_BYTES)
