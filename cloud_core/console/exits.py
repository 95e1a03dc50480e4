"""Exit codes of all commands: one table, by cause."""

from __future__ import annotations

EXIT_WRONG = 1
EXIT_CONFIG = EXIT_USAGE = 2
EXIT_START = 3
EXIT_REFUSED = 4
EXIT_NO_ANSWER = 5
EXIT_NOT_LOGGED_IN = 6
EXIT_FILE = 7
EXIT_NOT_FOUND = 8
EXIT_UNCONFIRMED = 9

EXIT_CODES = {
    0: "well",
    EXIT_WRONG: "something is wrong with what was looked at (doctor, backup --verify, demo)",
    EXIT_USAGE: "wrong usage, or a wrong configuration",
    EXIT_START: "the core cannot start, or not use its database",
    EXIT_REFUSED: "refused by the core; the message says why",
    EXIT_NO_ANSWER: "no answer, or the core is busy: try again",
    EXIT_NOT_LOGGED_IN: "not logged in, or not any more",
    EXIT_FILE: "a file cannot be read, or not be written",
    EXIT_NOT_FOUND: "there is no such device, profile, reference, …",
    EXIT_UNCONFIRMED: "a deletion was not confirmed; nothing has changed",
}

TABLE = "\b\nExit codes:\n" + "\n".join(f"  {code}  {cause}" for code, cause in EXIT_CODES.items())
"""As click shows it, unwrapped."""
POINTER = "Exit codes by cause: cloud-core --help"
