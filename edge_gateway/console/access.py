"""Who may use the local door: the token of the commands, the PIN of the page, and the page's sessions."""

from __future__ import annotations

import hmac
import math
import re
import secrets
from collections.abc import Callable
from pathlib import Path

from edge_gateway.storage.files import read_private, write_private

TOKEN_FILE = "local-token"
PIN_FILE = "local-pin"
FREE_TRIES = 5
FIRST_WAIT_S = 5.0
MAX_WAIT_S = 600.0
MAX_SESSIONS = 50
SESSION_S = 12 * 3600.0

_TOKEN = re.compile(r"[A-Za-z0-9_-]{32,128}")
_PIN = re.compile(r"\d{6}")


class WrongPin(Exception):
    """The PIN is another one; `wait_s` until the next try, 0 when it may come at once."""

    def __init__(self, wait_s: float) -> None:
        super().__init__("wrong PIN")
        self.wait_s = wait_s


class TooSoon(Exception):
    """After several wrong PINs no other is looked at for `wait_s`."""

    def __init__(self, wait_s: float) -> None:
        super().__init__("too many wrong PINs")
        self.wait_s = wait_s


class Access:
    """`seconds()` is monotonic. Wrong PINs are counted for all callers together: the delay bounds guessing whoever
    guesses."""

    def __init__(self, data_dir: Path, seconds: Callable[[], float]) -> None:
        self._data_dir = data_dir
        self._seconds = seconds
        self._token = ""
        self._pin = ""
        self._wrong = 0
        self._closed_until_s = 0.0
        self._sessions: dict[str, float] = {}  # until when each holds; the oldest first

    def open(self) -> None:
        """Reads token and PIN, and makes those that are missing or damaged. Raises: OSError."""
        self._token = self._secret(TOKEN_FILE, _TOKEN, lambda: secrets.token_urlsafe(32))
        self._pin = self._secret(PIN_FILE, _PIN, lambda: f"{secrets.randbelow(1_000_000):06}")

    def _secret(self, name: str, shape: re.Pattern[str], make: Callable[[], str]) -> str:
        path = self._data_dir / name
        text = (read_private(path) or b"").decode("ascii", "replace").strip()
        if not shape.fullmatch(text):
            text = make()
            write_private(path, text.encode() + b"\n")
        return text

    def is_token(self, presented: str) -> bool:
        """Whether it is the commands' token."""
        return bool(self._token) and _same(presented, self._token)

    def log_in(self, pin: str) -> str:
        """A new session for the right PIN; spaces in it are nothing. Raises: WrongPin, TooSoon."""
        now_s = self._seconds()
        if now_s < self._closed_until_s:
            raise TooSoon(math.ceil(self._closed_until_s - now_s))
        if not self._pin or not _same("".join(pin.split()), self._pin):
            self._wrong += 1
            wait_s = self._wait_s()
            self._closed_until_s = now_s + wait_s
            raise WrongPin(wait_s)
        self._wrong = 0
        session = secrets.token_urlsafe(32)
        while len(self._sessions) >= MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[session] = now_s + SESSION_S
        return session

    def _wait_s(self) -> float:
        over = self._wrong - FREE_TRIES
        return 0.0 if over < 0 else min(MAX_WAIT_S, FIRST_WAIT_S * 2.0 ** min(over, 20))

    def is_session(self, presented: str) -> bool:
        """Whether it is a session that holds still. It is a random key of 256 bits: looking it up tells nothing."""
        until_s = self._sessions.get(presented)
        if until_s is not None and until_s <= self._seconds():
            del self._sessions[presented]
            return False
        return until_s is not None

    def log_out(self, session: str) -> None:
        """Ends it."""
        self._sessions.pop(session, None)


def _same(presented: str, known: str) -> bool:
    return hmac.compare_digest(presented.encode("utf-8", "replace"), known.encode())
