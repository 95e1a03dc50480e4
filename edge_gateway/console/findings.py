"""What `edge-gateway doctor` says of one thing."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Verdict(StrEnum):
    GOOD = "ok"
    HINT = "hint"  # worth knowing; the gateway works
    WRONG = "wrong"
    SKIPPED = "skipped"


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


def unreachable(topic: str, sentence: str) -> Finding:
    """Of a sentence `what: fix`."""
    text, _, fix = sentence.rpartition(": ")
    return wrong(topic, text or sentence, fix if text else "")
