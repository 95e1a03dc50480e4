"""Keeps secrets out of what leaves the machine: whatever is known to be one here is masked in any text."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edge_gateway.config.references import MASK, is_secret, is_secret_name, url_secrets, without_password

Where = tuple[str | int, ...]

MIN_SECRET_CHARS = 4  # a shorter one would blot out parts of ordinary words
_REFERENCE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}|file:.*", re.DOTALL)
_ENVIRONMENT_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_URL_LOGIN = re.compile(r"://([^/@\s:]*):([^/@\s]*)@")
_ASSIGNED = re.compile(r"""([A-Za-z0-9_-]+)\s*=\s*["']([^"'\n]+)["']""")
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_PRIVATE_FILES = ("credentials.json", "proposed/credentials.json")
_ONE_LINE_FILES = ("local-token", "local-pin")


def secrets_in(document: Any, path: Where = ()) -> Iterator[tuple[Where, str]]:
    """What a decoded configuration itself gives away, with its path; references are none."""
    if isinstance(document, dict):
        for key, member in document.items():
            if is_secret_name((*path, key)):
                yield (*path, key), key
            yield from secrets_in(member, (*path, key))
    elif isinstance(document, list):
        for place, element in enumerate(document):
            yield from secrets_in(element, (*path, place))
    elif is_secret(path) and document not in ("", None) and not isinstance(document, bool):
        text = str(document)
        if not _REFERENCE.fullmatch(text):
            yield path, text


class Mask:
    """Masks everything that is known to be secret on this gateway, in any text."""

    def __init__(self, config: Path, data_dir: Path, environment: Mapping[str, str] = os.environ) -> None:
        found: set[str] = set()
        for folder in (data_dir / name for name in _PRIVATE_FILES):
            found |= set(_strings(_json(folder)))
        found |= {_line(data_dir / name) for name in _ONE_LINE_FILES}
        text = config.read_text("utf-8", errors="replace") if config.is_file() else ""
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            document = {}  # broken: by the look of its lines
            found |= {value for name, value in _ASSIGNED.findall(text) if is_secret((name,)) or name == "key"}
        found |= {value for _, value in secrets_in(document)}
        found |= {text[start:end] for start, end in url_secrets(text)}
        for user, password in _URL_LOGIN.findall(text):
            found |= {password, f"{user}:{password}"}
        found |= {environment.get(name, "") for name in _ENVIRONMENT_REFERENCE.findall(text)}
        found |= set(_from_files(document, config.parent))
        found |= {value for name, value in environment.items() if is_secret(tuple(name.lower().split("__")))}
        found |= {json.dumps(one)[1:-1] for one in found}  # as JSON and TOML quote it
        self._secrets = sorted((one for one in found if len(one) >= MIN_SECRET_CHARS), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return _PEM.sub(MASK, without_password(text))


def _line(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, ValueError):
        return ""


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None  # not there, or not readable: then nothing of it can be quoted either


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, member in value.items():
            if name not in ("kind", "username"):
                yield from _strings(member)
    elif isinstance(value, str):
        yield value


def _from_files(document: Any, folder: Path) -> Iterator[str]:
    """What `file:` refers to."""
    if isinstance(document, dict | list):
        for member in document.values() if isinstance(document, dict) else document:
            yield from _from_files(member, folder)
    elif isinstance(document, str) and document.startswith("file:"):
        try:
            yield (folder / document.removeprefix("file:")).read_text("utf-8").rstrip("\r\n")
        except (OSError, ValueError):
            return
