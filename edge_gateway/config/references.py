"""Secrets from outside the file: `${NAME}` in any text, and `file:/path` as a whole value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edge_gateway.model import Problem

MAX_DEPTH: Final = 64
MASK: Final = "••••"
_MAX_FILE_BYTES: Final = 65_536
_MIN_MASKED_CHARS: Final = 4  # a shorter one would blot out parts of ordinary words
_VARIABLE = re.compile(r"\$(\$?)\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SECRET_NAME = re.compile(
    r"(?:^|[_-])(?:token|password|passphrase|passwd|pwd|pass|secret|psk|(?:api|access)[_-]?key|authorization|cookie|"
    r"community)s?$",
    re.I,
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_FOREIGN = ("headers", "environment")  # tables whose names others have chosen
_FOREIGN_SECRET = re.compile(r"(?:^|[_-])(?:key|auth|session|signature)$", re.I)
_URL_SECRETS = re.compile(
    r"(?<=://)[^/@\s]*:[^/@\s]*(?=@)"  # user and password
    r"|[?&][A-Za-z0-9_.-]*(?:token|secret|passw|pwd|key|auth|signature)[A-Za-z0-9_.-]*=(?!\$\{|\{)(?P<value>[^&\s\"'#]+)",
    re.I,
)


def is_secret(path: tuple[str | int, ...]) -> bool:
    """Whether what stands at `path` is hidden for its name; the `key` of a mapping is not, that of `provision` is."""
    names = [part for part in path if isinstance(part, str)]
    if any(_SECRET_NAME.search(_CAMEL.sub("_", name)) for name in names) and not is_secret_name(path):
        return True
    if names[-2:] == ["provision", "key"]:
        return True
    return len(names) > 1 and names[-2] in _FOREIGN and bool(_FOREIGN_SECRET.search(_CAMEL.sub("_", names[-1])))


def is_secret_name(path: tuple[str | int, ...]) -> bool:
    """Whether the last part of `path` is itself a secret: in a table `users` access tokens are the names."""
    return len(path) > 1 and path[-2] == "users" and isinstance(path[-1], str)


def url_secrets(text: str) -> list[tuple[int, int]]:
    """Where a URL in `text` has user and password, or in its query what is a secret for its name."""
    return [found.span("value" if found["value"] else 0) for found in _URL_SECRETS.finditer(text)]


def without_password(text: str) -> str:
    """`text` with the secrets of URLs masked."""
    for start, end in reversed(url_secrets(text)):
        text = text[:start] + MASK + text[end:]
    return text


@dataclass(slots=True)
class References:
    """Puts in what texts refer to, and remembers what must not be shown."""

    environment: Mapping[str, str]
    folder: Path  # to which `file:` is relative
    problems: list[Problem] = field(default_factory=list)
    written: dict[tuple[str | int, ...], str] = field(default_factory=dict)  # by path, the text before
    _secrets: set[str] = field(default_factory=set)

    def __repr__(self) -> str:
        return f"References({len(self.written)})"

    def resolve(self, value: Any, path: tuple[str | int, ...] = ()) -> Any:  # Any: decoded TOML
        """`value` with everything put in; what cannot be becomes an empty text and a problem."""
        if len(path) > MAX_DEPTH:
            self.problems.append(Problem(path[:1], f"nested deeper than {MAX_DEPTH} levels"))
            return ""
        if isinstance(value, dict):
            for key in value:
                if is_secret_name((*path, key)):
                    self.hide(key)
            return {key: self.resolve(member, (*path, key)) for key, member in value.items()}
        if isinstance(value, list):
            return [self.resolve(element, (*path, place)) for place, element in enumerate(value)]
        if not isinstance(value, str):
            if is_secret(path):
                self.hide(str(value))
            return value
        resolved = self._from_file(value, path) if value.startswith("file:") else self._filled(value, path)
        if is_secret(path):
            self.hide(resolved)
        return resolved

    def hide(self, secret: str) -> None:
        if len(secret) >= _MIN_MASKED_CHARS:
            self._secrets.add(secret)

    def masked(self, text: str) -> str:
        """`text` without any secret."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, MASK)
        return without_password(text)

    def _filled(self, text: str, path: tuple[str | int, ...]) -> str:
        def value_of(found: re.Match[str]) -> str:
            if found[1]:
                return f"${{{found[2]}}}"  # $${NAME} is ${NAME} as it is
            if found[2] not in self.environment:
                self.problems.append(
                    Problem(path, f"the environment variable {found[2]} is not set; set it for the gateway's service")
                )
                return ""
            self.hide(self.environment[found[2]])
            return self.environment[found[2]]

        resolved = _VARIABLE.sub(value_of, text)
        if resolved != text or _VARIABLE.search(text):
            self.written[path] = text
        return resolved

    def _from_file(self, text: str, path: tuple[str | int, ...]) -> str:
        self.written[path] = text
        place = self.folder / text.removeprefix("file:")
        try:
            with place.open("rb") as source:
                content = source.read(_MAX_FILE_BYTES + 1)
            secret = content.decode("utf-8").rstrip("\r\n")
        except (OSError, ValueError) as error:
            reason = (error.strerror or "unreadable") if isinstance(error, OSError) else "it is no UTF-8 text"
            self.problems.append(
                Problem(path, f"cannot read the file {place}: {reason}; create it, readable for the gateway's user")
            )
            return ""
        if len(content) > _MAX_FILE_BYTES or not secret:
            fault = "is empty" if not secret else f"has more than {_MAX_FILE_BYTES} bytes"
            self.problems.append(Problem(path, f"the file {place} {fault}; it should hold the value alone"))
        self.hide(secret)
        return secret
