"""A small client of the core's REST, for the command line and the demo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO

import requests

TIMEOUT_S = 15.0
UPLOAD_TIMEOUT_S = 300.0
_PIECE_BYTES = 65_536
API_KEY_PREFIX = "muster_"


class RestError(Exception):
    """A refused call; `str()` is the server's message. `status` is the HTTP status, 0 for no answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class RestClient:
    """Calls `url` with the token of a login, or with an API key.

    `ca_file`: PEM of the CA of the core's certificate, where no public one is.
    """

    def __init__(self, url: str, token: str = "", *, ca_file: str = "") -> None:
        self.url = url.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy of the environment must not see tokens
        if ca_file:
            self._session.verify = ca_file
        if token:
            scheme = "ApiKey" if token.startswith(API_KEY_PREFIX) else "Bearer"
            self._session.headers["X-Authorization"] = f"{scheme} {token}"

    def login(self, username: str, password: str) -> str:
        """Logs in and keeps the token, which is returned."""
        token: str = self.post("/api/auth/login", {"username": username, "password": password})["token"]
        self._session.headers["X-Authorization"] = f"Bearer {token}"
        return token

    def get(self, path: str, **query: Any) -> Any:
        return self._call("GET", path, params=query)

    def post(self, path: str, body: Any = None, **query: Any) -> Any:
        return self._call("POST", path, json=body, params=query)

    def upload(self, path: str, content: BinaryIO, kind: str, headers: dict[str, str], **query: Any) -> Any:
        """Sends a file as it is; the answer may take as long as reading all of it."""
        given = {"Content-Type": kind, **headers}
        return self._call("POST", path, data=content, headers=given, params=query, timeout=UPLOAD_TIMEOUT_S)

    def download(self, method: str, path: str, write: Callable[[bytes], Any], body: Any = None, **query: Any) -> None:
        """Hands an answer over as it comes; making it may take as long as a file takes."""
        response = self._response(method, path, json=body, params=query, timeout=UPLOAD_TIMEOUT_S, stream=True)
        with response:
            try:
                for piece in response.iter_content(_PIECE_BYTES):
                    write(piece)
            except requests.RequestException as error:
                raise RestError(f"The answer of {self.url} has broken off; ask again.") from error

    def delete(self, path: str, **query: Any) -> Any:
        return self._call("DELETE", path, params=query)

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        response = self._response(method, path, **arguments)
        if not response.content:
            return None
        return response.json() if "json" in response.headers.get("Content-Type", "json") else response.text

    def _response(self, method: str, path: str, **arguments: Any) -> requests.Response:
        """Raises: RestError, also for what is refused."""
        try:
            response = self._session.request(method, self.url + path, **{"timeout": TIMEOUT_S, **arguments})
        except requests.exceptions.SSLError as error:
            raise RestError(
                f"The certificate of {self.url} is not trusted, or not for that name; the file of its CA goes with"
                " --ca-file, or CLOUD_CORE_CA_FILE."
            ) from error
        except requests.ConnectionError as error:
            raise RestError(f"No answer from {self.url}; is the core running there?") from error
        except requests.RequestException as error:
            raise RestError(f"The call to {self.url} failed: {type(error).__name__}.") from error
        except OSError as error:  # what requests says of a missing file, too
            raise RestError(f"The CA's file cannot be used: {error}") from error
        if response.status_code >= 400:
            raise RestError(_message_of(response), response.status_code)
        return response


def _message_of(response: requests.Response) -> str:
    try:
        body = response.json()
    except ValueError:
        body = response.text
    if isinstance(body, dict):
        body = body.get("message") or body.get("errorMsg") or body
    return f"{body or response.reason} (HTTP {response.status_code})"
