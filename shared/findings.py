"""What `doctor` of either program says of one thing."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Verdict(StrEnum):
    GOOD = "ok"
    HINT = "hint"  # worth knowing; the program works
    WRONG = "wrong"
    SKIPPED = "skipped"  # not looked at: something else stands in the way, or is to be looked at first


class Finding(NamedTuple):
    """`fix` is empty where nothing is to be mended."""

    topic: str
    verdict: Verdict
    text: str
    fix: str = ""


def good(topic: str, text: str) -> Finding:
    return Finding(topic, Verdict.GOOD, text)


def hint(topic: str, text: str, fix: str = "") -> Finding:
    return Finding(topic, Verdict.HINT, text, fix)


def wrong(topic: str, text: str, fix: str = "") -> Finding:
    return Finding(topic, Verdict.WRONG, text, fix)


def skipped(topic: str, text: str) -> Finding:
    return Finding(topic, Verdict.SKIPPED, text)
