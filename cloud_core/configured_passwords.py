"""Which passwords of the configuration were given to their users already.

A password in the configuration is for the first start, and for whoever is locked out. It must not come back at each
start in place of the one that its user has chosen since; so a file in the data directory holds an argon2id hash of
what was given last, and only another one is given anew. Without the file, it is given once more.
"""

from __future__ import annotations

from pathlib import Path

from twisted.logger import Logger

from cloud_core.core.people.logins import hash_password, is_hash_of
from cloud_core.secrets_file import write_private

log = Logger()


class ConfiguredPassword:
    """One user's. Its methods take some 20 ms and read or write a file: call them in a thread."""

    def __init__(self, file: Path, username: str, password: str) -> None:
        self._file = file
        self._text = f"{username}\n{password}"

    def is_known(self) -> bool:
        """Whether it is what was given last."""
        try:
            kept = self._file.read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            return False
        return is_hash_of(kept, self._text)

    def keep(self) -> None:
        """It has been given. Where the file cannot be written, it will be given again."""
        try:
            write_private(self._file, hash_password(self._text).encode() + b"\n")
        except OSError as error:
            log.warn(
                "{file} cannot be written ({why}): the password of the configuration comes back at each start",
                file=str(self._file), why=error.strerror,
            )  # fmt: skip
