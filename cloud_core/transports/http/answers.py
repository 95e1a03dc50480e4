"""How a device request is answered, whoever holds its connection."""

from __future__ import annotations

from typing import Protocol

from cloud_core.model import PresentedChain
from cloud_core.transports.http.errors import device_status, error_body, retry_after
from shared.errors import NotAuthenticated, PlatformError, ProvisionRefused

JSON_TYPE = b"application/json"
TEXT_TYPE = b"text/plain; charset=utf-8"
TIMED_OUT = 408
NOT_LET_IN = 401  # also by a certificate that provisioning refuses
NOBODY = NotAuthenticated("Put an access token into the path, or show a client certificate (over HTTPS).")

# Who asks: the access token of the path, else the certificate of the connection, else nobody.
Caller = str | PresentedChain | None


class Answer(Protocol):
    """Takes the answer of one request, once; the type counts only where there is a body."""

    def __call__(
        self, status: int, body: bytes, retry_after_s: int | None = None, content_type: bytes = JSON_TYPE
    ) -> None: ...


def refuse(error: PlatformError, answer: Answer) -> None:
    """Answers with the error object; 408, and 401 without more to say, are empty (wire-contract.md section 3.2)."""
    status = NOT_LET_IN if isinstance(error, ProvisionRefused) else device_status(error)
    is_empty = status == TIMED_OUT or (isinstance(error, NotAuthenticated) and not error.detail)
    answer(status, b"" if is_empty else error_body(status, explained(error)), retry_after(error))


def explained(error: PlatformError) -> str:
    """With the reference that finds it in the provisioning log, where it stands there."""
    return f"{error} (ref {error.ref})" if error.ref else str(error)
