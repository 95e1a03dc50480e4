"""Prometheus text, as a scraper reads it."""

from __future__ import annotations

import re

Sample = tuple[str, tuple[tuple[str, str], ...]]
_LINE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\.)*)"(?:,|$)')


def parsed(text: str) -> dict[Sample, float]:
    """(name, sorted labels) -> value; fails where the text breaks the format."""
    found: dict[Sample, float] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            assert re.fullmatch(r"# (HELP \S+ .+|TYPE \S+ (counter|gauge|histogram))", line), line
            continue
        match = _LINE.fullmatch(line)
        assert match, line
        labels = tuple(sorted(_LABEL.findall(match[2] or "")))
        key = (match[1], labels)
        assert key not in found, f"twice: {line}"
        found[key] = float(match[3])
    return found


def names(text: str) -> set[str]:
    """Every series' name that can occur: those of histograms with their endings."""
    found = set()
    for name, kind in re.findall(r"# TYPE (\S+) (\S+)", text):
        found |= {name + ending for ending in ("_bucket", "_sum", "_count")} if kind == "histogram" else {name}
    return found
