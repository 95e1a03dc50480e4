"""What the query string of a device request says.

Source: wire-contract.md sections 3.1 and appendix A (the SDK's names of the attribute parameters).
"""

from __future__ import annotations

from urllib.parse import parse_qsl

from shared.device_json import key_list
from shared.errors import MalformedRequest
from shared.messages import AttributesRequest, PackageKind, PackageRequest

DEFAULT_POLL_MS = 60_000
MAX_POLL_MS = 300_000
MAX_PARAMETERS = 1_000
MAX_DIGITS = 20
_MAX_INT32 = 2**31 - 1


class Query:
    """The parameters of one request. Raises: MalformedRequest."""

    def __init__(self, text: str) -> None:
        self._values: dict[str, str] = {}
        if not text:
            return
        try:
            pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
        except ValueError:
            raise MalformedRequest(f"The query has more than {MAX_PARAMETERS} parameters.") from None
        for name, value in pairs:
            before = self._values.get(name)
            self._values[name] = f"{before},{value}" if before else value  # as Spring joins a repeated one

    def text(self, *names: str) -> str:
        """The first of `names` that is given and not empty; else empty."""
        return next((value for name in names if (value := self._values.get(name))), "")

    def required(self, name: str) -> str:
        value = self.text(name)
        if not value:
            raise MalformedRequest(f"Required request parameter '{name}' is not present.")
        return value

    def count(self, name: str) -> int:
        """A whole number from 0, cut at 2,147,483,647; 0 where it is not given."""
        text = self.text(name)
        if not text:
            return 0
        if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
            raise MalformedRequest(f"The parameter '{name}' must be a whole number, 0 or more.")
        return min(int(text), _MAX_INT32)


def attributes_request(text: str) -> AttributesRequest:
    """`clientKeys` and `sharedKeys`, comma lists; an empty one counts as not given."""
    query = Query(text)
    return AttributesRequest(
        client_keys=key_list(query.text("clientKeys", "client_keys") or None, "clientKeys"),
        shared_keys=key_list(query.text("sharedKeys", "shared_keys") or None, "sharedKeys"),
    )


def poll_timeout_s(text: str) -> float:
    """`timeout` is in milliseconds; 0 or none is the default, and more than the maximum is cut."""
    return min(Query(text).count("timeout") or DEFAULT_POLL_MS, MAX_POLL_MS) / 1000


def package_request(kind: PackageKind, text: str) -> PackageRequest:
    """`title` and `version`, and for a piece `size` in bytes and `chunk`."""
    query = Query(text)
    return PackageRequest(
        kind=kind, title=query.required("title"), version=query.required("version"),
        chunk_bytes=query.count("size"), chunk=query.count("chunk"),
    )  # fmt: skip
