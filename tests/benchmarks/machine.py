"""What the benchmarks share: the clock, and what the times depend on."""

import importlib.metadata
import os
import platform
import resource
import time
from pathlib import Path

import numpy as np


def timed(works, repeats):
    """Median seconds of functions, run in turn so that a busy machine is busy for all, after one warm-up.

    What a function returns is let go of when its clock has stopped: TensorFlow often sleeps before it lets go of a
    dataset (see `lib.models.training.Epoch.feed`), which is not what is measured.
    """
    seconds = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(repeats):
        for name, work in works.items():
            start = time.perf_counter()
            kept = work()
            seconds[name].append(time.perf_counter() - start)
            del kept
    return {name: float(np.median(values)) for name, values in seconds.items()}


def peak_memory():
    """The most that this process held, in MB. Linux' ru_maxrss begins with what held the process that started it."""
    status = Path("/proc/self/status")
    if status.is_file():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line) / 1000
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


def machine():
    """What the times depend on, in words."""
    processor = platform.processor() or platform.machine()
    cpuinfo, meminfo = Path("/proc/cpuinfo"), Path("/proc/meminfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        processor = next((line.split(":")[1].strip() for line in lines if "model name" in line), processor)
    about = {"processor": processor, "cores": os.cpu_count(), "system": platform.system()}
    if meminfo.exists():
        about["memory_gib"] = round(int(meminfo.read_text().split()[1]) / 2**20)
    return about


def versions(*packages):
    """Versions of the packages that are there."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found
