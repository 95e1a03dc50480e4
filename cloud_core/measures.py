"""Histograms, and numbers as Prometheus text (exposition format 0.0.4). Imports nobody."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "muster_"

Labels = Mapping[str, str]
NONE: Labels = {}


class Histogram:
    """How often a value was at most each of `bounds`, and above all of them. One thread writes, any may read."""

    __slots__ = ("_counts", "bounds", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.total = 0.0  # the sum of what was observed
        self._counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        return sum(self._counts)

    def cumulated(self) -> list[int]:
        """For each bound, and for infinity, how many were at most that."""
        return list(accumulate(self._counts))


@dataclass(frozen=True, slots=True)
class Family:
    """One metric with all its samples, as (ending of the name, labels, value). `name` goes without the prefix."""

    name: str
    kind: str
    text: str
    samples: Sequence[tuple[str, Labels, float]]

    @property
    def full_name(self) -> str:
        return PREFIX + self.name


Values = Iterable[tuple[Labels, float]]


def counter(name: str, text: str, values: Values) -> Family:
    return Family(name, "counter", text, [("", labels, value) for labels, value in values])


def gauge(name: str, text: str, values: Values) -> Family:
    return Family(name, "gauge", text, [("", labels, value) for labels, value in values])


def one(value: float) -> Values:
    """The only sample of a metric without labels."""
    return ((NONE, value),)


def histogram(name: str, text: str, histograms: Iterable[tuple[Labels, Histogram]]) -> Family:
    samples: list[tuple[str, Labels, float]] = []
    for labels, seen in histograms:
        cumulated = seen.cumulated()
        places = [*(f"{bound:g}" for bound in seen.bounds), "+Inf"]
        samples += [("_bucket", {**labels, "le": place}, count) for place, count in zip(places, cumulated, strict=True)]
        samples += [("_sum", labels, seen.total), ("_count", labels, cumulated[-1])]
    return Family(name, "histogram", text, samples)


def labelled(label: str, families_by: Mapping[str, Iterable[Family]]) -> list[Family]:
    """Each metric once, with the samples of all who have it, under one more label that says whose each is."""
    first: dict[str, Family] = {}
    samples: dict[str, list[tuple[str, Labels, float]]] = {}
    for whose, families in families_by.items():
        for family in families:
            first.setdefault(family.name, family)
            samples.setdefault(family.name, []).extend(
                (ending, {**labels, label: whose}, value) for ending, labels, value in family.samples
            )
    return [replace(family, samples=samples[name]) for name, family in first.items()]


def rendered(families: Iterable[Family]) -> str:
    """What a scraper reads."""
    lines: list[str] = []
    for family in families:
        name = family.full_name
        lines += (f"# HELP {name} {family.text}", f"# TYPE {name} {family.kind}")
        for ending, labels, value in family.samples:
            said = ",".join([f'{label}="{_escaped(content)}"' for label, content in labels.items()])
            lines.append(f"{name}{ending}{{{said}}} {value!r}" if said else f"{name}{ending} {value!r}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
