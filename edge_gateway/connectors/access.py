"""Who may come in from the field network: addresses to listen on, logins, rates. For all connectors that listen."""

from __future__ import annotations

import csv
import hmac
import ipaddress
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

MAX_LOGINS = 100_000
MAX_SOURCES = 10_000  # whose rates are remembered


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen or to connect; `host` is a name or an address, without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_address(text: str, default_port: int = 0) -> Address:
    """`0.0.0.0:1883`, `[::]:1883`, `localhost:1883`; a default port makes the port optional.

    Raises: ValueError whose text says the form.
    """
    host, colon, port = text.strip().rpartition(":")
    if not colon or (host.count(":") and not host.endswith("]")) or port.endswith("]"):
        host, port = text.strip(), ""
    host = host.removeprefix("[").removesuffix("]")
    number = int(port) if port.isascii() and port.isdecimal() else -1
    if not port and default_port:
        number = default_port
    if not host or not 0 <= number <= 65_535:
        raise ValueError(f"'{text}' is no address; write host:port, such as 0.0.0.0:{default_port or 1883}")
    return Address(host, number)


def same_secret(given: str, expected: str) -> bool:
    """Compares in a time that does not tell where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode("utf-8", "surrogateescape"))


class UsersUnreadable(Exception):
    """The file of logins cannot be used; `str()` says why and how to mend it, and quotes none of it."""


@dataclass(frozen=True, slots=True)
class _Login:
    device: str
    password: str = field(repr=False)


class Users:
    """Logins from a CSV file of lines `device,password` or `device,password,user name`; `#` begins a comment.

    The user name is the device's name unless the third column says another. A login whose user name is a secret, as
    the access token of a ThingsBoard device is, may leave the password empty; nobody else may. The file must be for
    the gateway's eyes alone (chmod 600); it is read again when it has changed.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._version: tuple[int, int] = (0, 0)
        self._logins: dict[str, _Login] = {}

    def load(self) -> None:
        """Reads the file if it has changed. Raises: UsersUnreadable."""
        try:
            found = os.stat(self._path)
            if (found.st_mtime_ns, found.st_size) == self._version:
                return
            if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise UsersUnreadable(f"others can read the logins in {self._path}; run: chmod 600 {self._path}")
            text = self._path.read_text("utf-8-sig")
        except OSError as error:
            raise UsersUnreadable(f"the logins in {self._path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UsersUnreadable(f"{self._path} is no UTF-8 text; save it as CSV in UTF-8") from error
        self._logins = _parse_logins(text, str(self._path))
        self._version = (found.st_mtime_ns, found.st_size)

    def device_of(self, username: str, password: str | None) -> str | None:
        """The device that may log in with these, or None."""
        login = self._logins.get(username)
        if login is None:
            same_secret(password or "", "")  # as much work as for a known one
            return None
        return login.device if same_secret(password or "", login.password) else None

    def __len__(self) -> int:
        return len(self._logins)


def _parse_logins(text: str, path: str) -> dict[str, _Login]:
    logins: dict[str, _Login] = {}
    rows = csv.reader(text.splitlines())
    for row in rows:
        cells = [cell.strip() for cell in row]
        if not any(cells) or cells[0].startswith("#") or cells[:2] == ["device", "password"]:
            continue
        where = f"{path}, line {rows.line_num}"
        if not 2 <= len(cells) <= 3 or not cells[0]:
            raise UsersUnreadable(f"{where}: write device,password or device,password,user name")
        username = cells[2] if len(cells) == 3 and cells[2] else cells[0]
        if not cells[1] and username == cells[0]:
            raise UsersUnreadable(f"{where}: '{cells[0]}' has no password; give it one")
        if username in logins:
            raise UsersUnreadable(f"{where}: the user name of '{cells[0]}' stands in the file twice")
        if len(logins) >= MAX_LOGINS:
            raise UsersUnreadable(f"{path} has more than {MAX_LOGINS} logins")
        logins[username] = _Login(cells[0], cells[1])
    return logins


class Bucket:
    """Allows `rate` things a second, and twice as many in a burst."""

    __slots__ = ("_at_s", "_left", "_rate")

    def __init__(self, rate: float, now_s: float) -> None:
        self._rate = rate
        self._left = 2.0 * rate
        self._at_s = now_s

    def take(self, count: int, now_s: float) -> float:
        """Takes `count` even if it is too much; the seconds to wait until the rate is kept again, 0 for none."""
        self._left = min(2.0 * self._rate, self._left + (now_s - self._at_s) * self._rate) - count
        self._at_s = now_s
        return -self._left / self._rate if self._left < 0 else 0.0


class Rates:
    """A bucket for each source, such as an address. Those that were silent longest are forgotten first."""

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._buckets: dict[str, Bucket] = {}

    def wait_s(self, source: str) -> float:
        """Counts one; seconds to wait when it is too much, else 0."""
        if self._rate <= 0:
            return 0.0
        now_s = self._clock()
        bucket = self._buckets.pop(source, None) or Bucket(self._rate, now_s)
        if len(self._buckets) >= MAX_SOURCES:
            del self._buckets[next(iter(self._buckets))]
        self._buckets[source] = bucket
        wait_s = bucket.take(1, now_s)
        if wait_s:
            bucket.take(-1, now_s)  # what is refused does not count
        return wait_s
