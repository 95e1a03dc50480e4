"""Numbers of the process itself: memory, processor, open files, garbage collector, version."""

from __future__ import annotations

import gc
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cloud_core.measures import Family, counter, gauge, one

_DESCRIPTORS = Path("/proc/self/fd")
_MEMORY = Path("/proc/self/statm")


class ProcessMetrics:
    """A source of `Metrics`."""

    def __init__(self) -> None:
        self._started_s = time.time()
        try:
            self._version = version("muster")
        except PackageNotFoundError:  # run from a source tree
            self._version = "unknown"

    def families(self) -> list[Family]:
        collections = [({"generation": str(n)}, each["collections"]) for n, each in enumerate(gc.get_stats())]
        build = {"version": self._version, "python": platform.python_version()}
        return [
            gauge("build_info", "1; the labels say what runs.", [(build, 1)]),
            gauge("process_start_time_seconds", "Start of the process since the epoch.", one(self._started_s)),
            gauge("process_resident_memory_bytes", "Memory in use.", one(resident_bytes())),
            counter("process_cpu_seconds_total", "Processor time of all threads.", one(time.process_time())),
            gauge("process_open_fds", "Open file descriptors.", one(open_descriptors())),
            counter("process_gc_collections_total", "Runs of the garbage collector.", collections),
        ]


def resident_bytes() -> int:
    """0 where the system does not say."""
    try:
        return int(_MEMORY.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def open_descriptors() -> int:
    """0 where the system does not say. Newer kernels tell the number without a list of all."""
    try:
        return _DESCRIPTORS.stat().st_size or len(os.listdir(_DESCRIPTORS))
    except OSError:
        return 0
