"""Latencies in logarithmic buckets: 3 % exact from a microsecond to a day, in a few hundred numbers."""

from __future__ import annotations

import msgspec

_EXACT = 64  # below it every microsecond has a bucket, above it every power of two has 32


def bucket_of(microseconds: int) -> int:
    """Which bucket counts a latency."""
    if microseconds < _EXACT:
        return max(0, microseconds)
    shift = microseconds.bit_length() - 6
    return (shift << 5) + (microseconds >> shift)


def ceiling_of(bucket: int) -> int:
    """The greatest latency that the bucket counts, in microseconds."""
    if bucket < _EXACT:
        return bucket
    shift, mantissa = (bucket >> 5) - 1, (bucket & 31) + 32
    return ((mantissa + 1) << shift) - 1


class Histogram(msgspec.Struct):
    """`counts` by bucket; minimum and maximum are exact."""

    counts: dict[int, int] = {}
    total: int = 0
    least_us: int = 0
    greatest_us: int = 0

    def add(self, seconds: float) -> None:
        us = max(0, int(seconds * 1e6))
        bucket = bucket_of(us)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.least_us = min(self.least_us, us) if self.total else us
        self.greatest_us = max(self.greatest_us, us)
        self.total += 1

    def merge(self, other: Histogram) -> None:
        if not other.total:
            return
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.least_us = min(self.least_us, other.least_us) if self.total else other.least_us
        self.greatest_us = max(self.greatest_us, other.greatest_us)
        self.total += other.total

    def percentile_ms(self, percent: float) -> float:
        """The latency below which `percent` of all are, in milliseconds; 0 when there are none."""
        wanted, seen = self.total * percent / 100, 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= wanted:
                return min(ceiling_of(bucket), self.greatest_us) / 1000
        return 0.0

    def summary(self) -> dict[str, float]:
        """Count and milliseconds, as reports show them."""
        marks = {f"p{mark:g}Ms": round(self.percentile_ms(mark), 2) for mark in (50, 90, 99)}
        return {"count": self.total, **marks, "maxMs": round(self.greatest_us / 1000, 2)}

    def by_octave(self) -> list[tuple[float, int]]:
        """(upper bound in ms, count) for each power of two, without gaps, as a chart shows it."""
        octaves: dict[int, int] = {}
        for bucket, count in self.counts.items():
            power = max(7, ceiling_of(bucket).bit_length())
            octaves[power] = octaves.get(power, 0) + count
        if not octaves:
            return []
        return [((1 << power) / 1000, octaves.get(power, 0)) for power in range(min(octaves), max(octaves) + 1)]
