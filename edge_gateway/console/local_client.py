"""How the commands speak to the running gateway: through its local door, with the token of the data directory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from edge_gateway.console.access import PIN_FILE, TOKEN_FILE
from edge_gateway.console.local_port import ADDRESS_FILE

TIMEOUT_S = 10.0
TAP_SILENCE_S = 60.0  # the door says a word every 15 s


class NotRunning(Exception):
    """No gateway answers; `str()` says so, and what to do."""


class DoorRefused(Exception):
    """The gateway answered and did not do it; `answer` is the whole of what it said."""

    def __init__(self, status: int, answer: dict[str, Any]) -> None:
        super().__init__(str(answer.get("error", f"the gateway answered with HTTP status {status}")))
        self.status = status
        self.answer = answer


class LocalClient:
    """One gateway on this machine, by its data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy must never see the token

    def __enter__(self) -> LocalClient:
        return self

    def __exit__(self, *_error: object) -> None:
        self._session.close()

    @property
    def url(self) -> str:
        """The local page. Raises: NotRunning."""
        return self._read(ADDRESS_FILE)

    @property
    def pin(self) -> str:
        """Six digits, in two groups. Raises: NotRunning."""
        pin = self._read(PIN_FILE)
        return f"{pin[:3]} {pin[3:]}"

    def get(self, path: str, **parameters: str | int) -> Any:
        """What the door answers, decoded. Raises: NotRunning, DoorRefused."""
        return self._answer("GET", path, params=parameters)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Raises: NotRunning, DoorRefused."""
        return self._answer("POST", path, json=body)

    def events(self, path: str, **parameters: str | int) -> Iterator[tuple[str, Any]]:
        """Server-Sent Events as (kind, data), as long as they come. Raises: NotRunning, DoorRefused."""
        with self._send("GET", path, params=parameters, stream=True, timeout=(TIMEOUT_S, TAP_SILENCE_S)) as answer:
            kind = "message"
            try:
                for line in answer.iter_lines(chunk_size=1):
                    name, _, value = line.decode("utf-8", "replace").partition(": ")
                    if name == "event":
                        kind = value
                    elif name == "data":
                        yield kind, json.loads(value)
                        kind = "message"
            except requests.RequestException:
                raise NotRunning("the gateway has ended the live view: it was stopped, or started again") from None

    def _read(self, name: str) -> str:
        try:
            return (self._data_dir / name).read_text().strip()
        except FileNotFoundError:
            raise NotRunning(self._nobody()) from None
        except OSError as error:
            reason = f"cannot read {self._data_dir / name}: {error.strerror}"
            raise NotRunning(f"{reason}; run this as the gateway's user, or with sudo") from None

    def _nobody(self) -> str:
        return (
            f"no gateway runs with the data directory {self._data_dir}; start it with `edge-gateway run`, or name the "
            "right directory by --data-dir (is [local] enabled?)"
        )

    def _answer(self, method: str, path: str, **rest: Any) -> Any:
        with self._send(method, path, timeout=TIMEOUT_S, **rest) as answer:
            if "json" in answer.headers.get("Content-Type", ""):
                return answer.json()
            return answer.text

    def _send(self, method: str, path: str, **rest: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self._read(TOKEN_FILE)}"}
        try:
            answer = self._session.request(method, self.url + path, headers=headers, allow_redirects=False, **rest)
        except requests.ConnectionError:
            raise NotRunning(self._nobody()) from None
        except requests.Timeout:
            raise NotRunning(f"the gateway does not answer within {TIMEOUT_S:.0f} s; look at its log") from None
        if answer.ok:
            return answer
        with answer:
            try:
                said = answer.json()
            except ValueError:
                said = {}
        raise DoorRefused(answer.status_code, said if isinstance(said, dict) else {})
