"""How a device request is answered, whoever holds its connection."""

from __future__ import annotations

from typing import Protocol

from cloud_core.transports.http.errors import device_status, error_body, retry_after
from shared.errors import NotAuthenticated, PlatformError

JSON_TYPE = b"application/json"
TEXT_TYPE = b"text/plain; charset=utf-8"
TIMED_OUT = 408


class Answer(Protocol):
    """Takes the answer of one request, once; the type counts only where there is a body."""

    def __call__(
        self, status: int, body: bytes, retry_after_s: int | None = None, content_type: bytes = JSON_TYPE
    ) -> None: ...


def refuse(error: PlatformError, answer: Answer) -> None:
    """Answers with the error object; 401 and 408 are empty (wire-contract.md section 3.2)."""
    status = device_status(error)
    is_empty = status == TIMED_OUT or isinstance(error, NotAuthenticated)
    answer(status, b"" if is_empty else error_body(status, str(error)), retry_after(error))
