"""Files that stages leave for one another: written whole or not at all, with their provenance beside them."""

import fcntl
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import numpy as np
import pandas as pd

from lib import ROOT, StudyError

T = TypeVar("T")
PROVENANCE = ".provenance.json"  # beside each artifact
PACKAGES = ("tensorflow", "jax", "keras", "numpy", "pandas", "opencv-python-headless", "tf-keras-vis")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".", suffix=path.name, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time makes `path`; the others wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f".{path.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released by the system however the process ends
        yield


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def key_of(*parts) -> str:
    """A short fingerprint of JSON-able values; it names what an artifact depends on."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def listing(folder: Path) -> str:
    """A fingerprint of the names, sizes and times of all files under a folder; of nothing if there is none."""
    lines, folders, seen = [], [os.path.abspath(folder)], set()
    while folders:
        here = folders.pop()
        if (real := os.path.realpath(here)) in seen or not os.path.isdir(here):  # a link may lead in a circle
            continue
        seen.add(real)
        for entry in os.scandir(here):
            if entry.is_dir():
                folders.append(entry.path)
                continue
            try:
                file = entry.stat()
            except FileNotFoundError:  # a link to nowhere
                continue
            lines.append(f"{entry.path}\t{file.st_size}\t{file.st_mtime_ns}")
    return key_of("\n".join(sorted(lines)))


@functools.cache
def environment() -> dict:
    """Commit, package versions and machine of this process, for provenance."""
    git = ["git", "-C", str(ROOT)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout
        dirty = subprocess.run([*git, "status", "--porcelain", "lib", "notebooks", "profiles"],
                               capture_output=True, text=True, check=True).stdout  # fmt: skip
        commit = commit.strip() + (" with changes" if dirty.strip() else "")
    except (OSError, subprocess.CalledProcessError):
        packed = ROOT / "COMMIT"  # of a study that travelled, see `lib.study.pack`
        commit = packed.read_text() if packed.is_file() else "unknown (not a git checkout)"
    return {
        "commit": commit,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES if _version(name)},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {_processor()}{_accelerators()}",
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # a machine has one backend, or several
        return ""


def _accelerators() -> str:
    """The GPUs that JAX computes on, where it runs."""
    jax = sys.modules.get("jax")
    kinds = sorted({device.device_kind for device in jax.devices() if device.platform != "cpu"}) if jax else []
    return "".join(f", {kind}" for kind in kinds)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown processor"


def write_provenance(path: Path, **facts) -> None:
    """Write `<path>.provenance.json`: the environment, the date and `facts` (profile, seed, data, ...)."""
    record = environment() | {"date": datetime.now(UTC).isoformat(timespec="seconds")} | facts
    write_text(path.with_name(path.name + PROVENANCE), json.dumps(record, indent=1, default=str) + "\n")


def read_provenance(path: Path) -> dict:
    """The record that stands beside an artifact; empty when there is none."""
    try:
        return json.loads(path.with_name(path.name + PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}


def cached(path: Path, key: str, make: Callable[[Path], None], read: Callable[[Path], T], **facts) -> T:
    """Read an artifact, after making it if it is missing or was made from something else.

    `make(temporary_path)` writes the file; it takes its name only when whole. `key` says what it depends
    on and stands in its provenance, with `facts` and the seconds it took. Two processes that want the same
    artifact do not both make it: the second waits and reads.
    """
    with locked(path):
        record, as_it_lies = read_provenance(path), _as_it_lies if "variant" in facts else []
        if as_it_lies == [True] and path.is_file() and record.get("key") not in (None, key):
            record |= {"key": key, "taken_over": environment()}
            write_text(path.with_name(path.name + PROVENANCE), json.dumps(record, indent=1, default=str) + "\n")
        if not (path.is_file() and record.get("key") == key):
            if as_it_lies == [False]:
                raise StudyError(f"{path.name} is missing, or was made by other code.")
            begin = perf_counter()
            path.with_name(path.name + PROVENANCE).unlink(missing_ok=True)
            with replacing(path) as temporary:
                make(temporary)
            write_provenance(path, key=key, seconds=round(perf_counter() - begin, 3), **facts)
    return read(path)


@contextmanager
def as_it_lies(take: bool) -> Iterator[None]:
    """Within it, what other code found of a network (facts with a `variant`) is taken for its own by `cached`, as its
    record then says (`take`: where somebody made sure that this code finds the same); or it raises StudyError, as does
    what is missing."""
    _as_it_lies[:] = [take]
    try:
        yield
    finally:
        _as_it_lies.clear()


_as_it_lies: list[bool] = []


def read_table(path: Path) -> pd.DataFrame:
    """A per-image table as it was written, digit by digit."""
    return pd.read_csv(path, dtype={"image_id": str}, float_precision="round_trip")


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file."""
    with np.load(path) as arrays:
        return dict(arrays)
